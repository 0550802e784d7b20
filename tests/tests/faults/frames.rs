//! The Workload API as bytes on its socket: HTTP/2 frames (RFC 9113 section 4) without a library
//! that would read when it should not, or mend what should be broken.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use prost::Message;
use sidegate_tests::Sidegate;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// How long an answer may take before a test gives up; nothing is expected to take that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came back for a call.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The SPIFFE IDs of a first message.
    Identities(Vec<String>),
    /// The call ended without a message.
    Refused,
    /// The connection ended.
    Closed,
}

struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<Svid>,
}

#[derive(Clone, PartialEq, Message)]
struct Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
}

/// What a client begins with. Each of its streams takes `window` bytes before it must be read.
pub(crate) fn preface(window: u32) -> Vec<u8> {
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let mut settings = INITIAL_WINDOW_SIZE.to_be_bytes().to_vec();
    settings.extend(window.to_be_bytes());
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        frame(SETTINGS, 0, 0, &settings),
    ]
    .concat()
}

/// A whole call of `FetchX509SVID` on a stream of an odd number.
pub(crate) fn fetch(stream: u32) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/SpiffeWorkloadAPI/FetchX509SVID"),
        (":authority", "localhost"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
        ("workload.spiffe.io", "true"),
    ];
    let block = fields.map(|(name, value)| literal(name, value)).concat();
    let empty_message = [0; 5];
    [
        frame(HEADERS, END_HEADERS, stream, &block),
        frame(DATA, END_STREAM, stream, &empty_message),
    ]
    .concat()
}

/// A connection of this process.
pub(crate) fn connect(sidegate: &Sidegate) -> UnixStream {
    let path = sidegate.ready.workload_socket.strip_prefix("unix://");
    UnixStream::connect(path.expect("a socket's address")).expect("the socket is there")
}

/// Connects, calls, and reads the first message.
pub(crate) fn call(sidegate: &Sidegate) -> Answer {
    let mut stream = connect(sidegate);
    let sent = stream.write_all(&[preface(1 << 20), fetch(1)].concat());
    if sent.is_err() {
        return Answer::Closed;
    }
    answer(&mut stream, 1)
}

/// The first message of a stream.
pub(crate) fn answer(connection: &mut UnixStream, stream: u32) -> Answer {
    connection
        .set_read_timeout(Some(PATIENCE))
        .expect("it is set");
    let mut message = Vec::new();
    loop {
        let Some(frame) = read(connection) else {
            return Answer::Closed;
        };
        match frame.kind {
            GO_AWAY => return Answer::Closed,
            RESET if frame.stream == stream => return Answer::Refused,
            DATA if frame.stream == stream => message.extend(frame.payload),
            _ => {}
        }
        if let [0, length @ ..] = message.as_slice()
            && let Some((length, body)) = length.split_first_chunk()
            && body.len() == usize::try_from(u32::from_be_bytes(*length)).expect("it fits")
        {
            let response = Response::decode(body).expect("a response");
            let svids = response.svids.into_iter();
            return Answer::Identities(svids.map(|svid| svid.spiffe_id).collect());
        }
        if frame.stream == stream && frame.flags & END_STREAM != 0 {
            assert!(message.is_empty(), "a message is cut");
            return Answer::Refused;
        }
    }
}

/// The next frame; `None` at the end of the connection.
fn read(connection: &mut UnixStream) -> Option<Frame> {
    let mut header = [0; 9];
    read_exact(connection, &mut header)?;
    let [a, b, c, kind, flags, stream @ ..] = header;
    let length = u32::from_be_bytes([0, a, b, c]);
    let mut payload = vec![0; usize::try_from(length).expect("it fits")];
    read_exact(connection, &mut payload)?;
    Some(Frame {
        kind,
        flags,
        stream: u32::from_be_bytes(stream),
        payload,
    })
}

fn read_exact(connection: &mut UnixStream, buffer: &mut [u8]) -> Option<()> {
    match connection.read_exact(buffer) {
        Ok(()) => Some(()),
        Err(error) if is_end(&error) => None,
        Err(error) => panic!("neither an answer nor an end: {error}"),
    }
}

/// Whether the other side closed, be it with bytes of ours unread.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field that enters no table (RFC 7541 section 6.2.2), of less than 127 bytes.
fn literal(name: &str, value: &str) -> Vec<u8> {
    let text = |text: &str| {
        let length = u8::try_from(text.len()).expect("it is short");
        [&[length], text.as_bytes()].concat()
    };
    [vec![0], text(name), text(value)].concat()
}
