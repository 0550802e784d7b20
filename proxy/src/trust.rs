//! A connection lives no longer than the trust that let it in.
//!
//! The peer's chain was verified in its handshake. When trust is withdrawn (a root is tainted or
//! leaves a bundle, an entry goes), the connections that may hang on it are verified again: what
//! would be refused now is cut, and what will be soon is asked to end in good order.

use std::collections::BTreeSet;
use std::sync::Arc;

use sidegate_identity::TrustDomain;
use sidegate_identity::svid::Identities;
use sidegate_identity::tls::Trust;
use tracing::info;

use crate::connections::{CutBy, LiveConnection};
use crate::metrics::Cut;
use crate::orders::Order;
use crate::worker::Worker;

/// Connections that are verified at a stretch, before others on the worker get their turn.
const SLICE: usize = 16;

/// What a change of generations took away.
struct Withdrawn<'a> {
    /// An entry: it may have been a listener's.
    entries: bool,
    /// Trust domains whose bundle has lost a root.
    trust_domains: BTreeSet<&'a TrustDomain>,
}

/// Verifies the worker's connections where trust is withdrawn, for as long as the source lives.
pub(crate) async fn watch(worker: Arc<Worker>) {
    let mut identities = worker.identities.clone();
    let mut known = Arc::clone(&identities.borrow_and_update());
    while identities.changed().await.is_ok() {
        let current = Arc::clone(&identities.borrow_and_update());
        let withdrawn = Withdrawn::between(&known, &current);
        if withdrawn.entries || !withdrawn.trust_domains.is_empty() {
            let live = worker.connections.all();
            let concerned = live.iter().filter(|live| withdrawn.concerns(live));
            for (index, live) in concerned.enumerate() {
                if index % SLICE == SLICE - 1 {
                    tokio::task::yield_now().await;
                }
                verify(&worker, live);
            }
        }
        known = current;
    }
}

/// Verifies a connection, and ends it if that is what it deserves.
pub(crate) fn verify(worker: &Worker, live: &LiveConnection) {
    // Where there are no identities, nobody is trusted by one.
    let Some(tls) = &live.tls else {
        return;
    };
    let now = worker.clock.now();
    match tls.trust(&live.chain, now) {
        Trust::Held => {}
        Trust::Ending => live.orders.give(Order::Close),
        Trust::Gone => {
            info!(
                code = "SG0309",
                listener = %live.listener.name,
                downstream = %live.downstream,
                peer = live.peer.as_ref().map(tracing::field::display),
                "a connection is cut: what it was trusted by is gone",
            );
            live.listener.metrics.cut(Cut::trust);
            live.cut(CutBy::Trust);
        }
    }
}

impl<'a> Withdrawn<'a> {
    /// New entries come last, and a renewed SVID changes nothing for live connections.
    fn between(known: &'a Identities, current: &Identities) -> Self {
        let mut pairs = known.issued().iter().zip(current.issued());
        let entries_stay = known.issued().len() <= current.issued().len()
            && pairs.all(|(known, current)| Arc::ptr_eq(&known.entry, &current.entry));
        let has_lost = known.bundles.iter().filter(|(trust_domain, known)| {
            match current.bundles.get(*trust_domain) {
                Some(current) => !Arc::ptr_eq(known, current) && !current.trusts_all_of(known),
                None => true,
            }
        });
        Self {
            entries: !entries_stay,
            trust_domains: has_lost.map(|(trust_domain, _)| trust_domain).collect(),
        }
    }

    fn concerns(&self, live: &LiveConnection) -> bool {
        let peer = live.peer.as_ref();
        self.entries || peer.is_some_and(|id| self.trust_domains.contains(id.trust_domain()))
    }
}
