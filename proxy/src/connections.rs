//! A worker's table of live connections: who is connected, under what, and how to end it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use sidegate_identity::SpiffeId;
use tokio_util::sync::CancellationToken;

/// The live connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    live: HashMap<u64, LiveConnection>,
}

/// What a connection was allowed by, and the handle that ends it.
#[derive(Debug)]
pub(crate) struct LiveConnection {
    pub(crate) listener: Arc<str>,
    pub(crate) downstream: SocketAddr,
    pub(crate) peer: SpiffeId,
    /// The end of the peer's SVID.
    pub(crate) expires_at: SystemTime,
    pub(crate) policy_generation: u64,
    pub(crate) identity_generation: u64,
    pub(crate) cancel: CancellationToken,
}

/// Keeps a connection in the table; dropping it takes it out.
#[derive(Debug)]
pub(crate) struct Registered {
    id: u64,
    connections: Arc<Connections>,
}

impl Connections {
    pub(crate) fn register(self: &Arc<Self>, connection: LiveConnection) -> Registered {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let id = table.next;
        table.next += 1;
        table.live.insert(id, connection);
        Registered {
            id,
            connections: Arc::clone(self),
        }
    }

    /// Cuts the connections that `condemned` chooses, and says how many.
    pub(crate) fn cut(&self, condemned: impl Fn(&LiveConnection) -> bool) -> usize {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let condemned = table.live.values().filter(|live| condemned(live));
        condemned
            .map(|live| {
                tracing::debug!(
                    listener = %live.listener,
                    downstream = %live.downstream,
                    peer = %live.peer,
                    expires_at = ?live.expires_at,
                    policy_generation = live.policy_generation,
                    identity_generation = live.identity_generation,
                    "a live connection is cut",
                );
                live.cancel.cancel();
            })
            .count()
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let table = self.connections.table.lock();
        let mut table = table.unwrap_or_else(PoisonError::into_inner);
        table.live.remove(&self.id);
    }
}
