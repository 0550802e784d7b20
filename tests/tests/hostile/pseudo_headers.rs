//! HTTP/2 requests that would be another request in HTTP/1.1 (RFC 9113 section 8.2 and 10.3).

use super::Front;
use super::frames::{
    DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Peer, RST_STREAM, block, frame, pseudo,
};

/// What comes back for a head: the beginning of a response's head, or nothing.
async fn answer(front: &Front, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut peer = Peer::connect(&front.client).await;
    peer.send(bytes).await;
    loop {
        let frame = peer.next().await?;
        match (frame.kind, frame.stream) {
            (HEADERS, 1) => return Some(frame.payload),
            (RST_STREAM, 1) | (GOAWAY, _) => return None,
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_http2_forbids_is_refused_and_the_upstream_sees_nothing() {
    let front = Front::start("").await;
    let usual = pseudo("GET", "/");
    let with = |field: (&'static str, &'static str)| [&usual[..], &[field]].concat();
    let without = |name: &str| {
        let fields = usual.iter().filter(|field| field.0 != name);
        fields.copied().collect::<Vec<_>>()
    };
    let but = |name: &'static str, value: &'static str| {
        let field = |field: &(&'static str, &'static str)| match field.0 == name {
            true => (name, value),
            false => *field,
        };
        usual.iter().map(field).collect::<Vec<_>>()
    };
    let cases = [
        ("a name in upper case", with(("X-Upper", "1"))),
        ("a name with a space", with(("x a", "1"))),
        ("a name with a colon", with(("x:a", "1"))),
        ("a name with a line end", with(("x-a: 1\r\nx-b", "1"))),
        ("a name of nothing", with(("", "1"))),
        ("a line end in a value", with(("x-a", "1\r\nx-b: 2"))),
        ("a bare LF in a value", with(("x-a", "1\nx-b: 2"))),
        ("a bare CR in a value", with(("x-a", "1\rx-b: 2"))),
        ("a NUL in a value", with(("x-a", "1\0"))),
        (
            "a request in a value",
            with(("x-a", "1\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a")),
        ),
        ("two paths", with((":path", "/admin"))),
        ("two methods", with((":method", "POST"))),
        ("two authorities", with((":authority", "other"))),
        ("a pseudo-header that nobody knows", with((":king", "yes"))),
        ("one of a response", with((":status", "200"))),
        (
            "a pseudo-header behind a header",
            [&[("x-a", "1")][..], &usual[..]].concat(),
        ),
        ("no method", without(":method")),
        ("no path", without(":path")),
        ("no authority and no host", without(":authority")),
        ("an empty path", but(":path", "")),
        ("a path that is none", but(":path", "admin")),
        (
            "a request line in the path",
            but(":path", "/ HTTP/1.1\r\nhost: a\r\n\r\nGET /smuggled"),
        ),
        ("a space in the path", but(":path", "/a HTTP/1.1")),
        ("a NUL in the path", but(":path", "/\0")),
        (
            "a request line as the method",
            but(":method", "GET / HTTP/1.1"),
        ),
        ("a line end in the method", but(":method", "GET\r\n")),
        (
            "a user in the authority",
            but(":authority", "king@localhost"),
        ),
        (
            "a path in the authority",
            but(":authority", "localhost/admin"),
        ),
        (
            "a line end in the authority",
            but(":authority", "a\r\nx: y"),
        ),
        ("a host that differs", with(("host", "other"))),
        (
            "two hosts",
            [&usual[..], &[("host", "localhost"), ("host", "other")]].concat(),
        ),
        ("connection", with(("connection", "close"))),
        ("keep-alive", with(("keep-alive", "timeout=5"))),
        ("proxy-connection", with(("proxy-connection", "close"))),
        ("transfer-encoding", with(("transfer-encoding", "chunked"))),
        ("upgrade", with(("upgrade", "h2c"))),
        ("te of another kind", with(("te", "gzip"))),
        (
            "a length that is not a number",
            with(("content-length", "x")),
        ),
    ];
    for (what, fields) in cases {
        let head = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&fields));
        if let Some(answer) = answer(&front, &head).await {
            // `:status` 400 as the static table has it, or as a literal.
            let is_400 = answer.contains(&0x8c) || answer.windows(3).any(|text| text == b"400");
            assert!(is_400, "{what}: {answer:?}");
        }
        assert_eq!(front.origin.received(), [""; 0], "{what}");
    }
    assert_eq!(front.client.get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_not_as_long_as_it_says_is_at_most_one_request_upstream() {
    let front = Front::start("").await;
    let body = b"GET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for length in ["0", "5", "1000"] {
        let fields = [&pseudo("POST", "/post")[..], &[("content-length", length)]].concat();
        let request = [
            frame(HEADERS, END_HEADERS, 1, &block(&fields)),
            frame(DATA, END_STREAM, 1, body),
        ];
        answer(&front, &request.concat()).await;
        let received = front.origin.received();
        for bytes in &received {
            // What came of the body is no longer than what was announced for it.
            let body = bytes.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            assert!(!bytes.starts_with("GET"), "{length}: {received:?}");
            assert!(
                body.len() <= length.parse().unwrap(),
                "{length}: {received:?}"
            );
        }
    }
    assert_eq!(front.client.get("/").await.status, 200);
}
