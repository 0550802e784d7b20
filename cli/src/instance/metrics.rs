//! Every metric that there is, for the documentation.

use prometheus_client::registry::Registry;
use sidegate_host::HostMetrics;
use sidegate_identity::metrics::IdentityMetrics;
use sidegate_policy::PolicyMetrics;
use sidegate_policy::decision_log::DecisionLogMetrics;
use sidegate_policy::shadow::ShadowMetrics;
use sidegate_proxy::ProxyMetrics;

use super::bundles;
use super::policy::GenerationMetrics;
use super::reload::Outcome;

/// Before the name of every metric that is not OpenTelemetry's.
pub(super) const PREFIX: &str = "sidegate";

/// All metrics with every label and each of its values; what the configuration or a peer names is `…`.
pub(crate) fn every_metric() -> Registry {
    let mut metrics = Registry::default();
    ProxyMetrics::register(&mut metrics).illustrate();
    let registry = metrics.sub_registry_with_prefix(PREFIX);
    PolicyMetrics::register(registry).illustrate();
    GenerationMetrics::register(registry);
    ShadowMetrics::register(registry);
    bundles::illustrate(registry);
    DecisionLogMetrics::register(registry);
    IdentityMetrics::register(registry).illustrate();
    HostMetrics::register(registry).illustrate();
    Outcome::register(registry);
    metrics
}
