//! Frames that HTTP/2 does not allow (RFC 9113 sections 4 to 6).

use http::Request;

use super::Front;
use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, PING, PRIORITY, Peer, RST_STREAM,
    SETTINGS, WINDOW_UPDATE, block, frame, get, pseudo,
};
use crate::support::{body, patiently, read};

const PUSH_PROMISE: u8 = 0x5;

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_that_is_not_allowed_ends_its_connection_and_no_other() {
    let front = Front::start("").await;
    let mut other = front.client.http2().await;
    let head = block(&pseudo("GET", "/silent"));
    let open = get(1, "/silent");
    let cases = [
        ("data of no stream", frame(DATA, 0, 0, b"x")),
        ("data before its head", frame(DATA, 0, 1, b"x")),
        (
            "data behind the end",
            [open.clone(), frame(DATA, 0, 1, b"x")].concat(),
        ),
        ("padding longer than its frame", frame(DATA, 8, 1, &[9, 0])),
        ("a head of no stream", frame(HEADERS, 5, 0, &head)),
        ("a stream of the server's", frame(HEADERS, 5, 2, &head)),
        (
            "a stream older than the last",
            [get(5, "/silent"), get(3, "/silent")].concat(),
        ),
        (
            "a head that is not compressed right",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 20]),
        ),
        (
            "a head within a head",
            [
                frame(HEADERS, END_STREAM, 1, &head),
                frame(HEADERS, END_STREAM, 3, &head),
            ]
            .concat(),
        ),
        (
            "a ping within a head",
            [
                frame(HEADERS, END_STREAM, 1, &head),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            "a continuation of another stream's head",
            [
                frame(HEADERS, END_STREAM, 1, &head),
                frame(CONTINUATION, END_HEADERS, 3, &[]),
            ]
            .concat(),
        ),
        (
            "a continuation of nothing",
            frame(CONTINUATION, END_HEADERS, 1, &head),
        ),
        ("a reset before its head", frame(RST_STREAM, 0, 1, &[0; 4])),
        ("a reset of a wrong size", {
            [open.clone(), frame(RST_STREAM, 0, 1, &[0; 3])].concat()
        }),
        ("settings of a wrong size", frame(SETTINGS, 0, 0, &[0; 5])),
        ("settings of a stream", frame(SETTINGS, 0, 1, &[])),
        (
            "an acknowledgement with settings",
            frame(SETTINGS, 1, 0, &[0; 6]),
        ),
        (
            "a window that is too large by settings",
            frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]),
        ),
        (
            "a frame size that is too small",
            frame(SETTINGS, 0, 0, &[0, 5, 0, 0, 0, 1]),
        ),
        ("a ping of a wrong size", frame(PING, 0, 0, &[0; 7])),
        ("a ping of a stream", frame(PING, 0, 1, &[0; 8])),
        ("a promise", frame(PUSH_PROMISE, 4, 1, &[0, 0, 0, 2])),
        (
            "a window update of nothing",
            [open.clone(), frame(WINDOW_UPDATE, 0, 1, &[0; 4])].concat(),
        ),
        (
            "a window update of a wrong size",
            frame(WINDOW_UPDATE, 0, 0, &[1; 3]),
        ),
        (
            "a window that overflows",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "a frame larger than allowed",
            frame(DATA, 0, 1, &[0; 16 * 1024 + 1]),
        ),
    ];
    for (what, bytes) in cases {
        let mut peer = Peer::connect(&front.client).await;
        peer.send(&bytes).await;
        // With or without a farewell.
        peer.rest().await;
        let request = Request::get("https://localhost/").body(body(""));
        let response = patiently(other.send_request(request.unwrap())).await;
        assert_eq!(read(response.unwrap()).await.status, 200, "{what}");
    }
    // Of no use, and harmless.
    let mut peer = Peer::connect(&front.client).await;
    peer.send(&frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 9])).await;
    peer.send(&frame(0xbe, 0xff, 0x8000_0007, b"?")).await;
    peer.send(&get(1, "/")).await;
    peer.until(DATA, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_http2_at_all_ends_the_connection() {
    let front = Front::start("").await;
    for sent in [
        &b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"[..],
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        &[0; 100],
    ] {
        let mut peer = Peer::without_hello(&front.client).await;
        peer.send(sent).await;
        peer.rest().await;
    }
    assert_eq!(front.origin.requests(), 0);
}
