//! Health and metrics over TCP: nothing there is secret, and nothing can be changed.

use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use rustls::pki_types::CertificateDer;
use sidegate_identity::SpiffeId;
use sidegate_identity::attestation::host_selectors;
use sidegate_identity::clock::Clock;
use sidegate_identity::svid::{Identities, Validity};
use sidegate_identity::tls::{HandshakeProblem, Presented, ServerTls, TlsMode, Trust};
use sidegate_proxy::BoundListener;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::ListenerStatus;
use super::identity::host_entry;
use crate::failure::{Failure, chain};

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// How long a handshake, or a request's head, may take.
const HEAD: Duration = Duration::from_secs(10);

/// How long a connection by mutual TLS may last after its handshake.
const LONGEST: Duration = Duration::from_secs(30);

/// The admin socket, bound.
pub(super) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// Whether traffic should come here.
pub(super) struct Health {
    identities: watch::Receiver<Arc<Identities>>,
    clock: Arc<dyn Clock>,
    workers_run: Box<dyn Fn() -> bool + Send + Sync>,
    /// What is not well, and does not keep traffic away yet.
    failing: Box<dyn Fn() -> Vec<String> + Send + Sync>,
    listeners: Mutex<Served>,
    /// Why no more traffic should come.
    draining: OnceLock<&'static str>,
}

/// Listeners, once for each identity that they show, with what tells whether it is there; once without
/// where they speak no TLS.
type Served = Arc<[(ListenerStatus, Option<Arc<ServerTls>>)]>;

/// Who may ask, where that is not everybody: the host shows its own identity.
pub(super) struct Gate {
    tls: ServerTls,
    clients: Vec<SpiffeId>,
}

/// A client that was let in by its certificates, leaf first.
struct Client {
    gate: Arc<Gate>,
    chain: Vec<CertificateDer<'static>>,
    validity: Validity,
}

struct Pages {
    health: Arc<Health>,
    registry: Registry,
}

impl Health {
    pub(super) fn new(
        identities: watch::Receiver<Arc<Identities>>,
        clock: Arc<dyn Clock>,
        workers_run: impl Fn() -> bool + Send + Sync + 'static,
        failing: impl Fn() -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        Self {
            identities,
            clock,
            workers_run: Box::new(workers_run),
            failing: Box::new(failing),
            listeners: Mutex::new([].into()),
            draining: OnceLock::new(),
        }
    }

    /// From now on no more traffic should come, for this reason.
    pub(super) fn drain(&self, reason: &'static str) {
        self.draining.get_or_init(|| reason);
    }

    /// These are the listeners from now on.
    pub(super) fn serve(
        &self,
        listeners: impl IntoIterator<Item = (ListenerStatus, Option<Arc<ServerTls>>)>,
    ) {
        let listeners = listeners.into_iter().collect();
        *self
            .listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = listeners;
    }

    /// Whether every worker runs that should: a restart mends no other problem.
    pub(super) fn is_alive(&self) -> bool {
        self.draining.get().is_some() || (self.workers_run)()
    }

    /// The listeners, and what tells whether they have an identity to show.
    pub(super) fn listeners(&self) -> Served {
        let listeners = self.listeners.lock();
        Arc::clone(&listeners.unwrap_or_else(PoisonError::into_inner))
    }

    /// What is missing; nothing when ready.
    pub(super) fn missing(&self) -> Vec<String> {
        let now = self.clock.now();
        let identities = Arc::clone(&self.identities.borrow());
        let expired = identities
            .issued()
            .iter()
            .filter(|issued| !issued.svid.validity().contains(now))
            .map(|issued| format!("identity: the SVID of {} has expired", issued.svid.id()));
        if let Some(reason) = self.draining.get() {
            return vec![(*reason).to_owned()];
        }
        let ended = !(self.workers_run)();
        let ended = ended.then(|| "listeners: a worker has failed".to_owned());
        let listeners = self.listeners();
        let lacks = |tls: &Option<Arc<ServerTls>>| tls.as_ref().is_some_and(|tls| !tls.has_svid());
        let nameless = listeners.iter().filter(|(_, tls)| lacks(tls));
        let nameless = nameless.map(|(it, _)| format!("listeners: `{}` has no identity", it.name));
        ended.into_iter().chain(nameless).chain(expired).collect()
    }
}

/// Whether [`Admin::bind`] would succeed. Nothing is listened on.
pub(super) fn examine(address: SocketAddr) -> Result<(), Failure> {
    BoundListener::examine(address).map_err(|error| refused(address, &chain(&error)))
}

fn refused(address: SocketAddr, problem: &str) -> Failure {
    Failure::message(
        "SG0046",
        format!("the admin server cannot listen on {address}: {problem}"),
    )
}

impl Admin {
    pub(super) fn bind(address: SocketAddr) -> Result<Self, Failure> {
        let failed = |error: io::Error| refused(address, &error.to_string());
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until told to stop: to everybody, or by mutual TLS to those whom `gate` lets in.
    pub(super) async fn serve(
        self,
        health: Arc<Health>,
        registry: Registry,
        gate: Option<Gate>,
        stop: CancellationToken,
    ) {
        let listener = match tokio::net::TcpListener::from_std(self.listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(code = "SG0044", %error, "the admin server cannot accept");
                return;
            }
        };
        let pages = Arc::new(Pages { health, registry });
        let gate = gate.map(Arc::new);
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else {
                // Out of descriptors, most often: others must end first.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            let (pages, gate) = (Arc::clone(&pages), gate.clone());
            let stop = stop.clone();
            tokio::spawn(async move {
                let connection = async {
                    match gate {
                        None => pages.serve(stream, None).await,
                        Some(gate) => {
                            if let Some((stream, client)) = gate.pass(stream).await {
                                let served = pages.serve(stream, Some(client));
                                let _ = tokio::time::timeout(LONGEST, served).await;
                            }
                        }
                    }
                };
                tokio::select! {
                    () = connection => {}
                    () = stop.cancelled() => {}
                }
            });
        }
    }
}

impl Pages {
    /// Answers a client that is still trusted when it asks, and only one request of it. Without a
    /// `client`, everybody.
    async fn serve(
        self: Arc<Self>,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        client: Option<Client>,
    ) {
        let is_open = client.is_none();
        let service = service_fn(move |request| {
            let now = self.health.clock.now();
            ready(match &client {
                Some(client) if !client.is_trusted(now) => {
                    Err(io::Error::from(io::ErrorKind::PermissionDenied))
                }
                _ => Ok(self.answer(&request)),
            })
        });
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .keep_alive(is_open)
            .serve_connection(TokioIo::new(stream), service);
        if let Err(error) = served.await {
            tracing::debug!(%error, "an admin connection broke");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = page(
                StatusCode::METHOD_NOT_ALLOWED,
                TEXT,
                "only GET\n".to_owned(),
            );
            let methods = HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, methods);
            return refused;
        }
        match request.uri().path() {
            "/livez" => page(StatusCode::OK, TEXT, "ok\n".to_owned()),
            "/readyz" => {
                let warnings = (self.health.failing)().into_iter();
                let warnings: String = warnings.map(|line| format!("warning: {line}\n")).collect();
                match self.health.missing().as_slice() {
                    [] => page(StatusCode::OK, TEXT, format!("ok\n{warnings}")),
                    missing => {
                        let missing = missing.join("\n");
                        let text = format!("{missing}\n{warnings}");
                        page(StatusCode::SERVICE_UNAVAILABLE, TEXT, text)
                    }
                }
            }
            "/metrics" => {
                let mut text = String::new();
                match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
                    Ok(()) => page(StatusCode::OK, OPENMETRICS, text),
                    Err(error) => {
                        tracing::error!(code = "SG0045", %error, "the metrics cannot be written");
                        page(StatusCode::INTERNAL_SERVER_ERROR, TEXT, String::new())
                    }
                }
            }
            _ => page(
                StatusCode::NOT_FOUND,
                TEXT,
                "/livez /readyz /metrics\n".to_owned(),
            ),
        }
    }
}

impl Client {
    /// Whether it would be let in again.
    fn is_trusted(&self, now: SystemTime) -> bool {
        let trust = self.gate.tls.trust(&self.chain, now);
        self.validity.contains(now) && trust != Trust::Gone
    }
}

impl Gate {
    /// Shows the host's identity, to these clients only.
    ///
    /// # Errors
    /// When no entry gives the host an identity.
    pub(super) fn new(
        clients: &[SpiffeId],
        identities: &watch::Receiver<Arc<Identities>>,
    ) -> Result<Self, Failure> {
        let entry = {
            let generation = identities.borrow();
            host_entry(generation.issued().iter().map(|issued| &issued.entry))?
        };
        let presented = Presented {
            spiffe_id: entry.spiffe_id().clone(),
            selectors: host_selectors().into(),
        };
        let tls = ServerTls::new(
            presented,
            identities.clone(),
            TlsMode::Mutual,
            &["http/1.1"],
        );
        Ok(Self {
            tls: tls.map_err(|error| Failure::new("SG0042", &error))?,
            clients: clients.to_vec(),
        })
    }

    async fn pass(self: Arc<Self>, stream: TcpStream) -> Option<(TlsStream<TcpStream>, Client)> {
        let handshake = tokio::time::timeout(HEAD, self.tls.acceptor().accept(stream));
        let stream = match handshake.await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                let (code, error) = (
                    HandshakeProblem::of(&error).code,
                    HandshakeProblem::describe(&error),
                );
                tracing::info!(code, error, "a client of the admin server is turned away");
                return None;
            }
            Err(_) => return None,
        };
        let chain = stream.get_ref().1.peer_certificates()?.to_vec();
        match ServerTls::peer(stream.get_ref().1).ok()?? {
            peer if self.clients.contains(&peer.spiffe_id) => {
                let client = Client {
                    gate: self,
                    chain,
                    validity: peer.validity,
                };
                Some((stream, client))
            }
            peer => {
                tracing::info!(
                    code = "SG0038",
                    peer = %peer.spiffe_id,
                    "a client of the admin server is turned away: `admin.clients` does not name it",
                );
                None
            }
        }
    }
}

fn page(status: StatusCode, content_type: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}
