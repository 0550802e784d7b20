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
use crate::metrics::ProxyMetrics;
use crate::swap::ListenerSwap;
use crate::trace::Tracer;
use crate::worker::{self, Prepared, Worker};

/// What the proxy runs with.
pub struct ProxyConfig {
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
    listeners: ListenerSwap,
    drain: CancellationToken,
    workers: Vec<JoinHandle<()>>,
    alive: Arc<AtomicUsize>,
    failed: CancellationToken,
}

/// A running worker; dropping it is its end, also by a panic.
struct Alive {
    workers: Arc<AtomicUsize>,
    drain: CancellationToken,
    failed: CancellationToken,
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.workers.fetch_sub(1, Relaxed);
        if !self.drain.is_cancelled() {
            self.failed.cancel();
        }
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
    /// Starts the workers. They have no listeners before [`Proxy::listeners`] puts some there.
    ///
    /// # Errors
    /// When a thread cannot be started; those that were are drained.
    pub fn start(config: ProxyConfig) -> Result<Self, StartError> {
        let drain = CancellationToken::new();
        let runtimes = config.evaluators.iter().map(|_| worker::runtime());
        let runtimes = runtimes.collect::<io::Result<Vec<_>>>();
        let runtimes = runtimes.map_err(StartError::Thread)?;
        let (policy, replacements) = PolicySwap::new(config.evaluators.len());
        let handles = runtimes.iter().map(|runtime| runtime.handle().clone());
        let (listeners, changes) = ListenerSwap::new(handles, config.metrics);
        let mut started = Self {
            policy,
            listeners,
            drain: drain.clone(),
            workers: Vec::new(),
            alive: Arc::default(),
            failed: CancellationToken::new(),
        };
        let ends = replacements.into_iter().zip(changes).zip(runtimes);
        let workers = config.evaluators.into_iter().zip(ends).enumerate();
        for (index, (evaluator, ((replacements, changes), runtime))) in workers {
            let worker = Arc::new(Worker {
                connections: Arc::new(Connections::default()),
                access_log: config.access_log.for_worker(),
                tracer: config.tracer.clone(),
                clock: Arc::clone(&config.clock),
                identities: config.identities.clone(),
                generation: watch::Sender::new(evaluator.generation()),
                drain: drain.clone(),
                drain_timeout: config.drain_timeout,
                failed: started.failed.clone(),
            });
            let prepared = Prepared {
                worker,
                evaluator,
                replacements,
                changes,
                runtime,
            };
            started.alive.fetch_add(1, Relaxed);
            let alive = Alive {
                workers: Arc::clone(&started.alive),
                drain: drain.clone(),
                failed: started.failed.clone(),
            };
            let thread = std::thread::Builder::new()
                .name(format!("worker-{index}"))
                .spawn(move || {
                    let _alive = alive;
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

    /// What puts listeners into place while the workers run.
    pub fn listeners(&self) -> ListenerSwap {
        self.listeners.clone()
    }

    /// What puts another policy generation into place while the workers run.
    pub fn policy(&self) -> PolicySwap {
        self.policy.clone()
    }

    /// Tells, for as long as it is asked, whether all workers run.
    pub fn health(&self) -> impl Fn() -> bool + Send + Sync + 'static {
        let (alive, all) = (Arc::clone(&self.alive), self.workers.len());
        let failed = self.failed.clone();
        move || alive.load(Relaxed) == all && !failed.is_cancelled()
    }

    /// Waits until a worker has ended, or cannot do all that it should: what it is to watch may not
    /// be watched any more. There is no way back but to drain and start anew.
    pub fn failed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.failed.clone().cancelled_owned()
    }

    /// Takes no more connections, and waits until the requests that are under way have ended or the
    /// drain timeout has cut them. Blocks.
    pub fn drain(self) {
        self.drain.cancel();
        for worker in self.workers {
            match worker.join() {
                Ok(()) => {}
                Err(_) => tracing::error!(code = "SG0380", "a worker has panicked"),
            }
        }
    }
}
