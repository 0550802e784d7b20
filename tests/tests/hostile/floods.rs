//! Frames that cost more than they bring.

use http::Request;
use http_body_util::BodyExt;
use sidegate_tests::until;

use super::Front;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, HEADERS, PING, PRIORITY, Peer,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, block, frame, get, goaways, post, pseudo,
};
use crate::support::{Configuration, body, folder, logged, patiently, read};

const CANCEL: [u8; 4] = [0, 0, 0, 8];
const REFUSED_STREAM: [u8; 4] = [0, 0, 0, 7];

/// The client's streams.
fn streams(number: u32) -> impl Iterator<Item = u32> {
    (0..number).map(|index| 2 * index + 1)
}

/// What attackers send, and how it is called.
fn attacks() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let after = |begin: Vec<u8>, frame: Vec<u8>, times| [begin, frame.repeat(times)].concat();
    let each = |number, frames: &dyn Fn(u32) -> Vec<u8>| -> Vec<u8> {
        streams(number).flat_map(frames).collect()
    };
    let open = frame(HEADERS, END_STREAM, 1, &block(&pseudo("GET", "/")));
    vec![
        (
            "rapid reset (CVE-2023-44487)",
            each(110, &|stream| {
                [
                    get(stream, "/silent"),
                    frame(RST_STREAM, 0, stream, &CANCEL),
                ]
                .concat()
            }),
            "reset",
        ),
        (
            "made you reset (CVE-2025-8671), by a window that overflows",
            each(110, &|stream| {
                let overflow = 0x7fff_ffff_u32.to_be_bytes();
                [
                    get(stream, "/silent"),
                    frame(WINDOW_UPDATE, 0, stream, &overflow),
                ]
                .concat()
            }),
            "local_reset",
        ),
        (
            "made you reset, by a body that is longer than it says",
            each(110, &|stream| {
                let fields = [&pseudo("POST", "/")[..], &[("content-length", "1")]].concat();
                [
                    frame(HEADERS, END_HEADERS, stream, &block(&fields)),
                    frame(DATA, END_STREAM, stream, b"more"),
                ]
                .concat()
            }),
            "local_reset",
        ),
        (
            "made you reset, by too many streams",
            each(256 + 110, &|stream| get(stream, "/silent")),
            "local_reset",
        ),
        ("pings", frame(PING, 0, 0, &[0; 8]).repeat(110), "ping"),
        (
            "answers to pings that nobody sent",
            frame(PING, 1, 0, &[0; 8]).repeat(110),
            "ping",
        ),
        (
            "settings",
            frame(SETTINGS, 0, 0, &[]).repeat(60),
            "settings",
        ),
        (
            "empty data",
            after(post(1, "/"), frame(DATA, 0, 1, &[]), 110),
            "empty_data",
        ),
        (
            "data that is nothing but padding",
            after(post(1, "/"), frame(DATA, 8, 1, &[3, 0, 0, 0]), 110),
            "empty_data",
        ),
        (
            "window updates of the connection",
            frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]).repeat(520),
            "window_update",
        ),
        (
            "window updates of a stream",
            after(
                get(1, "/silent"),
                frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
                520,
            ),
            "window_update",
        ),
        (
            "priorities",
            frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9]).repeat(110),
            "ignored",
        ),
        (
            "frames of a type that nobody knows",
            frame(0xbe, 0, 0, b"?").repeat(110),
            "ignored",
        ),
        (
            "continuations",
            after(open.clone(), frame(CONTINUATION, 0, 1, &[]), 9),
            "continuation",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_ends_its_connection_and_no_other_and_is_counted_by_its_kind() {
    let front = Front::start("").await;
    let mut other = front.client.http2().await;
    for (attack, bytes, kind) in attacks() {
        let before = front.floods(kind);
        let mut peer = Peer::connect(&front.client).await;
        peer.send(&bytes).await;
        let frames = peer.rest().await;
        assert!(
            goaways(&frames)
                .iter()
                .all(|code| *code == ENHANCE_YOUR_CALM),
            "{attack}: {frames:?}"
        );
        until(&format!("one flood of {kind}: {attack}"), || {
            (front.floods(kind) > before + 0.5).then_some(())
        });
        assert!(front.floods(kind) < before + 1.5, "{attack}");

        let request = Request::get("https://localhost/").body(body(""));
        let response = patiently(other.send_request(request.unwrap())).await;
        assert_eq!(read(response.unwrap()).await.status, 200, "{attack}");
    }
    assert!(front.floods("other") < 0.5);
    let peer = "peer=spiffe://sidegate.local/demo";
    logged(&front.sidegate, &["SG0354", peer, "too many PING frames"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_is_told_to_calm_down() {
    let front = Front::start("").await;
    let mut peer = Peer::connect(&front.client).await;
    // Nothing is on its way when the flood comes.
    peer.send(&get(1, "/")).await;
    peer.until(DATA, 1).await;
    peer.send(&frame(PING, 0, 0, &[0; 8]).repeat(110)).await;
    assert_eq!(goaways(&peer.rest().await), [ENHANCE_YOUR_CALM]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_many_times_too_large_ends_the_connection() {
    let front = Front::start("limits = { max_header_bytes = \"1KiB\" }").await;
    let mut peer = Peer::connect(&front.client).await;
    let large = "x".repeat(5000);
    let head = block(&[&pseudo("GET", "/")[..], &[("x-large", &large)]].concat());
    peer.send(&frame(HEADERS, END_HEADERS | END_STREAM, 1, &head))
        .await;
    peer.rest().await;
    until("a flood", || {
        (front.floods("header_block") > 0.5).then_some(())
    });
    assert_eq!(front.origin.requests(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_refused_and_the_others_go_on() {
    let front = Front::start("http2 = { max_concurrent_streams = 3 }").await;
    let mut peer = Peer::connect(&front.client).await;
    let requests: Vec<u8> = streams(5)
        .flat_map(|stream| get(stream, if stream == 1 { "/" } else { "/silent" }))
        .collect();
    peer.send(&requests).await;
    let mut refused = Vec::new();
    let mut is_answered = false;
    while refused.len() < 2 || !is_answered {
        let frame = peer.next().await.expect("the connection lives");
        match frame.kind {
            RST_STREAM => {
                assert_eq!(frame.payload, REFUSED_STREAM);
                refused.push(frame.stream);
            }
            HEADERS => is_answered |= frame.stream == 1,
            _ => {}
        }
    }
    assert_eq!(refused, [7, 9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_limit_of_frames_can_be_set() {
    let front = Front::start("http2 = { max_pings = 3, max_continuations = 0 }").await;
    let mut peer = Peer::connect(&front.client).await;
    peer.send(&frame(PING, 0, 0, &[0; 8]).repeat(3)).await;
    peer.send(&get(1, "/")).await;
    peer.until(DATA, 1).await;
    peer.send(&frame(PING, 0, 0, &[0; 8]).repeat(7)).await;
    peer.rest().await;
    until("a flood", || (front.floods("ping") > 0.5).then_some(()));

    let mut peer = Peer::connect(&front.client).await;
    let head = block(&pseudo("GET", "/"));
    peer.send(&frame(HEADERS, END_STREAM, 1, &head)).await;
    peer.send(&frame(CONTINUATION, END_HEADERS, 1, &[])).await;
    peer.rest().await;
    until("a flood", || {
        (front.floods("continuation") > 0.5).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_client_is_no_flood() {
    let folder = folder();
    let (sidegate, client) = Configuration::new().start(folder.path());
    let mut connection = client.http2().await;
    let get = |path: &str| Request::get(format!("https://localhost{path}")).body(body(""));
    // Many window updates.
    let request = get("/large/30000000").unwrap();
    let response = patiently(connection.send_request(request)).await.unwrap();
    let large = patiently(response.into_body().collect()).await.unwrap();
    assert_eq!(large.to_bytes().len(), 30_000_000);
    // Many resets, of responses that are not read to their end.
    for _ in 0..300 {
        let request = get("/large/3000000").unwrap();
        let response = patiently(connection.send_request(request)).await;
        let said = || sidegate.process.stderr();
        let response = response.unwrap_or_else(|error| panic!("{error}: {}", said()));
        assert_eq!(response.status(), 200);
    }
    let request = get("/status/200").unwrap();
    let response = patiently(connection.send_request(request)).await.unwrap();
    assert_eq!(read(response).await.status, 200);
    let floods = crate::support::counter(&sidegate, "sidegate_http2_floods_total", &[]);
    assert!(floods < 0.5);
}
