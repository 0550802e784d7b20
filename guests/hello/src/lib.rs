//! A component that greets its caller: the smallest useful `wasi:http` handler.
//!
//! Build it with `cargo build --release --target wasm32-wasip2`.

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::types::{
    Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
};

struct Hello;

wasip2::http::proxy::export!(Hello);

impl Guest for Hello {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        match request.method() {
            Method::Get | Method::Head => respond(response, 200, &greeting(&request)),
            _ => respond(response, 405, "Only GET is answered here.\n"),
        }
    }
}

fn greeting(request: &IncomingRequest) -> String {
    let path = request.path_with_query().unwrap_or_default();
    match caller(request) {
        Some(id) => format!("Hello from a component, {path}\nYou are {id}\n"),
        None => format!("Hello from a component, {path}\n"),
    }
}

/// The caller's SPIFFE ID, as the proxy in front wrote it into `x-forwarded-client-cert`.
///
/// Several proxies make a list; its last element speaks of the one that connected to ours.
fn caller(request: &IncomingRequest) -> Option<String> {
    let header = request.headers().get("x-forwarded-client-cert").pop()?;
    let header = String::from_utf8(header).ok()?;
    let nearest = split_unquoted(&header, ',').pop()?;
    let id = split_unquoted(nearest, ';')
        .into_iter()
        .find_map(|pair| pair.strip_prefix("URI="))?;
    Some(id.to_owned())
}

/// Splits at `separator`, but not within quotes: `Subject="…"` is text that the caller chose.
fn split_unquoted(text: &str, separator: char) -> Vec<&str> {
    let (mut quoted, mut escaped) = (false, false);
    let parts = text.split(|character| {
        if character == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = character == '\\' && !escaped;
        character == separator && !quoted
    });
    parts.map(str::trim).collect()
}

fn respond(response: ResponseOutparam, status: u16, text: &str) {
    let headers = Fields::new();
    headers
        .set("content-type", &[b"text/plain; charset=utf-8".to_vec()])
        .expect("a valid header");
    let outgoing = OutgoingResponse::new(headers);
    outgoing.set_status_code(status).expect("a valid status");
    let body = outgoing.body().expect("the body is taken once");

    // The head goes out now; the body follows as it is written.
    ResponseOutparam::set(response, Ok(outgoing));
    let stream = body.write().expect("the stream is taken once");
    for chunk in text.as_bytes().chunks(4096) {
        if stream.blocking_write_and_flush(chunk).is_err() {
            return; // The caller went away.
        }
    }
    drop(stream);
    let _ = OutgoingBody::finish(body, None);
}
