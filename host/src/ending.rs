//! How one request ended, as the instance and its response's body find out.

use std::sync::{Arc, Mutex, PoisonError};

use crate::error::InvokeError;
use crate::metrics::HostMetrics;

/// How a request ended. Shared by the instance's task and the response's body, either of which may
/// find a failure; counted when both are gone.
///
/// An instance says how it ended *before* it is dropped. Dropping it closes the body's channel,
/// which reads like a proper end: a body that sees the channel closed must find the failure here
/// already.
pub(crate) struct Ending {
    component: Arc<str>,
    metrics: HostMetrics,
    /// Nothing while the instance runs.
    result: Mutex<Option<Result<(), InvokeError>>>,
}

impl Ending {
    pub(crate) fn new(component: &Arc<str>, metrics: &HostMetrics) -> Self {
        let (component, metrics) = (Arc::clone(component), metrics.clone());
        Self {
            component,
            metrics,
            result: Mutex::default(),
        }
    }

    /// The instance returned.
    pub(crate) fn returned(&self) {
        self.result
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(Ok(()));
    }

    /// The request failed; the first failure counts, and is logged.
    pub(crate) fn failed(&self, error: InvokeError) {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        if !matches!(*result, Some(Err(_))) {
            let (component, code) = (&*self.component, error.code());
            let detail = error.detail().unwrap_or_default();
            tracing::warn!(target: "component", component, code, detail, "{error}");
            *result = Some(Err(error));
        }
    }

    /// The instance is gone without having said how it ended: somebody stopped it.
    pub(crate) fn stopped(&self) {
        let mut result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        result.get_or_insert(Err(InvokeError::Cancelled));
    }

    /// The failure, if there is one.
    pub(crate) fn failure(&self) -> Option<InvokeError> {
        let result = self.result.lock().unwrap_or_else(PoisonError::into_inner);
        result.clone()?.err()
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let result = self
            .result
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        let outcome = match result {
            Some(Ok(())) => "ok",
            Some(Err(error)) => error.label(),
            None => InvokeError::Cancelled.label(),
        };
        self.metrics.request(&self.component, outcome);
    }
}
