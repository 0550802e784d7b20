//! A client over mutual TLS: hyper over rustls, or bare bytes.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use sidegate_tests::Sidegate;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::certificates::{Identity, certificates};

/// A request's body.
pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// How long anything may take before a test gives up; nothing is expected to take that long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Whom to ask, and as whom.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// `host:port`.
    pub(crate) address: String,
    /// The demo client's identity.
    pub(crate) identity: Identity,
    roots: Arc<RootCertStore>,
}

/// A whole response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Client {
    /// A client that trusts a bundle and shows an identity, all in PEM files.
    pub(crate) fn new(address: &str, bundle: &Path, svid: &Path, key: &Path) -> Self {
        let mut roots = RootCertStore::empty();
        for root in certificates(bundle) {
            roots.add(root).expect("a root");
        }
        Self {
            address: address.to_owned(),
            identity: Identity::read(svid, key),
            roots: Arc::new(roots),
        }
    }

    /// The demo client of `sidegate up`.
    pub(crate) fn demo(sidegate: &Sidegate) -> Self {
        let demo = sidegate.demo();
        Self::new(
            super::address(sidegate),
            &demo.bundle,
            &demo.svid,
            &demo.key,
        )
    }

    /// The same client with another identity.
    pub(crate) fn with(&self, identity: Identity) -> Self {
        Self {
            identity,
            ..self.clone()
        }
    }

    /// The same client of another address.
    pub(crate) fn at(self, address: &str) -> Self {
        Self {
            address: address.to_owned(),
            ..self
        }
    }

    /// How it speaks TLS, with its identity.
    pub(crate) fn tls(&self, provider: CryptoProvider) -> ClientConfig {
        let Identity { chain, key } = self.identity.clone();
        ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(chain, key)
            .expect("the key fits")
    }

    /// The same without a certificate.
    pub(crate) fn anonymous(&self) -> ClientConfig {
        ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("TLS 1.3")
            .with_root_certificates(Arc::clone(&self.roots))
            .with_no_client_auth()
    }

    /// A TLS connection; the server's verdict on the client's certificate comes with its first
    /// bytes.
    pub(crate) async fn connect(&self, config: ClientConfig) -> io::Result<TlsStream<TcpStream>> {
        self.connect_with(Arc::new(config)).await
    }

    /// The same with a configuration that several connections share.
    pub(crate) async fn connect_with(
        &self,
        config: Arc<ClientConfig>,
    ) -> io::Result<TlsStream<TcpStream>> {
        let tcp = TcpStream::connect(&self.address).await?;
        let name = ServerName::try_from("localhost").expect("a DNS name");
        patiently(TlsConnector::from(config).connect(name, tcp)).await
    }

    /// A connection for bare bytes of a protocol.
    pub(crate) async fn connect_for(&self, protocol: &[u8]) -> TlsStream<TcpStream> {
        let mut config = self.tls(aws_lc_rs::default_provider());
        config.alpn_protocols = vec![protocol.to_vec()];
        let stream = self.connect(config).await.expect("a connection");
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol));
        stream
    }

    /// A connection for bare bytes, without ALPN.
    pub(crate) async fn raw(&self) -> TlsStream<TcpStream> {
        self.connect(self.tls(aws_lc_rs::default_provider()))
            .await
            .expect("a connection")
    }

    /// An HTTP/1.1 connection.
    pub(crate) async fn http1(&self) -> http1::SendRequest<Body> {
        let stream = TokioIo::new(self.connect_for(b"http/1.1").await);
        let (sender, connection) = http1::handshake(stream).await.expect("a connection");
        tokio::spawn(connection);
        sender
    }

    /// An HTTP/2 connection.
    pub(crate) async fn http2(&self) -> http2::SendRequest<Body> {
        let stream = TokioIo::new(self.connect_for(b"h2").await);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream)
            .await
            .expect("a connection");
        tokio::spawn(connection);
        sender
    }

    /// The answer to a GET over HTTP/1.1.
    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path), body("")).await
    }

    /// The answer to a request over HTTP/1.1, on a connection of its own.
    pub(crate) async fn send(&self, request: http::request::Builder, body: Body) -> Answer {
        let host = request
            .headers_ref()
            .and_then(|headers| headers.get("host"));
        let request = match host {
            Some(_) => request,
            None => request.header("host", "localhost"),
        };
        let request = request.body(body).expect("a request");
        let mut connection = self.http1().await;
        let response = patiently(connection.send_request(request))
            .await
            .expect("a response");
        read(response).await
    }

    /// The answer to a request over HTTP/2, on a connection of its own.
    pub(crate) async fn send_http2(&self, request: http::request::Builder, path: &str) -> Answer {
        let request = request
            .uri(format!("https://localhost{path}"))
            .body(body(""))
            .expect("a request");
        let mut connection = self.http2().await;
        let response = patiently(connection.send_request(request))
            .await
            .expect("a response");
        read(response).await
    }

    /// All that comes back for bytes that are sent as they are, until the server closes.
    pub(crate) async fn exchange(&self, bytes: &[u8]) -> String {
        let mut stream = self.raw().await;
        stream.write_all(bytes).await.expect("it is sent");
        let mut answer = Vec::new();
        patiently(stream.read_to_end(&mut answer))
            .await
            .expect("the server ends the connection cleanly");
        String::from_utf8(answer).expect("it is text")
    }
}

impl Answer {
    /// A header that appears once.
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut values = self.headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            panic!("one `{name}`: {:?}", self.headers);
        };
        value.to_str().expect("it is text")
    }
}

/// A whole body.
pub(crate) fn body(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// Reads a response to its clean end.
pub(crate) async fn read(response: Response<Incoming>) -> Answer {
    let (head, body) = response.into_parts();
    let body = patiently(body.collect()).await.expect("a whole body");
    Answer {
        status: head.status,
        headers: head.headers,
        body: String::from_utf8_lossy(&body.to_bytes()).into_owned(),
    }
}

/// Waits for what must come.
pub(crate) async fn patiently<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("it comes")
}
