//! Counters and times of decisions.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::denial::DenialReason;

/// Upper bounds in seconds: OPA-Envoy's, which start at one microsecond, up to
/// where the default timeout has long ended a decision.
const BUCKETS: [f64; 15] = [
    0.000_001, 0.000_002, 0.000_005, 0.000_01, 0.000_02, 0.000_05, 0.000_1, 0.000_2, 0.000_5,
    0.001, 0.002, 0.005, 0.01, 0.05, 0.1,
];

/// The labels of one counter of decisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    decision_point: &'static str,
    verdict: &'static str,
    reason: &'static str,
}

/// The metrics of all evaluators of a process:
/// `sidegate_authz_decisions_total{decision_point,verdict,reason}` and
/// `sidegate_authz_duration_seconds`.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    decisions: Family<DecisionLabels, Counter>,
    duration: Histogram,
}

impl PolicyMetrics {
    /// Makes the metrics and registers them. The registry must have no prefix:
    /// the names are whole.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            decisions: Family::default(),
            duration: Histogram::new(BUCKETS),
        };
        registry.register(
            "authz_decisions",
            "Decisions by decision point, verdict and reason",
            metrics.decisions.clone(),
        );
        registry.register_with_unit(
            "authz_duration",
            "Time to decide one request, the building of its input included",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        metrics
    }

    /// The counters of the `ingress` decision point, looked up once.
    pub(crate) fn recorder(&self) -> DecisionRecorder {
        let counter = |verdict, reason| {
            let labels = DecisionLabels {
                decision_point: "ingress",
                verdict,
                reason,
            };
            self.decisions.get_or_create_owned(&labels)
        };
        DecisionRecorder {
            allowed: counter("allow", "policy"),
            denied: DenialReason::LABELS.map(|reason| (reason, counter("deny", reason))),
            duration: self.duration.clone(),
        }
    }
}

/// Counts decisions without looking labels up.
#[derive(Debug)]
pub(crate) struct DecisionRecorder {
    allowed: Counter,
    denied: [(&'static str, Counter); DenialReason::LABELS.len()],
    duration: Histogram,
}

impl DecisionRecorder {
    /// Counts a permit, or a denial by its reason.
    pub(crate) fn record(&self, denied: Option<&DenialReason>, elapsed: Duration) {
        match denied {
            None => {
                self.allowed.inc();
            }
            Some(reason) => {
                let label = reason.label();
                if let Some((_, counter)) = self.denied.iter().find(|(known, _)| *known == label) {
                    counter.inc();
                }
            }
        }
        self.duration.observe(elapsed.as_secs_f64());
    }
}
