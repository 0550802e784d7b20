//! Chunks posted to a receiver over HTTP/1.1, in plain text or by TLS.

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST};
use http::uri::Authority;
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use sidegate_policy::decision_log::{Upload, UploadError};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::TlsConnector;

use crate::config::Receiver;

/// How long the receiver may take for one chunk.
const PATIENCE: Duration = Duration::from_secs(10);

/// How much of an answer is read to use its connection again.
const ANSWER: usize = 64 * 1024;

/// A token is a line, not a disk.
const TOKEN_BYTES: u64 = 64 * 1024;

type Problem = Box<dyn Error + Send + Sync>;

/// The way to one receiver.
pub(super) struct Post {
    runtime: Handle,
    target: Arc<Target>,
    /// A connection that may be used again.
    connection: Option<Connection>,
}

type Connection = SendRequest<Full<Bytes>>;

/// Who it is, and how it is spoken to.
struct Target {
    uri: Uri,
    authority: Authority,
    token_file: Option<PathBuf>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// Why a receiver cannot be reached as configured.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    #[error("the receiver has no address")]
    Address,
    #[error("the token of the decision log cannot be used")]
    Token(#[source] Problem),
    #[error("the certificates {} cannot be used", path.display())]
    Roots {
        path: PathBuf,
        #[source]
        source: Problem,
    },
}

impl PostError {
    /// The key of `[decision_log]` that is at fault.
    pub(super) fn key(&self) -> &'static str {
        match self {
            Self::Address => "url",
            Self::Token(_) => "token_file",
            Self::Roots { .. } => "ca_file",
        }
    }

    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Address => "SG0260",
            Self::Token(_) | Self::Roots { .. } => "SG0268",
        }
    }
}

impl Post {
    /// Needs a runtime: that of the caller does the work.
    pub(super) fn new(receiver: &Receiver) -> Result<Self, PostError> {
        let authority = receiver.uri.authority().ok_or(PostError::Address)?.clone();
        let tls = match &receiver.ca_file {
            None => None,
            Some(path) => {
                let connector = connector(path).map_err(|source| PostError::Roots {
                    path: path.clone(),
                    source,
                })?;
                let name = ServerName::try_from(bare(&authority).to_owned());
                Some((connector, name.map_err(|_| PostError::Address)?))
            }
        };
        // Read again for each chunk, but what never could be read is said now.
        if let Some(path) = &receiver.token_file {
            token(path).map_err(PostError::Token)?;
        }
        Ok(Self {
            runtime: Handle::current(),
            target: Arc::new(Target {
                uri: receiver.uri.clone(),
                authority,
                token_file: receiver.token_file.clone(),
                tls,
            }),
            connection: None,
        })
    }
}

impl Upload for Post {
    fn upload(&mut self, chunk: &[u8]) -> Result<(), UploadError> {
        let chunk = Bytes::copy_from_slice(chunk);
        let (target, connection) = (Arc::clone(&self.target), self.connection.take());
        let (tell, told) = sync_channel(1);
        // A task of its own: with the runtime it ends, and the wait for it too.
        self.runtime.spawn(async move {
            let posted = tokio::time::timeout(PATIENCE, target.post(connection, chunk)).await;
            // Nobody listens any more when the process ends.
            let _ = tell.send(posted);
        });
        match told.recv() {
            Ok(Ok(Ok((status, connection)))) => {
                self.connection = connection;
                match status.is_success() {
                    true => Ok(()),
                    false => Err(UploadError::Status(status)),
                }
            }
            Ok(Ok(Err(error))) => Err(UploadError::Transport(error)),
            Ok(Err(elapsed)) => Err(UploadError::Transport(elapsed.into())),
            Err(ended) => Err(UploadError::Transport(ended.into())),
        }
    }
}

impl Target {
    /// The answer's status, and the connection if it can be used again.
    async fn post(
        &self,
        kept: Option<Connection>,
        chunk: Bytes,
    ) -> Result<(StatusCode, Option<Connection>), Problem> {
        // The receiver may have closed it meanwhile: then there is another.
        if let Some(mut connection) = kept
            && connection.ready().await.is_ok()
            && let Ok(answer) = self.send(connection, chunk.clone()).await
        {
            return Ok(answer);
        }
        let connection = self.connect().await?;
        self.send(connection, chunk).await
    }

    async fn send(
        &self,
        mut connection: Connection,
        chunk: Bytes,
    ) -> Result<(StatusCode, Option<Connection>), Problem> {
        let mut request = Request::post(self.uri.path())
            .header(HOST, self.authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .header(CONTENT_ENCODING, "gzip");
        if let Some(path) = &self.token_file {
            request = request.header(AUTHORIZATION, token(path)?);
        }
        let response = connection
            .send_request(request.body(Full::new(chunk))?)
            .await?;
        let (head, body) = response.into_parts();
        // What is read to its end leaves the connection free for the next chunk.
        let is_read = Limited::new(body, ANSWER).collect().await.is_ok();
        Ok((head.status, is_read.then_some(connection)))
    }

    async fn connect(&self) -> Result<Connection, Problem> {
        let port = match (self.authority.port_u16(), &self.tls) {
            (Some(port), _) => port,
            (None, Some(_)) => 443,
            (None, None) => 80,
        };
        let stream = TcpStream::connect((bare(&self.authority), port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => {
                handshake(connector.connect(name.clone(), stream).await?).await
            }
        }
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Connection, Problem> {
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection to the receiver of the decision log broke");
        }
    });
    Ok(sender)
}

/// Trusts what these certificates sign, and nothing else.
fn connector(path: &Path) -> Result<TlsConnector, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path)? {
        roots.add(certificate?)?;
    }
    if roots.is_empty() {
        return Err("there is no certificate in it".into());
    }
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// `Bearer` and what stands in the file, never shown in a message.
fn token(path: &Path) -> Result<HeaderValue, Problem> {
    let size = std::fs::metadata(path)?.len();
    if size > TOKEN_BYTES {
        return Err(format!("{} is too large for a token", path.display()).into());
    }
    let token = std::fs::read_to_string(path)?;
    let token = token.trim();
    if token.is_empty() {
        return Err(io::Error::other(format!("{} is empty", path.display())).into());
    }
    let value = HeaderValue::from_str(&format!("Bearer {token}"));
    let mut value = value.map_err(|_| format!("{} holds no token", path.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// A host as a resolver and a certificate know it: IPv6 without brackets.
fn bare(authority: &Authority) -> &str {
    let host = authority.host();
    host.trim_start_matches('[').trim_end_matches(']')
}
