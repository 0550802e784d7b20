//! HTTP/1.1 upstreams that say more than one thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sidegate_tests::until;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::Front;
use super::http1::{OK, target};
use crate::support::listen;

const CHUNKS: &str = "A\r\nhellohello\r\n0\r\n\r\n";

/// A response to a target, and whether the connection is closed behind it.
fn answer(target: &str) -> (String, bool) {
    let chunked = |lines: &str| format!("HTTP/1.1 200 OK\r\n{lines}\r\n\r\n{CHUNKS}");
    match target {
        "/length-before-chunks" => (
            chunked("content-length: 5\r\ntransfer-encoding: chunked"),
            false,
        ),
        "/chunks-before-length" => (
            chunked("transfer-encoding: chunked\r\ncontent-length: 500"),
            false,
        ),
        "/same-length-twice" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
            false,
        ),
        "/same-length-in-one" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 5, 5\r\n\r\nhello".to_owned(),
            false,
        ),
        "/zeros" => (
            "HTTP/1.1 200 OK\r\ncontent-length: 0005\r\n\r\nhello".to_owned(),
            false,
        ),
        "/until-the-end" => ("HTTP/1.1 200 OK\r\n\r\nhello".to_owned(), true),
        "/old" => ("HTTP/1.0 200 OK\r\n\r\nhello".to_owned(), true),
        "/hints" => {
            let hint = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
            let rest = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            (
                format!("{hint}{hint}HTTP/1.1 100 Go on\r\n\r\n{rest}"),
                false,
            )
        }
        "/length-to-be-taken-out" => (
            "HTTP/1.1 200 OK\r\nconnection: content-length\r\ncontent-length: 5\r\n\r\nhello"
                .to_owned(),
            false,
        ),
        "/trailers" => (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-a\r\n\r\n5\r\nhello\r\n\
             0\r\nx-a: 1\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\
             connection: close\r\n\r\n"
                .to_owned(),
            false,
        ),
        _ => (OK.to_owned(), false),
    }
}

async fn serve(mut stream: TcpStream) {
    while let Some(target) = target(&mut stream).await {
        let (answer, closes) = answer(&target);
        if stream.write_all(answer.as_bytes()).await.is_err() || closes {
            return;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_whose_length_is_told_in_odd_ways_arrives_whole() {
    let url = listen(serve).await;
    let front = Front::start(&url, "");
    for (path, expected) in [
        ("/length-before-chunks", "hellohello"),
        ("/chunks-before-length", "hellohello"),
        ("/same-length-twice", "hello"),
        ("/same-length-in-one", "hello"),
        ("/zeros", "hello"),
        ("/until-the-end", "hello"),
        ("/old", "hello"),
        ("/hints", "hello"),
        ("/length-to-be-taken-out", "hello"),
        ("/trailers", "hello"),
    ] {
        for is_http2 in [false, true] {
            let outcome = front.ask("GET", path, is_http2).await;
            assert_eq!(outcome.status, 200, "{path} {is_http2} {outcome:?}");
            assert_eq!(
                outcome.body.as_deref(),
                Some(expected),
                "{path} {is_http2} {outcome:?}"
            );
            // One length, if any.
            let length = outcome
                .length
                .as_ref()
                .map(|length| length.parse::<usize>());
            assert!(
                length.is_none_or(|length| length == Ok(expected.len())),
                "{path} {is_http2} {outcome:?}"
            );
            front.serves().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_has_no_content_has_none_whatever_the_upstream_sends() {
    let url = listen(|mut stream: TcpStream| async move {
        while let Some(target) = target(&mut stream).await {
            let status = match target.as_str() {
                "/204" => "204 Nothing",
                "/304" => "304 As before",
                "/head" => "200 OK",
                _ => {
                    let _ = stream.write_all(OK.as_bytes()).await;
                    continue;
                }
            };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 5\r\n\r\nhello");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    })
    .await;
    let front = Front::start(&url, "");
    for (method, path, status) in [
        ("GET", "/204", 204),
        ("GET", "/304", 304),
        ("HEAD", "/head", 200),
    ] {
        for is_http2 in [false, true] {
            let outcome = front.ask(method, path, is_http2).await;
            assert_eq!(outcome.status, status, "{outcome:?}");
            assert_eq!(outcome.body.as_deref(), Some(""), "{outcome:?}");
            if status == 204 {
                // RFC 9110 section 8.6.
                assert_eq!(outcome.length, None, "{is_http2}");
            }
            front.serves().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_nobody_asked_for_is_nobodys() {
    let stolen = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nstolen";
    let sent = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&sent);
    let url = listen(move |mut stream: TcpStream| {
        let counted = Arc::clone(&counted);
        async move {
            while let Some(target) = target(&mut stream).await {
                let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
                              2\r\nok\r\n0\r\n\r\n";
                // With the response that is due: what comes behind it may come after the next request,
                // when nobody can tell.
                let answer = match target.as_str() {
                    "/with" => format!("{OK}{stolen}"),
                    "/with-chunks" => format!("{chunks}{stolen}"),
                    _ => OK.to_owned(),
                };
                let _ = stream.write_all(answer.as_bytes()).await;
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    })
    .await;
    let front = Front::start(&url, "");
    for round in 0..20 {
        for path in ["/with", "/with-chunks"] {
            let before = sent.load(Ordering::SeqCst);
            let outcome = front.ask("GET", path, round % 2 == 0).await;
            assert_eq!(outcome.body.as_deref(), Some("ok"), "{path} {outcome:?}");
            until("all to be sent", || {
                (sent.load(Ordering::SeqCst) > before).then_some(())
            });
            front.serves().await;
        }
    }
}
