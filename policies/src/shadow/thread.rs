//! The shadow's own thread.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use tracing::warn;

use super::Shared;
use super::comparison::{Difference, Verdict};
use crate::decision_log::{Asked, RateLimit, Record};
use crate::evaluator::Evaluator;
use crate::input::ConnectionFacts;

/// How long records gather where there was one just now, so that workers need
/// not wake the thread for each.
const GATHERING: Duration = Duration::from_millis(20);

/// What the thread works with.
pub(super) struct Comparer {
    pub(super) records: Receiver<Arc<Record>>,
    pub(super) shared: Arc<Shared>,
    /// The candidate's.
    pub(super) evaluator: Box<Evaluator>,
    pub(super) rate_limit: RateLimit,
    /// Differences since the last one that was logged.
    pub(super) unlogged: u64,
}

impl Comparer {
    /// Compares until no worker is left.
    pub(super) fn run(mut self) {
        while let Some(record) = self.next() {
            self.shared.bytes.fetch_sub(record.size(), Relaxed);
            self.compare(Arc::unwrap_or_clone(record));
        }
    }

    fn next(&self) -> Option<Arc<Record>> {
        for gathers in [true, false] {
            match self.records.try_recv() {
                Ok(record) => return Some(record),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if gathers => std::thread::park_timeout(GATHERING),
                Err(TryRecvError::Empty) => {}
            }
        }
        self.records.recv().ok()
    }

    fn compare(&mut self, record: Record) {
        if let Some(next) = self.shared.state().next.take() {
            self.evaluator = next;
        }
        let live = Verdict::made(&record);
        let generation = record.policy.generation();
        let Record {
            connection,
            asked,
            decision_id,
            ..
        } = record;
        let request = match asked {
            Asked::Request(request) => request.into_facts(),
            // The shadow gets requests only.
            Asked::Connection | Asked::Egress(_) => None,
        };
        let Some(request) = request else {
            // A head that has no copy cannot be put before the candidate.
            self.shared.metrics.dropped.inc();
            return;
        };
        let facts = ConnectionFacts::new(connection);
        let (outcome, _) = self.evaluator.outcome(&facts, &request);
        let candidate = Verdict::of(outcome.decision.clone());
        let difference = Difference::between(&live, &candidate);

        let metrics = &self.shared.metrics;
        metrics.count(difference);
        let dropped = metrics.dropped.get();
        let mut state = self.shared.state();
        state.count(generation, difference, dropped);
        drop(state);
        let Some(difference) = difference else {
            return;
        };
        if !self.rate_limit.passes() {
            self.unlogged = self.unlogged.saturating_add(1);
            return;
        }
        let unlogged = std::mem::take(&mut self.unlogged);
        let parts = live.parts(&candidate).join(", ");
        let request_id = &request.request_id;
        warn!(
            code = "SG0254",
            result = difference.label(),
            %decision_id,
            request_id,
            policy_generation = generation,
            live = %live,
            candidate = %candidate,
            candidate_code = candidate.failure().map(|reason| reason.code()),
            differs = (!parts.is_empty()).then_some(parts),
            unlogged,
            "the candidate decides otherwise than the policy",
        );
    }
}
