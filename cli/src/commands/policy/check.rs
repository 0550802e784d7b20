//! `sidegate policy check`.

use std::io::IsTerminal;

use serde::Serialize;
use sidegate_policy::PolicyFiles;
use sidegate_policy::lint::{self, CheckReport, Severity};

use super::{SCHEMA, findings, read};
use crate::arguments::{OutputFormat, PolicyCheckArguments};
use crate::failure::Failure;
use crate::output;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    schema: u32,
    success: bool,
    errors: usize,
    warnings: usize,
    #[serde(flatten)]
    report: &'a CheckReport,
}

impl<'a> Document<'a> {
    /// With `strict`, a warning is no success.
    pub(super) fn new(report: &'a CheckReport, strict: bool) -> Self {
        let errors = report.count(Severity::Error);
        let warnings = report.count(Severity::Warning);
        Self {
            schema: SCHEMA,
            success: errors == 0 && (warnings == 0 || !strict),
            errors,
            warnings,
            report,
        }
    }
}

/// Looks at the policy, and prints what was found. `false` where it has errors.
pub(super) fn execute(arguments: &PolicyCheckArguments) -> Result<bool, Failure> {
    let files = read(&arguments.paths)?;
    let report = lint::check(&files, &arguments.entrypoint);
    let document = Document::new(&report, arguments.strict);
    match arguments.output {
        OutputFormat::Json => output::print_json(&document)?,
        OutputFormat::Text => {
            let color = output::colored(std::io::stdout().is_terminal());
            output::print(&text(&report, &files, color))?;
        }
    }
    Ok(document.success)
}

/// The findings, and one line of what they come to.
pub(super) fn text(report: &CheckReport, files: &PolicyFiles, color: bool) -> String {
    let errors = report.count(Severity::Error);
    let warnings = report.count(Severity::Warning);
    let (mark, style) = match (errors, warnings) {
        (0, 0) => ("√", "\x1b[32m"),
        (0, _) => ("‼", "\x1b[33m"),
        _ => ("×", "\x1b[31m"),
    };
    let mark = match color {
        true => format!("{style}{mark}\x1b[0m"),
        false => mark.to_owned(),
    };
    format!(
        "{}Policy check results are {mark}    ({}, {}; {}, {}, {} run)\n",
        findings::render(&report.findings, files, color),
        counted(errors, "error"),
        counted(warnings, "warning"),
        counted(report.modules, "module"),
        counted(report.documents, "data document"),
        counted(report.tests, "test"),
    )
}

fn counted(count: usize, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    }
}
