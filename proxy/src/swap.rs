//! The control side of changing listeners: everything is made before, so that putting it into place
//! cannot fail.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

use crate::guard::Admission;
use crate::limits::Limits;
use crate::listener::{BoundListener, ListenerConfig};
use crate::metrics::{ListenerMetrics, ProxyMetrics};
use crate::serving::{Change, Changes, Next};
use crate::worker::Listener;

/// Puts other listeners into the place of those that serve. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ListenerSwap {
    shared: Arc<Shared>,
}

/// One of the listeners that are to serve.
pub enum NextListener {
    /// The one of this name, as it is: nothing of it is touched.
    Unchanged(String),
    /// Another behind the sockets of the one of this name. New connections get the new settings,
    /// live ones are asked to end in good order.
    Changed(String, ListenerConfig),
    /// One with sockets of its own.
    New(BoundListener, ListenerConfig),
}

/// Listeners that each worker can take.
#[derive(Debug)]
#[must_use = "listeners that serve nothing"]
pub struct PreparedListeners {
    workers: Vec<Vec<Next>>,
    serving: Vec<Known>,
}

#[derive(Debug)]
struct Shared {
    workers: Vec<WorkerEnd>,
    metrics: ProxyMetrics,
    serving: Mutex<Vec<Known>>,
}

#[derive(Debug)]
struct WorkerEnd {
    changes: mpsc::UnboundedSender<Change>,
    runtime: Handle,
}

/// A listener that serves.
#[derive(Debug, Clone)]
struct Known {
    name: Arc<str>,
    address: SocketAddr,
    limits: Limits,
    admission: Arc<Admission>,
}

impl ListenerSwap {
    /// For workers with these runtimes, each of which gets one of the ends.
    pub(crate) fn new(
        runtimes: impl IntoIterator<Item = Handle>,
        metrics: ProxyMetrics,
    ) -> (Self, Vec<Changes>) {
        let ends = runtimes.into_iter().map(|runtime| {
            let (changes, receiver) = mpsc::unbounded_channel();
            (WorkerEnd { changes, runtime }, receiver)
        });
        let (workers, receivers) = ends.unzip();
        let shared = Arc::new(Shared {
            workers,
            metrics,
            serving: Mutex::default(),
        });
        (Self { shared }, receivers)
    }

    /// Makes all that the workers need to serve these listeners, and no others. Nothing is accepted
    /// from a new one yet.
    ///
    /// # Errors
    /// When the kernel refuses to watch a socket.
    pub fn prepare(
        &self,
        listeners: impl IntoIterator<Item = NextListener>,
    ) -> io::Result<PreparedListeners> {
        let mut prepared = PreparedListeners {
            workers: self.shared.workers.iter().map(|_| Vec::new()).collect(),
            serving: Vec::new(),
        };
        for listener in listeners {
            self.prepare_one(listener, &mut prepared)?;
        }
        Ok(prepared)
    }

    fn prepare_one(
        &self,
        listener: NextListener,
        prepared: &mut PreparedListeners,
    ) -> io::Result<()> {
        let missing = |name: &str| {
            let text = format!("no listener `{name}` serves");
            io::Error::new(io::ErrorKind::NotFound, text)
        };
        match listener {
            NextListener::Unchanged(name) => {
                let known = self.known(&name).ok_or_else(|| missing(&name))?;
                for worker in &mut prepared.workers {
                    worker.push(Next::Unchanged(Arc::clone(&known.name)));
                }
                prepared.serving.push(known);
            }
            NextListener::Changed(name, config) => {
                let before = self.known(&name).ok_or_else(|| missing(&name))?;
                let (known, made) = self.make(config, before.address, Some(&before));
                for worker in &mut prepared.workers {
                    let listener = made.for_worker();
                    worker.push(Next::Changed(Arc::clone(&before.name), listener));
                }
                prepared.serving.push(known);
            }
            NextListener::New(bound, config) => {
                let (known, made) = self.make(config, bound.address(), None);
                let workers = self.shared.workers.iter().zip(&mut prepared.workers);
                for ((end, worker), socket) in workers.zip(bound.into_sockets()) {
                    let _entered = end.runtime.enter();
                    let socket = TcpListener::from_std(socket)?;
                    worker.push(Next::New(made.for_worker(), socket));
                }
                prepared.serving.push(known);
            }
        }
        Ok(())
    }

    /// Has each worker take what was prepared, all of it in one step. When this returns, every
    /// connection that comes from now on is accepted by it, and the sockets of listeners that went
    /// are closed.
    ///
    /// A worker that has ended serves nothing, and takes nothing.
    pub async fn put(&self, prepared: PreparedListeners) {
        let PreparedListeners { workers, serving } = prepared;
        *self.serving() = serving;
        // All are told before any is waited for.
        let ends = self.shared.workers.iter().zip(workers);
        let told: Vec<_> = ends
            .filter_map(|(end, listeners)| {
                let (done, receiver) = oneshot::channel();
                end.changes.send(Change { listeners, done }).ok()?;
                Some(receiver)
            })
            .collect();
        for done in told {
            // An error: it has ended meanwhile.
            let _ = done.await;
        }
    }

    /// What all workers share of a listener.
    fn make(
        &self,
        config: ListenerConfig,
        address: SocketAddr,
        before: Option<&Known>,
    ) -> (Known, Made) {
        let metrics = self.shared.metrics.of(&config.name);
        let name: Arc<str> = config.name.as_str().into();
        // Under the same limits, whoever is there already counts.
        let admission = match before {
            Some(before) if before.limits == config.limits && before.name == name => {
                Arc::clone(&before.admission)
            }
            _ => Admission::new(config.limits, Arc::clone(&metrics)),
        };
        let known = Known {
            name,
            address,
            limits: config.limits,
            admission,
        };
        let made = Made {
            known: known.clone(),
            config,
            metrics,
        };
        (known, made)
    }

    fn known(&self, name: &str) -> Option<Known> {
        let serving = self.serving();
        serving.iter().find(|known| *known.name == *name).cloned()
    }

    fn serving(&self) -> MutexGuard<'_, Vec<Known>> {
        let serving = self.shared.serving.lock();
        serving.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A listener, before each worker gets its own.
struct Made {
    known: Known,
    config: ListenerConfig,
    metrics: Arc<ListenerMetrics>,
}

impl Made {
    fn for_worker(&self) -> Arc<Listener> {
        let Self {
            known,
            config,
            metrics,
        } = self;
        let routes = config.routes.iter();
        Arc::new(Listener {
            name: Arc::clone(&known.name),
            address: known.address,
            tls: config.tls.clone(),
            protocol: config.protocol,
            routes: routes
                .clone()
                .map(|route| route.for_worker(metrics))
                .collect(),
            outbound: config.outbound.clone().map(Arc::new),
            timeouts: config.timeouts,
            body_limits: config.body_limits,
            limits: config.limits,
            paths: config.paths,
            forwarding: Arc::new(config.forwarding.clone()),
            admission: Arc::clone(&known.admission),
            context_extensions: Arc::new(config.context_extensions.clone()),
            metrics: Arc::clone(metrics),
            route_metrics: routes.map(|route| metrics.of_route(route)).collect(),
            unrouted: metrics.of_no_route(),
            retired: AtomicBool::new(false),
        })
    }
}
