//! What is measured.

use std::fmt;

use clap::ValueEnum;
use serde::Serialize;

/// Connections that make load, however many workers there are.
pub(super) const CONNECTIONS: usize = 16;

/// Requests at a time on each HTTP/2 connection.
pub(super) const STREAMS: usize = 8;

/// Idle connections, where the limit of open files lets them be.
pub(super) const IDLE_CONNECTIONS: usize = 10_000;

/// Length of a reply to a request without a body, in bytes.
pub(super) const REPLY: usize = 66;

/// One kind of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Case {
    /// HTTP/1.1: GET, a reply of 66 bytes
    H1,
    /// HTTP/2: the same, eight requests at a time on each connection
    H2,
    /// gRPC: calls with one message each way
    GrpcUnary,
    /// gRPC: messages back and forth on open streams
    GrpcStream,
    /// HTTP/1.1: POST of 1 KB, and as much back
    #[value(name = "body-1k")]
    #[serde(rename = "body-1k")]
    Body1k,
    /// HTTP/1.1: POST of 1 MB, and as much back
    #[value(name = "body-1m")]
    #[serde(rename = "body-1m")]
    Body1m,
    /// Connections that do a full mutual TLS handshake and close
    Handshake,
    /// Memory of connections that were used once and stay open
    Idle,
}

/// Cases that the same processes serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Group {
    /// The upstream speaks HTTP/1.1.
    Http1,
    /// The upstream speaks HTTP/2 in plain text.
    Http2,
    /// As [`Group::Http1`], in new processes: memory that was used before would be used again.
    Memory,
}

impl Group {
    pub(super) const ALL: [Self; 3] = [Self::Http1, Self::Http2, Self::Memory];

    /// The cases, in the order in which they are measured.
    pub(super) fn cases(self) -> &'static [Case] {
        match self {
            Self::Http1 => &[
                Case::H1,
                Case::H2,
                Case::Body1k,
                Case::Body1m,
                Case::Handshake,
            ],
            Self::Http2 => &[Case::GrpcUnary, Case::GrpcStream],
            Self::Memory => &[Case::Idle],
        }
    }
}

impl Case {
    /// Whether it is measured when there is little time.
    pub(super) fn is_quick(self) -> bool {
        matches!(self, Self::H1 | Self::H2 | Self::Handshake)
    }

    /// What our proxy may cost at most, in times the floor.
    pub(super) fn goal(self) -> Option<f64> {
        match self {
            Self::Handshake => Some(1.1),
            Self::Idle => None,
            Self::H1
            | Self::H2
            | Self::GrpcUnary
            | Self::GrpcStream
            | Self::Body1k
            | Self::Body1m => Some(1.25),
        }
    }

    /// What a connection of our proxy may hold at most, in bytes.
    pub(super) fn goal_bytes(self) -> Option<f64> {
        (self == Self::Idle).then_some(20.0 * 1024.0)
    }

    /// The application protocol of its connections.
    pub(super) fn protocol(self) -> &'static [u8] {
        match self {
            Self::H2 | Self::GrpcUnary | Self::GrpcStream => b"h2",
            Self::H1 | Self::Body1k | Self::Body1m | Self::Handshake | Self::Idle => b"http/1.1",
        }
    }

    /// Length of a request's body, in bytes; as much comes back.
    pub(super) fn body(self) -> usize {
        match self {
            Self::Body1k => 1024,
            Self::Body1m => 1024 * 1024,
            Self::H1 | Self::H2 | Self::Handshake | Self::Idle => 0,
            // A message of 64 bytes.
            Self::GrpcUnary | Self::GrpcStream => 69,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.to_possible_value();
        formatter.pad(value.as_ref().map_or("", |value| value.get_name()))
    }
}
