//! Handshakes: a connection each, which is closed by both ends before the next.

use std::io::ErrorKind;

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::Target;

/// One that connects again and again.
pub(super) struct Handshaker {
    target: Target,
    connection: usize,
}

impl Handshaker {
    pub(super) fn new(target: &Target, connection: usize) -> Self {
        let target = target.clone();
        Self { target, connection }
    }

    /// A client is done before the server has judged its certificate: only when the server closes
    /// too has it done all of its work.
    pub(super) async fn once(&mut self) -> Result<()> {
        let mut stream = self.target.connect(self.connection).await?;
        stream.shutdown().await?;
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest).await {
            // nginx does not say goodbye.
            Err(error) if error.kind() != ErrorKind::UnexpectedEof => Err(error.into()),
            _ => Ok(()),
        }
    }
}
