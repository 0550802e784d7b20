//! The requests of HTTP/1.1 that are sent. `{T}` stands for a target of their own.

use super::{Case, Fate, Forwarded, Refused, SMUGGLED};

/// A request whose head is in order but for these lines.
fn post(lines: &str, body: &str) -> String {
    format!("POST {{T}} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n\r\n{body}")
}

fn chunked(chunks: &str) -> String {
    post("transfer-encoding: chunked", chunks)
}

fn get(lines: &str) -> String {
    format!("GET {{T}} HTTP/1.1\r\nhost: localhost\r\n{lines}\r\n\r\n")
}

fn line(line: &str) -> String {
    format!("{line}\r\nhost: localhost\r\n\r\n")
}

/// All of them, each with a target of its own.
pub(super) fn cases() -> Vec<Case<Vec<u8>>> {
    let all = [framing(), chunks(), targets_and_lines(), headers()].concat();
    let all = all.into_iter().enumerate();
    all.map(|(index, (what, text, fate))| Case {
        what,
        sent: text.replace("{T}", &format!("/{index}")).into_bytes(),
        fate,
    })
    .collect()
}

type Text = (&'static str, String, Fate);

/// How long a body is (RFC 9112 section 6).
fn framing() -> Vec<Text> {
    let in_chunks = format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len());
    let hello = "5\r\nhello\r\n0\r\n\r\n";
    vec![
        (
            "a length before chunks",
            post(
                "content-length: 6\r\ntransfer-encoding: chunked",
                "0\r\n\r\nG",
            ),
            Forwarded(""),
        ),
        (
            "chunks before a length",
            post(
                "transfer-encoding: chunked\r\ncontent-length: 6",
                "0\r\n\r\nG",
            ),
            Forwarded(""),
        ),
        (
            "a length that ends within the chunks",
            post(
                "content-length: 4\r\ntransfer-encoding: chunked",
                &in_chunks,
            ),
            Forwarded(SMUGGLED),
        ),
        (
            "an encoding in upper case",
            post("Transfer-Encoding: CHUNKED", hello),
            Forwarded("hello"),
        ),
        (
            "an encoding with space around it",
            post("transfer-encoding: \t chunked \t", hello),
            Forwarded("hello"),
        ),
        (
            "an encoding in quotes",
            post("transfer-encoding: \"chunked\"", hello),
            Refused,
        ),
        (
            "an encoding behind a vertical tab",
            post("transfer-encoding: \x0bchunked", hello),
            Refused,
        ),
        (
            "chunks twice",
            post("transfer-encoding: chunked, chunked", hello),
            Refused,
        ),
        (
            "chunks on two lines",
            post(
                "transfer-encoding: chunked\r\ntransfer-encoding: chunked",
                hello,
            ),
            Refused,
        ),
        (
            "chunks of what is compressed",
            post("transfer-encoding: gzip, chunked", hello),
            Refused,
        ),
        (
            "chunks of what is compressed, on two lines",
            post(
                "transfer-encoding: gzip\r\ntransfer-encoding: chunked",
                hello,
            ),
            Refused,
        ),
        (
            "chunks of what is left as it is",
            post("transfer-encoding: identity, chunked", hello),
            Refused,
        ),
        (
            "an empty encoding before chunks",
            post("transfer-encoding: , chunked", hello),
            Refused,
        ),
        (
            "a parameter of chunks",
            post("transfer-encoding: chunked;q=1", hello),
            Refused,
        ),
        (
            "no encoding beside a length",
            post("transfer-encoding: identity\r\ncontent-length: 5", "hello"),
            Refused,
        ),
        (
            "an encoding that is spelled with _",
            post("transfer_encoding: chunked\r\ncontent-length: 5", "hello"),
            Forwarded("hello"),
        ),
        (
            "a length that is spelled with _",
            post("content_length: 100\r\ncontent-length: 5", "hello"),
            Forwarded("hello"),
        ),
        (
            "a length with space around it",
            post("content-length: \t 5 \t", "hello"),
            Forwarded("hello"),
        ),
        (
            "a length with zeros before it",
            post("content-length: 0005", "hello"),
            Forwarded("hello"),
        ),
        (
            "the same length twice",
            post("content-length: 5\r\ncontent-length: 5", "hello"),
            Forwarded("hello"),
        ),
        (
            "a length with a sign",
            post("content-length: +5", "hello"),
            Refused,
        ),
        (
            "two lengths in one",
            post("content-length: 5,5", "hello"),
            Refused,
        ),
        (
            "two lengths in one with a space",
            post("content-length: 5, 5", "hello"),
            Refused,
        ),
        (
            "a hexadecimal length",
            post("content-length: 0x5", "hello"),
            Refused,
        ),
        (
            "a length with a space within",
            post("content-length: 0 5", "hello"),
            Refused,
        ),
        (
            "a length with a point",
            post("content-length: 5.0", "hello"),
            Refused,
        ),
        ("an empty length", post("content-length:", "hello"), Refused),
        (
            "two lengths",
            post("content-length: 5\r\ncontent-length: 0", "hello"),
            Refused,
        ),
        (
            "a length and none",
            post("content-length: 5\r\ncontent-length:", "hello"),
            Refused,
        ),
        (
            "a body of GET",
            get("content-length: 5").replace("\r\n\r\n", "\r\n\r\nhello"),
            Forwarded("hello"),
        ),
        (
            "a body of GET in chunks",
            get("transfer-encoding: chunked") + hello,
            Forwarded("hello"),
        ),
        (
            "a body of DELETE in chunks",
            chunked(hello).replace("POST", "DELETE"),
            Forwarded("hello"),
        ),
        (
            "a body of HEAD",
            post("content-length: 5", "hello").replace("POST", "HEAD"),
            Forwarded("hello"),
        ),
        (
            "a body that is announced by `Expect`",
            post("expect: 100-continue\r\ncontent-length: 5", "hello"),
            Forwarded("hello"),
        ),
        (
            "a length that is to be taken out",
            post("connection: content-length\r\ncontent-length: 5", "hello"),
            Forwarded("hello"),
        ),
        (
            "chunks that are to be taken out",
            post(
                "connection: transfer-encoding\r\ntransfer-encoding: chunked",
                hello,
            ),
            Forwarded("hello"),
        ),
        (
            "an upgrade with a body",
            post(
                "connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 5",
                "hello",
            ),
            Forwarded("hello"),
        ),
        (
            "an upgrade to h2c",
            get("connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk"),
            Forwarded(""),
        ),
        (
            "a body in HTTP/1.0",
            post("content-length: 5", "hello").replace("1.1", "1.0"),
            Forwarded("hello"),
        ),
        (
            "a kept connection in HTTP/1.0",
            get("connection: keep-alive").replace("1.1", "1.0"),
            Forwarded(""),
        ),
    ]
}

/// Chunks (RFC 9112 section 7.1).
fn chunks() -> Vec<Text> {
    let end = "0\r\n\r\n";
    let hello = |first: &str| chunked(&format!("{first}\r\nhello\r\n{end}"));
    let forwarded = Forwarded("hello");
    vec![
        ("a size with zeros before it", hello("0005"), forwarded),
        ("an extension", hello("5;a=b"), forwarded),
        ("an extension in quotes", hello("5;a=\"b;c\""), forwarded),
        (
            "a size in upper case",
            chunked(&format!("A\r\nhellohello\r\n{end}")),
            Forwarded("hellohello"),
        ),
        (
            "an end of many zeros",
            chunked("5\r\nhello\r\n000\r\n\r\n"),
            forwarded,
        ),
        (
            "an end with an extension",
            chunked("5\r\nhello\r\n0;a=b\r\n\r\n"),
            forwarded,
        ),
        (
            "a trailer that is announced",
            post(
                "transfer-encoding: chunked\r\ntrailer: x-a",
                "5\r\nhello\r\n0\r\nx-a: 1\r\n\r\n",
            ),
            forwarded,
        ),
        (
            "who I am, as a trailer",
            post(
                "transfer-encoding: chunked\r\ntrailer: x-forwarded-client-cert",
                "5\r\nhello\r\n0\r\nx-forwarded-client-cert: URI=spiffe://sidegate.local/king\r\n\r\n",
            ),
            forwarded,
        ),
        (
            "a length and a host as trailers",
            post(
                "transfer-encoding: chunked\r\ntrailer: content-length, host, transfer-encoding",
                "5\r\nhello\r\n0\r\ncontent-length: 100\r\nhost: other\r\n\
                 transfer-encoding: chunked\r\n\r\n",
            ),
            forwarded,
        ),
        (
            "a request behind the end",
            chunked(&format!("5\r\nhello\r\n{end}")).replace(end, "0\r\n\r\n\r\n"),
            forwarded,
        ),
        ("a size in quotes", hello("\"5\""), Refused),
        ("a size of 65 bits", hello("10000000000000005"), Refused),
        (
            "a line end within an extension",
            hello("5;a=\"\n\""),
            Refused,
        ),
    ]
}

/// The first line (RFC 9112 section 3).
fn targets_and_lines() -> Vec<Text> {
    vec![
        (
            "a target with a host",
            line("GET http://localhost{T} HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "a target with a host in other letters",
            line("GET HTTP://LOCALHOST{T} HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "a target with another port",
            line("GET http://localhost:81{T} HTTP/1.1"),
            Refused,
        ),
        (
            "a fragment",
            line("GET {T}#/../admin HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "a query of odd characters",
            line("GET {T}?a={}|^`<> HTTP/1.1"),
            Refused,
        ),
        (
            "a query with a request",
            line("GET {T}?a=%20HTTP/1.1%0d%0a HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "a path of odd characters",
            line("GET {T}/{}|^`<>\" HTTP/1.1"),
            Refused,
        ),
        (
            "an escaped character",
            line("GET {T}/%41 HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "a question mark, twice",
            line("GET {T}??/../b HTTP/1.1"),
            Forwarded(""),
        ),
        ("an asterisk", line("OPTIONS * HTTP/1.1"), Refused),
        (
            "a method in small letters",
            line("get {T} HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "a method that nobody knows",
            line("SPLICE {T} HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "a method of odd characters",
            line("G!#$%&'*+-.^_`|~ {T} HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "a method of HTTP/2",
            line("PRI {T} HTTP/1.1"),
            Forwarded(""),
        ),
        (
            "lines before the first",
            line("\r\n\r\nGET {T} HTTP/1.1"),
            Forwarded(""),
        ),
        ("two spaces", line("GET  {T} HTTP/1.1"), Refused),
        ("a tab", line("GET\t{T} HTTP/1.1"), Refused),
        ("a space behind", line("GET {T} HTTP/1.1 "), Refused),
        ("a version with a sign", line("GET {T} HTTP/+1.1"), Refused),
        (
            "a version of two digits",
            line("GET {T} HTTP/1.10"),
            Refused,
        ),
        (
            "a version in small letters",
            line("GET {T} http/1.1"),
            Refused,
        ),
        (
            "lines that end with a bare LF",
            line("GET {T} HTTP/1.1").replace("\r\n", "\n"),
            Forwarded(""),
        ),
    ]
}

/// Headers (RFC 9112 section 5).
fn headers() -> Vec<Text> {
    let host = |host: &str| format!("GET {{T}} HTTP/1.1\r\nhost: {host}\r\n\r\n");
    vec![
        ("a host in other letters", host("LOCALHOST"), Forwarded("")),
        ("a host with a port", host("localhost:81"), Forwarded("")),
        ("a host without its port", host("localhost:"), Forwarded("")),
        ("a host of IPv6", host("[::1]:81"), Forwarded("")),
        ("two hosts in one", host("localhost, other"), Refused),
        ("a host with a fragment", host("localhost#other"), Refused),
        ("an empty host", host(""), Refused),
        (
            "a bare LF before a header",
            get("x-a: 1\nx-b: 2"),
            Forwarded(""),
        ),
        ("a form feed in a value", get("x-a: 1\x0c2"), Refused),
        ("a value that is empty", get("x-a:"), Forwarded("")),
        ("a name with a slash", get("x/a: 1"), Refused),
        ("a name in brackets", get("[x-a]: 1"), Refused),
        (
            "a folded length",
            post("content-length:\r\n 5", "hello"),
            Refused,
        ),
        (
            "a host that is to be taken out",
            get("connection: host"),
            Forwarded(""),
        ),
        (
            "a cookie in two",
            get("cookie: a=1\r\ncookie: b=2"),
            Forwarded(""),
        ),
        (
            "an expectation that nobody knows",
            get("expect: 200-ok"),
            Forwarded(""),
        ),
        ("a range", get("range: bytes=0-1,1-2,2-3"), Forwarded("")),
        (
            "a method by header",
            get("x-http-method-override: DELETE"),
            Forwarded(""),
        ),
        (
            "a target by header",
            get("x-original-url: /admin"),
            Forwarded(""),
        ),
    ]
}
