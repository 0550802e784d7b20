//! What both show of a request's body.

use http::Method;

use super::difference::Comparison;
use super::documents::MIRROR;
use super::explained::{ANSWER, BODIES, INPUT};
use super::sidecar::MAX_BODY_BYTES;
use super::{Ask, Pair, Protocol};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "--B\r
Content-Disposition: form-data; name=\"a\"\r
\r
1\r
--B\r
Content-Disposition: form-data; name=\"a\"; filename=\"a.txt\"\r
\r
2\r
--B\r
Content-Disposition: form-data; name=\"b\"\r
Content-Type: application/json\r
\r
{\"c\": 1}\r
--B--\r
";

fn cases() -> Vec<(&'static str, Ask)> {
    let post = |content_type: &str, body: &[u8]| {
        Ask::new(Method::POST, "/orders").body(content_type, body.to_vec())
    };
    let list_of = |bytes: usize| format!("[\"{}\"]", "x".repeat(bytes - 4));
    let longest = list_of(MAX_BODY_BYTES);
    let too_long = list_of(MAX_BODY_BYTES + 1);
    let long_form = format!("a={}", "x".repeat(MAX_BODY_BYTES));
    let long_text = "x".repeat(2 * MAX_BODY_BYTES);
    vec![
        (
            "JSON",
            post(JSON, br#"{"a": [1, 2.5, null, true], "b\/c": "\u00fc"}"#),
        ),
        (
            "JSON in UTF-8",
            post("application/json; charset=utf-8", "\"ü\"".as_bytes()),
        ),
        ("a single value", post(JSON, b" 1 ")),
        (
            "large numbers",
            post(JSON, b"[12345678901234567890123, 0.1]"),
        ),
        ("a key twice", post(JSON, br#"{"a": 1, "a": 2}"#)),
        ("JSON that ends early", post(JSON, br#"{"a": "#)),
        ("JSON with more behind it", post(JSON, b"{} {}")),
        ("JSON that is not UTF-8", post(JSON, b"\"a\xffb\"")),
        ("JSON with a byte order mark", post(JSON, b"\xef\xbb\xbf{}")),
        (
            "a type that ends with +json",
            post("application/problem+json", b"{}"),
        ),
        ("a type in capitals", post("Application/JSON", b"{}")),
        (
            "a type among others",
            post("text/x, application/json", b"{}"),
        ),
        ("a form", post(FORM, b"a=1&a=2&b=c+d%20e&e&=f")),
        ("a form with a semicolon", post(FORM, b"a=1;b=2")),
        ("a form with a broken escape", post(FORM, b"a=%zz")),
        (
            "parts",
            post("multipart/form-data; boundary=B", MULTIPART.as_bytes()),
        ),
        (
            "parts without a boundary",
            post("multipart/form-data", MULTIPART.as_bytes()),
        ),
        (
            "parts that end early",
            post("multipart/form-data; boundary=B", b"--B\r\n"),
        ),
        ("text", post("text/plain", b"words")),
        ("bytes", post("application/octet-stream", b"\x00\xff\xfe")),
        (
            "a body without a type",
            Ask::new(Method::POST, "/").untyped_body("words"),
        ),
        ("the longest JSON", post(JSON, longest.as_bytes())),
        ("JSON of a byte more", post(JSON, too_long.as_bytes())),
        ("a form that is too long", post(FORM, long_form.as_bytes())),
        (
            "text that is too long",
            post("text/plain", long_text.as_bytes()),
        ),
        (
            "JSON of untold length",
            post(JSON, br#"{"a": 1}"#).streamed(),
        ),
        (
            "longer JSON of untold length",
            post(JSON, too_long.as_bytes()).streamed(),
        ),
        (
            "a longer form of untold length",
            post(FORM, long_form.as_bytes()).streamed(),
        ),
        (
            "a forged word on the body",
            post(JSON, b"{}").header("x-envoy-auth-partial-body", b"true"),
        ),
    ]
}

#[test]
fn the_same_is_shown_of_a_body_and_the_same_bodies_are_refused() {
    let Some(pair) = Pair::start("the_same_is_shown_of_a_body", MIRROR) else {
        return;
    };
    let mut comparison = Comparison::new(&[&INPUT, &ANSWER, &BODIES]);
    for (name, ask) in cases() {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let outcomes = pair.ask(&ask, protocol);
            let [theirs, ours] = outcomes.map(|outcome| outcome.document(true));
            comparison.compare(name, &theirs, &ours);
        }
    }
    comparison.finish();
}
