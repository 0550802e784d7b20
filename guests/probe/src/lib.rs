//! A component that does, on request, everything that a host must cope with. For tests only.

mod misbehave;
mod reply;

use std::io::Write as _;

use wasip2::cli::environment::{get_arguments, get_environment};
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::exports::http::incoming_handler::Guest;
use wasip2::filesystem::preopens::get_directories;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingBody, IncomingRequest, OutgoingBody, OutgoingRequest,
    ResponseOutparam, Scheme,
};
use wasip2::io::streams::StreamError;
use wasip2::sockets::network::IpAddressFamily;
use wasip2::sockets::tcp_create_socket::create_tcp_socket;

use crate::reply::{Reply, text};

struct Probe;

wasip2::http::proxy::export!(Probe);

impl Guest for Probe {
    fn handle(request: IncomingRequest, response: ResponseOutparam) {
        let path = request.path_with_query().unwrap_or_default();
        let mut segments = path.trim_start_matches('/').splitn(2, '/');
        let command = segments.next().unwrap_or_default();
        let argument = segments.next().unwrap_or_default();
        let number: u64 = argument.parse().unwrap_or_default();

        match command {
            "echo" => echo(&request, response),
            "headers" => text(response, 200, &headers(&request)),
            "status" => text(response, u16::try_from(number).unwrap_or_default(), ""),
            "large" => large(response, number),
            "sleep" => {
                sleep(number);
                text(response, 200, "slept\n");
            }
            "after" => {
                text(response, 200, "answered\n");
                sleep(number);
            }
            "outbound" => text(response, 200, &format!("{:?}\n", outbound())),
            "environment" => text(response, 200, &environment()),
            "log" => log(response, argument),
            "error" => ResponseOutparam::set(response, Err(ErrorCode::ConfigurationError)),
            "trap" => misbehave::trap(),
            "trap-late" => misbehave::trap_late(response),
            "stall" => misbehave::stall(response),
            "spin" => misbehave::spin(),
            "grow" => misbehave::grow(),
            "silent" => drop(response),
            "short" => misbehave::short(response),
            "bodiless" => misbehave::bodiless(response),
            "unfinished" => misbehave::unfinished(response),
            _ => text(response, 404, "no such probe\n"),
        }
    }
}

pub(crate) fn sleep(milliseconds: u64) {
    subscribe_duration(milliseconds.saturating_mul(1_000_000)).block();
}

/// Streams the request's body and trailers back as they arrive.
fn echo(request: &IncomingRequest, response: ResponseOutparam) {
    let headers = Fields::new();
    for value in request.headers().get("content-type") {
        headers
            .append("content-type", &value)
            .expect("a header that came in goes out");
    }
    let incoming = request.consume().expect("the body is taken once");
    let mut reply = Reply::start(response, 200, headers);

    let stream = incoming.stream().expect("the stream is taken once");
    loop {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => {
                if reply.write_all(&chunk).is_err() {
                    return;
                }
            }
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => return,
        }
    }
    drop(stream);

    let trailers = IncomingBody::finish(incoming);
    trailers.subscribe().block();
    let trailers = trailers
        .get()
        .and_then(Result::ok)
        .and_then(Result::ok)
        .flatten();
    reply.finish(trailers);
}

fn headers(request: &IncomingRequest) -> String {
    let mut lines = format!(
        "method: {:?}\nscheme: {:?}\nauthority: {}\n",
        request.method(),
        request.scheme(),
        request.authority().unwrap_or_default()
    );
    for (name, value) in request.headers().entries() {
        lines.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(&value)));
    }
    lines
}

fn large(response: ResponseOutparam, mut bytes: u64) {
    let mut reply = Reply::start(response, 200, Fields::new());
    let chunk = [b'x'; 16 * 1024];
    while bytes > 0 {
        let length = chunk
            .len()
            .min(usize::try_from(bytes).unwrap_or(usize::MAX));
        if reply.write_all(&chunk[..length]).is_err() {
            return;
        }
        bytes -= length as u64;
    }
    reply.finish(None);
}

fn outbound() -> Result<u16, ErrorCode> {
    let request = OutgoingRequest::new(Fields::new());
    request
        .set_scheme(Some(&Scheme::Http))
        .expect("a valid scheme");
    request
        .set_authority(Some("example.com"))
        .expect("a valid authority");
    request
        .set_path_with_query(Some("/"))
        .expect("a valid path");
    let body = request.body().expect("the body is taken once");
    let pending = outgoing_handler::handle(request, None)?;
    OutgoingBody::finish(body, None)?;
    pending.subscribe().block();
    let answer = pending
        .get()
        .expect("it is ready")
        .expect("it is taken once")?;
    Ok(answer.status())
}

/// How much of the machine can be seen: every number is 0 where nothing was granted.
fn environment() -> String {
    format!(
        "variables: {}\narguments: {}\npreopens: {}\ntcp: {:?}\n",
        get_environment().len(),
        get_arguments().len(),
        get_directories().len(),
        create_tcp_socket(IpAddressFamily::Ipv4)
            .map(|_| ())
            .map_err(|code| code.name()),
    )
}

fn log(response: ResponseOutparam, line: &str) {
    let stderr = wasip2::cli::stderr::get_stderr();
    let written = stderr.blocking_write_and_flush(format!("{line}\n").as_bytes());
    text(
        response,
        200,
        if written.is_ok() {
            "logged\n"
        } else {
            "not logged\n"
        },
    );
}
