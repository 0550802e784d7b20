//! Clients of HTTP/1.0.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Front, SEEN};
use crate::support::{Upstream, access_line, patiently};

/// A server whose responses come in chunks.
fn in_chunks() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            std::thread::spawn(|| answer(stream.unwrap()));
        }
    });
    url
}

/// Answers each request of one connection.
fn answer(stream: TcpStream) {
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while reader.read_line(&mut head).unwrap_or(0) > 0 {
        if head.ends_with("\r\n\r\n") {
            let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                          5\r\nhello\r\n6\r\n there\r\n0\r\n\r\n";
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
            head.clear();
        }
    }
}

fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer
        .lines()
        .map(|line| line.split_once(": ").unwrap_or_default());
    let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_length_ends_with_the_connection_and_is_never_in_chunks() {
    let front = Front::start(&format!("upstream = \"{}\"", in_chunks()), SEEN);
    for keep_alive in ["", "connection: keep-alive\r\n"] {
        let request = format!("GET / HTTP/1.0\r\nhost: localhost\r\n{keep_alive}\r\n");
        let answer = front.client.exchange(request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        assert!(answer.ends_with("\r\n\r\nhello there"), "{answer}");
        assert_eq!(header(&answer, "transfer-encoding"), None, "{answer}");
        assert_ne!(
            header(&answer, "connection"),
            Some("keep-alive"),
            "{answer}"
        );
        let id = header(&answer, "x-request-id").expect("it has an id");
        let line = access_line(&front.sidegate, id);
        assert_eq!(line["protocol"], "HTTP/1.0", "{line}");
        assert_eq!(line["response_bytes"], 11, "{line}");
        assert_eq!(line.get("error"), None, "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_kept_for_who_asks_for_it_and_for_no_other() {
    let upstream = Upstream::start().await;
    let front = Front::start(&format!("upstream = \"{}\"", upstream.url), SEEN);
    let request = |rest: &str| {
        format!("POST / HTTP/1.0\r\nhost: localhost\r\ncontent-length: 4\r\n{rest}\r\nbody")
    };
    let answer = front.client.exchange(request("").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nbody"), "{answer}");

    let mut stream = front.client.raw().await;
    for _ in 0..2 {
        let request = request("connection: keep-alive\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nbody") {
            answer.push(patiently(stream.read_u8()).await.unwrap());
        }
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
        assert_eq!(
            header(&answer, "connection"),
            Some("keep-alive"),
            "{answer}"
        );
        assert_eq!(header(&answer, "content-length"), Some("4"), "{answer}");
    }
    assert_eq!(upstream.heads().len(), 3);
    for head in upstream.heads() {
        assert_eq!(head.version, http::Version::HTTP_11);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_names_no_host_is_refused() {
    let upstream = Upstream::start().await;
    let front = Front::start(&format!("upstream = \"{}\"", upstream.url), SEEN);
    let answer = front.client.exchange(b"GET / HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 400 "), "{answer}");
    let line = access_line(&front.sidegate, header(&answer, "x-request-id").unwrap());
    assert_eq!(line["code"], "SG0310", "{line}");
    assert!(upstream.heads().is_empty());
}
