//! What the host counts.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::time::Instant;

use crate::error::InvokeError;

/// Upper bounds in seconds: from a greeting to a long stream.
const DURATION_BUCKETS: [f64; 14] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ComponentLabel {
    component: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    component: Arc<str>,
    outcome: &'static str,
}

/// What hosts count. Clones share it: register once, then give a clone to each host.
#[derive(Clone, Debug)]
pub struct HostMetrics {
    requests: Family<RequestLabels, Counter>,
    instances: Family<ComponentLabel, Gauge>,
    duration: Family<ComponentLabel, Histogram, fn() -> Histogram>,
}

impl HostMetrics {
    /// Makes and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            instances: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(DURATION_BUCKETS)),
        };
        registry.register(
            "component_requests",
            "Requests to components: `ok`, or what went wrong",
            metrics.requests.clone(),
        );
        registry.register(
            "component_instances",
            "Instances of components that run now",
            metrics.instances.clone(),
        );
        registry.register(
            "component_duration_seconds",
            "From a request's arrival until its instance has ended, body included",
            metrics.duration.clone(),
        );
        metrics
    }

    /// Makes a series for every value of a label, for the documentation; a component's name is `…`.
    pub fn illustrate(&self) {
        let component: Arc<str> = "…".into();
        for outcome in ["ok"].into_iter().chain(InvokeError::LABELS) {
            self.request(&component, outcome);
        }
        drop(self.instance(&component, Instant::now()));
    }

    /// Counts a request.
    pub(crate) fn request(&self, component: &Arc<str>, outcome: &'static str) {
        let component = Arc::clone(component);
        self.requests
            .get_or_create(&RequestLabels { component, outcome })
            .inc();
    }

    /// Counts an instance for as long as what is returned lives.
    pub(crate) fn instance(&self, component: &Arc<str>, started: Instant) -> InstanceCount {
        let label = ComponentLabel {
            component: Arc::clone(component),
        };
        self.instances.get_or_create(&label).inc();
        InstanceCount {
            metrics: self.clone(),
            label,
            started,
        }
    }
}

/// One running instance.
#[derive(Debug)]
pub(crate) struct InstanceCount {
    metrics: HostMetrics,
    label: ComponentLabel,
    started: Instant,
}

impl Drop for InstanceCount {
    fn drop(&mut self) {
        self.metrics.instances.get_or_create(&self.label).dec();
        let elapsed = self.started.elapsed().as_secs_f64();
        self.metrics
            .duration
            .get_or_create(&self.label)
            .observe(elapsed);
    }
}
