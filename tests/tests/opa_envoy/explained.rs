//! Where Sidegate and Envoy with OPA's plugin differ, and why. What is not in these lists is equal.

use super::difference::Difference::{
    Between, OnlyOurs, OnlyTheirs, Own, Refused, RefusedByThem, Whatever,
};
use super::difference::{Difference, Explanation};

/// What differs in every input document.
pub(crate) static INPUT: [Explanation; 10] = [
    always(
        "/input/attributes/source/address/socketAddress/portValue",
        Own,
        "each connection has a port of its own",
    ),
    always(
        "/input/attributes/destination/address/socketAddress/portValue",
        Own,
        "each listener has a port of its own",
    ),
    always(
        "/input/attributes/request/time/seconds",
        Own,
        "they are asked one after the other",
    ),
    always(
        "/input/attributes/request/time/nanos",
        Own,
        "they are asked one after the other",
    ),
    always(
        "/input/attributes/request/http/id",
        Own,
        "Envoy has a number for each request, Sidegate its x-request-id",
    ),
    always(
        "/input/attributes/request/http/headers/x-request-id",
        Own,
        "each request has an id of its own",
    ),
    always(
        "/input/attributes/request/http/headers/traceparent",
        OnlyOurs,
        "Sidegate starts a trace; an Envoy does where it is told to",
    ),
    always(
        "/input/attributes/request/http/headers/x-forwarded-for",
        Own,
        "for a client on the same machine Envoy says the machine's address, Sidegate the client's",
    ),
    always(
        "/input/attributes/request/http/headers/x-envoy-external-address",
        OnlyTheirs,
        "Envoy's own header",
    ),
    always(
        "/answer/headers/content-length",
        Own,
        "the body is the input document, whose values differ",
    ),
];

/// What differs in every answer.
pub(crate) static ANSWER: [Explanation; 3] = [
    always(
        "/answer/headers/date",
        Own,
        "they are asked one after the other",
    ),
    always("/answer/headers/server", OnlyTheirs, "Envoy names itself"),
    always(
        "/answer/headers/x-request-id",
        OnlyOurs,
        "Sidegate tells the caller under which id its request is logged",
    ),
];

/// What differs in every request at the upstream, and in its response.
pub(crate) static FORWARDED: [Explanation; 5] = [
    always(
        "/forwarded/headers/x-request-id",
        Own,
        "each request has an id of its own",
    ),
    always(
        "/forwarded/headers/traceparent",
        OnlyOurs,
        "Sidegate starts a trace; an Envoy does where it is told to",
    ),
    always(
        "/forwarded/headers/x-forwarded-for",
        Own,
        "for a client on the same machine Envoy says the machine's address, Sidegate the client's",
    ),
    always(
        "/forwarded/headers/x-envoy-external-address",
        OnlyTheirs,
        "Envoy's own header",
    ),
    always(
        "/answer/headers/x-private",
        OnlyTheirs,
        "the upstream's Connection header names it: it is for one hop, which Envoy does not heed",
    ),
];

/// What differs in some input documents.
pub(crate) static DOCUMENTS: [Explanation; 13] = [
    in_case(
        "ids of the caller",
        "/input/attributes/request/http/headers/traceparent",
        Own,
        "Sidegate continues the trace with a span of its own, which the policy sees as the upstream does",
    ),
    in_case(
        "cookies in two headers over HTTP/1.1",
        "/input/attributes/request/http/headers/cookie",
        Between(r#""a=1,b=2""#, r#""a=1; b=2""#),
        "Envoy joins them by a comma, which is no separator of cookies (RFC 9113 section 8.2.3)",
    ),
    in_case(
        "headers that a hop vouches for",
        "/input/attributes/request/http/headers/forwarded",
        OnlyTheirs,
        "Sidegate removes it: nobody vouches for what the client says",
    ),
    in_case(
        "headers that a hop vouches for",
        "/input/attributes/request/http/headers/x-forwarded-host",
        OnlyTheirs,
        "Sidegate removes it: nobody vouches for what the client says",
    ),
    in_case(
        "headers that a hop vouches for",
        "/input/attributes/request/http/headers/x-forwarded-port",
        OnlyTheirs,
        "Sidegate removes it: nobody vouches for what the client says",
    ),
    in_case(
        "a path with an escaped slash",
        "/answer/headers/connection",
        OnlyTheirs,
        "both refuse it; Envoy then closes the connection",
    ),
    in_case(
        "a semicolon in the query",
        "",
        Refused(400),
        "OPA leaves the parameter out, an application may not: it can be read in two ways",
    ),
    in_case(
        "a broken escape in the query",
        "",
        Refused(400),
        "OPA leaves the parameter out, an application may not: it can be read in two ways",
    ),
    in_case(
        "a query that is not UTF-8",
        "",
        Refused(400),
        "OPA shows another text than is forwarded",
    ),
    in_case(
        "a path that is not UTF-8",
        "",
        Refused(400),
        "OPA shows another text than is forwarded",
    ),
    in_case(
        "a header that is not UTF-8",
        "",
        Refused(400),
        "Envoy shows exclamation marks in its place, and forwards it as it is",
    ),
    in_case(
        "a path with parameters",
        "",
        Refused(400),
        "an application may read it without them",
    ),
    in_case(
        "a path with dots",
        "",
        Refused(400),
        "Envoy resolves them; Sidegate forwards paths as they came or not at all",
    ),
];

/// What differs where a request has a body.
pub(crate) static BODIES: [Explanation; 12] = [
    always(
        "/answer/body",
        Own,
        "OPA tells the caller what it could not parse",
    ),
    always(
        "/answer/headers/content-type",
        OnlyTheirs,
        "OPA tells the caller what it could not parse",
    ),
    always(
        "/answer/headers/content-length",
        OnlyTheirs,
        "OPA tells the caller what it could not parse",
    ),
    always(
        "/answer/headers/connection",
        OnlyTheirs,
        "Envoy closes the connection after a refusal",
    ),
    in_case(
        "a key twice",
        "",
        Refused(400),
        "it can be read in two ways; OPA takes the last",
    ),
    in_case(
        "JSON that is not UTF-8",
        "",
        Refused(400),
        "Envoy shows exclamation marks in its place, and forwards it as it is",
    ),
    in_case(
        "parts that end early",
        "",
        Refused(400),
        "to Go they are no parts, but no mistake",
    ),
    in_case(
        "text that is too long",
        "/input/truncated_body",
        Between("false", "true"),
        "later versions of the plugin say so too",
    ),
    in_case(
        "longer JSON of untold length",
        "",
        RefusedByThem(400),
        "later versions of the plugin see that it is cut, too",
    ),
    in_case(
        "a longer form of untold length",
        "/input/attributes/request/http/size",
        Own,
        "Envoy says how much has come, Sidegate that it does not know",
    ),
    in_case(
        "a longer form of untold length",
        "/input/parsed_body",
        Whatever,
        "later versions of the plugin see that it is cut, too",
    ),
    in_case(
        "a longer form of untold length",
        "/input/truncated_body",
        Between("false", "true"),
        "later versions of the plugin see that it is cut, too",
    ),
];

/// What some edits of queries lead to.
pub(crate) static QUERIES: [Explanation; 4] = [
    in_case(
        "query-set",
        "/forwarded/target",
        Between(
            r#""/query-set/0?q=new&s=1&t=1""#,
            r#""/query-set/0?s=1&q=new&t=1""#,
        ),
        "Envoy puts it in the place of the old one, Sidegate at the end",
    ),
    in_case(
        "query-set-list",
        "/forwarded/target",
        Between(
            r#""/query-set-list/0?q=2&s=1""#,
            r#""/query-set-list/0?s=1&q=2""#,
        ),
        "Envoy puts it in the place of the old one, Sidegate at the end",
    ),
    in_case(
        "query-set-space",
        "/answer/status",
        Between("400", "403"),
        "Envoy sets it as it is, which makes no path; Sidegate denies",
    ),
    in_case(
        "query-set-space",
        "/answer/headers/content-length",
        OnlyTheirs,
        "it is 0",
    ),
];

/// What some answers of the policy lead to.
pub(crate) static DECISIONS: [Explanation; 12] = [
    in_case(
        "status-point-zero",
        "/answer/status",
        Between("403", "404"),
        "to OPA 404.0 is no whole number",
    ),
    in_case(
        "header-list",
        "/forwarded/headers/x-tenant",
        Between(r#"["green"]"#, r#"["blue","green"]"#),
        "Envoy sets one after the other, so the last remains; Sidegate forwards both",
    ),
    in_case(
        "header-host",
        "",
        Refused(403),
        "what was decided is what is forwarded",
    ),
    in_case(
        "header-path",
        "",
        Refused(403),
        "what was decided is what is forwarded",
    ),
    in_case(
        "header-authority",
        "",
        Refused(403),
        "what was decided is what is forwarded",
    ),
    in_case("header-te", "", Refused(403), "it is for one hop"),
    in_case(
        "header-certificate",
        "",
        Refused(403),
        "the proxy vouches for it",
    ),
    in_case(
        "remove-certificate",
        "",
        Refused(403),
        "the proxy vouches for it",
    ),
    in_case(
        "remove-host",
        "",
        Refused(403),
        "Envoy leaves them as they are; Sidegate does not do less than it is told",
    ),
    in_case(
        "remove-path",
        "",
        Refused(403),
        "Envoy leaves them as they are; Sidegate does not do less than it is told",
    ),
    in_case(
        "allowed-status-text",
        "",
        Refused(403),
        "OPA reads the keys of its verdict only, Sidegate all",
    ),
    in_case(
        "allowed-body-number",
        "",
        Refused(403),
        "OPA reads the keys of its verdict only, Sidegate all",
    ),
];

const fn always(at: &'static str, how: Difference, why: &'static str) -> Explanation {
    in_case("", at, how, why)
}

const fn in_case(
    case: &'static str,
    at: &'static str,
    how: Difference,
    why: &'static str,
) -> Explanation {
    Explanation { case, at, how, why }
}
