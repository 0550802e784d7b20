//! Too many connections, handshakes and requests.

use http::Request;
use rustls::crypto::aws_lc_rs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Front;
use crate::support::{Answer, Client, access_line, body, logged, patiently, read};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

/// Whether a request on a connection of its own is answered at all.
async fn is_served(client: &Client) -> bool {
    let config = client.tls(aws_lc_rs::default_provider());
    let Ok(mut stream) = client.connect(config).await else {
        return false;
    };
    let mut answer = Vec::new();
    let _ = stream.write_all(GET).await;
    let _ = patiently(stream.read_to_end(&mut answer)).await;
    answer.starts_with(b"HTTP/1.1 200 ")
}

async fn until_served(client: &Client) {
    while !is_served(client).await {}
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_the_listeners_limit_are_closed_until_there_is_room() {
    let front = Front::start("limits = { max_connections = 2 }").await;
    // One that does not even begin its handshake counts too.
    let silent = TcpStream::connect(&front.client.address).await.unwrap();
    let mut kept = front.client.http1().await;
    assert!(!is_served(&front.client).await);
    assert!(!is_served(&front.client).await);
    assert!(front.exceeded("max_connections") > 1.5);
    logged(&front.sidegate, &["SG0350"]);
    let said = front.sidegate.process.stderr();
    assert_eq!(said.matches("SG0350").count(), 1, "{said}");

    let request = Request::get("/").header("host", "localhost");
    let response = patiently(kept.send_request(request.body(body("")).unwrap())).await;
    assert_eq!(read(response.unwrap()).await.status, 200);
    drop(silent);
    until_served(&front.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_over_an_identitys_limit_are_closed_and_other_identities_are_served() {
    let front = Front::start("limits = { max_connections_per_identity = 2 }").await;
    let kept = [front.client.http1().await, front.client.http1().await];
    let other = front.somebody_else();
    for _ in 0..4 {
        assert!(!is_served(&front.client).await);
        assert!(is_served(&other).await);
    }
    assert!(front.exceeded("max_connections_per_identity") > 3.5);
    logged(&front.sidegate, &["SG0351", "spiffe://sidegate.local/demo"]);
    drop(kept);
    until_served(&front.client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_wait_for_their_turn_and_who_says_nothing_takes_none() {
    let front = Front::start("limits = { max_handshakes = 1 }").await;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(&front.client.address).await.unwrap());
    }
    let said = || front.sidegate.process.stderr();
    assert!(is_served(&front.client).await, "{}", said());
    assert!(front.exceeded("max_handshakes") < 0.5);

    // One that begins and does not go on is in the way for as long as a handshake may take.
    let front =
        Front::start("limits = { max_handshakes = 1 }\ntimeouts = { header_read = \"2s\" }").await;
    let mut begun = TcpStream::connect(&front.client.address).await.unwrap();
    begun.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    until_served(&front.client).await;
    let crowd: Vec<_> = (0..20)
        .map(|_| {
            let client = front.client.clone();
            tokio::spawn(async move { is_served(&client).await })
        })
        .collect();
    for served in crowd {
        assert!(patiently(served).await.unwrap());
    }
    assert!(front.exceeded("max_handshakes") > 0.5);
}

async fn until_answered(
    mut ask: impl AsyncFnMut() -> Answer,
    is_wanted: fn(&Answer) -> bool,
) -> Answer {
    for _ in 0..10_000 {
        let answer = ask().await;
        if is_wanted(&answer) {
            return answer;
        }
    }
    panic!("no such answer to any of so many requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_asks_too_often_is_429_and_others_are_served() {
    let front = Front::start("limits = { requests_per_second = 1, request_burst = 3 }").await;
    let (client, other) = (&front.client, front.somebody_else());
    for _ in 0..3 {
        assert_eq!(client.get("/").await.status, 200, "a burst is allowed");
    }
    // Each on a connection of its own, so on any worker.
    let is_429 = |answer: &Answer| answer.status == 429;
    let answer = until_answered(async || client.get("/").await, is_429).await;
    assert_eq!(answer.body, "");
    let line = access_line(&front.sidegate, answer.header("x-request-id"));
    assert_eq!(line["code"], "SG0357");
    assert_eq!(line["error"], "rate_limited");
    assert_eq!(line["verdict"], "none");
    until_answered(
        async || client.send_http2(Request::builder(), "/").await,
        is_429,
    )
    .await;
    assert_eq!(other.get("/").await.status, 200);

    let call = || Request::post("/").header("content-type", "application/grpc");
    let is_exhausted = |answer: &Answer| answer.headers.get("grpc-status").is_some();
    let answer = until_answered(async || client.send_http2(call(), "/").await, is_exhausted).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("grpc-status"), "8", "RESOURCE_EXHAUSTED");
    assert!(front.exceeded("requests_per_second") > 2.5);

    // A second brings another.
    until_answered(
        async || client.get("/").await,
        |answer| answer.status == 200,
    )
    .await;
}
