//! The shadow: a candidate for the next policy decides what the live one has
//! decided, and whatever differs is counted and logged.
//!
//! ```text
//! workers ── Record ──▶ bounded queue, never waited for
//!                          │
//! "policy-shadow" thread   ▼
//!   the candidate's own evaluator ─ compared with the live decision ─ counted ─ logged
//! ```
//! It asks with the same connection, head, time and id. Nothing that it decides
//! becomes a permit, a metric of decisions or an event of the decision log.

mod comparison;
mod metrics;
#[cfg(test)]
mod tests;
mod thread;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::registry::Registry;
use rand::Rng;

pub use metrics::ShadowMetrics;

use crate::decision_log::{RateLimit, Record};
use crate::error::PolicyError;
use crate::evaluator::Evaluator;
use crate::metrics::PolicyMetrics;
use crate::policy::Policy;
use comparison::Difference;
use thread::Comparer;

/// Decisions that wait to be compared.
const QUEUE: usize = 4 * 1024;

/// Bytes of decisions that wait to be compared.
const QUEUE_BYTES: usize = 32 * 1024 * 1024;

/// Differences that are logged in each second. All are counted.
const LOGGED: u32 = 10;

/// All requests, in billionths.
const ALL: u64 = 1_000_000_000;

/// The share of requests that are compared, from none to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    billionths: u64,
}

/// The workers' end. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shadow {
    records: SyncSender<Arc<Record>>,
    shared: Arc<Shared>,
}

/// The control side's end: which candidate is compared, and what came of it.
#[derive(Debug, Clone)]
pub struct ShadowControl {
    shared: Arc<Shared>,
    /// Registered nowhere: what a candidate decides is no decision.
    metrics: PolicyMetrics,
}

/// What came of comparing one candidate with one generation of the live policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ShadowCounts {
    /// The newest generation whose decisions were compared; 0 for none yet.
    pub generation: u64,
    /// Both decide the same.
    pub same: u64,
    /// The candidate would deny what is allowed.
    pub allowed_to_denied: u64,
    /// The candidate would allow what is denied.
    pub denied_to_allowed: u64,
    /// The verdict is the same, but not the status, body or headers.
    pub edits: u64,
    /// The candidate has no answer: it takes too long, contradicts itself, or
    /// answers with something that cannot be carried out.
    pub error: u64,
    /// Not compared, because too many were waiting.
    pub dropped: u64,
}

/// Why there is no shadow.
#[derive(Debug, thiserror::Error)]
pub enum ShadowError {
    /// There is no evaluator of the candidate.
    #[error(transparent)]
    Candidate(#[from] PolicyError),
    /// There can be no more threads.
    #[error("the shadow's thread cannot be started")]
    Thread(#[source] io::Error),
}

/// What all ends know.
struct Shared {
    sample: Sample,
    metrics: ShadowMetrics,
    /// Bytes that wait.
    bytes: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    /// The candidate's evaluator, until the thread takes it.
    next: Option<Box<Evaluator>>,
    counts: ShadowCounts,
    /// How many were dropped in all when counting began.
    dropped_before: u64,
}

impl Sample {
    /// Every request.
    pub const EVERY: Self = Self { billionths: ALL };

    /// A share from 0 to 1; `None` for any other number.
    #[must_use]
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then(|| Self {
            billionths: (share * ALL as f64).round() as u64,
        })
    }

    /// The share, from 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        self.billionths as f64 / ALL as f64
    }

    fn takes(self, random: &mut impl Rng) -> bool {
        self.billionths == ALL || random.random_range(0..ALL) < self.billionths
    }
}

impl Shadow {
    /// Starts the thread that compares.
    ///
    /// # Errors
    ///
    /// When there is no evaluator of the candidate, or no thread.
    pub fn start(
        candidate: &Policy,
        sample: Sample,
        metrics: ShadowMetrics,
    ) -> Result<(Self, ShadowControl), ShadowError> {
        Self::start_with_queue(candidate, sample, metrics, QUEUE)
    }

    fn start_with_queue(
        candidate: &Policy,
        sample: Sample,
        metrics: ShadowMetrics,
        queue: usize,
    ) -> Result<(Self, ShadowControl), ShadowError> {
        let unregistered = PolicyMetrics::register(&mut Registry::default());
        let evaluator = candidate.evaluator(&unregistered)?;
        let shared = Arc::new(Shared {
            sample,
            metrics,
            bytes: AtomicUsize::default(),
            state: Mutex::new(State {
                next: None,
                counts: ShadowCounts::default(),
                dropped_before: 0,
            }),
        });
        let (records, receiver) = sync_channel(queue);
        let comparer = Comparer {
            records: receiver,
            shared: Arc::clone(&shared),
            evaluator: Box::new(evaluator),
            rate_limit: RateLimit::new(LOGGED),
            unlogged: 0,
        };
        std::thread::Builder::new()
            .name("policy-shadow".to_owned())
            .spawn(move || comparer.run())
            .map_err(ShadowError::Thread)?;
        let shadow = Self {
            records,
            shared: Arc::clone(&shared),
        };
        let control = ShadowControl {
            shared,
            metrics: unregistered,
        };
        Ok((shadow, control))
    }

    /// Whether a decision is among those to be compared.
    pub(crate) fn samples(&self, random: &mut impl Rng) -> bool {
        self.shared.sample.takes(random)
    }

    /// Has a decision compared, or counts that it is not. Never waits.
    pub(crate) fn record(&self, record: Arc<Record>) {
        let size = record.size();
        let waiting = self.shared.bytes.fetch_add(size, Relaxed);
        let has_room = waiting.saturating_add(size) <= QUEUE_BYTES;
        if !has_room || self.records.try_send(record).is_err() {
            self.shared.bytes.fetch_sub(size, Relaxed);
            self.shared.metrics.dropped.inc();
        }
    }
}

impl ShadowControl {
    /// Has another candidate compared, and counts anew. Builds an evaluator,
    /// which takes a while.
    ///
    /// # Errors
    ///
    /// None that [`Policy::load`] did not rule out.
    pub fn replace(&self, candidate: &Policy) -> Result<(), PolicyError> {
        let evaluator = Box::new(candidate.evaluator(&self.metrics)?);
        let mut state = self.shared.state();
        let unused = state.next.replace(evaluator);
        state.counts = ShadowCounts::default();
        state.dropped_before = self.shared.metrics.dropped.get();
        drop(state);
        drop(unused);
        Ok(())
    }

    /// What came of the candidate so far.
    #[must_use]
    pub fn counts(&self) -> ShadowCounts {
        let state = self.shared.state();
        let dropped = self.shared.metrics.dropped.get();
        ShadowCounts {
            dropped: dropped.saturating_sub(state.dropped_before),
            ..state.counts
        }
    }
}

impl ShadowCounts {
    /// How many decisions were compared.
    #[must_use]
    pub fn compared(&self) -> u64 {
        [
            self.same,
            self.allowed_to_denied,
            self.denied_to_allowed,
            self.edits,
            self.error,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    fn add(&mut self, difference: Option<Difference>) {
        let count = match difference {
            None => &mut self.same,
            Some(Difference::AllowedToDenied) => &mut self.allowed_to_denied,
            Some(Difference::DeniedToAllowed) => &mut self.denied_to_allowed,
            Some(Difference::Edits) => &mut self.edits,
            Some(Difference::Error) => &mut self.error,
        };
        *count = count.saturating_add(1);
    }
}

impl ShadowError {
    /// The stable diagnostic code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Candidate(error) => error.code(),
            Self::Thread(_) => "SG0008",
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts what the thread's candidate differs in. What it decided after
    /// another took its place counts for neither.
    fn count(&mut self, generation: u64, difference: Option<Difference>, dropped: u64) {
        if self.next.is_some() || generation < self.counts.generation {
            return;
        }
        if generation > self.counts.generation {
            if self.counts.generation > 0 {
                self.dropped_before = dropped;
            }
            self.counts = ShadowCounts {
                generation,
                ..ShadowCounts::default()
            };
        }
        self.counts.add(difference);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Shared");
        shown.field("sample", &self.sample);
        shown.finish_non_exhaustive()
    }
}
