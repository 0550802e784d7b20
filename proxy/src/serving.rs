//! What a worker listens on, and how that is changed while it runs.
//!
//! ```text
//! control: ListenerSwap::prepare ── all that can fail ──▶ ListenerSwap::put
//!                                                            │        ▲ when no worker accepts
//! worker:                    all listeners change in one step ▼────────┘ for one that went
//! ```
//! A listener that changes keeps its sockets: the next connection gets the new settings. Those that
//! are there keep what they have, and are asked to end in good order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::connections::CutBy;
use crate::contained::contained;
use crate::inbound;
use crate::orders::Order;
use crate::worker::{Listener, Worker};

/// Between two looks at connections that are cut and have not ended.
const ENDING: Duration = Duration::from_secs(1);

/// How long accepting waits where there are no descriptors.
const WITHOUT_DESCRIPTORS: Duration = Duration::from_millis(10);

/// All that a worker listens on from now on.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) listeners: Vec<Next>,
    /// Told when it is so.
    pub(crate) done: oneshot::Sender<()>,
}

/// One listener of a change.
#[derive(Debug)]
pub(crate) enum Next {
    /// The one of this name, as it is.
    Unchanged(Arc<str>),
    /// Another behind the sockets of the one of this name.
    Changed(Arc<str>, Arc<Listener>),
    /// One with a socket of its own.
    New(Arc<Listener>, TcpListener),
}

/// A worker's end of the channel.
pub(crate) type Changes = mpsc::UnboundedReceiver<Change>;

/// What one worker listens on.
pub(crate) struct Serving {
    worker: Arc<Worker>,
    connections: TaskTracker,
    sockets: BTreeMap<Arc<str>, Accepting>,
}

/// A socket that is accepted from.
struct Accepting {
    listener: watch::Sender<Arc<Listener>>,
    task: JoinHandle<()>,
}

impl Serving {
    /// Nothing yet. Connections are counted by `connections`.
    pub(crate) fn new(worker: Arc<Worker>, connections: TaskTracker) -> Self {
        Self {
            worker,
            connections,
            sockets: BTreeMap::new(),
        }
    }

    /// Listens on what a change says from now on, and on nothing else.
    pub(crate) async fn change(&mut self, change: Change) {
        let mut before = std::mem::take(&mut self.sockets);
        for next in change.listeners {
            match next {
                Next::Unchanged(name) => {
                    if let Some(accepting) = before.remove(&name) {
                        self.sockets.insert(name, accepting);
                    }
                }
                Next::Changed(of, listener) => {
                    if let Some(accepting) = before.remove(&of) {
                        let name = Arc::clone(&listener.name);
                        self.retire(&accepting.listener.send_replace(listener));
                        self.sockets.insert(name, accepting);
                    }
                }
                Next::New(listener, socket) => {
                    let name = Arc::clone(&listener.name);
                    self.sockets.insert(name, self.accepting(listener, socket));
                }
            }
        }
        for gone in before.values() {
            let listener = Arc::clone(&gone.listener.borrow());
            self.retire(&listener);
            tokio::spawn(cut_in_time(Arc::clone(&self.worker), listener));
        }
        end(before).await;
        // Nobody waits any more where the instance ends.
        let _ = change.done.send(());
    }

    /// Asks the connections of a listener that is not served any more to end, and those that are not
    /// there yet.
    fn retire(&self, listener: &Arc<Listener>) {
        listener.retired.store(true, Relaxed);
        let live = self.worker.connections.all();
        let its = live
            .iter()
            .filter(|live| Arc::ptr_eq(&live.listener, listener));
        its.for_each(|live| live.orders.give(Order::Close));
    }

    /// Accepts nothing any more.
    pub(crate) async fn stop(self) {
        end(self.sockets).await;
    }

    fn accepting(&self, listener: Arc<Listener>, socket: TcpListener) -> Accepting {
        let (sender, receiver) = watch::channel(listener);
        let (worker, connections) = (Arc::clone(&self.worker), self.connections.clone());
        let accepting = accept(Arc::clone(&worker), receiver, socket, connections);
        Accepting {
            listener: sender,
            task: tokio::spawn(worker.vital("accepting connections", accepting)),
        }
    }
}

/// Closes sockets. None is open any more when this returns.
async fn end(sockets: BTreeMap<Arc<str>, Accepting>) {
    for accepting in sockets.values() {
        accepting.task.abort();
    }
    for accepting in sockets.into_values() {
        // That it was ended is what was meant.
        let _ = accepting.task.await;
    }
}

/// Accepts until it is ended.
async fn accept(
    worker: Arc<Worker>,
    current: watch::Receiver<Arc<Listener>>,
    socket: TcpListener,
    connections: TaskTracker,
) {
    let mut is_failing = false;
    loop {
        let accepted = socket.accept().await;
        let listener = Arc::clone(&current.borrow());
        match accepted {
            Ok((stream, address)) => {
                if std::mem::take(&mut is_failing) {
                    info!(listener = %listener.name, "connections are accepted again");
                }
                // Without a place it is closed at once.
                if let Some(place) = listener.admission.connection() {
                    let name = Arc::clone(&listener.name);
                    let metrics = Arc::clone(&listener.metrics);
                    let connection =
                        inbound::connection(Arc::clone(&worker), listener, stream, address);
                    let connection = contained(connection, move |panic| {
                        metrics.panicked();
                        error!(
                            code = "SG0308",
                            listener = %name,
                            downstream = %address,
                            panic,
                            "what served a connection panicked: the connection is ended",
                        );
                    });
                    connections.spawn(async {
                        let _place = place;
                        connection.await;
                    });
                }
            }
            Err(error) => {
                // Out of descriptors, most often: others must end first.
                listener.metrics.not_accepted();
                if !std::mem::replace(&mut is_failing, true) {
                    warn!(
                        code = "SG0307",
                        listener = %listener.name,
                        %error,
                        "connections are not accepted; tried again",
                    );
                }
                tokio::time::sleep(WITHOUT_DESCRIPTORS).await;
            }
        }
    }
}

/// Cuts the connections of a listener that is gone, where they outlive the drain timeout.
async fn cut_in_time(worker: Arc<Worker>, listener: Arc<Listener>) {
    tokio::time::sleep(worker.drain_timeout).await;
    let mut cut = 0;
    // Each of its connections holds it, also before it is in the table.
    while Arc::strong_count(&listener) > 1 {
        let live = worker.connections.all();
        let live = live
            .iter()
            .filter(|live| Arc::ptr_eq(&live.listener, &listener) && !live.is_cut());
        for live in live {
            live.cut(CutBy::Drain);
            cut += 1;
        }
        tokio::time::sleep(ENDING).await;
    }
    if cut > 0 {
        warn!(
            code = "SG0306",
            listener = %listener.name,
            cut,
            "connections of a listener that was removed outlived the drain timeout and were cut"
        );
    }
}
