//! Asks one rule of a policy, with a document as its input: what a person does
//! who wants to know what a policy says.

mod bench;
mod keys;
mod path;
mod point;

use std::time::Duration;

use regorus::Value;
use serde::Serialize;
use serde_json::Value as Json;

use crate::engine::{EvaluationError, Interpreter};
use crate::error::{EngineMessage, PolicyError};
use crate::files::place_in;
use crate::served::{in_sources, served};
use crate::sources::PolicySources;
use crate::syntax::{RuleKind, RulePath, Syntax, rule_reference};

pub use bench::{BenchLimits, BenchReport, bench};
pub use point::{Judgement, Verdict};

pub use crate::points::DecisionPoint;

pub(crate) use path::{entrypoint_path, entrypoint_rule, likely_meant};

/// What was likely meant by an entrypoint that no module declares.
#[must_use]
pub fn suggestion(sources: &PolicySources, entrypoint: &str) -> Option<String> {
    let trees = Interpreter::parse(sources, Duration::from_secs(5)).ok()?;
    let trees = trees.syntax().ok()?;
    likely_meant(entrypoint, &Syntax::new(&trees, sources))
}

/// The package of the module that asks for what is no single rule.
const ASKING_PACKAGE: &str = "sidegate_question";

/// What is asked, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuestionOptions {
    /// A rule, package or part of either, as OPA writes it: `envoy/authz/allow`
    /// or `data.envoy.authz.allow`.
    pub entrypoint: String,
    /// Lets a builtin that fails be an error; else it is undefined.
    pub strict_builtin_errors: bool,
    /// How long one evaluation may take.
    pub time_limit: Duration,
}

/// An input document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputDocument(Value);

/// Text that is no JSON, or in which an object has a key twice.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InputDocumentError {
    /// What the parser said.
    pub message: EngineMessage,
    /// Line and column from 1, as far as the parser told.
    pub place: Option<(usize, usize)>,
}

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// The evaluation took longer than it may.
    #[error("the evaluation took longer than {0:?}")]
    Timeout(Duration),
    /// The engine gave up: rules that contradict each other, a builtin that
    /// fails where that is an error.
    #[error("the policy could not be evaluated")]
    Evaluation(#[source] EngineMessage),
    /// The sources could not be used again.
    #[error(transparent)]
    Policy(#[from] PolicyError),
}

/// What a policy says.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// What was asked, e.g. `data.envoy.authz.allow`.
    pub asked: String,
    /// The value as JSON; sets are lists. `None` where it is undefined.
    pub value: Option<Json>,
    /// What `print` said meanwhile, with file and line.
    pub prints: Vec<String>,
    #[serde(skip)]
    original: Value,
}

/// A policy made ready for one question, to be asked again and again.
///
/// It runs the copy of its modules that the interpreter runs in service.
pub struct Question {
    sources: PolicySources,
    /// The copy, where it is another text.
    served: Option<PolicySources>,
    options: QuestionOptions,
    /// What is asked, and the rule by which.
    asked: String,
    path: RulePath,
    rule: String,
    asking: Option<String>,
    /// `None` after an evaluation that failed halfway.
    interpreter: Option<Interpreter>,
}

impl InputDocument {
    /// No input at all: every reference to it is undefined.
    #[must_use]
    pub fn none() -> Self {
        Self(Value::Undefined)
    }

    /// A document that is there already.
    pub(crate) fn of(value: Value) -> Self {
        Self(value)
    }

    pub(crate) fn value(&self) -> &Value {
        &self.0
    }

    /// Reads JSON.
    ///
    /// # Errors
    ///
    /// Text that is not one JSON document, and one in which an object has a key
    /// twice: as in a request's body, nobody could tell which of them counts.
    pub fn parse(text: &str) -> Result<Self, InputDocumentError> {
        if let Some(error) = keys::duplicate(text) {
            return Err(error);
        }
        Value::from_json_str(text).map(Self).map_err(|error| {
            let message = error.to_string();
            InputDocumentError {
                place: place_in(&message),
                message: EngineMessage::new(message),
            }
        })
    }
}

impl QuestionError {
    /// The stable diagnostic code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Timeout(_) => "SG0222",
            Self::Evaluation(_) => "SG0223",
            Self::Policy(error) => error.code(),
        }
    }
}

impl Question {
    /// Makes `sources` ready.
    ///
    /// # Errors
    ///
    /// Sources that cannot be used, and an entrypoint that is none.
    pub fn new(sources: PolicySources, options: QuestionOptions) -> Result<Self, PolicyError> {
        let interpreter = Interpreter::parse(&sources, options.time_limit)?;
        let trees = interpreter.syntax()?;
        let syntax = Syntax::new(&trees, &sources);
        let path = path::question_path(&options.entrypoint, &syntax, &sources)?;
        let asked = rule_reference(&path);
        let is_rule = |rule: &crate::syntax::DeclaredRule| rule.path == path;
        let rules = syntax.rules();
        let mut exact = rules.iter().filter(|rule| is_rule(rule)).peekable();
        // A package, a part of a rule's value and a reference of several rules
        // are no rules to the engine: it takes one to ask for them.
        let plain = exact.peek().is_some()
            && exact.all(|rule| matches!(rule.kind, RuleKind::Complete | RuleKind::Default));
        let below = |rule: &crate::syntax::DeclaredRule| {
            rule.path.len() > path.len() && rule.path.starts_with(&path)
        };
        let (rule, asking) = if plain && !rules.iter().any(below) {
            (asked.clone(), None)
        } else {
            let asking = format!("package {ASKING_PACKAGE}\n\nanswer := {asked}\n");
            (format!("data.{ASKING_PACKAGE}.answer"), Some(asking))
        };
        let mut question = Self {
            interpreter: None,
            served: served(&syntax, &sources),
            sources,
            options,
            asked,
            path,
            rule,
            asking,
        };
        // What is wrong with the sources is told of their own text.
        let interpreter = question.prepared(interpreter)?;
        question.interpreter = Some(match question.served {
            None => interpreter,
            Some(_) => question.fresh()?,
        });
        Ok(question)
    }

    /// What is asked, e.g. `data.envoy.authz.allow`.
    #[must_use]
    pub fn asked(&self) -> &str {
        &self.asked
    }

    /// Asks.
    ///
    /// # Errors
    ///
    /// An evaluation that takes too long or fails. That there is no value is an
    /// answer.
    pub fn ask(&mut self, input: &InputDocument) -> Result<Answer, QuestionError> {
        let (value, prints) = self.value(input)?;
        let json = match &value {
            Value::Undefined => None,
            value => {
                let json = serde_json::to_value(value);
                let json = json.map_err(|error| EngineMessage::new(&error));
                Some(json.map_err(QuestionError::Evaluation)?)
            }
        };
        Ok(Answer {
            asked: self.asked.clone(),
            value: json,
            prints,
            original: value,
        })
    }

    fn value(&mut self, input: &InputDocument) -> Result<(Value, Vec<String>), QuestionError> {
        // Out of its place while it works: only success puts it back.
        let mut interpreter = match self.interpreter.take() {
            Some(interpreter) => interpreter,
            None => self.fresh()?,
        };
        let value = interpreter.evaluate(&self.rule, input.0.clone());
        let value = value.map_err(|error| self.failed(error, input))?;
        let prints = interpreter.take_prints();
        self.interpreter = Some(interpreter);
        Ok((value, prints))
    }

    /// The error, at its place in the sources' own text.
    fn failed(&self, error: EvaluationError, input: &InputDocument) -> QuestionError {
        let error = match self.served {
            None => error,
            Some(_) => in_sources(error, || {
                let parsed = Interpreter::parse(&self.sources, self.options.time_limit);
                let interpreter = parsed.and_then(|it| self.prepared(it));
                let mut interpreter = interpreter.map_err(EvaluationError::unusable)?;
                interpreter.evaluate(&self.rule, input.0.clone())
            }),
        };
        self.told(error)
    }

    fn told(&self, error: EvaluationError) -> QuestionError {
        match error {
            EvaluationError::Timeout => QuestionError::Timeout(self.options.time_limit),
            EvaluationError::Failed(message) => QuestionError::Evaluation(message),
        }
    }

    fn fresh(&self) -> Result<Interpreter, PolicyError> {
        let sources = self.served.as_ref().unwrap_or(&self.sources);
        self.prepared(Interpreter::parse(sources, self.options.time_limit)?)
    }

    fn prepared(&self, mut interpreter: Interpreter) -> Result<Interpreter, PolicyError> {
        if self.options.strict_builtin_errors {
            interpreter.raise_builtin_errors();
        }
        interpreter.prepare(self.asking.as_deref(), &self.rule)?;
        Ok(interpreter)
    }
}
