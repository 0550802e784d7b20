//! What came of the last reload, wherever it is told.

use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::admin::ReloadFacts;

/// What came of the last reload, if there was one.
pub(crate) struct Outcome {
    last: Mutex<Option<ReloadFacts>>,
    success: Counter,
    failure: Counter,
    is_refused: Gauge,
    restart: Gauge,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

impl Outcome {
    /// None yet.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let reloads: Family<ReloadLabels, Counter> = Family::default();
        let result = |result| reloads.get_or_create_owned(&ReloadLabels { result });
        let outcome = Self {
            last: Mutex::default(),
            success: result("success"),
            failure: result("failure"),
            is_refused: Gauge::default(),
            restart: Gauge::default(),
        };
        registry.register(
            "config_reloads",
            "Times that the configuration file was read again, by what came of it",
            reloads,
        );
        registry.register(
            "config_refused",
            "1 where the newest configuration file is refused",
            outcome.is_refused.clone(),
        );
        registry.register(
            "config_pending_restart",
            "Keys of the configuration file whose values are not in use before a restart",
            outcome.restart.clone(),
        );
        outcome
    }

    pub(crate) fn facts(&self) -> Option<ReloadFacts> {
        let last = self.last.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Why the newest file is not what runs, in a line.
    pub(crate) fn failing(&self) -> Option<String> {
        let refused = self.facts()?.refused?;
        let first = refused.lines().next().unwrap_or_default();
        Some(format!(
            "the configuration file is refused: {first} [SG0072]"
        ))
    }

    pub(super) fn set(&self, facts: ReloadFacts) {
        match facts.refused {
            None => self.success.inc(),
            Some(_) => self.failure.inc(),
        };
        self.is_refused.set(facts.refused.is_some().into());
        self.restart
            .set(i64::try_from(facts.restart.len()).unwrap_or(i64::MAX));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
    }
}
