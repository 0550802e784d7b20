//! An upstream that is sent bytes as they are: each downstream gets a connection of its own.

use std::time::Duration;

use super::UpstreamError;
use super::address::{Address, Stream};

/// One server, spoken to over plain TCP or a Unix socket.
#[derive(Debug, Clone)]
pub struct TcpUpstream {
    address: Address,
    connect_timeout: Duration,
}

impl TcpUpstream {
    /// An upstream at an address. Nothing is connected yet.
    pub fn new(address: Address, connect_timeout: Duration) -> Self {
        Self {
            address,
            connect_timeout,
        }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) async fn connect(&self) -> Result<Stream, UpstreamError> {
        self.address.connect(self.connect_timeout).await
    }
}
