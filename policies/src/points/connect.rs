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

use std::fmt;

use regorus::Value;
use uuid::Uuid;

use super::answer::Answer;
use crate::denial::DenialReason;
use crate::engine::EvaluationError;
use crate::evaluator::Evaluator;
use crate::input::ConnectionFacts;

/// The rule that decides, as OPA writes it.
pub(crate) const ENTRYPOINT: &str = "sidegate/connect/allow";

/// A connection that the policy allows, or that it leaves to its requests.
///
/// Only an [`Evaluator`] makes one, and serving a connection uses it up.
#[derive(Debug)]
#[must_use = "a connection that may be served and is not"]
pub struct ConnectPermit {
    generation: u64,
}

/// A connection that must not be served, or no longer.
#[derive(Debug)]
pub struct ConnectDenial {
    /// Why, for metrics.
    pub reason: DenialReason,
    /// What the policy says about it to the operator.
    pub explanation: Option<String>,
    /// Identifies the decision.
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
            (DenialReason::Undefined, _) => {
                formatter.write_str("the policy's connect rule is undefined for the connection")
            }
            (reason, _) => reason.fmt(formatter),
        }
    }
}

impl Evaluator {
    /// Asks the policy about one connection. No question is asked, and none
    /// counted, where the policy has nothing to say about connections.
    ///
    /// # Errors
    ///
    /// A [`ConnectDenial`] whenever a policy that decides on connections does
    /// not clearly allow this one.
    pub fn connect(
        &mut self,
        connection: &ConnectionFacts,
    ) -> Result<ConnectPermit, Box<ConnectDenial>> {
        let generation = self.generation();
        let Some(evaluated) = self.connect_value(|| connection.document()) else {
            return Ok(ConnectPermit { generation });
        };
        let outcome = match evaluated {
            Ok(Value::Undefined) => Err((DenialReason::Undefined, None)),
            Ok(value) => match Answer::parse(&value) {
                Ok(Answer { allowed: true, .. }) => Ok(()),
                Ok(Answer { reason, .. }) => Err((DenialReason::Policy, reason)),
                Err(error) => Err((DenialReason::InvalidDecision(error), None)),
            },
            Err(EvaluationError::Timeout) => {
                Err((DenialReason::Timeout(self.decision_timeout()), None))
            }
            Err(EvaluationError::Failed(message)) => Err((DenialReason::Evaluation(message), None)),
        };
        self.count_connect(outcome.as_ref().err().map(|(reason, _)| reason));
        match outcome {
            Ok(()) => Ok(ConnectPermit { generation }),
            Err((reason, explanation)) => Err(Box::new(ConnectDenial {
                reason,
                explanation,
                decision_id: Uuid::new_v4(),
                generation,
            })),
        }
    }
}
