//! Counters of the shadow.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

use super::comparison::Difference;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

/// The metrics of a process's shadow: `sidegate_policy_shadow_total{result}`.
#[derive(Debug, Clone)]
pub struct ShadowMetrics {
    same: Counter,
    allowed_to_denied: Counter,
    denied_to_allowed: Counter,
    edits: Counter,
    error: Counter,
    pub(super) dropped: Counter,
}

impl ShadowMetrics {
    /// Makes the metrics and registers them. The registry must have the prefix
    /// of the program.
    pub fn register(registry: &mut Registry) -> Self {
        let results = Family::<ResultLabels, Counter>::default();
        let result = |result| results.get_or_create_owned(&ResultLabels { result });
        let metrics = Self {
            same: result("same"),
            allowed_to_denied: result(Difference::AllowedToDenied.label()),
            denied_to_allowed: result(Difference::DeniedToAllowed.label()),
            edits: result(Difference::Edits.label()),
            error: result(Difference::Error.label()),
            dropped: result("dropped"),
        };
        registry.register(
            "policy_shadow",
            "Decisions that a candidate policy decided too, by what differs; with `policy.shadow` only",
            results,
        );
        metrics
    }

    pub(super) fn count(&self, difference: Option<Difference>) {
        match difference {
            None => &self.same,
            Some(Difference::AllowedToDenied) => &self.allowed_to_denied,
            Some(Difference::DeniedToAllowed) => &self.denied_to_allowed,
            Some(Difference::Edits) => &self.edits,
            Some(Difference::Error) => &self.error,
        }
        .inc();
    }
}
