//! A connection whose peer is known: what all of its requests share.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Context;

use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Version};
use hyper::rt::Executor;
use sidegate_identity::tls::{PeerError, PeerIdentity, ServerTls};
use sidegate_policy::{ConnectionFacts, ConnectionParameters, Permit};
use tokio::time::Instant;
use tokio_util::either::Either;
use tracing::info;
use uuid::Uuid;

use super::body::Budget;
use super::identify::Identified;
use crate::access_log::{Line, Record, timestamp};
use crate::activity::Activity;
use crate::connections::{CutBy, LiveConnection, Registered};
use crate::generation;
use crate::guard::{Caller, Progress, StreamExecutor};
use crate::headers::{IdentityHeaders, Peer, url_encoded};
use crate::metrics::{Cut, HttpVersion, KnownMethod, OpenConnection, Verdict};
use crate::open_request::{Circumstances, OpenRequests, Opened};
use crate::orders::{Given, Order, Orders};
use crate::trust;
use crate::tunnel::Tunnel;
use crate::worker::{Listener, Worker};

/// A downstream connection.
pub(super) struct Downstream {
    pub(super) worker: Arc<Worker>,
    pub(super) listener: Arc<Listener>,
    /// Nobody in particular, where the listener takes such.
    pub(super) peer: Option<PeerIdentity>,
    /// What upstreams are told of the peer.
    pub(super) identity_headers: IdentityHeaders,
    pub(super) activity: Arc<Activity>,
    /// Its identity, among the listener's other connections.
    pub(super) caller: Caller,
    /// Room for bodies that wait for their decision.
    pub(super) body_budget: Budget,
    is_http2: AtomicBool,
    tunnel: Mutex<Option<Tunnel>>,
    address: Arc<str>,
    /// The peer's SPIFFE ID, or nothing.
    peer_id: Arc<str>,
    closing: AtomicBool,
    registered: Registered,
    _open: OpenConnection,
}

/// Why a peer gets no connection although its handshake succeeded.
#[derive(Debug, thiserror::Error)]
pub(super) enum TurnedAway {
    #[error(transparent)]
    Peer(#[from] PeerError),
    #[error("`{peer}` has as many connections as one identity may have")]
    TooManyConnections { peer: String },
}

impl TurnedAway {
    pub(super) fn code(&self) -> &'static str {
        match self {
            Self::Peer(error) => error.code(),
            Self::TooManyConnections { .. } => "SG0351",
        }
    }
}

impl Downstream {
    pub(super) fn new(
        worker: &Arc<Worker>,
        listener: &Arc<Listener>,
        identified: &Identified,
        address: SocketAddr,
    ) -> Result<Self, TurnedAway> {
        let own = identified.tls.as_ref();
        let (tcp, tls) = match &identified.stream {
            Either::Left(stream) => {
                let (tcp, tls) = stream.get_ref();
                (tcp, Some(tls))
            }
            Either::Right(tcp) => (tcp, None),
        };
        let peer = tls.map(ServerTls::peer).transpose()?.flatten();
        let chain = tls.and_then(|tls| tls.peer_certificates());
        let chain = chain.unwrap_or_default();
        let peer_id = peer.as_ref().map(|peer| peer.spiffe_id.to_string());
        // Who has no identity counts by address.
        let counted = peer_id.clone();
        let counted = counted.unwrap_or_else(|| address.ip().to_canonical().to_string());
        let Some(caller) = listener.admission.caller(&counted) else {
            return Err(TurnedAway::TooManyConnections { peer: counted });
        };
        let own_id = tls.and(own).map(|own| own.spiffe_id());
        let told = match (&peer, own_id) {
            (Some(peer), Some(shown)) => Some(Peer {
                spiffe_id: &peer.spiffe_id,
                chain,
                shown,
            }),
            _ => None,
        };
        let scheme = if tls.is_some() { "https" } else { "http" };
        let identity_headers = IdentityHeaders::new(&listener.forwarding, address, scheme, told)?;
        let facts = ConnectionFacts::new(ConnectionParameters {
            downstream_address: address,
            local_address: tcp.local_addr().unwrap_or(listener.address),
            source_principal: peer_id.clone(),
            source_certificate: chain.first().map(|leaf| url_encoded([leaf]).into()),
            destination_principal: own_id.map(ToString::to_string),
            server_name: tls.and_then(|tls| tls.server_name()).map(ToOwned::to_owned),
            listener: listener.name.to_string(),
            context_extensions: (*listener.context_extensions).clone(),
        });
        let registered = worker.connections.register(LiveConnection {
            listener: Arc::clone(listener),
            downstream: address,
            peer: peer.as_ref().map(|peer| peer.spiffe_id.clone()),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            tls: own.map(Arc::clone),
            expires_at: peer.as_ref().map(|peer| peer.validity.not_after),
            facts,
            route_facts: listener.routes.iter().map(|_| OnceLock::new()).collect(),
            policy_generation: AtomicU64::new(generation::current()),
            identity_generation: worker.identities.borrow().generation,
            orders: Orders::default(),
            cut_by: OnceLock::new(),
            requests: OpenRequests::default(),
        });
        // What was told before, it was not there to hear.
        let orders = &registered.connection().orders;
        if listener.retired.load(Relaxed) {
            orders.give(Order::Close);
        }
        if worker.drain.is_cancelled() {
            orders.give(Order::Drain);
        }
        Ok(Self {
            worker: Arc::clone(worker),
            listener: Arc::clone(listener),
            identity_headers,
            activity: Activity::new(),
            caller,
            body_budget: Budget::new(listener.body_limits),
            is_http2: AtomicBool::new(false),
            tunnel: Mutex::default(),
            address: address.to_string().into(),
            peer_id: peer_id.unwrap_or_default().into(),
            peer,
            closing: AtomicBool::new(false),
            registered,
            _open: listener.metrics.opened(),
        })
    }

    /// The first route that is for a request, by its place.
    pub(super) fn route(&self, head: &Parts, authority: &Authority) -> Option<usize> {
        let is_connect = head.method == Method::CONNECT;
        let mut routes = self.listener.routes.iter();
        routes.position(|route| {
            route.upstream.is_tcp() == is_connect && route.matches.is_for(head, authority)
        })
    }

    /// Whether a route of the listener is for `CONNECT`.
    pub(super) fn takes_connect(&self) -> bool {
        let mut routes = self.listener.routes.iter();
        routes.any(|route| route.upstream.is_tcp())
    }

    /// It was found out what the client speaks.
    pub(super) fn speaks(&self, is_http2: bool) {
        self.is_http2.store(is_http2, Relaxed);
    }

    pub(super) fn is_http2(&self) -> bool {
        self.is_http2.load(Relaxed)
    }

    /// The peer's SPIFFE ID, or nothing.
    pub(super) fn peer_id(&self) -> &str {
        &self.peer_id
    }

    /// `https` or `http`, by how the peer is connected.
    pub(super) fn scheme(&self) -> &'static str {
        self.identity_headers.scheme()
    }

    /// The peer's IP address and port.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// Verifies the peer again, as it is done when trust changes.
    pub(super) fn verify_again(&self) {
        trust::verify(&self.worker, self.registered.connection());
    }

    /// What the policy may know of the connection, for requests on a route.
    pub(super) fn facts(&self, route: Option<usize>) -> &ConnectionFacts {
        self.registered.connection().facts_of(route)
    }

    /// Puts a request that was just allowed among those that are open.
    pub(super) fn open(
        &self,
        permit: &Permit,
        circumstances: Circumstances,
        route: Option<usize>,
        begun: Instant,
    ) -> Opened {
        let live = self.registered.connection();
        Opened::new(live, permit, circumstances, route, begun)
    }

    /// What the connection was told to do. The task is woken when there is more.
    pub(super) fn orders(&self, context: &Context<'_>) -> Given {
        self.registered.connection().orders.look(context)
    }

    /// Ends the connection, whatever it is doing.
    pub(super) fn cut(&self, by: CutBy) {
        self.registered.connection().cut(by);
    }

    /// Ends the connection at the end of the peer's SVID.
    pub(super) fn expire(&self) {
        self.cut(CutBy::Expiry);
        if self.activity.is_idle() {
            return;
        }
        self.listener.metrics.cut(Cut::expired);
        info!(
            code = "SG0316",
            listener = %self.listener.name,
            downstream = %self.address,
            peer = %self.peer_id,
            "a connection is cut: the peer's SVID has ended",
        );
    }

    /// Lets a tunnel run: in place of an HTTP/1 connection, or of an HTTP/2 stream.
    pub(super) fn switch(&self, tunnel: Tunnel) {
        if self.is_http2() {
            // It is watched as the stream was.
            StreamExecutor::new(&self.listener).execute(tunnel.run());
        } else {
            *self.tunnel() = Some(tunnel);
        }
    }

    /// What this HTTP/1 connection becomes once its response has been sent.
    pub(super) fn tunnel(&self) -> MutexGuard<'_, Option<Tunnel>> {
        self.tunnel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on each HTTP/1 response ends the connection.
    pub(super) fn close_after_response(&self) {
        self.closing.store(true, Relaxed);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Relaxed) && !self.is_http2()
    }

    /// The id of a request: what a trusted hop calls it, or else one of our own.
    pub(super) fn request_id(&self, head: &Parts) -> String {
        match self.identity_headers.request_id(&head.headers) {
            Some(id) => id.to_owned(),
            None => Uuid::new_v4().to_string(),
        }
    }

    /// Begins the record of a request.
    pub(super) fn record(&self, head: &Parts, request_id: String) -> Box<Record> {
        let mut record = self.bare_record(&head.headers, request_id);
        record.line.trace_id = Some(record.trace.trace_id());
        record.line.span_id = Some(record.trace.span_id());
        record.line.protocol = match head.version {
            Version::HTTP_2 => "HTTP/2",
            Version::HTTP_10 => "HTTP/1.0",
            _ => "HTTP/1.1",
        };
        record.line.method = Some(head.method.clone());
        head.uri.path().clone_into(&mut record.line.path);
        record.line.status = Some(0);
        record.method = KnownMethod::of(&head.method);
        record.version = HttpVersion::of(head.version);
        record
    }

    /// Begins the record of a connection without requests.
    pub(super) fn connection_record(&self, request_id: String) -> Box<Record> {
        self.bare_record(&HeaderMap::new(), request_id)
    }

    fn bare_record(&self, headers: &HeaderMap, request_id: String) -> Box<Record> {
        let now = self.worker.clock.now();
        let started = Instant::now();
        let trace = self.worker.tracer.begin(headers, now);
        Box::new(Record {
            line: Line {
                time: timestamp(now),
                request_id,
                trace_id: None,
                span_id: None,
                listener: Arc::clone(&self.listener.name),
                downstream: Arc::clone(&self.address),
                peer: Arc::clone(&self.peer_id),
                protocol: "TCP",
                method: None,
                authority: None,
                path: String::new(),
                route: None,
                upstream: None,
                verdict: Verdict::none,
                decision_id: None,
                policy_generation: None,
                dynamic_metadata: None,
                status: None,
                request_bytes: None,
                response_bytes: 0,
                duration_ms: 0.0,
                error: None,
                code: None,
                detail: None,
                complete: false,
            },
            connection: Arc::clone(self.registered.connection()),
            opened: None,
            route: Arc::clone(&self.listener.unrouted),
            method: KnownMethod::_OTHER,
            scheme: self.scheme(),
            version: HttpVersion::Http11,
            call: None,
            trace,
            log: self.worker.access_log.clone(),
            metrics: Arc::clone(&self.listener.metrics),
            progress: Progress::current(started),
            begun: now,
            started,
        })
    }
}
