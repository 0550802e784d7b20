//! What is counted of generations.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of loads, and gauges of what decides.
pub(crate) struct GenerationMetrics {
    success: Counter,
    failure: Counter,
    generation: Gauge<u64, AtomicU64>,
    jump: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LoadLabels {
    result: &'static str,
}

impl GenerationMetrics {
    /// Makes and registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let loads: Family<LoadLabels, Counter> = Family::default();
        let result = |result| loads.get_or_create_owned(&LoadLabels { result });
        let metrics = Self {
            success: result("success"),
            failure: result("failure"),
            generation: Gauge::default(),
            jump: Gauge::default(),
        };
        registry.register(
            "policy_loads",
            "Policies that were put into service, rollbacks included, and sources that were refused",
            loads,
        );
        registry.register(
            "policy_generation",
            "The policy generation that decides; counts up from 1",
            metrics.generation.clone(),
        );
        registry.register(
            "policy_denial_jump",
            "1 where many more requests are denied since the last change of the policy",
            metrics.jump.clone(),
        );
        metrics
    }

    /// This generation decides.
    pub(super) fn loaded(&self, generation: u64) {
        self.success.inc();
        self.generation.set(generation);
    }

    pub(super) fn refused(&self) {
        self.failure.inc();
    }

    /// Whether denials have jumped.
    pub(super) fn jumped(&self, has: bool) {
        self.jump.set(has.into());
    }
}
