//! HTTP/1.1 upstreams that fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Front;
use crate::support::{body, listen, patiently, read};

/// Reads a head and returns its target, or `None` at the connection's end.
pub(crate) async fn target(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).expect("it is text");
    Some(head.split(' ').nth(1)?.to_owned())
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// What is sent for a target before the connection is closed.
fn failure(target: &str) -> Option<&'static str> {
    Some(match target {
        "/close" => "",
        "/garbage" => "\0\u{1}\u{2}\r\n\r\n",
        "/other-protocol" => "SSH-2.0-OpenSSH_9.2\r\n",
        "/half-a-head" => "HTTP/1.1 200 OK\r\nx-a: 1\r\n",
        "/version" => "HTTP/3.7 200 OK\r\ncontent-length: 0\r\n\r\n",
        "/status" => "HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        "/folded" => "HTTP/1.1 200 OK\r\nx-a: 1\r\n 2\r\ncontent-length: 2\r\n\r\nok",
        "/nul" => "HTTP/1.1 200 OK\r\nx-a: \0\r\ncontent-length: 0\r\n\r\n",
        "/length" => "HTTP/1.1 200 OK\r\ncontent-length: +5\r\n\r\nhello",
        "/lengths" => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 4\r\n\r\nhello",
        "/short" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello",
        "/cut-chunk" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nhello",
        "/no-end" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "/bad-chunk" => "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nhello\r\n",
        "/reset" => "",
        "/reset-within" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello",
        _ => return None,
    })
}

async fn serve(mut stream: TcpStream) {
    while let Some(target) = target(&mut stream).await {
        if let Some(sent) = failure(&target) {
            let _ = stream.write_all(sent.as_bytes()).await;
            if target.starts_with("/reset") {
                stream.set_zero_linger().expect("it is set");
            }
            return;
        }
        match target.as_str() {
            "/half-close" => {
                let _ = stream.shutdown().await;
                // It goes on to read.
                let mut rest = Vec::new();
                let _ = stream.read_to_end(&mut rest).await;
                return;
            }
            "/endless-head" => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
                while stream.write_all(b"x-a: 0123456789\r\n").await.is_ok() {}
                return;
            }
            // Until the proxy has had enough.
            "/stall" => return gone(stream).await,
            "/stall-within" => {
                let begun = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello";
                let _ = stream.write_all(begun).await;
                return gone(stream).await;
            }
            _ => stream.write_all(OK.as_bytes()).await.unwrap_or_default(),
        }
    }
}

async fn gone(mut stream: TcpStream) {
    let _ = stream.read_u8().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_failure_has_its_answer_and_its_name_and_the_next_request_is_served() {
    let url = listen(serve).await;
    let front = Front::start(
        &url,
        "timeouts = { request = \"1s\", stream_idle = \"1s\" }",
    );
    let (reset, broken) = (("upstream_reset", "SG0322"), ("response_broken", "SG0324"));
    let failures = [
        ("/close", 502, reset),
        ("/reset", 502, reset),
        ("/half-close", 502, reset),
        ("/garbage", 502, reset),
        ("/other-protocol", 502, reset),
        ("/half-a-head", 502, reset),
        ("/endless-head", 502, reset),
        ("/version", 502, reset),
        ("/status", 502, reset),
        ("/nul", 502, reset),
        ("/folded", 502, reset),
        ("/length", 502, reset),
        ("/lengths", 502, reset),
        ("/stall", 504, ("request_timeout", "SG0312")),
        ("/short", 200, broken),
        ("/reset-within", 200, broken),
        ("/cut-chunk", 200, broken),
        ("/no-end", 200, broken),
        ("/bad-chunk", 200, broken),
    ];
    let failures = failures.map(|(path, status, (error, code))| (path, status, error, code));
    front.serves().await;
    front.fails_as(&failures).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_stops_in_its_middle_is_broken_off() {
    let url = listen(serve).await;
    let front = Front::start(&url, "timeouts = { idle = \"1s\", stream_idle = \"1s\" }");
    for is_http2 in [false, true] {
        let outcome = front.ask("GET", "/stall-within", is_http2).await;
        assert_eq!((outcome.status, outcome.body), (200, None));
        let line = front.line("/stall-within", is_http2);
        let told = (line["error"].as_str(), line["code"].as_str());
        let expected = [
            (Some("idle"), Some("SG0305")),
            (Some("stream_idle"), Some("SG0361")),
        ];
        // Over HTTP/2 either deadline may come first.
        let expected = if is_http2 {
            &expected[..]
        } else {
            &expected[..1]
        };
        assert!(expected.contains(&told), "{line}");
        front.serves().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_comes_and_goes_is_told_for_each_request_and_serves_in_between() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let front = Front::start(&format!("http://{address}"), "");
    let mut listener = Some(listener);
    for round in 0..6 {
        let is_up = listener.is_some();
        let serving = listener.take().map(|listener| {
            let stop = Arc::new(AtomicBool::new(false));
            let stopped = Arc::clone(&stop);
            let task = tokio::spawn(async move {
                // With the listener go its connections.
                while !stopped.load(Ordering::SeqCst) {
                    let (mut stream, _) = listener.accept().await.unwrap();
                    while let Some(_target) = target(&mut stream).await {
                        stream.write_all(OK.as_bytes()).await.unwrap();
                        if stopped.load(Ordering::SeqCst) {
                            break;
                        }
                    }
                }
            });
            (stop, task)
        });
        for is_http2 in [false, true] {
            let path = format!("/{round}");
            let outcome = front.ask("GET", &path, is_http2).await;
            let line = front.line(&path, is_http2);
            if is_up {
                assert_eq!(outcome.status, 200, "{round}: {line}");
            } else {
                assert_eq!(outcome.status, 502, "{round}: {line}");
                assert_eq!(line["error"], "connect_failed", "{line}");
                assert_eq!(line["code"], "SG0321", "{line}");
            }
        }
        if let Some((stop, task)) = serving {
            // The last request ends its connection, and nobody listens any more.
            stop.store(true, Ordering::SeqCst);
            assert_eq!(front.ask("GET", "/last", false).await.status, 200);
            patiently(task).await.unwrap();
        } else {
            listener = Some(TcpListener::bind(address).await.unwrap());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_before_the_body_is_the_answer_and_the_connection_is_not_used_again() {
    let url = listen(|mut stream: TcpStream| async move {
        while let Some(target) = target(&mut stream).await {
            let answer = if target == "/early" {
                "HTTP/1.1 413 Too much\r\ncontent-length: 3\r\n\r\nno!"
            } else {
                OK
            };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let front = Front::start(&url, "");
    // What looks like a request is the rest of a body that nobody reads.
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n".repeat(20_000);
    for _ in 0..5 {
        let mut connection = front.client.http2().await;
        let request = Request::post("https://localhost/early").body(body(smuggled.clone()));
        let response = patiently(connection.send_request(request.unwrap())).await;
        let answer = read(response.unwrap()).await;
        assert_eq!((answer.status.as_u16(), &*answer.body), (413, "no!"));
        front.serves().await;
    }
}
