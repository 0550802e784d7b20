//! Who may connect, and how often each may ask. Shared by all workers of one listener.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::bucket;
use crate::limits::{Limits, RequestRate};
use crate::metrics::{Limit, ListenerMetrics};

/// How many identities are kept before it is looked which are gone.
const FEW_IDENTITIES: usize = 1024;

const SECOND: u64 = 1_000_000_000;

/// What one listener still takes.
#[derive(Debug)]
pub(crate) struct Admission {
    limits: Limits,
    metrics: Arc<ListenerMetrics>,
    connections: Arc<Semaphore>,
    /// Whether connections are turned away at the moment.
    is_full: AtomicBool,
    handshakes: Semaphore,
    started: Instant,
    identities: Mutex<Identities>,
}

/// A connection's identity, for as long as it is connected.
#[derive(Debug)]
pub(crate) struct Caller {
    identity: Arc<Identity>,
    admission: Arc<Admission>,
}

#[derive(Debug)]
struct Identities {
    known: HashMap<String, Arc<Identity>>,
    /// How many there may be until those that are gone are looked for.
    sweep_at: usize,
}

/// What one SPIFFE ID does.
#[derive(Debug, Default)]
struct Identity {
    /// Changed only by who holds the table.
    connections: AtomicUsize,
    /// Nanoseconds after the start at which all requests of a burst may come again.
    full_at: AtomicU64,
}

impl Admission {
    pub(crate) fn new(limits: Limits, metrics: Arc<ListenerMetrics>) -> Arc<Self> {
        let semaphore = |permits: usize| Semaphore::new(permits.min(Semaphore::MAX_PERMITS));
        Arc::new(Self {
            limits,
            metrics,
            connections: Arc::new(semaphore(limits.max_connections)),
            is_full: AtomicBool::new(false),
            handshakes: semaphore(limits.max_handshakes),
            started: Instant::now(),
            identities: Mutex::new(Identities {
                known: HashMap::new(),
                sweep_at: FEW_IDENTITIES,
            }),
        })
    }

    /// A place for another connection, if there is one.
    pub(crate) fn connection(&self) -> Option<OwnedSemaphorePermit> {
        let place = Arc::clone(&self.connections).try_acquire_owned().ok();
        let was_full = self.is_full.swap(place.is_none(), Relaxed);
        if place.is_none() {
            self.metrics.limit_exceeded(Limit::max_connections);
            if !was_full {
                tracing::warn!(
                    code = "SG0350",
                    listener = self.metrics.name(),
                    limit = self.limits.max_connections,
                    "connections are turned away: there are as many as the listener may have",
                );
            }
        }
        place
    }

    /// Waits for its turn to do a handshake.
    pub(crate) async fn handshake(&self) -> Option<SemaphorePermit<'_>> {
        if let Ok(turn) = self.handshakes.try_acquire() {
            return Some(turn);
        }
        self.metrics.limit_exceeded(Limit::max_handshakes);
        self.handshakes.acquire().await.ok()
    }

    /// Counts a connection of an identity, unless it has as many as it may.
    pub(crate) fn caller(self: &Arc<Self>, spiffe_id: &str) -> Option<Caller> {
        let mut identities = self.identities();
        let identity = match identities.known.get(spiffe_id) {
            Some(identity) => Arc::clone(identity),
            None => {
                identities.sweep(self.now());
                let identity = Arc::<Identity>::default();
                identities
                    .known
                    .insert(spiffe_id.to_owned(), Arc::clone(&identity));
                identity
            }
        };
        if identity.connections.load(Relaxed) >= self.limits.max_connections_per_identity {
            self.metrics
                .limit_exceeded(Limit::max_connections_per_identity);
            return None;
        }
        identity.connections.fetch_add(1, Relaxed);
        Some(Caller {
            identity,
            admission: Arc::clone(self),
        })
    }

    fn identities(&self) -> MutexGuard<'_, Identities> {
        self.identities
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Identities {
    /// Forgets who is not connected and may send a whole burst, once there are many.
    fn sweep(&mut self, now: u64) {
        if self.known.len() < self.sweep_at {
            return;
        }
        self.known.retain(|_, identity| {
            identity.connections.load(Relaxed) > 0 || identity.full_at.load(Relaxed) > now
        });
        self.sweep_at = FEW_IDENTITIES.max(self.known.len().saturating_mul(2));
    }
}

impl Caller {
    /// Counts a request. False where there are too many.
    pub(crate) fn may_ask(&self) -> bool {
        let Some(RequestRate { per_second, burst }) = self.admission.limits.rate else {
            return true;
        };
        let interval = SECOND / u64::from(per_second.get());
        let now = self.admission.now();
        let taken = self
            .identity
            .full_at
            .fetch_update(Relaxed, Relaxed, |full_at| {
                bucket::take(full_at, now, interval, u64::from(burst.get()))
            });
        taken.is_ok()
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        let _identities = self.admission.identities();
        self.identity.connections.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use prometheus_client::registry::Registry;

    use super::*;
    use crate::metrics::ProxyMetrics;

    fn admission(limits: Limits) -> Arc<Admission> {
        let metrics = ProxyMetrics::register(&mut Registry::default());
        Admission::new(limits, metrics.of("main"))
    }

    fn rate(per_second: u32, burst: u32) -> Option<RequestRate> {
        let number = |number| NonZeroU32::new(number).unwrap();
        Some(RequestRate {
            per_second: number(per_second),
            burst: number(burst),
        })
    }

    #[test]
    fn connections_are_counted_for_each_identity_until_they_end() {
        let admission = admission(Limits {
            max_connections_per_identity: 2,
            ..Limits::default()
        });
        let kept = [
            admission.caller("a").unwrap(),
            admission.caller("a").unwrap(),
        ];
        assert!(admission.caller("a").is_none());
        assert!(admission.caller("b").is_some());
        drop(kept);
        assert!(admission.caller("a").is_some());
    }

    #[tokio::test]
    async fn a_rate_is_shared_by_all_connections_of_an_identity_and_outlives_them() {
        let admission = admission(Limits {
            rate: rate(1, 3),
            ..Limits::default()
        });
        let callers = [
            admission.caller("a").unwrap(),
            admission.caller("a").unwrap(),
        ];
        let [first, second] = &callers;
        assert!(first.may_ask() && second.may_ask() && first.may_ask());
        assert!(!first.may_ask() && !second.may_ask());
        assert!(admission.caller("b").unwrap().may_ask());
        drop(callers);
        assert!(!admission.caller("a").unwrap().may_ask());
    }

    #[test]
    fn identities_that_are_gone_are_forgotten_in_time() {
        let admission = admission(Limits {
            rate: rate(1, 1),
            ..Limits::default()
        });
        let _kept = admission.caller("kept").unwrap();
        assert!(admission.caller("asked a moment ago").unwrap().may_ask());
        for index in 0..3 * FEW_IDENTITIES {
            admission.caller(&index.to_string()).unwrap();
        }
        let known = &admission.identities().known;
        assert!(known.len() <= FEW_IDENTITIES, "{}", known.len());
        assert!(known.contains_key("kept") && known.contains_key("asked a moment ago"));
    }
}
