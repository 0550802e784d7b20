//! Connecting to a proxy.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::cases::{CONNECTIONS, Case};
use super::super::credentials::{Credentials, SERVER_NAME};

/// How much is read at a time.
const READ: usize = 32 * 1024;

pub(super) type Stream = TlsStream<BufReader<TcpStream>>;

/// A proxy, and who connects to it.
#[derive(Clone)]
pub(in super::super) struct Target {
    address: SocketAddr,
    name: ServerName<'static>,
    /// One a connection.
    configs: Arc<[Arc<ClientConfig>]>,
}

/// What both ends agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Negotiated {
    pub(in super::super) key_exchange: String,
    pub(in super::super) cipher: String,
}

impl Target {
    pub(in super::super) fn new(
        address: SocketAddr,
        credentials: &Credentials,
        case: Case,
    ) -> Result<Self> {
        let configs = (0..CONNECTIONS)
            .map(|number| credentials.client(number, case.protocol()))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            address,
            name: ServerName::try_from(SERVER_NAME)?,
            configs: configs.into(),
        })
    }

    /// What a handshake agrees on. The proxy may still refuse the client.
    pub(in super::super) async fn negotiated(&self) -> Result<Negotiated> {
        let stream = self.connect(0).await?;
        let (_, tls) = stream.get_ref();
        let key_exchange = tls.negotiated_key_exchange_group();
        let cipher = tls.negotiated_cipher_suite();
        Ok(Negotiated {
            key_exchange: key_exchange.map_or_else(String::new, |it| format!("{:?}", it.name())),
            cipher: cipher.map_or_else(String::new, |it| format!("{:?}", it.suite())),
        })
    }

    /// Connects as this one.
    pub(super) async fn connect(&self, number: usize) -> Result<Stream> {
        let config = self.configs.get(number % CONNECTIONS);
        let connector = TlsConnector::from(Arc::clone(config.context("there are clients")?));
        let stream = TcpStream::connect(self.address)
            .await
            .with_context(|| format!("{} cannot be reached", self.address))?;
        stream.set_nodelay(true)?;
        let stream = BufReader::with_capacity(READ, stream);
        let stream = connector.connect(self.name.clone(), stream).await;
        stream.context("the TLS handshake fails")
    }
}
