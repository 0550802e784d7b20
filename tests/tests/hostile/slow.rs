//! Peers that take their time.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use sidegate_tests::until;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Front;
use super::frames::{
    CONTINUATION, DATA, END_STREAM, Frame, HEADERS, PING, Peer, RST_STREAM, block, frame, get,
    post, pseudo,
};
use crate::support::{access_line, patiently};

const PATIENT: &str = "idle = \"10m\", request = \"10m\"";

#[tokio::test(flavor = "multi_thread")]
async fn half_a_head_over_http2_is_not_waited_for_longer_than_header_read() {
    let front = Front::start(&format!(
        "timeouts = {{ {PATIENT}, header_read = \"500ms\" }}"
    ))
    .await;
    let head = block(&pseudo("GET", "/"));
    let whole = frame(HEADERS, END_STREAM, 1, &head);
    for sent in [
        // Without the frame that ends it, and within a frame.
        whole.clone(),
        [whole.clone(), frame(CONTINUATION, 0, 1, &[])].concat(),
        whole[..whole.len() - 3].to_vec(),
    ] {
        let mut peer = Peer::connect(&front.client).await;
        peer.send(&sent).await;
        peer.rest().await;
    }
    let mut stream = front.client.connect_for(b"h2").await;
    stream.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = patiently(stream.read_to_end(&mut rest)).await;
    assert!(front.exceeded("header_read") > 3.5);
    assert_eq!(front.origin.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_pauses_for_too_long_is_408_over_either_protocol() {
    let front = Front::start(&format!(
        "timeouts = {{ {PATIENT}, body_read = \"500ms\" }}"
    ))
    .await;
    let request = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\nbegun";
    let answer = front.client.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    let id = answer
        .lines()
        .find_map(|line| line.strip_prefix("x-request-id: "));
    let line = access_line(&front.sidegate, id.unwrap());
    assert_eq!(line["code"], "SG0360");
    assert_eq!(line["error"], "body_stalled");

    let (mut chunks, channel) = http_body_util::channel::Channel::new(1);
    let mut connection = front.client.http2().await;
    let request = Request::post("https://localhost/").body(channel.boxed());
    let response = connection.send_request(request.unwrap());
    chunks.send_data("begun".into()).await.unwrap();
    let response = patiently(response).await.unwrap();
    assert_eq!(response.status(), 408);
    assert!(front.exceeded("body_read") > 1.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_comes_slowly_without_long_pauses_is_forwarded() {
    let front = Front::start(&format!("timeouts = {{ {PATIENT}, body_read = \"2s\" }}")).await;
    let (mut chunks, channel) = http_body_util::channel::Channel::new(1);
    let mut connection = front.client.http2().await;
    let request = Request::post("https://localhost/").body(channel.boxed());
    let response = connection.send_request(request.unwrap());
    let sending = async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(300));
        for _ in 0..10 {
            ticks.tick().await;
            chunks.send_data("more".into()).await.unwrap();
        }
    };
    let (response, ()) = patiently(async { tokio::join!(response, sending) }).await;
    assert_eq!(response.unwrap().status(), 200);
    assert!(
        front
            .origin
            .received()
            .concat()
            .ends_with("more\r\n0\r\n\r\n")
    );
    assert!(front.exceeded("body_read") < 0.5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_the_policy_waits_for_may_pause_no_longer() {
    let front = Front::start_with(
        &format!("timeouts = {{ {PATIENT}, body_read = \"500ms\" }}"),
        "package envoy.authz\ndefault allow := false\nallow if input.parsed_body == 1\n",
    )
    .await;
    let request = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                   content-length: 100\r\n\r\n1";
    let answer = front.client.exchange(request.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(front.exceeded("body_read") > 0.5);
    assert_eq!(front.origin.requests(), 0);
}

/// The next frame of this kind on the stream, while pings come and go.
async fn among_pings(peer: &mut Peer, kind: u8, stream: u32) -> Frame {
    loop {
        peer.send(&frame(PING, 0, 0, &[0; 8])).await;
        loop {
            let frame = peer.next().await.expect("the connection lives");
            if (frame.kind, frame.stream) == (kind, stream) {
                return frame;
            }
            if frame.kind == PING {
                break;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_which_nothing_moves_is_reset_whatever_the_pings_say_and_others_go_on() {
    const INITIAL_WINDOW_SIZE: u8 = 4;
    let front = Front::start(&format!(
        "timeouts = {{ {PATIENT}, stream_idle = \"1s\" }}\nhttp2 = {{ max_pings = 100000 }}"
    ))
    .await;
    let mut peer = Peer::connect(&front.client).await;
    // The upstream stops in the middle of its response.
    peer.send(&get(1, "/stall")).await;
    peer.until(HEADERS, 1).await;
    among_pings(&mut peer, RST_STREAM, 1).await;
    peer.send(&get(3, "/")).await;
    peer.until(DATA, 3).await;
    // The client never finishes its request, and there is no answer to it.
    peer.send(&post(5, "/")).await;
    among_pings(&mut peer, RST_STREAM, 5).await;

    // The client does not read.
    let no_window = [0, INITIAL_WINDOW_SIZE, 0, 0, 0, 0];
    let mut peer = Peer::connect_with(&front.client, &no_window).await;
    peer.send(&get(1, "/large")).await;
    peer.until(HEADERS, 1).await;
    among_pings(&mut peer, RST_STREAM, 1).await;
    assert!(front.exceeded("stream_idle") > 2.5);
    let lines = until("the access lines", || {
        let lines = front.sidegate.process.stdout();
        let stalled = |line: &&str| line.contains("\"stream_idle\"") && line.contains("SG0361");
        (lines.lines().filter(stalled).count() == 3).then_some(lines.clone())
    });
    assert!(lines.contains("/large"), "{lines}");
}
