//! The `connect` decision point: may this peer have a connection at all?
//!
//! It is asked once a handshake is done and before the first request, and again
//! when the policy changes. Its document is that of `ingress` without what
//! belongs to a request: `attributes` with `source`, `destination`,
//! `tlsSession` and `contextExtensions`, `source_principal`, `version`. It
//! answers with a boolean, or an object of `allowed` and, for the operator's
//! log, `reason`.
//!
//! A policy that declares nothing in the package `sidegate.connect` is not
//! asked: it decides on each request anyway.
//!
//! What it decides is in the decision log, as what it decides on requests is.

use std::fmt;
use std::time::{Instant, SystemTime};

use regorus::Value;
use uuid::Uuid;

use super::answer::Answer;
use crate::decision_log;
use crate::denial::DenialReason;
use crate::evaluator::Evaluator;
use crate::input::ConnectionFacts;

/// The rule that decides, as OPA writes it.
pub(crate) const ENTRYPOINT: &str = "sidegate/connect/allow";

/// What the operator is told of [`DenialReason::Undefined`].
pub(crate) const UNDEFINED: &str = "the policy's connect rule is undefined for the connection";

/// A connection that the policy allows, or that it leaves to its requests.
///
/// Only an [`Evaluator`] makes one, and serving a connection uses it up.
#[derive(Debug)]
#[must_use = "a connection that may be served and is not"]
pub struct ConnectPermit {
    generation: u64,
    decision_id: Option<Uuid>,
}

/// A connection that must not be served, or no longer.
#[derive(Debug)]
pub struct ConnectDenial {
    /// Why, for metrics.
    pub reason: DenialReason,
    /// What the policy says about it to the operator.
    pub explanation: Option<String>,
    /// Identifies the decision in the decision log.
    pub decision_id: Uuid,
    /// The policy generation that decided.
    pub generation: u64,
}

impl ConnectPermit {
    /// The policy generation that decided.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Identifies the decision in the decision log; `None` where the policy leaves it to the
    /// requests, which is no yes to a connection that has none.
    #[must_use]
    pub fn decision_id(&self) -> Option<Uuid> {
        self.decision_id
    }
}

impl fmt::Display for ConnectDenial {
    /// For the operator: it may name rules and files.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.reason, &self.explanation) {
            (DenialReason::Policy, Some(explanation)) => write!(
                formatter,
                "the policy denies the connection: {}",
                explanation.escape_debug()
            ),
            (DenialReason::Policy, None) => formatter.write_str("the policy denies the connection"),
            (DenialReason::Undefined, _) => formatter.write_str(UNDEFINED),
            (reason, _) => reason.fmt(formatter),
        }
    }
}

impl Evaluator {
    /// Asks the policy about one connection, at this time. No question is asked,
    /// and none counted or logged, where the policy has nothing to say about
    /// connections.
    ///
    /// # Errors
    ///
    /// A [`ConnectDenial`] whenever a policy that decides on connections does
    /// not clearly allow this one.
    pub fn connect(
        &mut self,
        connection: &ConnectionFacts,
        time: SystemTime,
    ) -> Result<ConnectPermit, Box<ConnectDenial>> {
        let generation = self.generation();
        let started = Instant::now();
        let Some((evaluated, evaluation)) = self.connect_value(connection) else {
            return Ok(ConnectPermit {
                generation,
                decision_id: None,
            });
        };
        let elapsed = started.elapsed();
        let (value, outcome) = match evaluated {
            Ok(Value::Undefined) => (Value::Undefined, Err((DenialReason::Undefined, None))),
            Ok(value) => {
                let outcome = match Answer::parse(&value) {
                    Ok(Answer { allowed: true, .. }) => Ok(()),
                    Ok(Answer { reason, .. }) => Err((DenialReason::Policy, reason)),
                    Err(error) => Err((DenialReason::InvalidDecision(error), None)),
                };
                (value, outcome)
            }
            Err(error) => (Value::Undefined, Err((self.failed(error), None))),
        };
        let answer = decision_log::Answer {
            value,
            evaluation: Some(evaluation),
        };
        let denied = outcome.as_ref().err().map(|(reason, _)| reason);
        let decision_id = self.connect_decided(connection, time, answer, denied, elapsed);
        match outcome {
            Ok(()) => Ok(ConnectPermit {
                generation,
                decision_id: Some(decision_id),
            }),
            Err((reason, explanation)) => Err(Box::new(ConnectDenial {
                reason,
                explanation,
                decision_id,
                generation,
            })),
        }
    }
}
