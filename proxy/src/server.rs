//! The proxy as a whole: its workers, from start to drain.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use sidegate_identity::clock::Clock;
use sidegate_identity::svid::Identities;
use sidegate_policy::{Evaluator, PolicyError};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::access_log::AccessLog;
use crate::connections::Connections;
use crate::generation::PolicySwap;
use crate::guard::Admission;
use crate::listener::ListenerConfig;
use crate::metrics::ProxyMetrics;
use crate::route::Route;
use crate::trace::Tracer;
use crate::worker::{self, Listener, Prepared, Worker};

/// What the proxy runs with.
pub struct ProxyConfig {
    /// What to listen on, with one socket for each worker.
    pub listeners: Vec<ListenerConfig>,
    /// One evaluator for each worker; their number is the number of workers.
    pub evaluators: Vec<Evaluator>,
    /// The identities that connections are made under.
    pub identities: watch::Receiver<Arc<Identities>>,
    /// Where requests are recorded.
    pub access_log: AccessLog,
    /// Which requests are recorded in traces, and where that goes.
    pub tracer: Tracer,
    /// What is counted.
    pub metrics: ProxyMetrics,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// How long requests may go on once the drain has begun.
    pub drain_timeout: Duration,
}

/// Running workers.
pub struct Proxy {
    policy: PolicySwap,
    drain: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    alive: Arc<AtomicUsize>,
}

/// A running worker; dropping it is its end, also by a panic.
struct Alive(Arc<AtomicUsize>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A policy without evaluators.
    #[error("an evaluator cannot be built")]
    Evaluator(#[from] PolicyError),
    /// There can be no more threads.
    #[error("a worker thread cannot be started")]
    Thread(#[source] io::Error),
}

impl StartError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Evaluator(error) => error.code(),
            Self::Thread(_) => "SG0308",
        }
    }
}

impl Proxy {
    /// Starts the workers. Connections are accepted from now on.
    ///
    /// # Errors
    /// When a thread cannot be started; those that were are drained.
    pub fn start(config: ProxyConfig) -> Result<Self, StartError> {
        let drain = CancellationToken::new();
        let (policy, replacements) = PolicySwap::new(config.evaluators.len());
        let mut started = Self {
            policy,
            drain: drain.clone(),
            workers: Vec::new(),
            alive: Arc::default(),
        };
        let mut shares: Vec<Vec<_>> = config.evaluators.iter().map(|_| Vec::new()).collect();
        for listener in config.listeners {
            let metrics = config.metrics.of(&listener.name);
            let admission = Admission::new(listener.limits, Arc::clone(&metrics));
            let address = listener.bound.address();
            let name: Arc<str> = listener.name.into();
            let context_extensions = Arc::new(listener.context_extensions);
            let forwarding = Arc::new(listener.forwarding);
            let route_metrics = || listener.routes.iter().map(|route| metrics.of_route(route));
            for (share, socket) in shares.iter_mut().zip(listener.bound.into_sockets()) {
                let listener = Listener {
                    name: Arc::clone(&name),
                    address,
                    tls: listener.tls.clone(),
                    routes: listener.routes.iter().map(Route::for_worker).collect(),
                    timeouts: listener.timeouts,
                    body_limits: listener.body_limits,
                    limits: listener.limits,
                    paths: listener.paths,
                    forwarding: Arc::clone(&forwarding),
                    admission: Arc::clone(&admission),
                    context_extensions: Arc::clone(&context_extensions),
                    metrics: Arc::clone(&metrics),
                    route_metrics: route_metrics().collect(),
                    unrouted: metrics.of_no_route(),
                };
                share.push((Arc::new(listener), socket));
            }
        }
        let prepared = config
            .evaluators
            .into_iter()
            .zip(replacements)
            .zip(shares)
            .map(|((evaluator, replacements), sockets)| {
                let worker = Arc::new(Worker {
                    connections: Arc::new(Connections::default()),
                    access_log: config.access_log.for_worker(),
                    tracer: config.tracer.clone(),
                    clock: Arc::clone(&config.clock),
                    identities: config.identities.clone(),
                    generation: watch::Sender::new(evaluator.generation()),
                    drain: drain.clone(),
                    drain_timeout: config.drain_timeout,
                });
                Prepared::new(worker, evaluator, replacements, sockets)
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(StartError::Thread)?;
        for (index, prepared) in prepared.into_iter().enumerate() {
            let alive = Arc::clone(&started.alive);
            alive.fetch_add(1, Relaxed);
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let _alive = Alive(alive);
                    worker::run(prepared);
                })
                .map_err(|error| {
                    drain.cancel();
                    StartError::Thread(error)
                })?;
            started.workers.push(thread);
        }
        Ok(started)
    }

    /// What puts another policy generation into place while the workers run.
    pub fn policy(&self) -> PolicySwap {
        self.policy.clone()
    }

    /// Tells, for as long as it is asked, whether all workers run.
    pub fn health(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let (alive, all) = (Arc::clone(&self.alive), self.workers.len());
        move || alive.load(Relaxed) == all
    }

    /// Takes no more connections, and waits until the requests that are under way have ended or the
    /// drain timeout has cut them. Blocks.
    pub fn drain(self) {
        self.drain.cancel();
        for worker in self.workers {
            match worker.join() {
                Ok(()) => {}
                Err(_) => tracing::error!(code = "SG0308", "a worker panicked"),
            }
        }
    }
}
