//! Asks a policy what of its own decisions to log: `data.system.log.drop` and
//! `data.system.log.mask`, with the event as input.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use regorus::Value;

use super::event::Event;
use super::mask::{self, MaskRule};
use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::policy::Policy;
use crate::syntax::Syntax;

/// How long a rule may take. Nobody waits for it but the events behind.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// The generations whose decisions come in at the same time: the newest, and
/// the one before while workers change over.
const GENERATIONS: usize = 2;

/// Asks for both rules, whatever they are made of: rules, data, or nothing.
const ASKING: &str = "package sidegate_decision_log\n\n\
                      drop := data.system.log.drop\n\nmask := data.system.log.mask\n";
const DROP: &str = "data.sidegate_decision_log.drop";
const MASK: &str = "data.sidegate_decision_log.mask";

/// Where both rules are in `data`.
const PLACE: [&str; 2] = ["system", "log"];

/// What the policies' own rules say of events, asked on the log's thread.
#[derive(Default)]
pub(super) struct LogRules {
    generations: VecDeque<Generation>,
}

/// One policy's rules.
struct Generation {
    policy: Arc<Policy>,
    /// Whether there is anything to ask.
    has_rules: bool,
    /// `None` where there is nothing to ask, and after an evaluation failed.
    interpreter: Option<Interpreter>,
    /// Whether the rules failed last time, so that it is told once.
    drop_fails: bool,
    mask_fails: bool,
}

/// What becomes of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is logged, as the mask left it.
    Log,
    /// It is logged without input and result: the mask failed.
    Withheld,
    /// A rule drops it.
    Dropped,
}

impl LogRules {
    /// Drops an event, or masks it.
    pub(super) fn apply(&mut self, policy: &Arc<Policy>, event: &mut Event<'_>) -> Verdict {
        let number = policy.generation();
        let mut generations = self.generations.iter();
        let known = generations.position(|known| known.policy.generation() == number);
        let known = known.and_then(|index| self.generations.remove(index));
        let mut generation = known.unwrap_or_else(|| Generation::new(Arc::clone(policy)));
        let verdict = generation.apply(event);
        self.generations.push_front(generation);
        self.generations.truncate(GENERATIONS);
        verdict
    }
}

impl Generation {
    fn new(policy: Arc<Policy>) -> Self {
        let interpreter = interpreter(&policy);
        Self {
            has_rules: interpreter.is_err() || matches!(interpreter, Ok(Some(_))),
            interpreter: interpreter.ok().flatten(),
            policy,
            drop_fails: false,
            mask_fails: false,
        }
    }

    /// A drop rule that fails drops nothing: a log that loses denials is worse
    /// than one with too many lines. A mask that fails leaves nothing to see.
    fn apply(&mut self, event: &mut Event<'_>) -> Verdict {
        if !self.has_rules {
            return Verdict::Log;
        }
        let input = serde_json::to_value(&*event).and_then(serde_json::from_value::<Value>);
        let Ok(input) = input else {
            return self.withheld(event, "the event is no input");
        };
        match self.ask(DROP, input.clone()) {
            Ok(Value::Bool(true)) => return Verdict::Dropped,
            Ok(_) => self.drop_fails = false,
            Err(error) => {
                if !self.drop_fails {
                    tracing::error!(
                        code = "SG0267",
                        error,
                        "`data.system.log.drop` fails and drops nothing"
                    );
                }
                self.drop_fails = true;
            }
        }
        let rules = match self.ask(MASK, input) {
            Ok(Value::Undefined) => return Verdict::Log,
            Ok(answer) => rules(&answer),
            Err(error) => Err(error),
        };
        match rules {
            Ok(rules) => {
                mask::apply(rules, event);
                self.mask_fails = false;
                Verdict::Log
            }
            Err(error) => self.withheld(event, &error),
        }
    }

    fn withheld(&mut self, event: &mut Event<'_>, why: &str) -> Verdict {
        if !self.mask_fails {
            tracing::error!(
                code = "SG0261",
                error = why,
                decision_id = %event.decision_id,
                "`data.system.log.mask` fails: events are logged without input and result"
            );
        }
        self.mask_fails = true;
        event.withhold(why);
        Verdict::Withheld
    }

    /// The value of one of the rules, or why there is none, without values of
    /// the event.
    fn ask(&mut self, rule: &str, input: Value) -> Result<Value, String> {
        // As in the evaluator: what failed once is built anew.
        let interpreter = match self.interpreter.take() {
            Some(interpreter) => Some(interpreter),
            None => interpreter(&self.policy).map_err(|error| error.to_string())?,
        };
        let Some(mut interpreter) = interpreter else {
            return Ok(Value::Undefined);
        };
        let answer =
            interpreter
                .evaluate(rule, input)
                .map_err(|error| match error.without_values() {
                    EvaluationError::Timeout => format!("it takes longer than {TIME_LIMIT:?}"),
                    EvaluationError::Failed(message) => message.to_string(),
                })?;
        // Prints may hold what is to be masked.
        interpreter.take_prints();
        self.interpreter = Some(interpreter);
        Ok(answer)
    }
}

fn rules(answer: &Value) -> Result<Vec<MaskRule>, String> {
    let answer = serde_json::to_value(answer).map_err(|_| "its answer is not JSON".to_owned())?;
    MaskRule::list(answer).map_err(|error| error.to_string())
}

/// An interpreter that is ready to be asked; `None` where neither modules nor
/// data have anything below `system.log`.
fn interpreter(policy: &Policy) -> Result<Option<Interpreter>, PolicyError> {
    let sources = policy.sources();
    let mut interpreter = Interpreter::parse(sources, TIME_LIMIT)?;
    let trees = interpreter.syntax()?;
    let mut rules = Syntax::new(&trees, sources).rules().into_iter();
    let is_declared = rules.any(|rule| rule.path.starts_with(&PLACE.map(str::to_owned)));
    let mut is_data = false;
    for document in sources.documents() {
        let (_, document) = document?;
        is_data |= PLACE
            .iter()
            .fold(document, |document, key| document[*key].clone())
            != Value::Undefined;
    }
    if !is_declared && !is_data {
        return Ok(None);
    }
    interpreter.prepare(Some(ASKING), MASK)?;
    Ok(Some(interpreter))
}
