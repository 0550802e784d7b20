//! The floor: what a proxy costs that terminates mutual TLS, forwards, and does nothing else. Bare
//! hyper and rustls, one thread a worker, kept-alive upstream connections of each worker's own.
//!
//! It is as fast as we know to make it: whole reads below rustls, which by itself asks for 4 KB at a
//! time, vectored writes, and nothing allocated for a request beyond what hyper does.

mod upstream;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use clap::Args;
use http::header::{
    CONNECTION, HOST, HeaderName, PROXY_AUTHENTICATE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderValue, Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use socket2::{Domain, Socket, Type};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use upstream::{Forwarded, Upstream};

/// How much is read at a time; only what arrives is ever touched.
const READ: usize = 32 * 1024;

const BACKLOG: i32 = 4096;

/// What belongs to one connection and is not forwarded.
const HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
    PROXY_AUTHENTICATE,
];

/// What the floor is told.
#[derive(Debug, Args)]
pub(crate) struct FloorOptions {
    /// Where it listens
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: SocketAddr,
    /// Where it forwards to
    #[arg(long, value_name = "ADDRESS")]
    pub(super) upstream: SocketAddr,
    /// The upstream speaks HTTP/2 in plain text
    #[arg(long)]
    pub(super) http2_upstream: bool,
    /// The folder with server.pem, server.key and roots.pem
    #[arg(long, value_name = "FOLDER")]
    pub(super) credentials: PathBuf,
    /// Worker threads
    #[arg(long, value_name = "COUNT")]
    pub(super) workers: u16,
}

/// Forwards until the process is killed.
pub(crate) fn run(options: &FloorOptions) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(tls(options)?));
    let sockets = (0..options.workers)
        .map(|_| listen(options.listen))
        .collect::<Result<Vec<_>>>()?;
    std::thread::scope(|scope| {
        let workers: Vec<_> = sockets
            .into_iter()
            .map(|socket| scope.spawn(|| serve(options, &acceptor, socket)))
            .collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().map_err(|_| anyhow!("a worker failed"))?)
    })
}

/// As Sidegate has it: TLS 1.3, a client certificate, no resumption.
fn tls(options: &FloorOptions) -> Result<ServerConfig> {
    let file = |name: &str| options.credentials.join(name);
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_file_iter(file("roots.pem"))? {
        roots.add(root?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let chain = CertificateDer::pem_file_iter(file("server.pem"))?.collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_file(file("server.key"))?;
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(config)
}

fn listen(address: SocketAddr) -> Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket
        .bind(&address.into())
        .with_context(|| format!("{address} cannot be listened on"))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// One worker.
fn serve(options: &FloorOptions, acceptor: &TlsAcceptor, socket: TcpListener) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = tokio::net::TcpListener::from_std(socket)?;
        let upstream = Upstream::new(options.upstream, options.http2_upstream);
        loop {
            let (stream, _) = socket.accept().await?;
            tokio::spawn(connection(acceptor.clone(), stream, upstream.clone()));
        }
    })
}

/// One connection. Whoever is at its other end sees how it ended.
async fn connection(acceptor: TlsAcceptor, stream: TcpStream, upstream: Upstream) {
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let stream = BufReader::with_capacity(READ, stream);
    let Ok(stream) = acceptor.accept(stream).await else {
        return;
    };
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let stream = TokioIo::new(stream);
    let service = service_fn(move |request| forward(upstream.clone(), request));
    if is_http2 {
        let connection = http2::Builder::new(TokioExecutor::new());
        let _ = connection.serve_connection(stream, service).await;
    } else {
        let _ = http1::Builder::new()
            .serve_connection(stream, service)
            .await;
    }
}

/// One request.
async fn forward(
    upstream: Upstream,
    mut request: Request<Incoming>,
) -> Result<Response<Forwarded>> {
    let is_http2 = request.version() == Version::HTTP_2;
    for name in &HOP_BY_HOP {
        // Over HTTP/2 there is this one alone, and gRPC needs it.
        if !(upstream.is_http2() && *name == TE) {
            request.headers_mut().remove(name);
        }
    }
    if is_http2 && !upstream.is_http2() {
        let uri = std::mem::take(request.uri_mut()).into_parts();
        if let Some(authority) = &uri.authority
            && !request.headers().contains_key(HOST)
        {
            let host = HeaderValue::from_str(authority.as_str())?;
            request.headers_mut().insert(HOST, host);
        }
        if let Some(path) = uri.path_and_query {
            *request.uri_mut() = Uri::from(path);
        }
    }
    let mut response = upstream.send(request).await?;
    for name in &HOP_BY_HOP {
        response.headers_mut().remove(name);
    }
    Ok(response)
}
