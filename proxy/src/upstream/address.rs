//! Where an upstream listens.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use super::UpstreamError;

/// A connection to an upstream.
pub(crate) type Stream = Either<TcpStream, UnixStream>;

/// Where an upstream listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// `host:port`.
    Tcp(Authority),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    pub(super) async fn connect(&self, limit: Duration) -> Result<Stream, UpstreamError> {
        match tokio::time::timeout(limit, self.dial()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(UpstreamError::Connect(error)),
            Err(_) => Err(UpstreamError::ConnectTimeout),
        }
    }

    async fn dial(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(authority) => {
                let host = authority.host();
                let host = host.trim_start_matches('[').trim_end_matches(']');
                let port = authority.port_u16().unwrap_or(80);
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Ok(Either::Left(stream))
            }
            Self::Unix(path) => UnixStream::connect(path).await.map(Either::Right),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => authority.fmt(formatter),
            Self::Unix(path) => path.display().fmt(formatter),
        }
    }
}
