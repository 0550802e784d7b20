//! Says why a policy answers as it does: which rules fired, which came closest, and on which
//! statement they stopped.
//!
//! The interpreter tells only values. So for a body with the statements `s1 … sn` rules of our own
//! are put beside it, `if { s1 }`, `if { s1; s2 }` and so on; the last that holds is how far the
//! body came. The values in the statement after it are asked for in the same way.

mod asking;
mod definitions;
mod read_set;
mod report;
mod request;
mod secrets;
#[cfg(test)]
mod tests;
mod walk;

use std::time::Duration;

use http::HeaderName;

use crate::decision_log::CREDENTIAL_HEADERS;
use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::lint::recursive_rules;
use crate::question::{
    DecisionPoint, InputDocument, Question, QuestionError, QuestionOptions, entrypoint_rule,
};
use crate::sources::PolicySources;
use crate::syntax::{Named, Syntax, dependencies, unsupported_calls};

pub use read_set::{
    BuiltinUse, EngineUse, InputRead, NotRemembered, ReadPlace, ReadSetReport, Remembering,
    read_set,
};
pub use report::{Comparison, Definition, Explanation, Firing, Outcome, Shown, SourcePlace, Stop};
pub use request::request_document;

/// How a policy is asked to explain itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExplainOptions {
    /// The rule, as OPA writes it.
    pub entrypoint: String,
    /// How long one evaluation may take.
    pub time_limit: Duration,
    /// Headers whose values are never shown, nor what is made of them.
    pub credentials: Vec<HeaderName>,
}

impl Default for ExplainOptions {
    fn default() -> Self {
        Self {
            entrypoint: DecisionPoint::Ingress.entrypoint().to_owned(),
            time_limit: Duration::from_secs(5),
            credentials: CREDENTIAL_HEADERS.to_vec(),
        }
    }
}

/// Explains the answer to one input.
///
/// # Errors
///
/// Sources that cannot be used, an entrypoint that is no rule, and an evaluation that fails.
pub fn explain(
    sources: &PolicySources,
    input: &InputDocument,
    options: &ExplainOptions,
) -> Result<Explanation, QuestionError> {
    let trees = Interpreter::parse(sources, options.time_limit)?.syntax()?;
    let syntax = Syntax::new(&trees, sources);
    can_be_asked(&syntax)?;
    let mut question = Question::new(
        sources.clone(),
        QuestionOptions {
            entrypoint: options.entrypoint.clone(),
            strict_builtin_errors: false,
            time_limit: options.time_limit,
        },
    )?;
    let answer = question.ask(input).map_err(without_values)?;
    let path = entrypoint_rule(&options.entrypoint, &syntax)?;
    let needed = dependencies(&syntax, &path, Named::Whole);
    let (definitions, functions) = walk::walk(sources, &syntax, &needed, input, options);
    Ok(Explanation {
        asked: answer.asked.clone(),
        decision: DecisionPoint::of(&path).judge(&answer),
        definitions,
        functions,
    })
}

/// The engine quotes the values that it trips over, and they may be credentials.
fn without_values(error: QuestionError) -> QuestionError {
    match error {
        QuestionError::Evaluation(message) => {
            match EvaluationError::Failed(message).without_values() {
                EvaluationError::Failed(message) => QuestionError::Evaluation(message),
                EvaluationError::Timeout => QuestionError::Timeout(Duration::ZERO),
            }
        }
        other => other,
    }
}

/// What the engine would only find out on its way, or not survive.
pub(crate) fn can_be_asked(syntax: &Syntax<'_>) -> Result<(), PolicyError> {
    let calls = unsupported_calls(syntax);
    if !calls.is_empty() {
        return Err(PolicyError::UnsupportedCalls { calls });
    }
    let rules = recursive_rules(syntax);
    match rules.is_empty() {
        true => Ok(()),
        false => Err(PolicyError::Recursive { rules }),
    }
}

impl DecisionPoint {
    /// The point whose rule this is; that of requests, if it is none's.
    pub(crate) fn of(path: &[String]) -> Self {
        let name = path.join("/");
        let mut points = Self::ALL.into_iter();
        let found = points.find(|point| point.entrypoint() == name);
        found.unwrap_or(Self::Ingress)
    }
}
