//! What is known of each bundle, for whoever asks.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use serde::{Deserialize, Serialize};
use sidegate_policy::bundle::{Bundle, BundleError};

use crate::failure::chain;

/// Tells the time.
pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// One bundle as it is. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundleStatus {
    /// Its name in the configuration.
    pub(crate) name: String,
    /// What the manifest of the one in use says; empty, it says nothing.
    pub(crate) revision: String,
    /// What the server calls the one in use.
    pub(crate) etag: Option<String>,
    /// Whether the one in use was kept from an earlier run, and not yet confirmed by the server.
    pub(crate) kept: bool,
    /// When it was last read, or the server last answered, whether or not there was a newer one.
    pub(crate) last_success: Option<u64>,
    /// When the one in use was put to use.
    pub(crate) last_activation: Option<u64>,
    /// Why there may be a newer one that is not in use; `None` while all is well.
    pub(crate) error: Option<BundleFailure>,
}

/// What went wrong last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BundleFailure {
    /// The stable diagnostic code.
    pub(crate) code: String,
    /// The error with its causes.
    pub(crate) message: String,
}

/// Asks for the bundles' status. Cheap to clone.
#[derive(Clone)]
pub(crate) struct BundleHandle {
    pub(super) shared: Arc<Shared>,
}

/// The metrics of the bundles, read off their status.
struct BundleMetrics(BundleHandle);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct BundleLabels {
    bundle: String,
}

/// The bundles in use, in the order of the configuration, and the time.
pub(super) struct Shared {
    slots: Mutex<Vec<Slot>>,
    clock: Clock,
}

#[derive(Default)]
pub(super) struct Slot {
    pub(super) bundle: Option<Arc<Bundle>>,
    pub(super) status: BundleStatus,
}

/// Adds the metrics of a bundle named `…`, for the documentation.
pub(crate) fn illustrate(registry: &mut Registry) {
    let names = ["…".to_owned()].into_iter();
    let shared = Shared::new(names, Arc::new(|| SystemTime::UNIX_EPOCH));
    shared.change(0, |slot, now| slot.status.last_success = Some(now));
    let shared = Arc::new(shared);
    BundleHandle { shared }.register(registry);
}

impl BundleHandle {
    /// The bundles in the order of the configuration.
    #[must_use]
    pub(crate) fn status(&self) -> Vec<BundleStatus> {
        let slots = self.shared.slots();
        slots.iter().map(|slot| slot.status.clone()).collect()
    }

    /// Adds the bundles' metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(BundleMetrics(self.clone())));
    }
}

impl BundleStatus {
    /// Which edition it is, in a line, for people.
    pub(crate) fn summary(&self) -> String {
        let mut text = self.name.clone();
        if !self.revision.is_empty() {
            text.push_str(&format!(", revision {}", self.revision));
        }
        if let Some(etag) = &self.etag {
            text.push_str(&format!(", etag {etag}"));
        }
        if self.kept {
            text.push_str(", kept from an earlier run");
        }
        text
    }
}

impl Collector for BundleMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let all = self.0.status();
        let mut series = |name, help, unit, value: &dyn Fn(&BundleStatus) -> Option<u64>| {
            let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?;
            for status in &all {
                if let Some(value) = value(status) {
                    let labels = BundleLabels {
                        bundle: status.name.clone(),
                    };
                    let mut gauge = family.encode_family(&labels)?;
                    gauge.encode_gauge(&value)?;
                }
            }
            Ok(())
        };
        series(
            "policy_bundle_last_success_timestamp",
            "When the bundle was last read, or its server last answered, whether or not with a newer one; absent until the first time",
            Some(&Unit::Seconds),
            &|status| status.last_success,
        )?;
        series(
            "policy_bundle_failing",
            "1 where the last attempt to renew the bundle failed, or what it found was refused",
            None,
            &|status| Some(status.error.is_some().into()),
        )
    }
}

impl fmt::Debug for BundleMetrics {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BundleMetrics")
    }
}

impl Shared {
    pub(super) fn new(names: impl Iterator<Item = String>, clock: Clock) -> Self {
        let slots = names.map(|name| Slot {
            bundle: None,
            status: BundleStatus {
                name,
                ..BundleStatus::default()
            },
        });
        Self {
            slots: Mutex::new(slots.collect()),
            clock,
        }
    }

    pub(super) fn slots(&self) -> MutexGuard<'_, Vec<Slot>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of one bundle, at this moment.
    pub(super) fn change(&self, index: usize, change: impl FnOnce(&mut Slot, u64)) {
        let now = (self.clock)().duration_since(SystemTime::UNIX_EPOCH);
        let now = now.unwrap_or_default().as_secs();
        if let Some(slot) = self.slots().get_mut(index) {
            change(slot, now);
        }
    }

    /// The bundle in use.
    pub(super) fn current(&self, index: usize) -> Option<Arc<Bundle>> {
        self.slots().get(index)?.bundle.clone()
    }

    /// Notes, and logs, what went wrong.
    pub(super) fn failed(&self, index: usize, error: &BundleError) {
        let failure = BundleFailure {
            code: error.code().to_owned(),
            message: chain(error),
        };
        self.change(index, |slot, _| {
            tracing::warn!(
                code = failure.code,
                bundle = slot.status.name,
                error = failure.message,
                "the bundle is not renewed",
            );
            slot.status.error = Some(failure);
        });
    }
}
