//! A connection lives no longer than the trust that let it in.
//!
//! The peer's chain was verified in its handshake. When a bundle changes, or a listener loses its
//! identity, every live connection is verified again, and what would not be accepted now is cut.

use std::sync::Arc;

use sidegate_identity::svid::Identities;
use tracing::info;

use crate::connections::LiveConnection;
use crate::worker::Worker;

/// Connections that are verified at a stretch, before others on the worker get their turn.
const SLICE: usize = 16;

/// Verifies the worker's connections after each change of trust, for as long as the source lives.
pub(crate) async fn watch(worker: Arc<Worker>) {
    let mut identities = worker.identities.clone();
    let mut known = Arc::clone(&identities.borrow_and_update());
    while identities.changed().await.is_ok() {
        let current = Arc::clone(&identities.borrow_and_update());
        if !trusts_the_same(&known, &current) {
            verify_all(&worker).await;
        }
        known = current;
    }
}

/// Whether a connection would still be accepted now.
pub(crate) fn holds(worker: &Worker, live: &LiveConnection) -> bool {
    let now = worker.clock.now();
    live.listener.tls.still_accepts(&live.chain, now)
}

async fn verify_all(worker: &Worker) {
    let live = worker.connections.all();
    for slice in live.chunks(SLICE) {
        for live in slice.iter().filter(|live| !holds(worker, live)) {
            info!(
                code = "SG0309",
                listener = %live.listener.name,
                downstream = %live.downstream,
                peer = %live.peer,
                "a connection is cut: what it was trusted by is gone",
            );
            live.listener.metrics.cut_untrusted();
            live.cut();
        }
        tokio::task::yield_now().await;
    }
}

/// Whether bundles and entries are the same. A renewed SVID changes nothing for live connections.
fn trusts_the_same(known: &Identities, current: &Identities) -> bool {
    let same_bundles = known.bundles.len() == current.bundles.len()
        && known
            .bundles
            .values()
            .zip(current.bundles.values())
            .all(|(known, current)| Arc::ptr_eq(known, current));
    let keeps_entries = known.issued().len() <= current.issued().len()
        && known
            .issued()
            .iter()
            .zip(current.issued())
            .all(|(known, current)| Arc::ptr_eq(&known.entry, &current.entry));
    same_bundles && keeps_entries
}
