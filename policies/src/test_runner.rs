//! Runs a policy's own tests: its complete rules whose names start with
//! `test_`, as `opa test` does.

use std::collections::BTreeMap;
use std::time::Duration;

use regorus::Value;
use serde::Serialize;

use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::sources::PolicySources;
use crate::syntax::{RuleKind, RulePath, Syntax, rule_reference, unsupported_calls};

/// How long one test may take, as in `opa test`.
const TEST_TIMEOUT: Duration = Duration::from_secs(5);

/// How one test went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// The rule, e.g. `data.envoy.authz_test.test_admin_is_denied`.
    pub name: String,
    /// The module that declares it.
    pub file: String,
    /// Whether the rule was true.
    pub passed: bool,
    /// Why it did not pass.
    pub failure: Option<String>,
    /// What `print` said while it ran, with file and line.
    pub prints: Vec<String>,
}

/// How all tests went.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// The tests in the order of their declaration.
    pub results: Vec<TestResult>,
}

impl TestReport {
    /// Whether no test failed. True of a policy without tests.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The tests that failed.
    pub fn failures(&self) -> impl Iterator<Item = &TestResult> {
        self.results.iter().filter(|result| !result.passed)
    }
}

/// Runs all tests of `sources` on the interpreter.
///
/// A test passes if its value is `true`. A name that is declared twice fails,
/// because one declaration that holds would hide another that does not; so
/// does `test_name[case]`, because the engine does not tell which cases there
/// were.
///
/// # Errors
///
/// Sources that do not parse or compile, or that call what the engine lacks.
pub fn run_tests(sources: &PolicySources) -> Result<TestReport, PolicyError> {
    let interpreter = Interpreter::parse(sources, TEST_TIMEOUT)?;
    let trees = interpreter.syntax()?;
    let syntax = Syntax::new(&trees, sources);
    let calls = unsupported_calls(&syntax);
    if !calls.is_empty() {
        return Err(PolicyError::UnsupportedCalls { calls });
    }
    run_declared_tests(&syntax, sources)
}

/// Runs the tests that `syntax`, the trees of `sources`, declares.
pub(crate) fn run_declared_tests(
    syntax: &Syntax<'_>,
    sources: &PolicySources,
) -> Result<TestReport, PolicyError> {
    let mut interpreter = Interpreter::parse(sources, TEST_TIMEOUT)?;
    let mut tests: Vec<(RulePath, String, RuleKind)> = Vec::new();
    let mut declarations: BTreeMap<RulePath, usize> = BTreeMap::new();
    for rule in syntax.rules() {
        if rule.name.starts_with("test_")
            && !matches!(rule.kind, RuleKind::Default | RuleKind::Function(_))
        {
            let count = declarations.entry(rule.path.clone()).or_default();
            *count = count.saturating_add(1);
            if *count == 1 {
                tests.push((rule.path, rule.file, rule.kind));
            }
        }
    }
    let mut report = TestReport::default();
    for (path, file, kind) in tests {
        let name = rule_reference(&path);
        let (failure, prints) = if kind == RuleKind::Partial {
            let reason = "a test with cases (`test_name[case]`) cannot be judged: write one rule for each case";
            (Some(reason.to_owned()), Vec::new())
        } else if declarations.get(&path).is_some_and(|count| *count > 1) {
            (Some("declared more than once: a declaration that holds would hide one that does not".to_owned()), Vec::new())
        } else {
            let result = interpreter.evaluate(&name, Value::Undefined);
            let prints = interpreter.take_prints();
            if result.is_err() {
                interpreter = Interpreter::parse(sources, TEST_TIMEOUT)?;
            }
            (failure_of(result), prints)
        };
        report.results.push(TestResult {
            name,
            file,
            passed: failure.is_none(),
            failure,
            prints,
        });
    }
    Ok(report)
}

fn failure_of(result: Result<Value, EvaluationError>) -> Option<String> {
    match result {
        Ok(Value::Bool(true)) => None,
        Ok(Value::Undefined) => Some("undefined: a condition of the test does not hold".to_owned()),
        Ok(Value::Bool(false)) => Some("false".to_owned()),
        Ok(_) => Some("its value is not a boolean".to_owned()),
        Err(EvaluationError::Timeout) => Some(format!("took longer than {TEST_TIMEOUT:?}")),
        Err(EvaluationError::Failed(message)) => Some(message.to_string()),
    }
}
