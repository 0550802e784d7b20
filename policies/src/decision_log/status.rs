//! How the log fares, for whoever asks.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::DecisionLog;

/// How a decision log fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecisionLogStatus {
    /// Events that were written, or accepted by the receiver.
    pub written: u64,
    /// Events that wait for the receiver, in chunks.
    pub waiting: u64,
    /// Whether the last attempt to write or upload failed.
    pub is_failing: bool,
    /// Why the last attempt that failed did, whatever came after it.
    pub last_error: Option<String>,
    /// Events that are lost, always in this order. What a rule or a configured
    /// rate drops is not.
    pub lost: [Lost; 5],
}

/// Events that are lost for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The reason in words.
    pub because: &'static str,
    /// How many so far.
    pub events: u64,
    /// The last error of the kind that loses them, if there was one.
    pub error: Option<String>,
}

/// What the log's threads know of it. Clones share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Condition(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    waiting: u64,
    is_failing: bool,
    last_error: Option<String>,
}

impl Condition {
    pub(super) fn failed(&self, error: String) {
        let mut known = self.lock();
        known.is_failing = true;
        known.last_error = Some(error);
    }

    pub(super) fn recovered(&self) {
        self.lock().is_failing = false;
    }

    pub(super) fn waits(&self, events: u64) {
        self.lock().waiting = events;
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DecisionLog {
    /// How it fares at this moment.
    #[must_use]
    pub fn status(&self) -> DecisionLogStatus {
        let drops = &self.metrics.drops;
        let known = self.metrics.condition.lock();
        let error = known.last_error.as_ref();
        let lost = [
            (&drops.queue_full, "the log does not keep up", None),
            (&drops.too_large, "larger than a chunk may be", None),
            (
                &drops.buffer_full,
                "more than may wait for the receiver",
                error,
            ),
            (&drops.refused, "refused by the receiver", error),
            (&drops.write_failed, "not written", error),
        ];
        let lost = lost.map(|(events, because, error)| Lost {
            because,
            events: events.get(),
            error: error.cloned(),
        });
        DecisionLogStatus {
            written: self.metrics.written(),
            waiting: known.waiting,
            is_failing: known.is_failing,
            last_error: known.last_error.clone(),
            lost,
        }
    }
}
