//! A worker's table of live connections: who is connected, under what, and how to end it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use sidegate_identity::SpiffeId;
use sidegate_identity::tls::ServerTls;
use sidegate_policy::ConnectionFacts;

use crate::error::DENIED_NOW;
use crate::open_request::OpenRequests;
use crate::orders::{Order, Orders};
use crate::worker::Listener;

/// The live connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    live: HashMap<u64, Arc<LiveConnection>>,
}

/// What a connection was allowed by, and the handle that ends it.
#[derive(Debug)]
pub(crate) struct LiveConnection {
    pub(crate) listener: Arc<Listener>,
    pub(crate) downstream: SocketAddr,
    /// None where it showed none, and the listener takes that.
    pub(crate) peer: Option<SpiffeId>,
    /// The peer's certificates, leaf first: they are verified again when trust changes.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The identity that it met here, where the listener has any.
    pub(crate) tls: Option<Arc<ServerTls>>,
    /// The end of the peer's SVID.
    pub(crate) expires_at: Option<SystemTime>,
    /// What the policy may know of it.
    pub(crate) facts: ConnectionFacts,
    /// The same for each route that tells the policy more.
    pub(crate) route_facts: Box<[OnceLock<ConnectionFacts>]>,
    /// The policy generation that was asked about it last.
    pub(crate) policy_generation: AtomicU64,
    pub(crate) identity_generation: u64,
    /// What it is told by others.
    pub(crate) orders: Orders,
    /// Why it was cut, once it is.
    pub(crate) cut_by: OnceLock<CutBy>,
    /// What runs on it.
    pub(crate) requests: OpenRequests,
}

/// Why a connection was cut, and with it what still ran on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CutBy {
    /// Trust in the peer was withdrawn.
    Trust,
    /// The policy denies it now.
    Policy,
    /// The peer's SVID ended.
    Expiry,
    /// Nothing moved in it any more.
    Idle,
    /// It outlived the drain timeout.
    Drain,
}

/// Keeps a connection in the table; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Registered {
    id: u64,
    live: Arc<LiveConnection>,
    connections: Arc<Connections>,
}

impl Connections {
    pub(crate) fn register(self: &Arc<Self>, connection: LiveConnection) -> Registered {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let id = table.next;
        table.next += 1;
        let live = Arc::new(connection);
        table.live.insert(id, Arc::clone(&live));
        Registered {
            id,
            live,
            connections: Arc::clone(self),
        }
    }

    /// Those that are there now.
    pub(crate) fn all(&self) -> Vec<Arc<LiveConnection>> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.live.values().map(Arc::clone).collect()
    }
}

impl Registered {
    pub(crate) fn connection(&self) -> &Arc<LiveConnection> {
        &self.live
    }
}

impl LiveConnection {
    /// What the policy may know of the connection of a request on a route.
    pub(crate) fn facts_of(&self, route: Option<usize>) -> &ConnectionFacts {
        let at = |index: usize| {
            Some((
                self.listener.routes.get(index)?,
                self.route_facts.get(index)?,
            ))
        };
        match route.and_then(at) {
            Some((route, place)) if !route.context_extensions.is_empty() => {
                place.get_or_init(|| self.facts.on_route(&route.context_extensions))
            }
            _ => &self.facts,
        }
    }

    /// Whether it was told to end at once.
    pub(crate) fn is_cut(&self) -> bool {
        self.cut_by.get().is_some()
    }

    /// Ends it, whatever it is doing. The first reason is the one that counts.
    pub(crate) fn cut(&self, by: CutBy) {
        self.cut_by.get_or_init(|| by);
        tracing::debug!(
            listener = %self.listener.name,
            downstream = %self.downstream,
            peer = self.peer.as_ref().map(tracing::field::display),
            expires_at = ?self.expires_at,
            policy_generation = self.policy_generation.load(Relaxed),
            identity_generation = self.identity_generation,
            "a live connection is cut",
        );
        self.orders.give(Order::Cut);
    }
}

impl CutBy {
    /// In the access log.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Trust => "trust_gone",
            Self::Policy => DENIED_NOW,
            Self::Expiry => "peer_expired",
            Self::Idle => "idle",
            Self::Drain => "drain_timeout",
        }
    }

    /// The stable diagnostic code.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Trust => "SG0309",
            Self::Policy => "SG0342",
            Self::Expiry => "SG0316",
            Self::Idle => "SG0305",
            Self::Drain => "SG0306",
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let table = self.connections.table.lock();
        let mut table = table.unwrap_or_else(PoisonError::into_inner);
        table.live.remove(&self.id);
    }
}
