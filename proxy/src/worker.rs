//! A worker: one thread with a runtime, listening sockets, an evaluator and pools of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use sidegate_identity::clock::Clock;
use sidegate_identity::svid::Identities;
use sidegate_identity::tls::TlsServer;
use sidegate_policy::Evaluator;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, warn};

use crate::access_log::AccessLog;
use crate::connections::{Connections, CutBy};
use crate::contained::contained;
use crate::generation::{self, Replacements};
use crate::guard::Admission;
use crate::headers::Forwarding;
use crate::limits::Limits;
use crate::listener::{BodyLimits, Timeouts};
use crate::metrics::{ListenerMetrics, RouteMetrics};
use crate::orders::Order;
use crate::outbound::Outbound;
use crate::path::PathRules;
use crate::protocol::Protocol;
use crate::recheck;
use crate::route::Route;
use crate::serving::{Changes, Serving};
use crate::trace::Tracer;
use crate::trust;

/// What a worker's connections share.
pub(crate) struct Worker {
    pub(crate) connections: Arc<Connections>,
    pub(crate) access_log: AccessLog,
    pub(crate) tracer: Tracer,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) identities: watch::Receiver<Arc<Identities>>,
    /// The policy generation that decides here.
    pub(crate) generation: watch::Sender<u64>,
    /// Cancelled when no new requests are to be taken.
    pub(crate) drain: CancellationToken,
    pub(crate) drain_timeout: Duration,
    /// Cancelled when a worker cannot go on as it should.
    pub(crate) failed: CancellationToken,
}

/// A listener, as one worker serves it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    /// Without it there is no TLS.
    pub(crate) tls: Option<TlsServer>,
    pub(crate) protocol: Protocol,
    pub(crate) routes: Vec<Route>,
    pub(crate) timeouts: Timeouts,
    pub(crate) body_limits: BodyLimits,
    pub(crate) limits: Limits,
    pub(crate) paths: PathRules,
    pub(crate) forwarding: Arc<Forwarding>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) context_extensions: Arc<BTreeMap<String, String>>,
    /// Where it is for a local app's own requests.
    pub(crate) outbound: Option<Arc<Outbound>>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// Of each route, in the same order.
    pub(crate) route_metrics: Vec<Arc<RouteMetrics>>,
    /// Of requests that have no route, or none yet.
    pub(crate) unrouted: Arc<RouteMetrics>,
    /// Whether another has taken its place, or none: its connections should end in good order.
    pub(crate) retired: AtomicBool,
}

/// A worker that has all that it needs to run.
pub(crate) struct Prepared {
    pub(crate) worker: Arc<Worker>,
    pub(crate) evaluator: Evaluator,
    pub(crate) replacements: Replacements,
    pub(crate) changes: Changes,
    pub(crate) runtime: Runtime,
}

impl Worker {
    /// Work that the worker cannot do without: where it panics, the worker has failed.
    pub(crate) fn vital(
        self: &Arc<Self>,
        what: &'static str,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = ()> + Send + 'static {
        let failed = self.failed.clone();
        contained(work, move |panic| {
            error!(code = "SG0380", what, panic, "a worker has failed");
            failed.cancel();
        })
    }
}

/// A runtime for one worker.
pub(crate) fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// Serves until drained. Runs on a thread of its own.
pub(crate) fn run(prepared: Prepared) {
    let Prepared {
        worker,
        evaluator,
        replacements,
        mut changes,
        runtime,
    } = prepared;
    generation::replace(evaluator);
    runtime.block_on(async {
        let trust = trust::watch(Arc::clone(&worker));
        let recheck = recheck::watch(Arc::clone(&worker));
        let policy = generation::take(worker.generation.clone(), replacements);
        tokio::spawn(worker.vital("watching trust", trust));
        tokio::spawn(worker.vital("asking a new policy", recheck));
        tokio::spawn(worker.vital("taking a new policy", policy));
        let connections = TaskTracker::new();
        let mut serving = Serving::new(Arc::clone(&worker), connections.clone());
        loop {
            tokio::select! {
                () = worker.drain.cancelled() => break,
                Some(change) = changes.recv() => serving.change(change).await,
            }
        }
        serving.stop().await;
        let live = worker.connections.all();
        live.iter().for_each(|live| live.orders.give(Order::Drain));
        connections.close();
        let all_ended = tokio::time::timeout(worker.drain_timeout, connections.wait());
        if all_ended.await.is_err() {
            let live = worker.connections.all();
            live.iter().for_each(|live| live.cut(CutBy::Drain));
            warn!(
                code = "SG0306",
                cut = live.len(),
                "connections outlived the drain timeout and are cut"
            );
            connections.wait().await;
        }
    });
}
