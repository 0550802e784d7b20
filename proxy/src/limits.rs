//! How much a listener bears from those who connect to it.

use std::num::NonZeroU32;

/// How much one listener bears. What is counted is shared by all workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections, those in their handshake included. Further ones are closed at once.
    pub max_connections: usize,
    /// Connections of one SPIFFE ID. Further ones are closed after their handshake.
    pub max_connections_per_identity: usize,
    /// Handshakes at the same time. Further ones wait for their turn.
    pub max_handshakes: usize,
    /// Requests of one SPIFFE ID. Without it, there is no limit.
    pub rate: Option<RequestRate>,
    /// Headers of one request.
    pub max_headers: usize,
    /// Bytes of a request's headers: names and values, and 32 for each (RFC 9113 section 6.5.2).
    pub max_header_bytes: u32,
    /// Bytes of a request's target: path and query.
    pub max_uri_bytes: usize,
    /// What HTTP/2 connections may do besides.
    pub http2: Http2Limits,
}

/// How often one identity may ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestRate {
    /// Requests a second, in the long run.
    pub per_second: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

/// What one HTTP/2 connection may do.
///
/// Of most kinds of frames it is how many may come a second and at once. Frames that answer what
/// the proxy has sent do not count: a `PING` and an `RST_STREAM` for each response and each `DATA`
/// frame, and two `WINDOW_UPDATE`s for each `DATA` frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Http2Limits {
    /// Streams at the same time.
    pub max_concurrent_streams: u32,
    /// `RST_STREAM` frames of the client (rapid reset, CVE-2023-44487).
    pub max_resets: NonZeroU32,
    /// Streams that the proxy resets because of what the client did (CVE-2025-8671).
    pub max_local_resets: NonZeroU32,
    /// `PING` frames.
    pub max_pings: NonZeroU32,
    /// `SETTINGS` frames.
    pub max_settings: NonZeroU32,
    /// `DATA` frames with nothing in them that do not end their stream.
    pub max_empty_data: NonZeroU32,
    /// `WINDOW_UPDATE` frames, for streams and for the connection.
    pub max_window_updates: NonZeroU32,
    /// `PRIORITY` frames, and those of kinds that mean nothing here.
    pub max_ignored: NonZeroU32,
    /// `CONTINUATION` frames of one request's head.
    pub max_continuations: u32,
}

/// How many headers of a request hyper keeps on its stack.
pub(crate) const HEADERS_ON_STACK: usize = 100;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: 65_536,
            max_connections_per_identity: 16_384,
            max_handshakes: 1024,
            rate: None,
            max_headers: HEADERS_ON_STACK,
            max_header_bytes: 64 * 1024,
            max_uri_bytes: 8 * 1024,
            http2: Http2Limits::default(),
        }
    }
}

impl Default for Http2Limits {
    fn default() -> Self {
        let limit = |limit| NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
        Self {
            max_concurrent_streams: 256,
            max_resets: limit(100),
            max_local_resets: limit(100),
            max_pings: limit(100),
            max_settings: limit(50),
            max_empty_data: limit(100),
            max_window_updates: limit(500),
            max_ignored: limit(100),
            max_continuations: 8,
        }
    }
}
