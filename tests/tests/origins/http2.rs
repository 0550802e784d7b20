//! What is hostile or odd in HTTP/2, and may be another request in HTTP/1.1.

use super::servers::Origin;
use super::{Case, Fate, Forwarded, Front, Refused, SMUGGLED, Seen, attack_all};
use crate::hostile::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, Peer, RST_STREAM, block, frame, get,
};

const PADDED: u8 = 0x8;
const CHUNKS: &str = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: localhost\r\n\r\n";

type Field = (&'static str, &'static str);

/// A head, in which `{T}` stands for a target of its own, and what follows it.
struct Sent {
    fields: Vec<Field>,
    body: Option<&'static str>,
    trailers: Vec<Field>,
}

impl Sent {
    fn new(method: &'static str, fields: &[Field], body: Option<&'static str>) -> Self {
        let pseudo = [
            (":method", method),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", "{T}"),
        ];
        Self {
            fields: [&pseudo, fields].concat(),
            body,
            trailers: Vec::new(),
        }
    }

    /// The same with another value, or without the field.
    fn but(mut self, name: &str, value: Option<&'static str>) -> Self {
        match value {
            Some(value) => {
                let field = self.fields.iter_mut().find(|field| field.0 == name);
                field.unwrap().1 = value;
            }
            None => self.fields.retain(|field| field.0 != name),
        }
        self
    }

    fn with_trailers(mut self, trailers: &[Field]) -> Self {
        self.trailers = trailers.to_vec();
        self
    }

    fn frames(&self, index: usize) -> Vec<u8> {
        let target = format!("/{index}");
        let fields: Vec<_> = self
            .fields
            .iter()
            .map(|(name, value)| (*name, value.replace("{T}", &target)))
            .collect();
        let fields: Vec<_> = fields
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
            .collect();
        let ends = |is_last: bool| if is_last { END_STREAM } else { 0 };
        let has_trailers = !self.trailers.is_empty();
        let flags = END_HEADERS | ends(self.body.is_none() && !has_trailers);
        let mut bytes = frame(HEADERS, flags, 1, &block(&fields));
        if let Some(body) = self.body {
            bytes.extend(frame(DATA, ends(!has_trailers), 1, body.as_bytes()));
        }
        if has_trailers {
            let flags = END_HEADERS | END_STREAM;
            bytes.extend(frame(HEADERS, flags, 1, &block(&self.trailers)));
        }
        bytes
    }
}

fn post(fields: &[Field]) -> Sent {
    Sent::new("POST", fields, Some("hello"))
}

fn plain(method: &'static str) -> Sent {
    Sent::new(method, &[], None)
}

fn cases() -> Vec<Case<Vec<u8>>> {
    let hello = Forwarded("hello");
    let all: Vec<(&'static str, Sent, Fate)> = vec![
        ("a body without a length", post(&[]), hello),
        (
            "a body with its length",
            post(&[("content-length", "5")]),
            hello,
        ),
        (
            "a body with its length twice",
            post(&[("content-length", "5"), ("content-length", "5")]),
            hello,
        ),
        (
            "two lengths, the right one first",
            post(&[("content-length", "5"), ("content-length", "0")]),
            Refused,
        ),
        (
            "two lengths, the right one last",
            post(&[("content-length", "50"), ("content-length", "5")]),
            Refused,
        ),
        (
            "two lengths of nothing",
            Sent::new(
                "POST",
                &[("content-length", "0"), ("content-length", "44")],
                None,
            ),
            Refused,
        ),
        (
            "a length with a sign",
            post(&[("content-length", "+5")]),
            Refused,
        ),
        ("an empty length", post(&[("content-length", "")]), Refused),
        (
            "two lengths in one",
            post(&[("content-length", "5, 5")]),
            Refused,
        ),
        (
            "a length behind a wrong one",
            post(&[("content-length", "5"), ("content-length", "5, 50")]),
            Refused,
        ),
        (
            "a length with zeros before it",
            post(&[("content-length", "0005")]),
            hello,
        ),
        (
            "a length that is spelled with _",
            post(&[("content_length", "100")]),
            hello,
        ),
        (
            "an encoding that is spelled with _",
            post(&[("transfer_encoding", "chunked")]),
            hello,
        ),
        (
            "a body that looks like a request",
            Sent::new("POST", &[], Some(SMUGGLED)),
            Forwarded(SMUGGLED),
        ),
        (
            "a body that looks like chunks and a request",
            Sent::new("POST", &[], Some(CHUNKS)),
            Forwarded(CHUNKS),
        ),
        (
            "a body of GET that looks like a request",
            Sent::new("GET", &[], Some(SMUGGLED)),
            Forwarded(SMUGGLED),
        ),
        (
            "a body of HEAD that looks like a request",
            Sent::new("HEAD", &[], Some(SMUGGLED)),
            Forwarded(SMUGGLED),
        ),
        (
            "a body of DELETE that looks like a request",
            Sent::new("DELETE", &[], Some(SMUGGLED)),
            Forwarded(SMUGGLED),
        ),
        (
            "a body of OPTIONS that looks like a request",
            Sent::new("OPTIONS", &[], Some(SMUGGLED)),
            Forwarded(SMUGGLED),
        ),
        (
            "a body of nothing",
            Sent::new("POST", &[], Some("")),
            Forwarded(""),
        ),
        ("no body", plain("POST"), Forwarded("")),
        (
            "a body that is announced by `expect`",
            post(&[("expect", "100-continue")]),
            hello,
        ),
        (
            "who I am, as a trailer",
            post(&[("trailer", "x-forwarded-client-cert")]).with_trailers(&[(
                "x-forwarded-client-cert",
                "URI=spiffe://sidegate.local/king",
            )]),
            hello,
        ),
        (
            "a length as a trailer",
            post(&[("trailer", "content-length")]).with_trailers(&[("content-length", "100")]),
            hello,
        ),
        (
            "an encoding as a trailer",
            post(&[]).with_trailers(&[("transfer-encoding", "chunked")]),
            Refused,
        ),
        // It is no part of the request; it is left out.
        (
            "a path as a trailer",
            post(&[]).with_trailers(&[(":path", "/smuggled")]),
            hello,
        ),
        (
            "trailers without a body",
            plain("POST").with_trailers(&[("x-a", "1")]),
            Forwarded(""),
        ),
        (
            "trailers that are taken",
            Sent::new("GET", &[("te", "trailers")], None),
            Forwarded(""),
        ),
        (
            "a cookie in crumbs",
            Sent::new("GET", &[("cookie", "a=1"), ("cookie", "b=2")], None),
            Forwarded(""),
        ),
        (
            "a host beside the same authority",
            Sent::new("GET", &[("host", "localhost")], None),
            Forwarded(""),
        ),
        (
            "a host and no authority",
            Sent::new("GET", &[("host", "localhost")], None).but(":authority", None),
            Forwarded(""),
        ),
        (
            "an authority with a port",
            plain("GET").but(":authority", Some("localhost:81")),
            Forwarded(""),
        ),
        // A name may have a comma (RFC 3986 section 3.2.2); a list would have a space.
        (
            "a comma in the authority",
            plain("GET").but(":authority", Some("localhost,other")),
            Forwarded(""),
        ),
        (
            "an empty authority",
            plain("GET").but(":authority", Some("")),
            Refused,
        ),
        (
            "a scheme in plain text",
            plain("GET").but(":scheme", Some("http")),
            Forwarded(""),
        ),
        (
            "a scheme that is a target",
            plain("GET").but(":scheme", Some("http://other/x?")),
            Refused,
        ),
        (
            "a path with a host",
            plain("GET").but(":path", Some("http://localhost{T}")),
            Refused,
        ),
        (
            "a path that begins with a host",
            plain("GET").but(":path", Some("//other{T}")),
            Refused,
        ),
        (
            "a path with a fragment",
            plain("GET").but(":path", Some("{T}#/../admin")),
            Forwarded(""),
        ),
        (
            "a path with a query of odd characters",
            plain("GET").but(":path", Some("{T}?a= HTTP/1.1")),
            Refused,
        ),
        (
            "a path with a tab",
            plain("GET").but(":path", Some("{T}\tHTTP/1.1")),
            Refused,
        ),
        (
            "an asterisk",
            plain("OPTIONS").but(":path", Some("*")),
            Refused,
        ),
        ("a method in small letters", plain("get"), Forwarded("")),
        (
            "a method of odd characters",
            plain("G!#$%&'*+-.^_`|~"),
            Forwarded(""),
        ),
        ("a method with a slash", plain("GET/x"), Refused),
        ("an empty method", plain(""), Refused),
        (
            "a value with space around it",
            Sent::new("GET", &[("x-a", " 1 ")], None),
            Forwarded(""),
        ),
        (
            "a value with a tab",
            Sent::new("GET", &[("x-a", "1\t2")], None),
            Forwarded(""),
        ),
        (
            "a value that is not ASCII",
            Sent::new("GET", &[("x-a", "é")], None),
            Forwarded(""),
        ),
    ];
    let mut cases: Vec<_> = all
        .into_iter()
        .enumerate()
        .map(|(index, (what, sent, fate))| Case {
            what,
            sent: sent.frames(index),
            fate,
        })
        .collect();
    cases.extend(in_odd_frames(cases.len()));
    cases
}

/// Requests that are in order, in frames that are odd.
fn in_odd_frames(first: usize) -> Vec<Case<Vec<u8>>> {
    let head = |index: usize| {
        let target = format!("/{index}");
        let pseudo = [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "localhost"),
            (":path", target.as_str()),
        ];
        block(&pseudo)
    };
    let body = [
        frame(DATA, 0, 1, b""),
        frame(DATA, PADDED, 1, b"\x03hel\0\0\0"),
        frame(DATA, 0, 1, b""),
        frame(DATA, 0, 1, b"lo"),
        frame(DATA, END_STREAM, 1, b""),
    ]
    .concat();
    let (whole, split) = (head(first), head(first + 1));
    let (before, behind) = split.split_at(9);
    vec![
        Case {
            what: "a body in pieces, some of them empty or padded",
            sent: [frame(HEADERS, END_HEADERS, 1, &whole), body.clone()].concat(),
            fate: Forwarded("hello"),
        },
        Case {
            what: "a head in three frames",
            sent: [
                frame(HEADERS, 0, 1, before),
                frame(CONTINUATION, 0, 1, b""),
                frame(CONTINUATION, END_HEADERS, 1, behind),
                body,
            ]
            .concat(),
            fate: Forwarded("hello"),
        },
    ]
}

/// All cases, each with another request behind it on the same connection, and one of somebody else.
async fn attack(mut front: Front, cases: Vec<Case<Vec<u8>>>) -> (Seen, Vec<String>) {
    for (index, case) in cases.iter().enumerate() {
        let marker = format!("/{index}/marker");
        let mut peer = Peer::connect(&front.client).await;
        peer.send(&[&case.sent[..], &get(3, &marker)].concat())
            .await;
        let (mut answer, mut open) = (Vec::new(), vec![1, 3]);
        while let Some(frame) = peer.next().await {
            if frame.kind == DATA && frame.stream == 3 {
                answer.extend(&frame.payload);
            }
            let has_flag = [HEADERS, DATA].contains(&frame.kind) && frame.flags & END_STREAM != 0;
            if has_flag || frame.kind == RST_STREAM {
                open.retain(|stream| *stream != frame.stream);
            }
            if open.is_empty() {
                break;
            }
        }
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let is_its_own = answer.is_empty() || answer == format!("GET {marker}");
        front.check(is_its_own, case.what, &answer);
        front.serves_others(index, case.what).await;
    }
    tokio::task::block_in_place(|| front.compare(&cases))
}

#[tokio::test(flavor = "multi_thread")]
async fn six_servers_see_the_same_requests_whatever_comes_over_http2() {
    let origins = Origin::all("six_servers_see_the_same_requests_over_http2").await;
    attack_all(origins, cases(), attack).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_http2_see_the_same_requests_whatever_comes_over_http2() {
    let origins = Origin::all_http2("servers_of_http2_see_the_same_over_http2");
    attack_all(origins, cases(), attack).await;
}
