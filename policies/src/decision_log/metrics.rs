//! Counters of the decision log.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::status::Condition;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DropLabels {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UploadLabels {
    result: &'static str,
}

/// The metrics of a process's decision log, `sidegate_decision_log_…`:
/// `events_total`, `dropped_total{reason}`, `withheld_total`,
/// `uploads_total{result}` and `buffer_bytes`.
#[derive(Debug, Clone)]
pub struct DecisionLogMetrics {
    /// Events that were written, or accepted by the receiver.
    pub(super) events: Counter,
    pub(super) drops: Drops,
    /// Events without input and result.
    pub(super) withheld: Counter,
    pub(super) uploads: Counter,
    pub(super) failed_uploads: Counter,
    /// Chunks that wait for the receiver.
    pub(super) buffer: Gauge,
    /// What is not well, in words.
    pub(super) condition: Condition,
}

/// Events that are not in the log, by the reason.
#[derive(Debug, Clone)]
pub(super) struct Drops {
    /// The log's thread did not keep up, or had ended.
    pub(super) queue_full: Counter,
    /// More than the configured number a second.
    pub(super) rate_limit: Counter,
    /// The policy's own rule.
    pub(super) rule: Counter,
    /// Alone larger than a chunk may be.
    pub(super) too_large: Counter,
    /// The receiver was away for too long.
    pub(super) buffer_full: Counter,
    /// The receiver will not have them.
    pub(super) refused: Counter,
    /// The file or standard output could not be written.
    pub(super) write_failed: Counter,
}

impl DecisionLogMetrics {
    /// Makes the metrics and registers them. The registry must have the prefix
    /// of the program.
    pub fn register(registry: &mut Registry) -> Self {
        let dropped = Family::<DropLabels, Counter>::default();
        let uploads = Family::<UploadLabels, Counter>::default();
        let reason = |reason| dropped.get_or_create_owned(&DropLabels { reason });
        let result = |result| uploads.get_or_create_owned(&UploadLabels { result });
        let metrics = Self {
            events: Counter::default(),
            drops: Drops {
                queue_full: reason("queue_full"),
                rate_limit: reason("rate_limit"),
                rule: reason("rule"),
                too_large: reason("too_large"),
                buffer_full: reason("buffer_full"),
                refused: reason("refused"),
                write_failed: reason("write_failed"),
            },
            withheld: Counter::default(),
            uploads: result("success"),
            failed_uploads: result("failure"),
            buffer: Gauge::default(),
            condition: Condition::default(),
        };
        registry.register(
            "decision_log_events",
            "Events of the decision log that were written, or accepted by the receiver",
            metrics.events.clone(),
        );
        registry.register(
            "decision_log_dropped",
            "Decisions that are not in the decision log: by the policy's own `rule`, because the log's thread did not keep up (`queue_full`), the receiver was away for too long (`buffer_full`) or would not have them (`refused`), or for what the other reasons say",
            dropped,
        );
        registry.register(
            "decision_log_withheld",
            "Events without input and result, because the mask failed",
            metrics.withheld.clone(),
        );
        registry.register(
            "decision_log_uploads",
            "Attempts to upload a chunk of the decision log",
            uploads,
        );
        registry.register_with_unit(
            "decision_log_buffer",
            "Compressed chunks of the decision log that wait for the receiver",
            Unit::Bytes,
            metrics.buffer.clone(),
        );
        metrics
    }

    /// How many events were written, or accepted by the receiver.
    #[must_use]
    pub fn written(&self) -> u64 {
        self.events.get()
    }
}
