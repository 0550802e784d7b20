//! HTTP/1.1 requests that can be read in two ways (RFC 9112 section 11.2).

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Front;
use crate::support::{Client, patiently};

const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// What is only half a request is not waited for.
const IMPATIENT: &str = "timeouts = { header_read = \"1s\", idle = \"1s\" }";

/// Sends bytes and reads what comes until the connection ends.
async fn send(client: &Client, bytes: &[u8]) -> String {
    let mut stream = client.raw().await;
    stream.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    let _ = patiently(stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_not_quite_http_is_400_and_the_upstream_sees_nothing() {
    let front = Front::start(IMPATIENT).await;
    let get = |lines: &str| {
        format!("GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{lines}\r\n\r\n")
    };
    let cases = [
        ("a folded header", get("x-a: 1\r\n GET /smuggled HTTP/1.1")),
        ("a header folded by a tab", get("x-a: 1\r\n\tb")),
        (
            "a line that is folded before any header",
            "GET / HTTP/1.1\r\n host: localhost\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        ("a bare CR in a value", get("x-a: 1\rx-b: 2")),
        ("a bare CR that ends a line", get("x-a: 1\r\rx-b: 2")),
        ("a NUL in a value", get("x-a: 1\0")),
        ("a NUL in a name", get("x\0a: 1")),
        (
            "a NUL in the target",
            "GET /\0 HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        ("a space before the colon", get("x-a : 1")),
        ("a name of nothing", get(": 1")),
        ("a header without a colon", get("x-a")),
        ("a name with a space", get("x a: 1")),
        (
            "a space in the target",
            "GET /a b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        ("two hosts", get("host: other")),
        ("the same host twice", get("host: localhost")),
        (
            "no host",
            "GET / HTTP/1.1\r\nx-a: 1\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (
            "a host with a user",
            "GET / HTTP/1.1\r\nhost: king@localhost\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (
            "a host with a path",
            "GET / HTTP/1.1\r\nhost: localhost/admin\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (
            "a host that is not that of the target",
            "GET http://other/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (
            "a user in the target",
            "GET http://king@localhost/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
                .to_owned(),
        ),
        (
            "a target that is no path",
            "GET admin HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (
            "a version from elsewhere",
            "GET / HTTP/2.0\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (
            "a version that is none",
            "GET / HTTP/1.2\r\nhost: localhost\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (
            "no version",
            "GET /\r\nconnection: close\r\n\r\n".to_owned(),
        ),
        (
            "an HTTP/1.0 request in chunks",
            "POST / HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"
                .to_owned(),
        ),
        ("a length that is not a number", get("content-length: 5,5x")),
        ("a negative length", get("content-length: -1")),
        (
            "a length beyond all numbers",
            get("content-length: 99999999999999999999"),
        ),
        (
            "a coding after chunked",
            get("transfer-encoding: chunked, gzip"),
        ),
    ];
    for (what, request) in cases {
        let answer = send(&front.client, format!("{request}{SMUGGLED}").as_bytes()).await;
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 400 ");
        assert!(is_refused, "{what}: {answer}");
        assert_eq!(
            answer.matches("HTTP/1.").count(),
            usize::from(!answer.is_empty()),
            "{what}: {answer}"
        );
        assert_eq!(front.origin.received(), [""; 0], "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_in_bad_chunks_reaches_the_upstream_as_one_request_or_not_at_all() {
    let front = Front::start(IMPATIENT).await;
    let bodies = [
        ("a size with a prefix", "0x5\r\nhello\r\n0\r\n\r\n"),
        ("a size with a sign", "+5\r\nhello\r\n0\r\n\r\n"),
        ("a negative size", "-5\r\nhello\r\n0\r\n\r\n"),
        (
            "a size that overflows",
            "10000000000000005\r\nhello\r\n0\r\n\r\n",
        ),
        ("a size of nothing", "\r\nhello\r\n0\r\n\r\n"),
        ("a size that is no number", "five\r\nhello\r\n0\r\n\r\n"),
        ("a chunk longer than it says", "3\r\nhello\r\n0\r\n\r\n"),
        ("a chunk without its line end", "5\r\nhello0\r\n\r\n"),
        ("a line that ends with a bare LF", "5\nhello\n0\n\n"),
        ("a bare LF in an extension", "5;a\nhello\r\n0\r\n\r\n"),
        ("a bare CR in an extension", "5;a\rb\r\nhello\r\n0\r\n\r\n"),
        (
            "an extension without end",
            "5;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        ("a NUL in a size", "5\0\r\nhello\r\n0\r\n\r\n"),
        ("a bad trailer", "5\r\nhello\r\n0\r\nx a: 1\r\n\r\n"),
        ("a folded trailer", "5\r\nhello\r\n0\r\nx: 1\r\n y\r\n\r\n"),
    ];
    for (index, (what, chunks)) in bodies.into_iter().enumerate() {
        let request = format!(
            "POST /{index} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n\
             {chunks}{SMUGGLED}"
        );
        let answer = send(&front.client, request.as_bytes()).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{what}: {answer}");
        let received = front.origin.received().concat();
        let line = format!("POST /{index} HTTP/1.1\r\n");
        assert!(received.matches(&line).count() <= 1, "{what}: {received}");
        assert!(!received.contains("smuggled HTTP"), "{what}: {received}");
    }
    assert_eq!(front.client.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_looks_like_a_second_request_is_the_body_of_the_first() {
    let front = Front::start(IMPATIENT).await;
    let length = SMUGGLED.len();
    let requests = [
        format!(
            "GET /get HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n{SMUGGLED}"
        ),
        format!(
            "POST /chunks HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n\
             {length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n"
        ),
        // Named by `connection`, a length would be taken out between the two of us.
        format!(
            "POST /named HTTP/1.1\r\nhost: localhost\r\nconnection: content-length\r\n\
             content-length: {length}\r\n\r\n{SMUGGLED}"
        ),
    ];
    for request in &requests {
        let answer = send(&front.client, request.as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    for received in front.origin.received() {
        let (head, body) = received.split_once("\r\n\r\n").unwrap();
        let is_framed = body == SMUGGLED && head.contains(&format!("content-length: {length}"));
        let is_chunked = body == format!("{length:X}\r\n{SMUGGLED}\r\n0\r\n\r\n");
        assert!(is_framed || is_chunked, "{received}");
        assert_eq!(head.matches(" HTTP/1.1").count(), 1, "{received}");
    }
    assert!(!front.origin.received().is_empty());
}
