//! `protocol`: HTTP/1 or HTTP/2, by ALPN or by the first bytes.

use http::Request;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::aws_lc_rs;
use sidegate_tests::{Tool, skip, tool, until};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Front, SEEN};
use crate::support::{Body, Upstream, access_line, body, counter, finish, patiently, read};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

fn exceeded(front: &Front, limit: &str) -> u64 {
    let label = format!("limit=\"{limit}\"");
    counter(&front.sidegate, "sidegate_limits_exceeded_total", &[&label]) as u64
}

/// All that comes for these bytes.
async fn all(stream: &mut (impl AsyncRead + AsyncWrite + Unpin), bytes: &[u8]) -> String {
    stream.write_all(bytes).await.expect("it is sent");
    let mut answer = Vec::new();
    let _ = patiently(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

/// One request over HTTP/2; the access log says so too.
async fn asks_by_http2(
    front: &Front,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) {
    let (mut sender, connection) =
        http2::handshake::<_, _, Body>(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    let request = Request::get("https://localhost/").body(body(""));
    let response = patiently(sender.send_request(request.unwrap())).await;
    let answer = read(response.expect("a response")).await;
    assert_eq!(answer.status, 200);
    let line = access_line(&front.sidegate, answer.header("x-request-id"));
    assert_eq!(line["protocol"], "HTTP/2", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_alpn_the_preface_tells_http2_from_http1() {
    let upstream = Upstream::start().await;
    let listener = format!("upstream = \"{}\"\ntls = \"permissive\"", upstream.url);
    let front = Front::start(&listener, SEEN);
    asks_by_http2(&front, front.client.raw().await).await;
    let plain = TcpStream::connect(&front.client.address).await.unwrap();
    asks_by_http2(&front, plain).await;
    for answer in [
        all(&mut front.client.raw().await, GET).await,
        all(
            &mut TcpStream::connect(&front.client.address).await.unwrap(),
            GET,
        )
        .await,
    ] {
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    // In whatever pieces it comes; what begins like it and goes on otherwise is HTTP/1.
    let mut stream = TcpStream::connect(&front.client.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for byte in PREFACE {
        stream.write_all(&[*byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    stream.write_all(b"\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut settings = [0; 9];
    patiently(stream.read_exact(&mut settings)).await.unwrap();
    assert_eq!(settings[3], 4, "a SETTINGS frame: {settings:?}");
    let answer = all(
        &mut front.client.raw().await,
        b"PRI / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(upstream.heads().pop().unwrap().method, "PRI");
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_preface_is_waited_for_as_long_as_half_a_head_and_silence_longer() {
    let upstream = Upstream::start().await;
    let listener = format!(
        "upstream = \"{}\"\ntls = \"permissive\"\ntimeouts = {{ header_read = \"500ms\", idle = \"3s\" }}",
        upstream.url
    );
    let front = Front::start(&listener, SEEN);
    let mut tls = front.client.raw().await;
    assert_eq!(all(&mut tls, &PREFACE[..10]).await, "");
    let mut plain = TcpStream::connect(&front.client.address).await.unwrap();
    assert_eq!(all(&mut plain, &PREFACE[..23]).await, "");
    assert_eq!(exceeded(&front, "header_read"), 2);
    // One that says nothing is idle: it is not counted, and it is told goodbye.
    let mut silent = front.client.raw().await;
    let mut nothing = Vec::new();
    patiently(silent.read_to_end(&mut nothing))
        .await
        .expect("a clean end");
    assert!(nothing.is_empty());
    assert_eq!(
        (exceeded(&front, "header_read"), exceeded(&front, "idle")),
        (2, 0)
    );
    // Where nothing was begun, a drain waits for nobody.
    let mut silent = front.client.raw().await;
    until("it is open", || {
        let open = counter(&front.sidegate, "sidegate_connections_open", &[]);
        (open as u64 == 1).then_some(())
    });
    assert_eq!(front.sidegate.stop().status.code(), Some(0));
    patiently(silent.read_to_end(&mut nothing))
        .await
        .expect("a clean end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_for_one_protocol_takes_no_other() {
    let upstream = Upstream::start().await;
    for (protocol, own, other) in [("http1", "http/1.1", "h2"), ("http2", "h2", "http/1.1")] {
        let listener = format!("upstream = \"{}\"\nprotocol = \"{protocol}\"", upstream.url);
        let front = Front::start(&listener, SEEN);
        let offers = |names: &[&str]| {
            let mut config = front.client.tls(aws_lc_rs::default_provider());
            config.alpn_protocols = names.iter().map(|name| name.as_bytes().to_vec()).collect();
            config
        };
        let both = front.client.connect(offers(&[other, own])).await.unwrap();
        assert_eq!(both.get_ref().1.alpn_protocol(), Some(own.as_bytes()));
        assert!(
            front.client.connect(offers(&[other])).await.is_err(),
            "{protocol}"
        );
        let (first, second) = match protocol {
            "http1" => (PREFACE, GET),
            _ => (GET, PREFACE),
        };
        let answer = all(&mut front.client.raw().await, first).await;
        assert!(!answer.starts_with("HTTP/1.1 200"), "{protocol} {answer:?}");
        match protocol {
            "http1" => {
                let answer = all(&mut front.client.raw().await, second).await;
                assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            }
            _ => asks_by_http2(&front, front.client.raw().await).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wish_for_h2c_in_a_header_is_not_followed_and_not_passed_on() {
    let Some(curl) = tool(Tool::Curl) else {
        return skip("a wish for h2c", Tool::Curl);
    };
    let upstream = Upstream::start().await;
    let listener = format!("upstream = \"{}\"\ntls = \"permissive\"", upstream.url);
    let front = Front::start(&listener, SEEN);
    let mut command = std::process::Command::new(curl);
    command.args([
        "-sS",
        "-o",
        "/dev/null",
        "-w",
        "%{http_version} %{http_code}",
    ]);
    let output = finish(command.args(["--http2", &front.url("/")]));
    assert_eq!(output.stdout, "1.1 200", "{output:?}");
    let head = upstream.heads().pop().unwrap();
    for name in ["upgrade", "http2-settings", "connection"] {
        assert!(
            !head.headers.contains_key(name),
            "{name}: {:?}",
            head.headers
        );
    }
}
