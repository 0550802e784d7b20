//! A worker: one thread with a runtime, listening sockets, an evaluator and pools of its own.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use sidegate_identity::clock::Clock;
use sidegate_identity::svid::Identities;
use sidegate_identity::tls::ServerTls;
use sidegate_policy::Evaluator;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::access_log::AccessLog;
use crate::connections::{Connections, CutBy};
use crate::generation::{self, Replacements};
use crate::guard::Admission;
use crate::headers::Forwarding;
use crate::inbound;
use crate::limits::Limits;
use crate::listener::{BodyLimits, Timeouts};
use crate::metrics::{ListenerMetrics, RouteMetrics};
use crate::path::PathRules;
use crate::recheck;
use crate::route::Route;
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
}

/// A listener, as one worker serves it.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    pub(crate) tls: ServerTls,
    pub(crate) routes: Vec<Route>,
    pub(crate) timeouts: Timeouts,
    pub(crate) body_limits: BodyLimits,
    pub(crate) limits: Limits,
    pub(crate) paths: PathRules,
    pub(crate) forwarding: Arc<Forwarding>,
    pub(crate) admission: Arc<Admission>,
    pub(crate) context_extensions: Arc<BTreeMap<String, String>>,
    pub(crate) metrics: Arc<ListenerMetrics>,
    /// Of each route, in the same order.
    pub(crate) route_metrics: Vec<Arc<RouteMetrics>>,
    /// Of requests that have no route, or none yet.
    pub(crate) unrouted: Arc<RouteMetrics>,
}

/// A worker that has all that it needs to run.
pub(crate) struct Prepared {
    pub(crate) worker: Arc<Worker>,
    evaluator: Evaluator,
    replacements: Replacements,
    listeners: Vec<(Arc<Listener>, tokio::net::TcpListener)>,
    runtime: Runtime,
}

impl Prepared {
    /// Makes the runtime and hands it the sockets.
    pub(crate) fn new(
        worker: Arc<Worker>,
        evaluator: Evaluator,
        replacements: Replacements,
        sockets: Vec<(Arc<Listener>, TcpListener)>,
    ) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let listeners = sockets
            .into_iter()
            .map(|(listener, socket)| Ok((listener, tokio::net::TcpListener::from_std(socket)?)))
            .collect::<io::Result<_>>()?;
        drop(entered);
        Ok(Self {
            worker,
            evaluator,
            replacements,
            listeners,
            runtime,
        })
    }
}

/// Serves until drained. Runs on a thread of its own.
pub(crate) fn run(prepared: Prepared) {
    let Prepared {
        worker,
        evaluator,
        replacements,
        listeners,
        runtime,
    } = prepared;
    generation::replace(evaluator);
    runtime.block_on(async {
        tokio::spawn(trust::watch(Arc::clone(&worker)));
        tokio::spawn(recheck::watch(Arc::clone(&worker)));
        tokio::spawn(generation::take(worker.generation.clone(), replacements));
        let connections = TaskTracker::new();
        let accepting = TaskTracker::new();
        for (listener, socket) in listeners {
            let worker = Arc::clone(&worker);
            accepting.spawn(accept(worker, listener, socket, connections.clone()));
        }
        accepting.close();
        accepting.wait().await;
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

/// Accepts until drained.
async fn accept(
    worker: Arc<Worker>,
    listener: Arc<Listener>,
    socket: tokio::net::TcpListener,
    connections: TaskTracker,
) {
    loop {
        let accepted = tokio::select! {
            () = worker.drain.cancelled() => return,
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                // Without a place it is closed at once.
                if let Some(place) = listener.admission.connection() {
                    let (worker, listener) = (Arc::clone(&worker), Arc::clone(&listener));
                    let connection = inbound::connection(worker, listener, stream, address);
                    connections.spawn(async {
                        let _place = place;
                        connection.await;
                    });
                }
            }
            Err(error) => {
                // Out of descriptors, most often: others must end first.
                info!(code = "SG0307", listener = %listener.name, %error, "a connection is not accepted");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}
