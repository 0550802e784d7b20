//! What a component should not do.

use std::hint::black_box;
use std::io::Write as _;

use wasip2::http::types::{Fields, OutgoingResponse, ResponseOutparam};

use crate::reply::Reply;
use crate::sleep;

/// Traps: on WebAssembly an abort is the `unreachable` instruction.
#[inline(never)]
pub(crate) fn trap() {
    std::process::abort();
}

/// Traps once a head and one chunk are out.
pub(crate) fn trap_late(response: ResponseOutparam) {
    let _reply = first_chunk(response, Fields::new());
    trap();
}

/// Sends a head and one chunk, then nothing for ever.
pub(crate) fn stall(response: ResponseOutparam) {
    let _reply = first_chunk(response, Fields::new());
    sleep(u64::MAX);
}

/// Uses the processor for ever, without one call to the host.
pub(crate) fn spin() {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}

/// Allocates until it is refused, which Rust's allocator answers with a trap.
pub(crate) fn grow() {
    let mut kept = Vec::new();
    loop {
        kept.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}

/// Announces ten bytes and sends three.
pub(crate) fn short(response: ResponseOutparam) {
    first_chunk(response, ten_bytes()).finish(None);
}

/// Announces ten bytes and never opens the body.
pub(crate) fn bodiless(response: ResponseOutparam) {
    ResponseOutparam::set(response, Ok(OutgoingResponse::new(ten_bytes())));
}

/// Drops the body without finishing it.
pub(crate) fn unfinished(response: ResponseOutparam) {
    drop(first_chunk(response, Fields::new()));
}

fn ten_bytes() -> Fields {
    let headers = Fields::new();
    headers
        .set("content-length", &[b"10".to_vec()])
        .expect("a valid header");
    headers
}

fn first_chunk(response: ResponseOutparam, headers: Fields) -> Reply {
    let mut reply = Reply::start(response, 200, headers);
    let _ = reply.write_all(b"one");
    reply
}
