//! What a policy reads, and whether its decisions may be remembered.

use serde::Serialize;

use crate::analysis::{Analysis, Unremembered};
use crate::builtins::{Purity, purity};
use crate::differential::EngineChoice;
use crate::engine::Interpreter;
use crate::error::PolicyError;
use crate::policy::{Policy, PolicyOptions};
use crate::question::entrypoint_rule;
use crate::sources::PolicySources;
use crate::syntax::{Place, Syntax, rule_reference, written};

/// What follows from a policy's text before it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadSetReport {
    /// The rule that it is about, e.g. `data.envoy.authz.allow`.
    pub asked: String,
    /// What is read of the input, and where first.
    pub reads: Vec<InputRead>,
    /// Whether decisions are remembered.
    pub remembering: Remembering,
    /// The builtins whose results are not a function of their arguments alone.
    pub impure: Vec<BuiltinUse>,
    /// What evaluates it; `None` of a policy that would not be put into service.
    pub engine: Option<EngineUse>,
}

/// What evaluates a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EngineUse {
    /// `machine` or `interpreter`.
    pub name: &'static str,
    /// Why it is not the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// A part of the input that is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InputRead {
    /// The path as Rego writes it, e.g. `input.parsed_path[0]`; all below it is meant.
    pub path: String,
    /// Where it is read first.
    #[serde(flatten)]
    pub place: ReadPlace,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReadPlace {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// Whether decisions are remembered, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Remembering {
    /// Whether they are.
    pub remembered: bool,
    /// The parts of a request that a decision is remembered by: equal parts, same decision. Empty
    /// where nothing is remembered, or where every request gets the same decision.
    pub key: Vec<String>,
    /// What prevents it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prevented_by: Option<NotRemembered>,
}

/// The expression that prevents decisions from being remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NotRemembered {
    /// The builtin, the part of the input, or `with`.
    pub expression: String,
    /// Where it is.
    #[serde(flatten)]
    pub place: ReadPlace,
    /// Why it prevents that.
    pub reason: String,
}

/// A builtin that is called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BuiltinUse {
    /// Its name.
    pub name: String,
    /// Where it is called first.
    #[serde(flatten)]
    pub place: ReadPlace,
    /// Why it is not pure.
    pub reason: String,
}

/// What a rule of these sources reads. The policy need not pass its tests.
///
/// # Errors
///
/// Sources that do not parse, and an entrypoint that is no rule.
pub fn read_set(sources: &PolicySources, entrypoint: &str) -> Result<ReadSetReport, PolicyError> {
    let limit = super::ExplainOptions::default().time_limit;
    let trees = Interpreter::parse(sources, limit)?.syntax()?;
    let syntax = Syntax::new(&trees, sources);
    let path = entrypoint_rule(entrypoint, &syntax)?;
    let analysis = Analysis::new(&syntax, &path);
    let options = PolicyOptions {
        entrypoint: path.join("/"),
        ..PolicyOptions::default()
    };
    let engine = Policy::load(sources.clone(), &options).map(|policy| policy.engine());
    Ok(report(rule_reference(&path), &analysis, engine.ok()))
}

impl Policy {
    /// What the policy reads, and whether its decisions are remembered.
    #[must_use]
    pub fn read_set(&self) -> ReadSetReport {
        let entrypoint = self.status().entrypoint.trim_start_matches('/').split('/');
        let path: Vec<String> = entrypoint.map(str::to_owned).collect();
        report(rule_reference(&path), self.analysis(), Some(self.engine()))
    }
}

fn report(asked: String, analysis: &Analysis, engine: Option<EngineChoice>) -> ReadSetReport {
    let dependencies = &analysis.dependencies;
    let reads = dependencies.reads.iter().map(|(path, place)| InputRead {
        path: written(path),
        place: place.into(),
    });
    let unremembered = analysis.unremembered.as_ref();
    let impure = dependencies.builtins.iter().filter_map(|(name, place)| {
        let Purity::Impure(reason) = purity(name) else {
            return None;
        };
        Some(BuiltinUse {
            name: name.clone(),
            place: place.into(),
            reason: reason.to_owned(),
        })
    });
    ReadSetReport {
        asked,
        reads: reads.collect(),
        remembering: Remembering {
            remembered: unremembered.is_none(),
            key: match unremembered {
                None => analysis.reads.key(),
                Some(_) => Vec::new(),
            },
            prevented_by: unremembered.map(NotRemembered::from),
        },
        impure: impure.collect(),
        engine: engine.map(EngineUse::from),
    }
}

impl From<EngineChoice> for EngineUse {
    fn from(choice: EngineChoice) -> Self {
        match choice {
            EngineChoice::Machine(_) => Self {
                name: "machine",
                because: None,
            },
            EngineChoice::Interpreter { because } => Self {
                name: "interpreter",
                because: Some(because.to_string()),
            },
        }
    }
}

impl From<&Place> for ReadPlace {
    fn from(place: &Place) -> Self {
        Self {
            file: place.file.clone(),
            line: place.line,
            column: place.column,
        }
    }
}

impl From<&Unremembered> for NotRemembered {
    fn from(unremembered: &Unremembered) -> Self {
        Self {
            expression: unremembered.expression.clone(),
            place: (&unremembered.place).into(),
            reason: unremembered.reason.to_owned(),
        }
    }
}
