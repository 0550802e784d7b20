//! The same policy and input evaluated by OPA and by `sidegate policy eval`: the same value, or none
//! from either.

mod expressions;
mod functions;
mod language;
mod negation;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Output, Sidegate, Tool, skip, tool};
use tempfile::TempDir;

use crate::support::{finish, folder, write};

const ENTRYPOINT: &str = "data.cases.answer";

/// What an evaluation comes to.
#[derive(Debug, Clone, PartialEq)]
enum Answer {
    Value(Value),
    Undefined,
    /// It fails, or the policy is refused.
    Error(String),
}

/// Both evaluators.
struct Evaluators {
    opa: PathBuf,
    folder: TempDir,
}

impl Evaluators {
    /// With an input for all policies; `None` where there is no OPA, which is then said.
    fn new(test: &str, input: &Value) -> Option<Self> {
        let Some(opa) = tool(Tool::Opa) else {
            skip(test, Tool::Opa);
            return None;
        };
        let folder = folder();
        write(folder.path(), "input.json", input.to_string());
        Some(Self { opa, folder })
    }

    /// What OPA and what Sidegate make of the rule `answer` among these rules.
    fn ask(&self, rules: &str) -> [Answer; 2] {
        let module = format!("package cases\n\n{rules}\n");
        let file = write(self.folder.path(), "policy/policy.rego", module);
        let policy = file.parent().expect("it is in a folder");
        let input = self.folder.path().join("input.json");
        [self.opa(policy, &input), sidegate(policy, &input)]
    }

    fn opa(&self, policy: &Path, input: &Path) -> Answer {
        let mut command = Command::new(&self.opa);
        command.args(["eval", "--format", "json", "--data"]);
        command.arg(policy).arg("--input").arg(input);
        let output = finish(command.arg(ENTRYPOINT));
        answer(output, |document| {
            document.pointer("/result/0/expressions/0/value").cloned()
        })
    }
}

impl Answer {
    /// Whether it is the same: all errors are.
    fn is(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Error(_), Self::Error(_))) || self == other
    }
}

fn sidegate(policy: &Path, input: &Path) -> Answer {
    let mut command = Sidegate::command("policy");
    command.arg("eval").arg(policy).arg("--input").arg(input);
    let output = finish(command.args(["--entrypoint", ENTRYPOINT, "-o", "json"]));
    answer(output, |document| {
        document
            .get("value")
            .filter(|_| document.get("defined") == Some(&Value::Bool(true)))
            .cloned()
    })
}

fn answer(output: Output, value: impl Fn(&Value) -> Option<Value>) -> Answer {
    let document = serde_json::from_str::<Value>(&output.stdout);
    match document {
        // One is for no value.
        Ok(document) if matches!(output.status.code(), Some(0 | 1)) => {
            value(&document).map_or(Answer::Undefined, |value| Answer::Value(plain(value)))
        }
        _ => Answer::Error(output.stdout + &output.stderr),
    }
}

/// The same with numbers of twelve digits: how they are written does not count, nor what comes from
/// computing with binary or decimal fractions.
fn plain(value: Value) -> Value {
    match value {
        Value::Number(number) => {
            let digits = number.as_f64().map(|number| format!("{number:.11e}"));
            let rounded = digits.and_then(|digits| digits.parse::<f64>().ok());
            rounded.map_or(Value::Number(number), Value::from)
        }
        Value::Array(values) => values.into_iter().map(plain).collect(),
        Value::Object(members) => members
            .into_iter()
            .map(|(key, value)| (key, plain(value)))
            .collect(),
        other => other,
    }
}
