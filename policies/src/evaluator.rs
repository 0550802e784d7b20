//! Decides requests, one at a time, on the thread that owns it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Uri;
use http::request::Parts;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use regorus::Value;
use uuid::Uuid;

use crate::decision::{Decision, Response};
use crate::decision_log::{Answer, Asked, AskedRequest, DecisionLog, HeadCopy, Record, empty_head};
use crate::denial::{Denial, DenialReason};
use crate::differential::recheck::{ONE_IN, Rechecks};
use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::input::{self, ConnectionFacts, InputKeys, RequestFacts, Template};
use crate::machine::Machine;
use crate::memory::Memory;
use crate::metrics::{DecisionRecorder, PolicyMetrics};
use crate::permit::{Permit, PreparedEdits};
use crate::points::egress::{self, AskedEgress};
use crate::policy::Policy;
use crate::shadow::Shadow;

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
    connect: Option<Beside>,
    /// `None` where the policy is not asked about what workloads send, or says nothing of it.
    egress: Option<Engine>,
    egress_recorder: Option<DecisionRecorder>,
    /// Who is told of decisions, if anybody is.
    told: Option<Told>,
    /// Checks some of the machine's answers.
    rechecks: Option<Arc<Rechecks>>,
    /// How many answers of the machine there are until the next one is checked.
    until_recheck: u32,
    /// Decision ids must not repeat; nobody has to be unable to guess them.
    ids: SmallRng,
}

/// What a policy needs that decides at another decision point too.
struct Beside {
    engine: Engine,
    recorder: DecisionRecorder,
}

/// Who is told of decisions.
struct Told {
    log: Option<DecisionLog>,
    shadow: Option<Shadow>,
    /// This evaluator's own reference to the policy.
    policy: Arc<Policy>,
}

/// What evaluates.
enum Engine {
    Machine(Box<Machine>),
    /// `None` after an evaluation failed, until the next request builds it
    /// anew: an engine that gave up halfway may hold on to replacements made
    /// by `with`.
    Interpreter(Option<Box<Interpreter>>),
}

/// A denial without what every decision has.
struct Refusal {
    response: Response,
    reason: DenialReason,
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
        let machine = policy.machine();
        Self::with_machine(policy, machine, metrics)
    }

    /// An evaluator with this machine, or without one.
    pub(crate) fn with_machine(
        policy: Policy,
        machine: Option<Machine>,
        metrics: &PolicyMetrics,
    ) -> Result<Self, PolicyError> {
        let engine = Engine::new(&policy, machine)?;
        let rechecks = match &engine {
            Engine::Machine(_) => policy.rechecks(metrics),
            Engine::Interpreter(_) => None,
        };
        let memory = match policy.unremembered() {
            None => Memory::of_bytes(policy.memory_bytes()),
            Some(_) => None,
        };
        let connect = match policy.connect_rule() {
            Some(_) => Some(Beside {
                engine: Engine::new(&policy, policy.connect_machine())?,
                recorder: metrics.recorder("connect"),
            }),
            None => None,
        };
        let egress = match policy.egress_rule() {
            Some(_) => Some(Engine::new(&policy, policy.egress_machine())?),
            None => None,
        };
        let egress_recorder = policy.status().egress.map(|_| metrics.recorder("egress"));
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
            egress,
            egress_recorder,
            told: None,
            rechecks,
            until_recheck: ONE_IN,
            ids: SmallRng::from_os_rng(),
            policy,
        })
    }

    /// Notes every decision in `log`.
    #[must_use]
    pub fn with_decision_log(mut self, log: DecisionLog) -> Self {
        self.told().log = Some(log);
        self
    }

    /// Has `shadow` compare decisions with those of a candidate.
    #[must_use]
    pub fn with_shadow(mut self, shadow: Shadow) -> Self {
        self.told().shadow = Some(shadow);
        self
    }

    fn told(&mut self) -> &mut Told {
        self.told.get_or_insert_with(|| Told {
            log: None,
            shadow: None,
            policy: Arc::new(self.policy.clone()),
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
        mut request: RequestFacts,
    ) -> Result<Permit, Box<Denial>> {
        let started = Instant::now();
        let (outcome, evaluation) = self.outcome(connection, &request);
        let decision_id = self.decision_id();
        let elapsed = started.elapsed();
        let verdict = outcome.verdict(&request.head.uri);
        let denied = verdict.as_ref().err().map(|refusal| &refusal.reason);
        self.recorder.record(denied, elapsed);
        let told = self.told.as_ref();
        let log = told.and_then(|told| told.log.as_ref());
        let shadow = told.and_then(|told| told.shadow.as_ref());
        let shadow = shadow.filter(|shadow| shadow.samples(&mut self.ids));
        let head = match told {
            Some(told) if log.is_some() || shadow.is_some() => {
                let head = std::mem::replace(&mut request.head, empty_head());
                let record = Arc::new(Record {
                    policy: Arc::clone(&told.policy),
                    connection: Arc::clone(connection.parameters()),
                    time: request.time,
                    asked: Asked::Request(AskedRequest {
                        facts: request,
                        head: HeadCopy::of(&head),
                    }),
                    decision_id,
                    answer: Answer {
                        value: outcome.result.clone(),
                        evaluation,
                    },
                    denied: denied.cloned(),
                    elapsed,
                });
                if let Some(shadow) = shadow {
                    shadow.record(Arc::clone(&record));
                }
                if let Some(log) = log {
                    log.record(record);
                }
                head
            }
            _ => request.head,
        };
        self.conclude(verdict, head, decision_id)
    }

    /// Makes a verdict a permit or a denial of the request that it is about.
    fn conclude(
        &self,
        verdict: Result<PreparedEdits, Box<Refusal>>,
        head: Parts,
        decision_id: Uuid,
    ) -> Result<Permit, Box<Denial>> {
        let generation = self.policy.generation();
        match verdict {
            Ok(edits) => Ok(Permit::new(head, edits, decision_id, generation)),
            Err(refusal) => {
                let Refusal { response, reason } = *refusal;
                Err(Box::new(Denial {
                    status: response.status,
                    headers: response.headers,
                    body: response.body,
                    dynamic_metadata: response.dynamic_metadata,
                    reason,
                    head,
                    decision_id,
                    generation,
                }))
            }
        }
    }

    /// Asks the policy about a request that a workload wants to send, by its document.
    pub(crate) fn decide_egress(
        &mut self,
        connection: &ConnectionFacts,
        document: Result<Value, DenialReason>,
        mut asked: AskedEgress,
        head: Parts,
    ) -> Result<Permit, Box<Denial>> {
        let started = Instant::now();
        let answer = document.and_then(|document| self.egress_value(document));
        let (outcome, evaluation) = match answer {
            Ok((value, evaluation)) => (Outcome::of(value), Some(evaluation)),
            Err(reason) => (Outcome::refused(reason), None),
        };
        let decision_id = self.decision_id();
        let elapsed = started.elapsed();
        let verdict = outcome.verdict(&head.uri);
        let denied = verdict.as_ref().err().map(|refusal| &refusal.reason);
        if let Some(recorder) = &self.egress_recorder {
            recorder.count(denied);
        }
        if let Some(told) = &self.told
            && let Some(log) = &told.log
        {
            asked.head = HeadCopy::of(&head);
            log.record(Arc::new(Record {
                policy: Arc::clone(&told.policy),
                connection: Arc::clone(connection.parameters()),
                time: asked.time,
                asked: Asked::Egress(Box::new(asked)),
                decision_id,
                answer: Answer {
                    value: outcome.result,
                    evaluation,
                },
                denied: denied.cloned(),
                elapsed,
            }));
        }
        self.conclude(verdict, head, decision_id)
    }

    /// What the rule says that decides on what workloads send, and how long its evaluation took.
    fn egress_value(&mut self, input: Value) -> Result<(Value, Duration), DenialReason> {
        let started = Instant::now();
        let value = match (&mut self.egress, self.policy.egress_rule()) {
            (Some(engine), Some(rule)) => engine.evaluate(&self.policy, rule, input),
            // A policy may have been loaded for this decision point alone.
            _ if self.policy.status().entrypoint == egress::ENTRYPOINT => {
                let rule = self.policy.rule();
                self.engine.evaluate(&self.policy, rule, input)
            }
            _ => Ok(Value::Undefined),
        };
        let value = value.map_err(|error| self.failed(error))?;
        Ok((value, started.elapsed()))
    }

    /// What the policy's rule says to a document.
    pub(crate) fn ask(&mut self, input: Value) -> Result<Value, DenialReason> {
        match self
            .engine
            .evaluate(&self.policy, self.policy.rule(), input)
        {
            Ok(Value::Undefined) => Err(DenialReason::Undefined),
            Ok(value) => Ok(value),
            Err(error) => Err(self.failed(error)),
        }
    }

    pub(crate) fn failed(&self, error: EvaluationError) -> DenialReason {
        match error {
            EvaluationError::Timeout => DenialReason::Timeout(self.policy.decision_timeout()),
            EvaluationError::Failed(message) => DenialReason::Evaluation(message),
        }
    }

    fn decision_id(&mut self) -> Uuid {
        uuid::Builder::from_random_bytes(self.ids.random()).into_uuid()
    }

    /// Whether the policy has to see the request's body to decide on it: if
    /// so, the proxy reads it before it asks.
    #[must_use]
    pub fn needs_body(&self, head: &Parts) -> bool {
        self.policy.body_reads().apply_to(head)
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
    pub(crate) fn outcome(
        &mut self,
        connection: &ConnectionFacts,
        request: &RequestFacts,
    ) -> (Arc<Outcome>, Option<Duration>) {
        if let Err(error) = input::check(request) {
            let reason = DenialReason::MalformedRequest(error);
            return (Arc::new(Outcome::refused(reason)), None);
        }
        if matches!(self.engine, Engine::Machine(_)) && self.policy.is_disproved() {
            self.give_machine_up();
        }
        let reads = self.policy.reads();
        if let Some(memory) = &mut self.memory
            && let Some(outcome) = memory.recall(reads, connection, request)
        {
            self.remembered = self.remembered.saturating_add(1);
            self.recorder.remembered();
            return (Arc::clone(outcome), None);
        }
        let input = match &mut self.template {
            Some(template) => template.fill(&self.keys, connection, request),
            None => self.keys.document(reads, connection, request),
        };
        let started = Instant::now();
        let answer = self
            .engine
            .evaluate(&self.policy, self.policy.rule(), input);
        let elapsed = Some(started.elapsed());
        if let Some(rechecks) = &self.rechecks {
            self.until_recheck = self.until_recheck.saturating_sub(1);
            if self.until_recheck == 0 {
                self.until_recheck = ONE_IN;
                // A document of its own: the template's is filled anew for the next request.
                let document = self.keys.document(reads, connection, request);
                rechecks.check(document, &answer);
            }
        }
        let outcome = match answer {
            Ok(result) => Outcome::of(result),
            // The next one may have more luck, so this is not remembered.
            Err(error @ EvaluationError::Timeout) => {
                return (Arc::new(Outcome::refused(self.failed(error))), elapsed);
            }
            Err(error) => Outcome::refused(self.failed(error)),
        };
        let outcome = Arc::new(outcome);
        if let Some(memory) = &mut self.memory {
            memory.remember(&outcome);
        }
        (outcome, elapsed)
    }

    /// Goes over to the interpreter, and forgets what the machine said.
    fn give_machine_up(&mut self) {
        self.engine = Engine::Interpreter(None);
        if let Some(connect) = &mut self.connect {
            connect.engine = Engine::Interpreter(None);
        }
        if let Some(egress) = &mut self.egress {
            *egress = Engine::Interpreter(None);
        }
        self.template = None;
        self.rechecks = None;
        if let Some(memory) = &mut self.memory {
            memory.clear();
        }
    }

    /// The value of the rule that decides on connections, and how long its evaluation took; `None`
    /// without one.
    pub(crate) fn connect_value(
        &mut self,
        connection: &ConnectionFacts,
    ) -> Option<(Result<Value, EvaluationError>, Duration)> {
        let rule = self.policy.connect_rule()?;
        let engine = &mut self.connect.as_mut()?.engine;
        let input = connection.document();
        let started = Instant::now();
        let value = engine.evaluate(&self.policy, rule, input);
        Some((value, started.elapsed()))
    }

    /// Counts a connection's permit, or its denial by reason, and tells the log of it. Says by
    /// which id.
    pub(crate) fn connect_decided(
        &mut self,
        connection: &ConnectionFacts,
        time: SystemTime,
        answer: Answer,
        denied: Option<&DenialReason>,
        elapsed: Duration,
    ) -> Uuid {
        if let Some(connect) = &self.connect {
            connect.recorder.count(denied);
        }
        let decision_id = self.decision_id();
        if let Some(told) = &self.told
            && let Some(log) = &told.log
        {
            log.record(Arc::new(Record {
                policy: Arc::clone(&told.policy),
                connection: Arc::clone(connection.parameters()),
                asked: Asked::Connection,
                time,
                decision_id,
                answer,
                denied: denied.cloned(),
                elapsed,
            }));
        }
        decision_id
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
    /// The machine if there is one, else an interpreter.
    fn new(policy: &Policy, machine: Option<Machine>) -> Result<Self, PolicyError> {
        Ok(match machine {
            Some(machine) => Self::Machine(Box::new(machine)),
            None => Self::Interpreter(Some(Box::new(policy.interpreter()?))),
        })
    }

    /// The rule's value. A machine has one rule only, and it is this.
    fn evaluate(
        &mut self,
        policy: &Policy,
        rule: &str,
        input: Value,
    ) -> Result<Value, EvaluationError> {
        match self {
            Self::Machine(machine) => machine
                .evaluate(input)
                .map_err(EvaluationError::without_values),
            Self::Interpreter(place) => interpret(place, policy, rule, input),
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
    if value.is_ok() || !policy.replaces() && !interpreter.is_broken() {
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

    /// What it means for a request with this target.
    fn verdict(&self, target: &Uri) -> Result<PreparedEdits, Box<Refusal>> {
        let refused = |reason: DenialReason| {
            let response = Response::empty(reason.default_status());
            Box::new(Refusal { response, reason })
        };
        match &self.decision {
            Ok(Decision::Allow(edits)) => {
                let prepared = PreparedEdits::new(edits, target);
                prepared.map_err(|error| refused(DenialReason::InvalidDecision(error)))
            }
            Ok(Decision::Deny(response)) => Err(Box::new(Refusal {
                response: response.clone(),
                reason: DenialReason::Policy,
            })),
            Err(reason) => Err(refused(reason.clone())),
        }
    }
}
