//! The cases of a test such as `test_roles[case.name] if { … }`.
//!
//! The engine tells which cases hold. Which there are is told by a rule of our
//! own: the same body up to the statement after which the names in the brackets
//! are known.

use std::collections::BTreeMap;

use regorus::Value;

use super::declared::{Brackets, Test};
use super::{CaseResult, TEST_TIMEOUT};
use crate::engine::{EvaluationError, Interpreter};
use crate::sources::PolicySources;
use crate::syntax::rule_reference;

/// The name of our own rule.
const CASES: &str = "sidegate_cases_of_test_";

/// A case, and the cases within it.
#[derive(Default)]
struct Case {
    passed: bool,
    cases: BTreeMap<String, Case>,
}

/// What tells the cases of tests. Making an engine ready for it takes long, so
/// one tells those of all tests if it can.
pub(super) struct Announcer {
    all: Option<Interpreter>,
}

impl Announcer {
    /// For `tests`, each at the first statement after which its names should be
    /// known.
    pub(super) fn new(sources: &PolicySources, tests: &[Test]) -> Self {
        let mut modules = sources.modules().to_vec();
        for test in tests {
            let module = modules.iter_mut().find(|module| module.file == test.file);
            let body = test.cases.as_ref().and_then(|brackets| {
                let (body, _) = brackets.statements.get(first_end(brackets))?;
                Some(asking(brackets, body))
            });
            if let (Some(module), Some(asking)) = (module, body) {
                module.text.push_str(&asking);
            }
        }
        let has_cases = tests.iter().any(|test| test.cases.is_some());
        let all =
            has_cases.then(|| Interpreter::parse(&sources.with_modules(modules), TEST_TIMEOUT));
        Self {
            all: all.and_then(Result::ok),
        }
    }

    /// The cases that there are, whether they hold or not: what stands in each
    /// of the brackets.
    pub(super) fn announced(
        &mut self,
        sources: &PolicySources,
        test: &Test,
        brackets: &Brackets,
    ) -> Result<Vec<Vec<String>>, String> {
        if let Some(mut interpreter) = self.all.take()
            && let Ok(value) = interpreter.evaluate(&rule(brackets), Value::Undefined)
        {
            interpreter.take_prints();
            self.all = Some(interpreter);
            return Ok(cases_in(&value));
        }
        announced_alone(sources, test, brackets)
    }
}

/// The rule that tells the cases of a test.
fn rule(brackets: &Brackets) -> String {
    let mut path = brackets.package.clone();
    path.push(format!("{CASES}{}", brackets.number));
    rule_reference(&path)
}

/// The text of that rule.
fn asking(brackets: &Brackets, body: &str) -> String {
    let keys = brackets.keys.join(", ");
    let name = format!("{CASES}{}", brackets.number);
    let head = match brackets.takes_keywords {
        true => format!("{name} contains [{keys}] if"),
        false => format!("{name}[[{keys}]]"),
    };
    format!("\n\n{head} {{\n{body}\n}}\n")
}

fn cases_in(value: &Value) -> Vec<Vec<String>> {
    match value {
        Value::Set(cases) => cases.iter().map(names).collect(),
        _ => Vec::new(),
    }
}

/// The cases of one test, told by an engine of its own.
fn announced_alone(
    sources: &PolicySources,
    test: &Test,
    brackets: &Brackets,
) -> Result<Vec<Vec<String>>, String> {
    let mut reason = "the test has no body that tells its cases".to_owned();
    for (body, _) in brackets.statements.iter().skip(first_end(brackets)) {
        let mut modules = sources.modules().to_vec();
        if let Some(module) = modules.iter_mut().find(|module| module.file == test.file) {
            module.text.push_str(&asking(brackets, body));
        }
        let asked = Interpreter::parse(&sources.with_modules(modules), TEST_TIMEOUT);
        let value = match asked {
            Ok(mut interpreter) => interpreter.evaluate(&rule(brackets), Value::Undefined),
            Err(error) => Err(EvaluationError::unusable(error)),
        };
        match value {
            Ok(value) => return Ok(cases_in(&value)),
            Err(EvaluationError::Timeout) => {
                return Err(format!(
                    "telling its cases took longer than {TEST_TIMEOUT:?}"
                ));
            }
            // A name that only a later statement gives a value: further, then.
            Err(EvaluationError::Failed(message)) => {
                reason = format!("its cases cannot be told: {message}");
            }
        }
    }
    Err(reason)
}

/// Verdicts: what holds by the value of the test's rule, and what does not by
/// its absence.
pub(super) fn results(value: &Value, announced: &[Vec<String>]) -> Vec<CaseResult> {
    let mut known = cases_of(value);
    for path in announced {
        add_missing(&mut known, path);
    }
    list(known)
}

/// The first statement at whose end each name in the brackets was mentioned.
fn first_end(brackets: &Brackets) -> usize {
    let firsts = brackets.key_names.iter().filter_map(|name| {
        let mut statements = brackets.statements.iter();
        statements.position(|(_, mentioned)| mentioned.contains(name))
    });
    firsts.max().unwrap_or_default()
}

fn cases_of(value: &Value) -> BTreeMap<String, Case> {
    let Value::Object(object) = value else {
        return BTreeMap::new();
    };
    let cases = object.iter().map(|(key, value)| {
        let cases = cases_of(value);
        let passed = match value {
            Value::Bool(passed) => *passed,
            Value::Object(_) => cases.values().all(|case| case.passed),
            _ => false,
        };
        (name(key), Case { passed, cases })
    });
    cases.collect()
}

fn add_missing(known: &mut BTreeMap<String, Case>, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else {
        return true;
    };
    let case = known.entry(name.clone()).or_default();
    if !rest.is_empty() {
        let inner = add_missing(&mut case.cases, rest);
        case.passed = inner && case.cases.values().all(|case| case.passed);
    }
    case.passed
}

fn list(cases: BTreeMap<String, Case>) -> Vec<CaseResult> {
    let cases = cases.into_iter().map(|(name, case)| CaseResult {
        name,
        passed: case.passed,
        cases: list(case.cases),
    });
    cases.collect()
}

fn names(case: &Value) -> Vec<String> {
    match case {
        Value::Array(keys) => keys.iter().map(name).collect(),
        other => vec![name(other)],
    }
}

/// A text as it is, anything else as JSON.
fn name(key: &Value) -> String {
    match key {
        Value::String(text) => text.to_string(),
        other => other.to_json_str().unwrap_or_else(|_| other.to_string()),
    }
}
