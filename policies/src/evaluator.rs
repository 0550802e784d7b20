//! Decides requests, one at a time, on the thread that owns it.

use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use regorus::Value;
use uuid::Uuid;

use crate::decision::Decision;
use crate::denial::{Denial, DenialReason};
use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::input::{ConnectionFacts, InputKeys, RequestFacts};
use crate::metrics::DecisionRecorder;
use crate::permit::{HeaderEdits, Permit};
use crate::policy::Policy;

/// One worker thread's way to ask a policy.
///
/// It may be built on one thread and moved to another, but it is used by one
/// at a time and shares no reference count with any other evaluator.
pub struct Evaluator {
    policy: Policy,
    /// `None` after an evaluation failed, until the next request builds it
    /// anew: an engine that gave up halfway may hold on to replacements made
    /// by `with`.
    interpreter: Option<Interpreter>,
    keys: InputKeys,
    recorder: DecisionRecorder,
}

/// A denial without what every decision has.
struct Refusal {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
    reason: DenialReason,
}

impl Evaluator {
    pub(crate) fn new(policy: Policy, recorder: DecisionRecorder) -> Result<Self, PolicyError> {
        let interpreter = Some(policy.interpreter()?);
        Ok(Self {
            policy,
            interpreter,
            keys: InputKeys::new(),
            recorder,
        })
    }

    /// Asks the policy about one request.
    ///
    /// # Errors
    ///
    /// A [`Denial`] whenever the policy does not clearly allow the request:
    /// also if it is undefined, contradicts itself, takes too long, or answers
    /// with something that cannot be carried out.
    pub fn decide(
        &mut self,
        connection: &ConnectionFacts,
        request: RequestFacts,
    ) -> Result<Permit, Box<Denial>> {
        let started = Instant::now();
        let outcome = self.outcome(connection, &request);
        let decision_id = Uuid::new_v4();
        let generation = self.policy.generation();
        self.recorder.record(
            outcome.as_ref().err().map(|refusal| &refusal.reason),
            started.elapsed(),
        );
        match outcome {
            Ok(edits) => Ok(Permit::new(request.head, edits, decision_id, generation)),
            Err(refusal) => {
                let Refusal {
                    status,
                    headers,
                    body,
                    reason,
                } = *refusal;
                let head = request.head;
                Err(Box::new(Denial {
                    status,
                    headers,
                    body,
                    reason,
                    head,
                    decision_id,
                    generation,
                }))
            }
        }
    }

    /// The number of the policy's generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.policy.generation()
    }

    fn outcome(
        &mut self,
        connection: &ConnectionFacts,
        request: &RequestFacts,
    ) -> Result<HeaderEdits, Box<Refusal>> {
        let input = self
            .keys
            .document(connection, request)
            .map_err(DenialReason::MalformedRequest)?;
        let result = self.evaluate(input).map_err(|error| match error {
            EvaluationError::Timeout => DenialReason::Timeout(self.policy.decision_timeout()),
            EvaluationError::Failed(message) => DenialReason::Evaluation(message),
        })?;
        if result == Value::Undefined {
            return Err(DenialReason::Undefined.into());
        }
        match Decision::parse(&result).map_err(DenialReason::InvalidDecision)? {
            Decision::Allow(edits) => Ok(edits),
            Decision::Deny {
                status,
                headers,
                body,
            } => Err(Box::new(Refusal {
                status,
                headers,
                body,
                reason: DenialReason::Policy,
            })),
        }
    }

    fn evaluate(&mut self, input: Value) -> Result<Value, EvaluationError> {
        // Out of its place while it works: only success puts it back.
        let mut interpreter = match self.interpreter.take() {
            Some(interpreter) => interpreter,
            None => self
                .policy
                .interpreter()
                .map_err(EvaluationError::unusable)?,
        };
        let value = interpreter
            .evaluate(self.policy.rule(), input)
            .map_err(EvaluationError::without_values)?;
        // Prints may hold secrets of the request, so they go nowhere.
        interpreter.take_prints();
        self.interpreter = Some(interpreter);
        Ok(value)
    }
}

impl From<DenialReason> for Box<Refusal> {
    fn from(reason: DenialReason) -> Self {
        Self::new(Refusal {
            status: reason.default_status(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            reason,
        })
    }
}

impl std::fmt::Debug for Evaluator {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Evaluator")
            .field("policy", self.policy.status())
            .finish_non_exhaustive()
    }
}
