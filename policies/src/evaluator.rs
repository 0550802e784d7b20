//! Decides requests, one at a time, on the thread that owns it.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use regorus::Value;

use crate::decision::Decision;
use crate::denial::{Denial, DenialReason};
use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::input::{self, ConnectionFacts, InputKeys, RequestFacts, Template};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::metrics::DecisionRecorder;
use crate::permit::Permit;
use crate::policy::Policy;

/// One worker thread's way to ask a policy.
///
/// It may be built on one thread and moved to another, but it is used by one
/// at a time and shares no reference count with any other evaluator.
pub struct Evaluator {
    policy: Policy,
    engine: Engine,
    memory: Option<Memory>,
    remembered: u64,
    keys: InputKeys,
    template: Option<Template>,
    recorder: DecisionRecorder,
    /// Decision ids must not repeat; nobody has to be unable to guess them.
    ids: SmallRng,
}

/// What evaluates.
enum Engine {
    Machine(Box<Machine>),
    /// `None` after an evaluation failed, until the next request builds it
    /// anew: an engine that gave up halfway may hold on to replacements made
    /// by `with`.
    Interpreter(Option<Box<Interpreter>>),
}

/// What became of a request, by the policy or for want of an answer.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The entrypoint's value, if it has one.
    pub(crate) result: Value,
    pub(crate) decision: Result<Decision, DenialReason>,
}

impl Evaluator {
    pub(crate) fn new(policy: Policy, recorder: DecisionRecorder) -> Result<Self, PolicyError> {
        let engine = match policy.machine() {
            Some(machine) => Engine::Machine(Box::new(machine)),
            None => Engine::Interpreter(Some(Box::new(policy.interpreter()?))),
        };
        let memory = match policy.unremembered() {
            None => Memory::of_bytes(policy.memory_bytes()),
            Some(_) => None,
        };
        let keys = InputKeys::new();
        let template = match &engine {
            Engine::Machine(_) => Template::new(&keys, policy.reads()),
            Engine::Interpreter(_) => None,
        };
        Ok(Self {
            engine,
            memory,
            remembered: 0,
            keys,
            template,
            recorder,
            ids: SmallRng::from_os_rng(),
            policy,
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
        let decision_id = uuid::Builder::from_random_bytes(self.ids.random()).into_uuid();
        let generation = self.policy.generation();
        self.recorder
            .record(outcome.refused_for(), started.elapsed());
        match &outcome.decision {
            Ok(Decision::Allow(edits)) => Ok(Permit::new(
                request.head,
                edits.clone(),
                decision_id,
                generation,
            )),
            Ok(Decision::Deny {
                status,
                headers,
                body,
            }) => Err(Box::new(Denial {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
                reason: DenialReason::Policy,
                head: request.head,
                decision_id,
                generation,
            })),
            Err(reason) => Err(Box::new(Denial {
                status: reason.default_status(),
                headers: HeaderMap::new(),
                body: bytes::Bytes::new(),
                reason: reason.clone(),
                head: request.head,
                decision_id,
                generation,
            })),
        }
    }

    /// How many decisions were remembered ones.
    #[must_use]
    pub fn remembered(&self) -> u64 {
        self.remembered
    }

    /// The number of the policy's generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.policy.generation()
    }

    fn outcome(&mut self, connection: &ConnectionFacts, request: &RequestFacts) -> Arc<Outcome> {
        if let Err(error) = input::check(request) {
            return Arc::new(Outcome::refused(DenialReason::MalformedRequest(error)));
        }
        let reads = self.policy.reads();
        if let Some(memory) = &mut self.memory
            && let Some(outcome) = memory.recall(reads, connection, request)
        {
            self.remembered = self.remembered.saturating_add(1);
            return Arc::clone(outcome);
        }
        let input = match &mut self.template {
            Some(template) => template.fill(&self.keys, connection, request),
            None => self.keys.document(reads, connection, request),
        };
        let outcome = Arc::new(match self.engine.evaluate(&self.policy, input) {
            Ok(result) => Outcome::of(result),
            Err(EvaluationError::Timeout) => {
                // The next one may have more luck.
                let reason = DenialReason::Timeout(self.policy.decision_timeout());
                return Arc::new(Outcome::refused(reason));
            }
            Err(EvaluationError::Failed(message)) => {
                Outcome::refused(DenialReason::Evaluation(message))
            }
        });
        if let Some(memory) = &mut self.memory {
            memory.remember(&outcome);
        }
        outcome
    }
}

impl Engine {
    fn evaluate(&mut self, policy: &Policy, input: Value) -> Result<Value, EvaluationError> {
        let place = match self {
            Self::Machine(machine) => {
                return machine
                    .evaluate(input)
                    .map_err(EvaluationError::without_values);
            }
            Self::Interpreter(place) => place,
        };
        // Out of its place while it works: only success puts it back.
        let mut interpreter = match place.take() {
            Some(interpreter) => interpreter,
            None => Box::new(policy.interpreter().map_err(EvaluationError::unusable)?),
        };
        let value = interpreter.evaluate(policy.rule(), input);
        // Prints may hold secrets of the request, so they go nowhere.
        interpreter.take_prints();
        if value.is_ok() || !policy.replaces() {
            *place = Some(interpreter);
        }
        value.map_err(EvaluationError::without_values)
    }
}

impl Outcome {
    fn of(result: Value) -> Self {
        let decision = if result == Value::Undefined {
            Err(DenialReason::Undefined)
        } else {
            Decision::parse(&result).map_err(DenialReason::InvalidDecision)
        };
        Self { result, decision }
    }

    fn refused(reason: DenialReason) -> Self {
        Self {
            result: Value::Undefined,
            decision: Err(reason),
        }
    }

    /// Why the request is denied, if it is.
    fn refused_for(&self) -> Option<&DenialReason> {
        match &self.decision {
            Ok(Decision::Allow(_)) => None,
            Ok(Decision::Deny { .. }) => Some(&DenialReason::Policy),
            Err(reason) => Some(reason),
        }
    }
}
