//! Looks at policy files and says everything that is wrong with them, or that
//! looks as if it were.
//!
//! [`Policy::load`](crate::Policy::load) stops at the first kind of error;
//! [`check`] goes on as long as what follows can still be told.

mod conflicts;
mod engine_errors;
mod imports;
mod names;
mod place;
mod recursion;
mod unlike;
mod unused;

use std::ops::Range;
use std::time::Duration;

use serde::Serialize;

use crate::engine::Interpreter;
use crate::error::{CallProblem, PolicyError, Unlike, UnsupportedCall};
use crate::files::{PolicyFile, PolicyFiles};
use crate::question::{entrypoint_rule, likely_meant};
use crate::sources::{Module, PolicySources};
use crate::syntax::{Syntax, unsupported_calls};
use crate::test_runner::run_declared_tests;

pub(crate) use conflicts::rules_with_data;
pub(crate) use imports::without_aliases;
pub(crate) use place::{closed, line_and_column};
pub(crate) use recursion::recursive_rules;
pub(crate) use unlike::unlike_opa;

/// How long making the modules ready may take.
const LIMIT: Duration = Duration::from_secs(5);

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The policy cannot be used like this.
    Error,
    /// It can be used, but something in it does nothing.
    Warning,
}

/// One thing that is wrong, or looks wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The stable diagnostic code.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// The file, by the name that it has in [`PolicyFiles`].
    pub file: Option<String>,
    /// Line in the file, from 1.
    pub line: Option<usize>,
    /// Column in characters, from 1.
    pub column: Option<usize>,
    /// What to do about it.
    pub help: Option<String>,
    /// The place in bytes of the file.
    #[serde(skip)]
    pub span: Option<Range<usize>>,
}

/// All findings, in the order of files and places, and what was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CheckReport {
    /// What was found.
    pub findings: Vec<Finding>,
    /// How many modules there are.
    pub modules: usize,
    /// How many data documents there are.
    pub documents: usize,
    /// How many of the policy's own tests were run; none where there are errors
    /// besides them.
    pub tests: usize,
}

impl CheckReport {
    /// The number of findings that are as bad as this.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        let like = self.findings.iter().filter(|it| it.severity == severity);
        like.count()
    }
}

impl Finding {
    fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            file: None,
            line: None,
            column: None,
            help: None,
            span: None,
        }
    }

    fn of(error: &PolicyError) -> Self {
        Self::new(Severity::Error, error.code(), with_cause(error))
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn file(mut self, file: &str) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    fn at(mut self, file: &str, text: &str, span: Range<usize>) -> Self {
        let (line, column) = line_and_column(text, span.start);
        (self.line, self.column) = (Some(line), Some(column));
        self.span = Some(span);
        self.file(file)
    }
}

/// Looks at everything. `entrypoints` are the rules that must be there, as OPA
/// writes them: `envoy/authz/allow`.
#[must_use]
pub fn check(files: &PolicyFiles, entrypoints: &[String]) -> CheckReport {
    look(files, entrypoints, true)
}

/// The sources, if a policy of them can be asked at all.
///
/// # Errors
///
/// What [`check`] finds, without warnings, entrypoints and the policy's own
/// tests.
pub fn usable(files: &PolicyFiles) -> Result<PolicySources, CheckReport> {
    let mut report = look(files, &[], false);
    report.findings.retain(|it| it.severity == Severity::Error);
    if report.findings.is_empty() {
        match files.sources() {
            Ok(sources) => return Ok(sources),
            Err(error) => report.findings.push(Finding::of(&error)),
        }
    }
    Err(report)
}

fn look(files: &PolicyFiles, entrypoints: &[String], with_tests: bool) -> CheckReport {
    let mut look = Look {
        files,
        entrypoints,
        with_tests,
        report: CheckReport {
            findings: Vec::new(),
            modules: files.modules().count(),
            documents: files.data().count(),
            tests: 0,
        },
    };
    if let Err(error) = look.everything() {
        look.report.findings.push(Finding::of(&error));
    }
    let mut report = look.report;
    report.findings.sort_by_key(|finding| {
        let start = finding.span.as_ref().map(|span| span.start);
        let file = finding.file.as_deref();
        let position = file.and_then(|file| files.position(file));
        (position.unwrap_or(usize::MAX), start)
    });
    report
}

/// A look at files that goes on after errors.
struct Look<'a> {
    files: &'a PolicyFiles,
    entrypoints: &'a [String],
    with_tests: bool,
    report: CheckReport,
}

impl Look<'_> {
    fn everything(&mut self) -> Result<(), PolicyError> {
        let sources = self.documents()?;
        let bare = PolicySources::from_policy_files(self.files.modules())?;
        let (modules, failures): (Vec<_>, Vec<_>) = sources
            .modules()
            .iter()
            .cloned()
            .partition(|module| self.parses(module, &bare));
        if modules.is_empty() {
            return Ok(());
        }
        let sources = sources.with_modules(modules);
        let trees = Interpreter::parse(&sources, LIMIT)?.syntax()?;
        let syntax = Syntax::new(&trees, &sources);
        self.modules(&syntax, &sources, failures.is_empty())
    }

    /// Tells what is wrong with data; what follows does without it then.
    fn documents(&mut self) -> Result<PolicySources, PolicyError> {
        let files = self.files;
        let mut good: Vec<&PolicyFile> = files.modules().collect();
        for document in files.data() {
            let Some((message, place)) = document.data_problem() else {
                good.push(document);
                continue;
            };
            let message = format!("this data document does not parse: {message}");
            let finding = Finding::new(Severity::Error, "SG0206", message);
            self.add(match place {
                None => finding.file(&document.name),
                Some((line, column)) => {
                    let start = place::offset_of(&document.text, line, column);
                    let span = place::word_at(&document.text, start);
                    finding.at(&document.name, &document.text, span)
                }
            });
        }
        match PolicySources::from_policy_files(good) {
            Err(error @ PolicyError::Data { .. }) => {
                self.add(Finding::of(&error));
                PolicySources::from_policy_files(files.modules())
            }
            sources => sources,
        }
    }

    /// Whether a module parses, alone as it is.
    fn parses(&mut self, module: &Module, sources: &PolicySources) -> bool {
        let alone = sources.with_modules(vec![module.clone()]);
        match Interpreter::parse(&alone, LIMIT) {
            Ok(_) => return true,
            Err(PolicyError::Parse { failures }) => {
                for failure in failures {
                    self.add_parse_failure(&failure.message.to_string(), sources);
                }
            }
            Err(error) => self.add(Finding::of(&error)),
        }
        false
    }

    fn modules(
        &mut self,
        syntax: &Syntax<'_>,
        sources: &PolicySources,
        all_parse: bool,
    ) -> Result<(), PolicyError> {
        for call in unsupported_calls(syntax) {
            // Where modules are missing, functions may be.
            if all_parse || is_certain(&call) {
                self.add_call(&call);
            }
        }
        let recursive = recursive_rules(syntax);
        for rule in &recursive {
            let start = place::offset_of(
                self.files.text(&rule.file).unwrap_or_default(),
                rule.line,
                rule.column,
            );
            let help = "split what it says of itself into a rule of its own; graph.reachable follows links in data";
            self.add_at(
                "SG0285",
                rule.problem(),
                &rule.file,
                start,
                Some(help.into()),
            );
        }
        for Unlike {
            file,
            line,
            column,
            problem,
            help,
        } in unlike_opa(syntax)
        {
            let text = self.files.text(&file).unwrap_or_default();
            let start = place::offset_of(text, line, column);
            self.add_at(
                "SG0291",
                problem.to_owned(),
                &file,
                start,
                Some(help.to_owned()),
            );
        }
        for rule in rules_with_data(syntax, sources)? {
            let message = format!("there is data where the rule {rule} is");
            let help = "move the data, or rename the rule: OPA refuses both together, too";
            self.add(Finding::new(Severity::Error, "SG0292", message).help(help));
        }
        let imports = conflicts::conflicting_imports(syntax);
        self.add_conflicts("SG0284", imports, "import it `as` another name");
        let rules = conflicts::conflicting_rules(syntax);
        self.add_conflicts("SG0208", rules, "give one of both another name");
        let defaults = conflicts::computed_defaults(syntax);
        self.add_conflicts(
            "SG0208",
            defaults,
            "write a rule that has this value instead",
        );
        if all_parse {
            for error in engine_errors::refused_rules(sources) {
                self.add(located(
                    Finding::new(Severity::Error, "SG0208", error.message),
                    self.files,
                    error.place,
                ));
            }
            self.missing_entrypoints(syntax);
        }
        let sound = self.report.count(Severity::Error) == 0;
        if sound && self.with_tests {
            self.tests(syntax, sources)?;
        }
        for (code, file, span, message, help) in unused::unused(syntax, self.entrypoints, all_parse)
        {
            let text = self.files.text(&file).unwrap_or_default();
            let finding = Finding::new(Severity::Warning, code, message);
            self.add(finding.at(&file, text, span).help(help));
        }
        Ok(())
    }

    fn missing_entrypoints(&mut self, syntax: &Syntax<'_>) {
        for entrypoint in self.entrypoints {
            if let Err(error) = entrypoint_rule(entrypoint, syntax) {
                let finding = Finding::of(&error);
                let meant = likely_meant(entrypoint, syntax);
                self.add(match meant {
                    Some(meant) => finding.help(format!("did you mean `{meant}`?")),
                    None => finding,
                });
            }
        }
    }

    fn tests(&mut self, syntax: &Syntax<'_>, sources: &PolicySources) -> Result<(), PolicyError> {
        let tests = run_declared_tests(syntax, sources)?;
        self.report.tests = tests.results.len();
        for test in tests.failures() {
            let text = self.files.text(&test.file).unwrap_or_default();
            let start = place::offset_of(text, test.line, 1);
            let why = test.failure.as_deref().unwrap_or("it fails");
            let message = format!("the test {} fails: {why}", test.name);
            let help = "a policy that fails its own tests is not used: see sidegate policy test";
            self.add_at("SG0213", message, &test.file, start, Some(help.into()));
        }
        Ok(())
    }

    fn add_call(&mut self, call: &UnsupportedCall) {
        let text = self.files.text(&call.file).unwrap_or_default();
        let start = place::offset_of(text, call.line, call.column);
        let told = call.to_string();
        let place = format!("{}:{}:{}: ", call.file, call.line, call.column);
        let message = told.strip_prefix(&place).unwrap_or(&told).to_owned();
        let name = start..start.saturating_add(call.function.len());
        // A name that is written otherwise, such as f["x"], is marked at its start.
        let span = match text.get(name.clone()) {
            Some(written) if written == call.function => name,
            _ => place::word_at(text, start),
        };
        let finding = Finding::new(Severity::Error, "SG0211", message);
        self.add(finding.at(&call.file, text, span));
    }

    fn add_conflicts(&mut self, code: &'static str, found: Vec<conflicts::Conflict>, help: &str) {
        for (file, span, message) in found {
            let text = self.files.text(&file).unwrap_or_default();
            let first_line = text.get(span.clone()).and_then(|it| it.lines().next());
            let end = span.start.saturating_add(first_line.map_or(0, str::len));
            let finding = Finding::new(Severity::Error, code, message);
            self.add(finding.at(&file, text, span.start..end).help(help));
        }
    }

    fn add_parse_failure(&mut self, message: &str, sources: &PolicySources) {
        let error = engine_errors::take_apart(message, sources.modules());
        let finding = Finding::new(Severity::Error, "SG0207", error.message);
        self.add(located(finding, self.files, error.place));
    }

    fn add_at(
        &mut self,
        code: &'static str,
        message: String,
        file: &str,
        start: usize,
        help: Option<String>,
    ) {
        let text = self.files.text(file).unwrap_or_default();
        let finding = Finding::new(Severity::Error, code, message);
        let finding = finding.at(file, text, place::word_at(text, start));
        self.add(Finding { help, ..finding });
    }

    fn add(&mut self, finding: Finding) {
        if !self.report.findings.contains(&finding) {
            self.report.findings.push(finding);
        }
    }
}

fn located(
    finding: Finding,
    files: &PolicyFiles,
    place: Option<(String, Range<usize>)>,
) -> Finding {
    match place {
        None => finding,
        Some((file, span)) => finding.at(&file, files.text(&file).unwrap_or_default(), span),
    }
}

/// Whether a call is wrong whatever other modules declare.
fn is_certain(call: &UnsupportedCall) -> bool {
    match &call.problem {
        CallProblem::Unknown { hint } => hint.is_some(),
        CallProblem::Arity { .. } => true,
    }
}

/// An error and its causes, in one line.
fn with_cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(
        || error.to_string(),
        |cause| format!("{error}: {}", with_cause(cause)),
    )
}
