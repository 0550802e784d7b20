//! Decides requests, one at a time, on the thread that owns it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use regorus::Value;

use crate::decision::Decision;
use crate::decision_log::{Answer, DecisionLog, HeadCopy, Record, empty_head};
use crate::denial::{Denial, DenialReason};
use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::input::{self, ConnectionFacts, InputKeys, RequestFacts, Template};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::metrics::{DecisionRecorder, PolicyMetrics};
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
    connect: Option<Connect>,
    /// Where decisions are noted, if they are, and this evaluator's own
    /// reference to the policy for it.
    log: Option<(DecisionLog, Arc<Policy>)>,
    /// Decision ids must not repeat; nobody has to be unable to guess them.
    ids: SmallRng,
}

/// What a policy needs that decides on connections too.
struct Connect {
    interpreter: Option<Box<Interpreter>>,
    recorder: DecisionRecorder,
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
    pub(crate) fn new(policy: Policy, metrics: &PolicyMetrics) -> Result<Self, PolicyError> {
        let engine = match policy.machine() {
            Some(machine) => Engine::Machine(Box::new(machine)),
            None => Engine::Interpreter(Some(Box::new(policy.interpreter()?))),
        };
        let memory = match policy.unremembered() {
            None => Memory::of_bytes(policy.memory_bytes()),
            Some(_) => None,
        };
        let connect = match policy.connect_rule() {
            Some(_) => Some(Connect {
                interpreter: Some(Box::new(policy.interpreter()?)),
                recorder: metrics.recorder("connect"),
            }),
            None => None,
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
            recorder: metrics.recorder("ingress"),
            connect,
            log: None,
            ids: SmallRng::from_os_rng(),
            policy,
        })
    }

    /// Notes every decision in `log`.
    #[must_use]
    pub fn with_decision_log(mut self, log: DecisionLog) -> Self {
        self.log = Some((log, Arc::new(self.policy.clone())));
        self
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
        mut request: RequestFacts,
    ) -> Result<Permit, Box<Denial>> {
        let started = Instant::now();
        let (outcome, evaluation) = self.outcome(connection, &request);
        let decision_id = uuid::Builder::from_random_bytes(self.ids.random()).into_uuid();
        let generation = self.policy.generation();
        let elapsed = started.elapsed();
        let denied = outcome.refused_for();
        self.recorder.record(denied, elapsed);
        let head = match &self.log {
            None => request.head,
            Some((log, policy)) => {
                let head = std::mem::replace(&mut request.head, empty_head());
                log.record(Record {
                    policy: Arc::clone(policy),
                    connection: Arc::clone(connection.parameters()),
                    request,
                    head: HeadCopy::of(&head),
                    decision_id,
                    answer: Answer {
                        value: outcome.result.clone(),
                        evaluation,
                    },
                    denied: denied.cloned(),
                    elapsed,
                });
                head
            }
        };
        match &outcome.decision {
            Ok(Decision::Allow(edits)) => {
                Ok(Permit::new(head, edits.clone(), decision_id, generation))
            }
            Ok(Decision::Deny {
                status,
                headers,
                body,
            }) => Err(Box::new(Denial {
                status: *status,
                headers: headers.clone(),
                body: body.clone(),
                reason: DenialReason::Policy,
                head,
                decision_id,
                generation,
            })),
            Err(reason) => Err(Box::new(Denial {
                status: reason.default_status(),
                headers: HeaderMap::new(),
                body: bytes::Bytes::new(),
                reason: reason.clone(),
                head,
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

    /// What becomes of a request, and how long the evaluation took if there was one.
    fn outcome(
        &mut self,
        connection: &ConnectionFacts,
        request: &RequestFacts,
    ) -> (Arc<Outcome>, Option<Duration>) {
        if let Err(error) = input::check(request) {
            let reason = DenialReason::MalformedRequest(error);
            return (Arc::new(Outcome::refused(reason)), None);
        }
        let reads = self.policy.reads();
        if let Some(memory) = &mut self.memory
            && let Some(outcome) = memory.recall(reads, connection, request)
        {
            self.remembered = self.remembered.saturating_add(1);
            return (Arc::clone(outcome), None);
        }
        let input = match &mut self.template {
            Some(template) => template.fill(&self.keys, connection, request),
            None => self.keys.document(reads, connection, request),
        };
        let started = Instant::now();
        let answer = self.engine.evaluate(&self.policy, input);
        let elapsed = Some(started.elapsed());
        let outcome = match answer {
            Ok(result) => Outcome::of(result),
            // The next one may have more luck, so this is not remembered.
            Err(EvaluationError::Timeout) => {
                let reason = DenialReason::Timeout(self.policy.decision_timeout());
                return (Arc::new(Outcome::refused(reason)), elapsed);
            }
            Err(EvaluationError::Failed(message)) => {
                Outcome::refused(DenialReason::Evaluation(message))
            }
        };
        let outcome = Arc::new(outcome);
        if let Some(memory) = &mut self.memory {
            memory.remember(&outcome);
        }
        (outcome, elapsed)
    }

    /// The value of the rule that decides on connections; `None` without one.
    pub(crate) fn connect_value(
        &mut self,
        input: impl FnOnce() -> Value,
    ) -> Option<Result<Value, EvaluationError>> {
        let rule = self.policy.connect_rule()?;
        let place = &mut self.connect.as_mut()?.interpreter;
        Some(interpret(place, &self.policy, rule, input()))
    }

    /// Counts a connection's permit, or its denial by reason.
    pub(crate) fn count_connect(&self, denied: Option<&DenialReason>) {
        if let Some(connect) = &self.connect {
            connect.recorder.count(denied);
        }
    }

    /// How long one decision may take.
    pub(crate) fn decision_timeout(&self) -> Duration {
        self.policy.decision_timeout()
    }
}

impl fmt::Debug for Evaluator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Evaluator");
        shown.field("policy", self.policy.status());
        shown.finish_non_exhaustive()
    }
}

impl Engine {
    fn evaluate(&mut self, policy: &Policy, input: Value) -> Result<Value, EvaluationError> {
        match self {
            Self::Machine(machine) => machine
                .evaluate(input)
                .map_err(EvaluationError::without_values),
            Self::Interpreter(place) => interpret(place, policy, policy.rule(), input),
        }
    }
}

fn interpret(
    place: &mut Option<Box<Interpreter>>,
    policy: &Policy,
    rule: &str,
    input: Value,
) -> Result<Value, EvaluationError> {
    // Out of its place while it works: only success puts it back.
    let mut interpreter = match place.take() {
        Some(interpreter) => interpreter,
        None => Box::new(policy.interpreter().map_err(EvaluationError::unusable)?),
    };
    let value = interpreter.evaluate(rule, input);
    // Prints may hold secrets of the request, so they go nowhere.
    interpreter.take_prints();
    if value.is_ok() || !policy.replaces() {
        *place = Some(interpreter);
    }
    value.map_err(EvaluationError::without_values)
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
