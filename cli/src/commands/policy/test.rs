//! `sidegate policy test`.

use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use serde::Serialize;
use sidegate_policy::test_runner::{
    CaseResult, TestCounts, TestOptions, TestReport, TestResult, run_tests_with,
};
use sidegate_policy::{CoverageReport, FileCoverage};

use super::{SCHEMA, findings, read, refused, usable};
use crate::arguments::{OutputFormat, TestArguments};
use crate::failure::Failure;
use crate::output;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
pub(super) struct Document<'a> {
    schema: u32,
    success: bool,
    #[serde(flatten)]
    counts: TestCounts,
    #[serde(flatten)]
    report: &'a TestReport,
}

impl<'a> Document<'a> {
    pub(super) fn new(report: &'a TestReport, success: bool) -> Self {
        Self {
            schema: SCHEMA,
            success,
            counts: report.counts(),
            report,
        }
    }
}

/// Runs the tests, and prints how they went. `false` where one fails.
pub(super) fn execute(arguments: &TestArguments) -> Result<bool, Failure> {
    let files = read(&arguments.paths)?;
    let sources = usable(&files)?;
    let filter = |name: &str| {
        let wanted = arguments.run.as_ref();
        wanted.is_none_or(|regex| regex.is_match(name))
    };
    let options = TestOptions {
        filter: Some(&filter),
        coverage: arguments.coverage || arguments.threshold.is_some(),
    };
    let report = run_tests_with(&sources, &options).map_err(refused)?;
    let missed = missed_threshold(&report, arguments.threshold);
    let success = report.passed() && missed.is_none();
    match arguments.output {
        OutputFormat::Json => output::print_json(&Document::new(&report, success))?,
        OutputFormat::Text => {
            let color = output::colored(std::io::stdout().is_terminal());
            output::print(&text(&report, arguments.verbose, color))?;
        }
    }
    if report.results.is_empty() {
        findings::tell("there is no test to run\n");
    }
    if let Some(missed) = missed {
        findings::tell(&missed);
    }
    Ok(success)
}

/// That less is covered than should be, as talk.
fn missed_threshold(report: &TestReport, threshold: Option<f64>) -> Option<String> {
    let (coverage, threshold) = (report.coverage.as_ref()?.coverage, threshold?);
    (coverage < threshold).then(|| {
        format!("the coverage of {coverage:.2} % is below the threshold of {threshold} %\n")
    })
}

/// The report for people.
pub(super) fn text(report: &TestReport, verbose: bool, color: bool) -> String {
    let mut text = String::new();
    let mut file = "";
    for result in &report.results {
        if result.file != file {
            file = &result.file;
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{file}:");
        }
        write_result(&mut text, result, verbose, color);
    }
    if !report.results.is_empty() {
        text.push_str(&"-".repeat(80));
        text.push('\n');
    }
    let counts = report.counts();
    let total = counts.total();
    for (name, count) in [
        ("PASS", counts.passed),
        ("FAIL", counts.failed),
        ("SKIPPED", counts.skipped),
    ] {
        if count > 0 {
            let _ = writeln!(text, "{}: {count}/{total}", outcome(name, color));
        }
    }
    if let Some(coverage) = &report.coverage {
        write_coverage(&mut text, coverage);
    }
    text
}

fn write_result(text: &mut String, result: &TestResult, verbose: bool, color: bool) {
    let TestResult { name, prints, .. } = result;
    if result.skipped {
        let _ = writeln!(text, "{name}: {}", outcome("SKIPPED", color));
        return;
    }
    let verdict = outcome(if result.passed { "PASS" } else { "FAIL" }, color);
    let duration = Duration::from_nanos(result.duration_ns);
    let _ = writeln!(text, "{name}: {verdict} ({duration:.1?})");
    if let Some(failure) = &result.failure {
        for line in failure.lines() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if verbose || !result.passed {
        write_cases(text, &result.cases, 1, color);
        for line in prints {
            let _ = writeln!(text, "  {line}");
        }
    }
}

fn write_cases(text: &mut String, cases: &[CaseResult], depth: usize, color: bool) {
    for case in cases {
        let verdict = outcome(if case.passed { "PASS" } else { "FAIL" }, color);
        let name = case.name.escape_debug();
        let _ = writeln!(text, "{}{name}: {verdict}", "  ".repeat(depth));
        write_cases(text, &case.cases, depth.saturating_add(1), color);
    }
}

fn write_coverage(text: &mut String, coverage: &CoverageReport) {
    text.push_str("\ncoverage\n");
    for FileCoverage {
        file,
        not_covered,
        coverage,
        ..
    } in &coverage.files
    {
        let missing = match not_covered.is_empty() {
            true => String::new(),
            false => format!("  not covered: {}", ranges(not_covered)),
        };
        let _ = writeln!(text, "{coverage:>7.2} %  {file}{missing}");
    }
    let _ = writeln!(text, "{:>7.2} %  total", coverage.coverage);
}

/// Lines in ascending order, neighbours as `4-6`.
fn ranges(lines: &[u32]) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for line in lines {
        match ranges.last_mut() {
            Some((_, last)) if last.saturating_add(1) == *line => *last = *line,
            _ => ranges.push((*line, *line)),
        }
    }
    let texts = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn outcome(name: &str, color: bool) -> String {
    let style = match name {
        "PASS" => "\x1b[32m",
        "FAIL" => "\x1b[31m",
        _ => "\x1b[33m",
    };
    match color {
        true => format!("{style}{name}\x1b[0m"),
        false => name.to_owned(),
    }
}
