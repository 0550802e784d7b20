//! Runs a policy's own tests as `opa test` does: its rules whose names start
//! with `test_`.
//!
//! A rule such as `test_roles[case.name] if { some case in cases; … }` is one
//! test with a verdict for each case. A name that is declared several times is
//! a test for each declaration. Rules that start with `todo_test_` are shown
//! and not run.

mod cases;
mod declared;

use std::time::{Duration, Instant};

use regorus::Value;
use serde::Serialize;

use crate::coverage::{Coverage, CoverageReport};
use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::lint::{recursive_rules, without_aliases};
use crate::served::{in_sources, served};
use crate::sources::PolicySources;
use crate::syntax::{Syntax, unsupported_calls};
use cases::Announcer;
use declared::{Declared, Test};

/// How long one test may take, as in `opa test`.
const TEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Which tests to run, and what to note meanwhile.
#[derive(Default)]
pub struct TestOptions<'a> {
    /// Runs only tests whose name, such as `data.authz_test.test_admin`, this
    /// is true of.
    pub filter: Option<&'a dyn Fn(&str) -> bool>,
    /// Notes which lines the tests evaluate.
    pub coverage: bool,
}

/// How one test went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TestResult {
    /// The rule, e.g. `data.envoy.authz_test.test_admin_is_denied`. A further
    /// declaration of the same name ends with `#01` and so on.
    pub name: String,
    /// The module that declares it.
    pub file: String,
    /// Line of its declaration, from 1.
    pub line: usize,
    /// Whether the rule was true, in each of its cases if it has any.
    pub passed: bool,
    /// Whether it was only shown: its name starts with `todo_test_`.
    pub skipped: bool,
    /// Why it did not pass.
    pub failure: Option<String>,
    /// What `print` said while it ran, with file and line.
    pub prints: Vec<String>,
    /// How long it took, in nanoseconds.
    pub duration_ns: u64,
    /// The cases of `test_name[case]`, in the order of their names.
    pub cases: Vec<CaseResult>,
}

/// How one case of a test went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CaseResult {
    /// What stands in brackets: a string as it is, anything else as JSON.
    pub name: String,
    /// Whether its value was true, or that of all cases within it.
    pub passed: bool,
    /// The cases within it, where the rule has several brackets.
    pub cases: Vec<CaseResult>,
}

/// How all tests went.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TestReport {
    /// The tests in the order of their declaration.
    pub results: Vec<TestResult>,
    /// Which lines were evaluated, if that was noted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<CoverageReport>,
}

/// How many tests came to what. Of a test with cases each case counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TestCounts {
    /// Those that were true.
    pub passed: usize,
    /// Those that were not.
    pub failed: usize,
    /// Those that are still to be written.
    pub skipped: usize,
}

impl TestReport {
    /// Whether no test failed. True of a policy without tests.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The tests that failed.
    pub fn failures(&self) -> impl Iterator<Item = &TestResult> {
        let results = self.results.iter();
        results.filter(|result| !result.passed && !result.skipped)
    }

    /// How many tests came to what.
    #[must_use]
    pub fn counts(&self) -> TestCounts {
        let mut counts = TestCounts::default();
        for result in &self.results {
            let (passed, failed) = match result.cases.as_slice() {
                _ if result.skipped => {
                    counts.skipped = counts.skipped.saturating_add(1);
                    continue;
                }
                [] => (usize::from(result.passed), usize::from(!result.passed)),
                cases => count_cases(cases),
            };
            counts.passed = counts.passed.saturating_add(passed);
            counts.failed = counts.failed.saturating_add(failed);
        }
        counts
    }
}

impl TestCounts {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> usize {
        let Self {
            passed,
            failed,
            skipped,
        } = self;
        passed.saturating_add(*failed).saturating_add(*skipped)
    }
}

/// Runs all tests of `sources`: see [`run_tests_with`].
///
/// # Errors
///
/// As there.
pub fn run_tests(sources: &PolicySources) -> Result<TestReport, PolicyError> {
    run_tests_with(sources, &TestOptions::default())
}

/// Runs tests of `sources` on the interpreter, with the copy of the modules that
/// it runs in service.
///
/// A test passes if its value is `true`; one with cases, if that of each case
/// is.
///
/// # Errors
///
/// Sources that do not parse or compile, or that call what the engine lacks.
pub fn run_tests_with(
    sources: &PolicySources,
    options: &TestOptions<'_>,
) -> Result<TestReport, PolicyError> {
    let trees = Interpreter::parse(sources, TEST_TIMEOUT)?.syntax()?;
    let syntax = Syntax::new(&trees, sources);
    let calls = unsupported_calls(&syntax);
    if !calls.is_empty() {
        return Err(PolicyError::UnsupportedCalls { calls });
    }
    let rules = recursive_rules(&syntax);
    if !rules.is_empty() {
        return Err(PolicyError::Recursive { rules });
    }
    if !options.coverage {
        return run(&syntax, sources, options);
    }
    let sources = without_aliases(&syntax, sources);
    let trees = Interpreter::parse(&sources, TEST_TIMEOUT)?.syntax()?;
    run(&Syntax::new(&trees, &sources), &sources, options)
}

/// Runs the tests that `syntax`, the trees of `sources`, declares, those still
/// to be written aside.
pub(crate) fn run_declared_tests(
    syntax: &Syntax<'_>,
    sources: &PolicySources,
) -> Result<TestReport, PolicyError> {
    let mut report = run(syntax, sources, &TestOptions::default())?;
    report.results.retain(|result| !result.skipped);
    Ok(report)
}

fn run(
    syntax: &Syntax<'_>,
    sources: &PolicySources,
    options: &TestOptions<'_>,
) -> Result<TestReport, PolicyError> {
    match served(syntax, sources) {
        None => run_copy(syntax, None, options, Declared::new(syntax, sources)),
        Some(copy) => {
            let trees = Interpreter::parse(&copy, TEST_TIMEOUT)?.syntax()?;
            let copied = Syntax::new(&trees, &copy);
            let original = Declared::new(syntax, sources).sources;
            let declared = Declared::new(&copied, &copy);
            run_copy(syntax, Some((&copied, original)), options, declared)
        }
    }
}

/// Runs what is declared; `copied` is the syntax of that and the sources that it is a copy of, if it
/// is one.
fn run_copy(
    syntax: &Syntax<'_>,
    copied: Option<(&Syntax<'_>, PolicySources)>,
    options: &TestOptions<'_>,
    declared: Declared,
) -> Result<TestReport, PolicyError> {
    let Declared { mut tests, sources } = declared;
    tests.retain(|test| options.filter.is_none_or(|filter| filter(&test.name)));
    let coverage = options.coverage.then(|| match &copied {
        None => Coverage::new(syntax),
        Some((copied, _)) => Coverage::of_copy(syntax, copied),
    });
    let mut runner = Runner {
        announcer: Announcer::new(&sources, &tests),
        coverage,
        interpreter: None,
        sources,
        original: copied.map(|(_, original)| original),
    };
    let mut results = Vec::new();
    for test in tests {
        results.push(runner.run(&test)?);
    }
    runner.note_coverage();
    let coverage = runner.coverage.map(Coverage::report);
    Ok(TestReport { results, coverage })
}

struct Runner {
    announcer: Announcer,
    sources: PolicySources,
    /// What the sources are a copy of, if they are one.
    original: Option<PolicySources>,
    /// `None` before the first test, and after one that failed halfway.
    interpreter: Option<Interpreter>,
    coverage: Option<Coverage>,
}

impl Runner {
    fn run(&mut self, test: &Test) -> Result<TestResult, PolicyError> {
        let mut result = TestResult {
            name: test.name.clone(),
            file: test.file.clone(),
            line: test.line,
            passed: false,
            skipped: test.is_todo,
            failure: test.unfit.map(str::to_owned),
            prints: Vec::new(),
            duration_ns: 0,
            cases: Vec::new(),
        };
        if test.is_todo || test.unfit.is_some() {
            return Ok(result);
        }
        let started = Instant::now();
        let (value, prints) = self.evaluate(&test.rule)?;
        let duration = started.elapsed().as_nanos();
        result.duration_ns = u64::try_from(duration).unwrap_or(u64::MAX);
        result.prints = prints;
        result.failure = match (&test.cases, value) {
            (Some(brackets), Ok(value)) => {
                match self.announcer.announced(&self.sources, test, brackets) {
                    Ok(announced) => {
                        result.cases = cases::results(&value, &announced);
                        let failed = result.cases.iter().any(|case| !case.passed);
                        failed.then(|| "one of its cases does not hold".to_owned())
                    }
                    Err(reason) => Some(reason),
                }
            }
            (_, value) => failure_of(value),
        };
        result.passed = result.failure.is_none();
        Ok(result)
    }

    fn evaluate(
        &mut self,
        rule: &str,
    ) -> Result<(Result<Value, EvaluationError>, Vec<String>), PolicyError> {
        let mut interpreter = match self.interpreter.take() {
            Some(interpreter) => interpreter,
            None => {
                let mut interpreter = Interpreter::parse(&self.sources, TEST_TIMEOUT)?;
                if self.coverage.is_some() {
                    interpreter.record_coverage();
                }
                interpreter
            }
        };
        let value = interpreter.evaluate(rule, Value::Undefined);
        let prints = interpreter.take_prints();
        self.interpreter = Some(interpreter);
        let value = value.map_err(|error| {
            // It may hold on to replacements made by `with`.
            self.note_coverage();
            self.interpreter = None;
            let Some(original) = &self.original else {
                return error;
            };
            in_sources(error, || {
                let interpreter = Interpreter::parse(original, TEST_TIMEOUT);
                let mut interpreter = interpreter.map_err(EvaluationError::unusable)?;
                interpreter.evaluate(rule, Value::Undefined)
            })
        });
        Ok((value, prints))
    }

    fn note_coverage(&mut self) {
        if let (Some(coverage), Some(interpreter)) = (&mut self.coverage, &self.interpreter) {
            coverage.add(&interpreter.coverage());
        }
    }
}

fn count_cases(cases: &[CaseResult]) -> (usize, usize) {
    cases.iter().fold((0, 0), |(passed, failed), case| {
        let (more_passed, more_failed) = match case.cases.as_slice() {
            [] => (usize::from(case.passed), usize::from(!case.passed)),
            cases => count_cases(cases),
        };
        (
            passed.saturating_add(more_passed),
            failed.saturating_add(more_failed),
        )
    })
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
