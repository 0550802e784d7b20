//! Counters and times of decisions.
//!
//! Each evaluator counts into a shard of its own, so that workers do not wait for each other; a
//! scrape adds the shards up.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use crate::denial::DenialReason;
use crate::differential::recheck::Recheck;

/// Upper bounds in nanoseconds: OPA-Envoy's, which start at one microsecond, up to where the
/// default timeout has long ended a decision.
const BOUNDS: [u64; 15] = [
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    100_000_000,
];

const A_SECOND: f64 = 1e9;

/// Allowed, then each reason of a denial.
const VERDICTS: usize = DenialReason::LABELS.len() + 1;

/// The labels of one counter of decisions.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    decision_point: &'static str,
    verdict: &'static str,
    reason: &'static str,
}

/// The labels of one counter of answers that were checked again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RecheckLabels {
    result: &'static str,
}

/// The metrics of all evaluators of a process:
/// `sidegate_authz_decisions_total{decision_point,verdict,reason}`,
/// `sidegate_authz_duration_seconds` and `sidegate_policy_rechecks_total{result}`.
#[derive(Debug, Clone)]
pub struct PolicyMetrics {
    shards: Arc<Shards>,
    rechecks: Family<RecheckLabels, Counter>,
}

/// What all evaluators counted.
#[derive(Debug, Default)]
struct Shards {
    points: Mutex<Vec<Point>>,
}

/// What was counted at one decision point.
#[derive(Debug)]
struct Point {
    name: &'static str,
    /// Those in use, and those that wait for the next evaluator: what they counted stays.
    shards: Vec<Arc<Shard>>,
}

#[derive(Debug, Default)]
struct Shard {
    verdicts: [AtomicU64; VERDICTS],
    /// Decisions up to each bound, and those above the last.
    durations: [AtomicU64; BOUNDS.len() + 1],
    nanoseconds: AtomicU64,
    /// Decisions that were remembered ones.
    remembered: AtomicU64,
}

/// Counts decisions into a shard that nobody else counts into.
#[derive(Debug)]
pub(crate) struct DecisionRecorder {
    shard: Arc<Shard>,
}

impl PolicyMetrics {
    /// Makes the metrics and registers them. The registry must have no prefix but `sidegate`.
    pub fn register(registry: &mut Registry) -> Self {
        let shards = Arc::<Shards>::default();
        registry.register_collector(Box::new(Arc::clone(&shards)));
        let rechecks = Family::default();
        registry.register(
            "policy_rechecks",
            "Decisions that the interpreter was asked again about; one that is different ends the use of the faster engine for its generation",
            rechecks.clone(),
        );
        Self { shards, rechecks }
    }

    /// Makes a series for every value of a label, for the documentation.
    pub fn illustrate(&self) {
        for decision_point in ["ingress", "connect"] {
            self.recorder(decision_point);
        }
        self.recheck_recorder();
    }

    /// How many requests were allowed and denied so far, by all evaluators.
    #[must_use]
    pub fn ingress_decisions(&self) -> (u64, u64) {
        let totals = self.shards.totals();
        let ingress = totals.iter().find(|(name, _)| *name == "ingress");
        let verdicts = ingress.map(|(_, total)| total.verdicts).unwrap_or_default();
        let (allowed, denied) = verdicts.split_first().unwrap_or((&0, &[]));
        (*allowed, denied.iter().sum())
    }

    /// The counters of answers that are checked again, looked up once.
    pub(crate) fn recheck_recorder(&self) -> RecheckRecorder {
        let counter = |result| self.rechecks.get_or_create_owned(&RecheckLabels { result });
        RecheckRecorder {
            same: counter("same"),
            different: counter("different"),
            skipped: counter("skipped"),
        }
    }

    /// A way to count that belongs to one evaluator.
    pub(crate) fn recorder(&self, decision_point: &'static str) -> DecisionRecorder {
        let mut points = self.shards.lock();
        let known = points.iter().position(|point| point.name == decision_point);
        let place = known.unwrap_or_else(|| {
            points.push(Point {
                name: decision_point,
                shards: Vec::new(),
            });
            points.len().saturating_sub(1)
        });
        let mut shard = Arc::<Shard>::default();
        if let Some(point) = points.get_mut(place) {
            // Only this list holds a shard whose evaluator is gone.
            let free = |shard: &&Arc<Shard>| Arc::strong_count(shard) == 1;
            match point.shards.iter().find(free) {
                Some(free) => shard = Arc::clone(free),
                None => point.shards.push(Arc::clone(&shard)),
            }
        }
        DecisionRecorder { shard }
    }
}

impl DecisionRecorder {
    /// Counts a permit, or a denial by its reason, and how long it took.
    pub(crate) fn record(&self, denied: Option<&DenialReason>, elapsed: Duration) {
        self.count(denied);
        let nanoseconds = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
        let place = BOUNDS.partition_point(|bound| *bound < nanoseconds);
        add(self.shard.durations.get(place), 1);
        add(Some(&self.shard.nanoseconds), nanoseconds);
    }

    /// Counts a decision that was remembered.
    pub(crate) fn remembered(&self) {
        add(Some(&self.shard.remembered), 1);
    }

    /// Counts a permit, or a denial by its reason.
    pub(crate) fn count(&self, denied: Option<&DenialReason>) {
        let place = match denied {
            None => 0,
            Some(reason) => {
                let known = DenialReason::LABELS.iter();
                let place = known.take_while(|label| **label != reason.label()).count();
                place.saturating_add(1)
            }
        };
        add(self.shard.verdicts.get(place), 1);
    }
}

/// Only one thread writes a shard, so that no instruction has to be atomic as a whole.
fn add(counter: Option<&AtomicU64>, value: u64) {
    if let Some(counter) = counter {
        let sum = counter.load(Ordering::Relaxed).wrapping_add(value);
        counter.store(sum, Ordering::Relaxed);
    }
}

/// What all shards of a decision point hold.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    verdicts: [u64; VERDICTS],
    durations: [u64; BOUNDS.len() + 1],
    nanoseconds: u64,
    remembered: u64,
}

impl Total {
    fn add(mut self, shard: &Shard) -> Self {
        let sum = |total: &mut [u64], counted: &[AtomicU64]| {
            for (total, counted) in total.iter_mut().zip(counted) {
                *total = total.wrapping_add(counted.load(Ordering::Relaxed));
            }
        };
        sum(&mut self.verdicts, &shard.verdicts);
        sum(&mut self.durations, &shard.durations);
        let nanoseconds = shard.nanoseconds.load(Ordering::Relaxed);
        self.nanoseconds = self.nanoseconds.wrapping_add(nanoseconds);
        let remembered = shard.remembered.load(Ordering::Relaxed);
        self.remembered = self.remembered.wrapping_add(remembered);
        self
    }
}

impl Shards {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Point>> {
        self.points.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn totals(&self) -> Vec<(&'static str, Total)> {
        let points = self.lock();
        let total = |point: &Point| {
            let shards = point.shards.iter();
            shards.fold(Total::default(), |total, shard| total.add(shard))
        };
        points
            .iter()
            .map(|point| (point.name, total(point)))
            .collect()
    }
}

impl Collector for Shards {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let totals = self.totals();
        let mut decisions = encoder.encode_descriptor(
            "authz_decisions",
            "Decisions of the policy, those of requests and connections that were asked again included",
            None,
            MetricType::Counter,
        )?;
        for (decision_point, total) in &totals {
            let reasons = ["policy"].into_iter().chain(DenialReason::LABELS);
            let verdicts = ["allow"].into_iter().chain(std::iter::repeat("deny"));
            for ((verdict, reason), count) in verdicts.zip(reasons).zip(&total.verdicts) {
                let labels = DecisionLabels {
                    decision_point,
                    verdict,
                    reason,
                };
                let mut counter = decisions.encode_family(&labels)?;
                counter.encode_counter::<NoLabelSet, _, u64>(count, None)?;
            }
        }
        let durations = totals.iter().find(|(name, _)| *name == "ingress");
        let total = durations.map(|(_, total)| *total).unwrap_or_default();
        let mut remembered = encoder.encode_descriptor(
            "authz_decisions_remembered",
            "Decisions on requests that were those of an equal request before",
            None,
            MetricType::Counter,
        )?;
        remembered.encode_counter::<NoLabelSet, _, u64>(&total.remembered, None)?;
        let bounds = BOUNDS.iter().map(|bound| *bound as f64 / A_SECOND);
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(total.durations).collect();
        let mut histogram = encoder.encode_descriptor(
            "authz_duration",
            "Time to decide one request, the building of its input included",
            Some(&Unit::Seconds),
            MetricType::Histogram,
        )?;
        let seconds = total.nanoseconds as f64 / A_SECOND;
        let count = total.durations.iter().sum();
        histogram.encode_histogram::<NoLabelSet>(seconds, count, &buckets, None)
    }
}

/// Counts answers that are checked again.
#[derive(Debug, Clone)]
pub(crate) struct RecheckRecorder {
    same: Counter,
    different: Counter,
    skipped: Counter,
}

impl RecheckRecorder {
    pub(crate) fn record(&self, result: Recheck) {
        let counter = match result {
            Recheck::Same => &self.same,
            Recheck::Different => &self.different,
            Recheck::Skipped => &self.skipped,
        };
        counter.inc();
    }
}
