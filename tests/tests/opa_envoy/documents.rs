//! The input documents of both, field by field: a policy that denies with its input as the body.

use http::Method;

use super::difference::Comparison;
use super::explained::{ANSWER, DOCUMENTS, INPUT};
use super::{Ask, Pair, Protocol};

pub(crate) const MIRROR: &str = r#"
package envoy.authz

allow := {"allowed": false, "body": json.marshal(input)}
"#;

const BOTH: &[Protocol] = &[Protocol::Http1, Protocol::Http2];
const HTTP1: &[Protocol] = &[Protocol::Http1];
const HTTP2: &[Protocol] = &[Protocol::Http2];

/// Requests without a body, by name, and the protocols to send them by.
fn cases() -> Vec<(&'static str, Ask, &'static [Protocol])> {
    let get = Ask::get;
    let of = |method: Method| Ask::new(method, "/orders/7");
    let cookies = || get("/").header("cookie", b"a=1").header("cookie", b"b=2");
    vec![
        ("a path", get("/orders/7"), BOTH),
        ("the root", get("/"), BOTH),
        ("a slash at the end", get("/orders/"), BOTH),
        ("escapes in a path", get("/a%20b/caf%C3%A9/100%25"), BOTH),
        ("signs in a path", get("/~a:b@c!$&'()*+,="), BOTH),
        ("a path with an escaped slash", get("/a%2Fb"), BOTH),
        ("a path with parameters", get("/a;v=1/b"), BOTH),
        ("a path with dots", get("/a/../b"), BOTH),
        ("a path that is not UTF-8", get("/caf%e9"), BOTH),
        ("an empty query", get("/orders?"), BOTH),
        (
            "a query with repeated, empty and escaped values",
            get("/?a=1&a=2&empty=&bare&q=a+b%20c%26&=nameless&x=%C3%BC"),
            BOTH,
        ),
        ("a query with slashes", get("/a?to=/b/../c//d?e"), BOTH),
        ("a semicolon in the query", get("/?a=1;b=2&c=3"), BOTH),
        ("a broken escape in the query", get("/?a=%zz&c=3"), BOTH),
        ("a query that is not UTF-8", get("/?a=%ff&c=3"), BOTH),
        (
            "a repeated header",
            get("/").header("x-two", b"one").header("x-two", b"two, 3"),
            BOTH,
        ),
        ("an empty header", get("/").header("x-empty", b""), BOTH),
        ("a tab in a header", get("/").header("x-tab", b"a\tb"), BOTH),
        (
            "a header in UTF-8",
            get("/").header("x-name", "Zoë 🙂".as_bytes()),
            BOTH,
        ),
        (
            "a header that is not UTF-8",
            get("/").header("x-name", b"Zo\xeb"),
            BOTH,
        ),
        (
            "cookies in one header",
            get("/").header("cookie", b"a=1; b=2"),
            BOTH,
        ),
        ("cookies in two headers over HTTP/1.1", cookies(), HTTP1),
        ("cookies in two headers over HTTP/2", cookies(), HTTP2),
        (
            "credentials",
            get("/").header("authorization", b"Bearer a.b.c"),
            BOTH,
        ),
        (
            "ids of the caller",
            get("/").header("x-request-id", b"mine").header(
                "traceparent",
                b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            ),
            BOTH,
        ),
        (
            "a forged certificate and address",
            get("/")
                .header("x-forwarded-client-cert", b"URI=spiffe://king")
                .header("x-forwarded-for", b"10.0.0.1")
                .header("x-forwarded-proto", b"http"),
            BOTH,
        ),
        (
            "headers that a hop vouches for",
            get("/")
                .header("x-forwarded-host", b"elsewhere")
                .header("x-forwarded-port", b"1")
                .header("forwarded", b"for=10.0.0.1"),
            BOTH,
        ),
        (
            "headers that Envoy vouches for",
            get("/")
                .header("x-envoy-original-path", b"/king")
                .header("x-envoy-external-address", b"10.0.0.1")
                .header("x-envoy-internal", b"true")
                .header("x-envoy-auth-partial-body", b"true"),
            BOTH,
        ),
        (
            "headers for one hop",
            get("/")
                .header("connection", b"keep-alive, x-private")
                .header("x-private", b"1")
                .header("keep-alive", b"timeout=5")
                .header("proxy-connection", b"keep-alive"),
            HTTP1,
        ),
        ("te", get("/").header("te", b"trailers"), BOTH),
        ("a host with a port", get("/").host("localhost:8443"), BOTH),
        ("a host in capitals", get("/").host("LocalHost"), BOTH),
        ("PUT", of(Method::PUT), BOTH),
        ("POST", of(Method::POST), BOTH),
        ("DELETE", of(Method::DELETE), BOTH),
        ("OPTIONS", of(Method::OPTIONS), BOTH),
        (
            "a method of their own",
            of(Method::from_bytes(b"PURGE").unwrap()),
            BOTH,
        ),
        (
            "a type without a body",
            of(Method::POST).header("content-type", b"application/json"),
            BOTH,
        ),
        (
            "a length of nothing",
            of(Method::POST).header("content-length", b"0"),
            BOTH,
        ),
    ]
}

#[test]
fn the_input_documents_are_the_same_field_by_field() {
    let Some(pair) = Pair::start("the_input_documents_are_the_same", MIRROR) else {
        return;
    };
    let mut comparison = Comparison::new(&[&INPUT, &ANSWER, &DOCUMENTS]);
    for (name, ask, protocols) in cases() {
        for protocol in protocols {
            let outcomes = pair.ask(&ask, *protocol);
            let [theirs, ours] = outcomes.map(|outcome| outcome.document(true));
            comparison.compare(name, &theirs, &ours);
        }
    }
    comparison.finish();
}
