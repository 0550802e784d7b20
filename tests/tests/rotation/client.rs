//! A client over mutual TLS that takes its identity from the Workload API for each connection.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use spiffe::{X509Source, X509Svid};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::workload_api::serial;

pub(crate) type Head = Request<Empty<Bytes>>;

/// The server's address and where identities come from.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) source: X509Source,
    pub(crate) server: SocketAddr,
    pub(crate) seen: Mutex<Seen>,
}

/// The serial numbers of all certificates that handshakes showed, and how many there were.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) own: BTreeSet<String>,
    pub(crate) server: BTreeSet<String>,
}

/// The sending half of a connection.
#[derive(Debug)]
pub(crate) enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

/// Why a request has no response.
#[derive(Debug)]
pub(crate) enum Unanswered {
    /// The connection had ended before the request went out, so it is to be sent on another one.
    NeverSent,
    /// It failed.
    Failed(String),
}

impl Client {
    pub(crate) async fn new(socket: &str, server: SocketAddr) -> Self {
        let source = X509Source::builder().endpoint(socket).build().await;
        Self {
            source: source.expect("the Workload API gives an SVID"),
            server,
            seen: Mutex::default(),
        }
    }

    /// A connection with the SVID of this moment.
    pub(crate) async fn connect(&self, version: Version) -> Result<Sender, String> {
        let svid = self.source.svid().map_err(|error| error.to_string())?;
        let bundle = self
            .source
            .bundle_set()
            .map_err(|error| error.to_string())?;
        let bundle = bundle
            .get(svid.spiffe_id().trust_domain())
            .ok_or("our own trust domain has no bundle")?;
        let roots: Vec<_> = bundle
            .authorities()
            .iter()
            .map(|root| root.as_bytes().to_vec())
            .collect();
        let stream = handshake(self.server, &svid, roots, version).await?;
        let (_, session) = stream.get_ref();
        let leaf = session
            .peer_certificates()
            .and_then(<[_]>::first)
            .ok_or("the server has no certificate")?;
        {
            let mut seen = self.seen.lock().expect("nobody panics with it");
            seen.own.insert(serial(svid.leaf().as_bytes()));
            seen.server.insert(serial(leaf));
        }
        Sender::over(TokioIo::new(stream), version).await
    }
}

impl Sender {
    /// An HTTP connection over a byte stream. It is driven until its end.
    pub(crate) async fn over<S>(stream: S, version: Version) -> Result<Self, String>
    where
        S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
    {
        if version == Version::HTTP_2 {
            let opened = http2::handshake(TokioExecutor::new(), stream).await;
            let (sender, connection) = opened.map_err(|error| describe(&error))?;
            tokio::spawn(connection);
            Ok(Self::Http2(sender))
        } else {
            let opened = http1::handshake(stream).await;
            let (sender, connection) = opened.map_err(|error| describe(&error))?;
            tokio::spawn(connection);
            Ok(Self::Http1(sender))
        }
    }

    /// Whether it takes another request, now that the one before is answered.
    pub(crate) async fn is_open(&mut self) -> bool {
        match self {
            Self::Http1(sender) => sender.ready().await.is_ok(),
            Self::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    pub(crate) async fn send(&mut self, head: Head) -> Result<Response<Incoming>, Unanswered> {
        match self {
            Self::Http1(sender) => sender.try_send_request(head).await.map_err(unanswered),
            Self::Http2(sender) => sender.try_send_request(head).await.map_err(unanswered),
        }
    }
}

/// Mutual TLS 1.3 with an SVID.
pub(crate) async fn handshake(
    server: SocketAddr,
    svid: &X509Svid,
    roots: Vec<Vec<u8>>,
    version: Version,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, String> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(CertificateDer::from(root))
            .map_err(|error| error.to_string())?;
    }
    let chain = svid
        .cert_chain()
        .iter()
        .map(|certificate| CertificateDer::from(certificate.as_bytes().to_vec()))
        .collect();
    let key = PrivatePkcs8KeyDer::from(svid.private_key().as_bytes().to_vec());
    let mut config = ClientConfig::builder()
        .with_root_certificates(store)
        .with_client_auth_cert(chain, PrivateKeyDer::Pkcs8(key))
        .map_err(|error| error.to_string())?;
    config.alpn_protocols = if version == Version::HTTP_2 {
        vec![b"h2".to_vec()]
    } else {
        vec![b"http/1.1".to_vec()]
    };
    let stream = TcpStream::connect(server)
        .await
        .map_err(|error| format!("connect: {error}"))?;
    stream
        .set_nodelay(true)
        .map_err(|error| error.to_string())?;
    let name = ServerName::try_from("localhost").expect("a DNS name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
        .map_err(|error| format!("handshake: {error}"))
}

fn unanswered(error: TrySendError<Head>) -> Unanswered {
    // With the message comes the proof that not a byte of it was sent.
    if error.message().is_some() || is_graceful_go_away(error.error()) {
        return Unanswered::NeverSent;
    }
    Unanswered::Failed(describe(error.error()))
}

/// Whether the server had said that it takes no more streams before it could see this one.
fn is_graceful_go_away(error: &hyper::Error) -> bool {
    use std::error::Error as _;
    error
        .source()
        .and_then(|source| source.downcast_ref::<h2::Error>())
        .is_some_and(|error| {
            error.is_go_away() && error.is_remote() && error.reason() == Some(h2::Reason::NO_ERROR)
        })
}

/// An error with all that caused it.
pub(crate) fn describe(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
