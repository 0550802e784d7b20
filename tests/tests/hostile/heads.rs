//! Heads that are too large.

use http::Request;

use super::Front;
use super::frames::{END_HEADERS, END_STREAM, HEADERS, Peer, block, frame, pseudo};
use crate::support::{access_line, body};

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_too_long_is_414_over_either_protocol() {
    let front = Front::start("limits = { max_uri_bytes = \"200B\" }").await;
    let path = |length: usize| format!("/{}", "x".repeat(length - 1));
    for answer in [
        front.client.get(&path(201)).await,
        front.client.get(&format!("/?{}", path(199))).await,
        front
            .client
            .send_http2(Request::builder(), &path(201))
            .await,
    ] {
        assert_eq!(answer.status, 414);
        let line = access_line(&front.sidegate, answer.header("x-request-id"));
        assert_eq!(line["code"], "SG0355");
    }
    assert!(front.exceeded("max_uri_bytes") > 2.5);
    assert_eq!(front.origin.requests(), 0);
    assert_eq!(front.client.get(&path(200)).await.status, 200);
    let answer = front
        .client
        .send_http2(Request::builder(), &path(200))
        .await;
    assert_eq!(answer.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_are_too_many_or_too_large_are_431_over_either_protocol() {
    let front = Front::start("limits = { max_headers = 20, max_header_bytes = \"4KiB\" }").await;
    let many = |number: usize| {
        (0..number).fold(Request::get("/"), |request, index| {
            request.header(format!("x-{index}"), "1")
        })
    };
    let large = |bytes: usize| Request::get("/").header("x-large", "x".repeat(bytes));
    for (request, error) in [
        (many as fn(usize) -> _, "too_many_headers"),
        (large, "headers_too_large"),
    ] {
        let amount = if error == "too_many_headers" {
            21
        } else {
            4100
        };
        for answer in [
            front.client.send(request(amount), body("")).await,
            front.client.send_http2(request(amount), "/").await,
        ] {
            assert_eq!(answer.status, 431);
            let line = access_line(&front.sidegate, answer.header("x-request-id"));
            assert_eq!(line["code"], "SG0356");
            assert_eq!(line["error"], error);
        }
    }
    assert!(front.exceeded("max_headers") > 1.5);
    assert!(front.exceeded("max_header_bytes") > 1.5);

    // What is larger still is not even read.
    let head = "GET / HTTP/1.1\r\nhost: localhost\r\n";
    let request = format!("{head}x-large: {}\r\n\r\n", "x".repeat(20_000));
    let answer = front.client.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    front.until_exceeded("max_header_bytes");
    let mut peer = Peer::connect(&front.client).await;
    let large = "x".repeat(10_000);
    let head = block(&[&pseudo("GET", "/")[..], &[("x-large", &large)]].concat());
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head))
        .await;
    let answer = peer.until(HEADERS, 1).await;
    // In the code of Huffman.
    let is_431 = |text: &[u8]| text == [0x69, 0x90, 0xff];
    assert!(answer.payload.windows(3).any(is_431), "{answer:?}");

    assert_eq!(front.origin.requests(), 0);
    let answer = front.client.send(large_enough(), body("")).await;
    assert_eq!(answer.status, 200);
}

fn large_enough() -> http::request::Builder {
    Request::get("/").header("x-large", "x".repeat(3900))
}
