//! The service under a real HTTP/1 server: what the bytes say.

use std::time::Duration;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::probe;

/// All that the server sends in answer to a request on a connection of its own.
async fn exchange(method: &str, path: &str) -> String {
    let (mut client, server) = tokio::io::duplex(1024);
    let service = TowerToHyperService::new(probe().service());
    let serving = http1::Builder::new().serve_connection(TokioIo::new(server), service);
    tokio::spawn(async move { serving.await.map_err(drop) });

    let request = format!("{method} {path} HTTP/1.1\r\nhost: a.test\r\nconnection: close\r\n\r\n");
    client.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = client.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read)
        .await
        .unwrap()
        .unwrap();
    answer
}

#[tokio::test]
async fn a_body_ends_properly_only_if_the_component_finished_it() {
    let chunked_end = "\r\n0\r\n\r\n";
    let whole = exchange("GET", "/large/100000").await;
    assert!(whole.ends_with(chunked_end));
    assert!(whole.len() > 100_000);
    for path in ["/trap-late", "/unfinished", "/short", "/stall"] {
        let cut = exchange("GET", path).await;
        assert!(!cut.ends_with(chunked_end), "{path}: {cut}");
        assert!(!cut.contains("content-length: 3"), "{path}: {cut}");
    }
    // The server may drop what it had not sent yet, but not what the caller already has.
    let stalled = exchange("GET", "/stall").await;
    assert!(stalled.ends_with("\r\n\r\n3\r\none\r\n"), "{stalled}");
}

#[tokio::test]
async fn a_head_request_gets_the_length_that_a_get_would_have() {
    let answer = exchange("HEAD", "/bodiless").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("content-length: 10\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}
