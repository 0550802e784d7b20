//! What an explanation says.

use std::ops::Range;

use serde::Serialize;
use serde_json::Value as Json;

use crate::lint::line_and_column;
use crate::question::Judgement;

/// Why a policy answers as it does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What was asked, e.g. `data.envoy.authz.allow`.
    pub asked: String,
    /// How the answer is taken.
    pub decision: Judgement,
    /// The rules that the answer depends on, one entry for each of their bodies: first those that
    /// fired, then those that came closest.
    pub definitions: Vec<Definition>,
    /// Functions that the answer depends on: they have no value of their own, so they show in the
    /// statements that call them.
    pub functions: Vec<String>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SourcePlace {
    /// The file.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The same in bytes of the file.
    #[serde(skip)]
    pub span: Range<usize>,
}

/// What became of a rule's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// All of it holds.
    Fired,
    /// A statement does not hold.
    Stopped,
    /// All statements hold, but the value is undefined or `false`.
    NoValue,
    /// All of it holds, but so does what stands before the `else`.
    PassedOver,
}

/// One body of a rule, for this input.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Definition {
    /// The rule, e.g. `data.envoy.authz.allow`.
    pub rule: String,
    /// Where the body's head is.
    #[serde(flatten)]
    pub place: SourcePlace,
    /// What became of it.
    pub outcome: Outcome,
    /// How many of its statements hold, counted from the first.
    pub held: usize,
    /// How many statements it has.
    pub statements: usize,
    /// What it gives, where it fired and that is not just `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<Shown>,
    /// Where it stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<Stop>,
}

/// The statement that does not hold.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stop {
    /// Where it is.
    #[serde(flatten)]
    pub place: SourcePlace,
    /// Its text.
    pub text: String,
    /// Its two sides, where it compares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    /// The values of the references in it.
    pub references: Vec<Shown>,
    /// Rules that fired and are used under `not`: they stopped it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub stopped_by: Vec<Firing>,
    /// Why it could not be evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// Two sides of a statement.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// As it is written: `==`, `in`, with `not` before it where it is negated.
    pub operator: String,
    /// What the request has: the side that reads the input, or else the left one.
    pub actual: Shown,
    /// The other side.
    pub expected: Shown,
}

/// An expression and its values.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Shown {
    /// As it is written.
    pub expression: String,
    /// Its value; several, where the statements before it hold in several ways; none, where it is
    /// undefined. What is large is said in words.
    pub values: Vec<Json>,
    /// How many further values there are.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
    /// Whether the values are not shown, because they may come of a credential.
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
}

/// A rule that fired, and where.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Firing {
    /// The rule.
    pub rule: String,
    /// Where.
    #[serde(flatten)]
    pub place: SourcePlace,
}

/// How many values are shown, and how long the text of one may be.
const VALUES: usize = 5;
const VALUE_BYTES: usize = 400;

impl SourcePlace {
    pub(super) fn new(file: &str, text: &str, span: Range<usize>) -> Self {
        let (line, column) = line_and_column(text, span.start);
        Self {
            file: file.to_owned(),
            line,
            column,
            span,
        }
    }
}

impl Shown {
    pub(super) fn hidden(expression: String) -> Self {
        Self {
            expression,
            values: Vec::new(),
            more: 0,
            hidden: true,
        }
    }

    pub(super) fn new(expression: String, values: Vec<Json>) -> Self {
        Self {
            expression,
            more: values.len().saturating_sub(VALUES),
            values: values.into_iter().take(VALUES).map(short).collect(),
            hidden: false,
        }
    }
}

fn short(value: Json) -> Json {
    if value.to_string().len() <= VALUE_BYTES {
        return value;
    }
    let words = match &value {
        Json::Array(items) => format!("({} items)", items.len()),
        Json::Object(members) => format!("({} members)", members.len()),
        Json::String(text) => {
            let start: String = text.chars().take(VALUE_BYTES / 4).collect();
            format!("{start}… ({} bytes)", text.len())
        }
        _ => return value,
    };
    Json::String(words)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_false(flag: &bool) -> bool {
    !flag
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}
