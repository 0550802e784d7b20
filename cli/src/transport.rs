//! How files are fetched over HTTP: one connection for each request, with a limit on every wait. Spans
//! are sent in the same way.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST, USER_AGENT};
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sidegate_policy::bundle::{Cause, Fetch, FetchBody, Fetching};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// For a connection, with its handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// For the head of an answer that nobody was asked to hold back.
const HEAD: Duration = Duration::from_secs(30);

/// One URL, with whom to trust for it and what to show there.
pub(crate) struct HttpFetch {
    url: Uri,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    token_file: Option<PathBuf>,
}

/// Why a URL cannot be fetched, whatever its server answers.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    /// A file with roots or a token.
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// What is in a file of roots.
    #[error("{} is not a PEM file with certificates", path.display())]
    Roots {
        path: PathBuf,
        #[source]
        source: Option<Cause>,
    },
    /// What is in a file with a token.
    #[error("{} does not hold one line with a token", path.display())]
    Token { path: PathBuf },
    /// The name in a URL.
    #[error("the host of {url} cannot be verified")]
    Host { url: Uri },
}

impl HttpFetch {
    /// Reads the roots; the token is read anew for each request, so that it may change.
    ///
    /// # Errors
    /// Files that are not what they should be.
    pub(crate) fn new(
        url: Uri,
        ca_file: Option<&Path>,
        token_file: Option<PathBuf>,
    ) -> Result<Self, TransportError> {
        if let Some(path) = &token_file {
            token(path)?;
        }
        let tls = ca_file.map(|path| trust(&url, path)).transpose()?;
        Ok(Self {
            url,
            tls,
            token_file,
        })
    }

    /// Sends a request of one's own to the URL's server, and reads the answer up to a number of bytes.
    /// There is no limit on how long it takes.
    pub(crate) async fn send(
        &self,
        mut request: Request<Bytes>,
        longest: usize,
    ) -> Result<Response<Bytes>, Cause> {
        let host = self.url.authority().map_or("", |host| host.as_str());
        let host = HeaderValue::try_from(host)?;
        request.headers_mut().insert(HOST, host);
        *request.uri_mut() = path(request.uri()).parse()?;
        let stream = self.connect().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let answer = sender.send_request(request.map(Full::new)).await?;
        let (head, body) = answer.into_parts();
        let body = Limited::new(body, longest).collect().await?;
        Ok(Response::from_parts(head, body.to_bytes()))
    }

    async fn exchange(
        &self,
        headers: HeaderMap,
        wait: Duration,
    ) -> Result<Response<FetchBody>, Cause> {
        let request = self.request(headers)?;
        let connected = tokio::time::timeout(CONNECT, self.connect()).await;
        let stream = connected.map_err(|_| too_late("connection", CONNECT))??;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // It ends with the answer, or when that is dropped. Its errors come out there too.
        tokio::spawn(connection);
        let within = HEAD.saturating_add(wait);
        let answer = tokio::time::timeout(within, sender.send_request(request)).await;
        let answer = answer.map_err(|_| too_late("answer", within))??;
        Ok(answer.map(|body| body.map_err(Cause::from).boxed_unsync()))
    }

    fn request(&self, headers: HeaderMap) -> Result<Request<Empty<Bytes>>, Cause> {
        let mut request = Request::get(path(&self.url)).body(Empty::new())?;
        *request.headers_mut() = headers;
        let headers = request.headers_mut();
        let host = self.url.authority().map_or("", |host| host.as_str());
        headers.insert(HOST, HeaderValue::try_from(host)?);
        headers.insert(ACCEPT, HeaderValue::from_static("*/*"));
        let agent = concat!("sidegate/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(path) = &self.token_file {
            headers.insert(AUTHORIZATION, token(path)?);
        }
        Ok(request)
    }

    async fn connect(&self) -> io::Result<Box<dyn Stream>> {
        let host = self.url.host().unwrap_or_default();
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let usual = if self.tls.is_some() { 443 } else { 80 };
        let port = self.url.port_u16().unwrap_or(usual);
        let stream = TcpStream::connect((host, port)).await?;
        Ok(match &self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name.clone(), stream).await?),
        })
    }
}

impl Fetch for HttpFetch {
    fn fetch(&self, headers: HeaderMap, wait: Duration) -> Fetching<'_> {
        Box::pin(self.exchange(headers, wait))
    }
}

/// A connection, with TLS or without.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

fn path(url: &Uri) -> &str {
    url.path_and_query().map_or("/", |path| path.as_str())
}

fn trust(url: &Uri, ca_file: &Path) -> Result<(TlsConnector, ServerName<'static>), TransportError> {
    let not_roots = |source| TransportError::Roots {
        path: ca_file.to_owned(),
        source,
    };
    let pem = std::fs::read(ca_file).map_err(|source| TransportError::Read {
        path: ca_file.to_owned(),
        source,
    })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| not_roots(Some(error.into())))?;
        let added = roots.add(certificate);
        added.map_err(|error| not_roots(Some(error.into())))?;
    }
    if roots.is_empty() {
        return Err(not_roots(None));
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| not_roots(Some(error.into())))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let host = url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| TransportError::Host { url: url.clone() })?;
    Ok((TlsConnector::from(Arc::new(config)), name))
}

/// `Bearer …`, which no log shows.
fn token(path: &Path) -> Result<HeaderValue, TransportError> {
    let text = std::fs::read_to_string(path).map_err(|source| TransportError::Read {
        path: path.to_owned(),
        source,
    })?;
    let bad = || TransportError::Token {
        path: path.to_owned(),
    };
    let token = text.trim();
    if token.is_empty() || token.contains(char::is_whitespace) {
        return Err(bad());
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| bad())?;
    value.set_sensitive(true);
    Ok(value)
}

fn too_late(what: &str, within: Duration) -> Cause {
    format!("no {what} within {}s", within.as_secs()).into()
}
