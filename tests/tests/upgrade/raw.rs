//! Upgrades byte by byte, to a server that is not WebSocket's.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::Linger;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::run;
use crate::support::{access_line, folder, patiently};

/// Asks to switch to `mirror/1`, and reads the head of the answer.
pub(super) async fn ask(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    line: &str,
    rest: &str,
) -> String {
    let head = format!(
        "{line}\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: mirror/1\r\n\r\n{rest}"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(patiently(stream.read_u8()).await.unwrap());
    }
    String::from_utf8(answer).unwrap()
}

pub(super) fn request_id(head: &str) -> &str {
    let mut lines = head.lines();
    let id = lines.find_map(|line| line.strip_prefix("x-request-id: "));
    id.expect("it has an id")
}

/// Takes one connection, reads the head of its request, and answers with bytes.
fn accept(listener: &TcpListener, answer: &str) -> (TcpStream, String) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.extend(byte);
    }
    stream.write_all(answer.as_bytes()).unwrap();
    (stream, String::from_utf8(head).unwrap())
}

const SWITCHED: &str = "HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: mirror/1\r\n\r\n";

/// Switches, and ends the connection with a reset.
pub(super) fn accept_and_reset(listener: &TcpListener) {
    let (stream, _) = accept(listener, SWITCHED);
    let linger = nix::libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&stream, Linger, &linger).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn any_protocol_is_tunnelled_and_each_side_ends_by_itself() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        // The first bytes of the tunnel come with the head.
        let (mut stream, head) = accept(&listener, &format!("{SWITCHED}hello "));
        let mut all = String::new();
        stream.read_to_string(&mut all).unwrap();
        // The client has ended; this side has not.
        stream.write_all(all.to_uppercase().as_bytes()).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        (head, all)
    });
    let folder = folder();
    let (sidegate, client) = run(&folder, &url, "", "");
    let mut stream = client.raw().await;
    let answer = ask(&mut stream, "GET /x HTTP/1.1", "early ").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    let named = |line: &str| answer.lines().filter(|found| *found == line).count();
    assert_eq!(named("connection: Upgrade"), 1, "{answer}");
    assert_eq!(named("upgrade: mirror/1"), 1, "{answer}");
    stream.write_all(b"and late").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = String::new();
    patiently(stream.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "hello EARLY AND LATE");

    let (head, all) = server.join().unwrap();
    assert_eq!(all, "early and late");
    assert!(head.contains("connection: Upgrade\r\n"), "{head}");
    assert!(head.contains("upgrade: mirror/1\r\n"), "{head}");
    let line = access_line(&sidegate, request_id(&answer));
    assert_eq!(line["request_bytes"], 14, "{line}");
    assert_eq!(line["response_bytes"], 20, "{line}");
    assert_eq!(line["error"], serde_json::Value::Null, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_switches_to_what_nobody_asked_for_has_failed() {
    for (asked, answered) in [
        (
            true,
            "HTTP/1.1 101 Yes\r\nconnection: upgrade\r\nupgrade: other/1\r\n\r\n",
        ),
        (true, "HTTP/1.1 101 Yes\r\n\r\n"),
        (false, SWITCHED),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || accept(&listener, answered));
        let folder = folder();
        let (sidegate, client) = run(&folder, &url, "", "");
        let mut stream = client.raw().await;
        let answer = if asked {
            ask(&mut stream, "GET / HTTP/1.1", "").await
        } else {
            let answer = client.get("/").await;
            format!(
                "HTTP/1.1 {}\r\nx-request-id: {}\r\n",
                answer.status,
                answer.header("x-request-id")
            )
        };
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
        let line = access_line(&sidegate, request_id(&answer));
        assert_eq!(line["code"], "SG0315", "{line}");
        drop(server.join().unwrap());
    }
}
