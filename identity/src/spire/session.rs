//! A connection to the server that comes back: SPIRE's server ends each after three minutes.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use spiffe::TrustDomain;
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Status;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint, Uri};

use super::error::{Failure, SpireError, innermost};
use super::tls::{Trust, client_config};
use crate::clock::Clock;
use crate::svid::X509Svid;
use crate::tls::describe;

/// What a call may take, and what a connection may take to be there.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Calls to the server under one agent SVID and one bundle. Where either changes, a new one is made.
pub(super) struct Session {
    connector: Connector,
    endpoint: Endpoint,
    /// The connection in use. Gone after a failure that is not the server's answer.
    channel: Mutex<Option<Channel>>,
    /// The server does not know `SyncAuthorizedEntries`.
    is_old: AtomicBool,
}

/// Makes connections.
#[derive(Clone)]
struct Connector {
    /// Host and port.
    address: Arc<str>,
    /// What is asked for by SNI. Who the server is follows from its SVID alone.
    name: ServerName<'static>,
    tls: TlsConnector,
}

type Connecting = Pin<Box<dyn Future<Output = io::Result<TokioIo<TlsStream<TcpStream>>>> + Send>>;

impl Session {
    /// Nothing is connected before the first call. `shown` is the agent's SVID.
    pub(super) fn new(
        address: &str,
        trust_domain: &TrustDomain,
        trust: Trust,
        shown: Option<&X509Svid>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SpireError> {
        let failed = |source: Box<dyn Error + Send + Sync>| SpireError::Connect {
            address: address.to_owned(),
            source,
        };
        let uri = |scheme| format!("{scheme}://{address}").parse::<Uri>();
        // The library must not bring TLS of its own; the server is told what is there.
        let endpoint = uri("http").map_err(|error| failed(error.into()))?;
        let host = endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.into()))?;
        if endpoint.port().is_none() {
            return Err(failed("there is no port in the address".into()));
        }
        let origin = uri("https").map_err(|error| failed(error.into()))?;
        let tls = client_config(trust_domain, trust, shown, clock);
        let tls = tls.map_err(|error| failed(error.into()))?;
        Ok(Self {
            connector: Connector {
                address: address.into(),
                name,
                tls: TlsConnector::from(Arc::new(tls)),
            },
            endpoint: Endpoint::from(endpoint).origin(origin),
            channel: Mutex::default(),
            is_old: AtomicBool::new(false),
        })
    }

    /// Whether the server has turned out not to know `SyncAuthorizedEntries`.
    pub(super) fn is_old(&self) -> bool {
        self.is_old.load(Ordering::Relaxed)
    }

    pub(super) fn found_old(&self) {
        self.is_old.store(true, Ordering::Relaxed);
    }

    /// Makes a call. Where the connection breaks, it is made once more on a new one: the server may
    /// end a connection at any time.
    pub(super) async fn call<T, F>(
        &self,
        method: &'static str,
        attempt: impl Fn(Channel) -> F,
    ) -> Result<T, SpireError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        match self.attempt(method, &attempt).await {
            Err(SpireError::Call { source, .. }) if is_of_the_connection(&source.status) => {
                self.attempt(method, &attempt).await
            }
            other => other,
        }
    }

    /// Makes a call that must not be made twice.
    pub(super) async fn call_once<T, F>(
        &self,
        method: &'static str,
        attempt: impl Fn(Channel) -> F,
    ) -> Result<T, SpireError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        self.attempt(method, &attempt).await
    }

    async fn attempt<T, F>(
        &self,
        method: &'static str,
        attempt: &impl Fn(Channel) -> F,
    ) -> Result<T, SpireError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        // The lock on the way there is waited for too.
        let channel = match tokio::time::timeout(TIMEOUT, self.channel()).await {
            Ok(channel) => channel?,
            Err(elapsed) => return Err(failed(&self.connector.address, &elapsed)),
        };
        let done = match tokio::time::timeout(TIMEOUT, attempt(channel)).await {
            Ok(done) => done.map_err(|failure| SpireError::of(method, failure)),
            Err(_) => Err(SpireError::Timeout(method)),
        };
        let is_broken = match &done {
            Err(SpireError::Call { source, .. }) => is_of_the_connection(&source.status),
            Err(SpireError::Timeout(_)) => true,
            _ => false,
        };
        if is_broken {
            *self.channel.lock().await = None;
        }
        done
    }

    async fn channel(&self) -> Result<Channel, SpireError> {
        let mut channel = self.channel.lock().await;
        if let Some(channel) = &*channel {
            return Ok(channel.clone());
        }
        let address = &self.connector.address;
        let connecting = self.endpoint.connect_with_connector(self.connector.clone());
        let connected = connecting.await.map_err(|error| failed(address, &error))?;
        Ok(channel.insert(connected).clone())
    }
}

/// Whether a call ended by what happened to its connection, rather than by the server's answer or
/// this side's limits, which have no cause.
fn is_of_the_connection(status: &Status) -> bool {
    status.source().is_some()
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = io::Error;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let tcp = TcpStream::connect(&*this.address).await?;
            tcp.set_nodelay(true)?;
            let tls = this.tls.connect(this.name, tcp).await?;
            match tls.get_ref().1.alpn_protocol() {
                Some(b"h2") => Ok(TokioIo::new(tls)),
                _ => Err(io::Error::other("the server does not offer HTTP/2 by ALPN")),
            }
        })
    }
}

/// There is no connection.
fn failed(address: &str, error: &(dyn Error + 'static)) -> SpireError {
    let innermost = innermost(error);
    let io = innermost.downcast_ref::<io::Error>();
    let tls = io.and_then(|io| io.get_ref()?.downcast_ref());
    let address = address.to_owned();
    match tls {
        Some(tls @ rustls::Error::InvalidCertificate(_)) => SpireError::Untrusted {
            address,
            problem: describe(tls),
        },
        _ => SpireError::Connect {
            address,
            source: innermost.to_string().into(),
        },
    }
}
