//! Spans on their way to whoever exports them. Workers never wait for it, and wake it only when
//! there is much to do.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::span::Span;

/// Spans that wait. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SpanQueue {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    spans: Mutex<Vec<Span>>,
    max_spans: NonZeroUsize,
    /// As many are exported at once at most.
    batch: NonZeroUsize,
    /// There is a whole batch.
    full: Notify,
    metrics: TraceMetrics,
}

/// What is counted of spans: `sidegate_trace_spans_total{result}`.
#[derive(Debug, Clone)]
pub struct TraceMetrics {
    exported: Counter,
    dropped: Counter,
    failed: Counter,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: SpanResult,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the labels' values")]
enum SpanResult {
    exported,
    dropped,
    failed,
}

impl SpanQueue {
    /// A queue for so many spans, of which so many are exported at once at most.
    pub fn new(max_spans: NonZeroUsize, batch: NonZeroUsize, metrics: TraceMetrics) -> Self {
        Self {
            shared: Arc::new(Shared {
                spans: Mutex::default(),
                max_spans,
                batch,
                full: Notify::new(),
                metrics,
            }),
        }
    }

    /// Takes a span, or counts it as dropped where there are too many.
    pub(super) fn push(&self, span: Span) {
        let mut spans = self.spans();
        if spans.len() >= self.shared.max_spans.get() {
            self.shared.metrics.dropped.inc();
            return;
        }
        spans.push(span);
        let is_batch = spans.len() == self.shared.batch.get();
        drop(spans);
        if is_batch {
            self.shared.full.notify_one();
        }
    }

    /// Waits until there is a whole batch, or for so long. Then the next batch is due, though it may
    /// be empty.
    pub async fn due(&self, delay: Duration) {
        if self.spans().len() < self.shared.batch.get() {
            // If it takes too long, those that there are go.
            let _ = timeout(delay, self.shared.full.notified()).await;
        }
    }

    /// The next batch, the oldest spans first.
    pub fn take(&self) -> Vec<Span> {
        let mut spans = self.spans();
        let count = spans.len().min(self.shared.batch.get());
        spans.drain(..count).collect()
    }

    /// So many spans were accepted, or not.
    pub fn exported(&self, spans: usize, success: bool) {
        let metrics = &self.shared.metrics;
        let counter = match success {
            true => &metrics.exported,
            false => &metrics.failed,
        };
        counter.inc_by(u64::try_from(spans).unwrap_or(u64::MAX));
    }

    fn spans(&self) -> MutexGuard<'_, Vec<Span>> {
        let spans = self.shared.spans.lock();
        spans.unwrap_or_else(PoisonError::into_inner)
    }
}

impl TraceMetrics {
    /// Makes and registers them. The registry must have the prefix of the program.
    pub fn register(registry: &mut Registry) -> Self {
        let results = Family::<ResultLabels, Counter>::default();
        let counter = |result| results.get_or_create_owned(&ResultLabels { result });
        let metrics = Self {
            exported: counter(SpanResult::exported),
            dropped: counter(SpanResult::dropped),
            failed: counter(SpanResult::failed),
        };
        registry.register(
            "trace_spans",
            "Spans of traces: accepted by the collector (`exported`), not taken because too many \
             waited for it (`dropped`), or not accepted (`failed`)",
            results,
        );
        metrics
    }
}
