//! `sidegate policy bench`.

use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::Serialize;
use sidegate_policy::question::{BenchLimits, BenchReport, bench};

use super::{SCHEMA, input};
use crate::arguments::{BenchArguments, OutputFormat};
use crate::failure::Failure;
use crate::output;

/// With a count the bench ends by it; with a time by this at the latest.
const MOST_EVALUATIONS: usize = 10_000_000;
const LONGEST: Duration = Duration::from_secs(3600);

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    #[serde(flatten)]
    report: &'a BenchReport,
}

/// Asks again and again, and prints how long it took.
pub(super) fn execute(arguments: &BenchArguments) -> Result<bool, Failure> {
    let (mut question, input) = input::question(&arguments.question, None)?;
    let count = arguments
        .count
        .and_then(|count| usize::try_from(count).ok());
    let limits = BenchLimits {
        evaluations: count.unwrap_or(MOST_EVALUATIONS),
        time: count.map_or(arguments.time, |_| LONGEST),
    };
    let report = bench(&mut question, &input, limits, &thread_cpu_time);
    let report = report.map_err(|error| input::failed(&error))?;
    match arguments.question.output {
        OutputFormat::Json => output::print_json(&Document {
            schema: SCHEMA,
            report: &report,
        })?,
        OutputFormat::Text => output::print(&text(&report))?,
    }
    Ok(true)
}

/// The report for people.
pub(super) fn text(report: &BenchReport) -> String {
    let rows = [
        ("evaluations", report.evaluations.to_string()),
        ("mean", microseconds(report.mean_ns)),
        ("p50", microseconds(report.p50_ns)),
        ("p90", microseconds(report.p90_ns)),
        ("p99", microseconds(report.p99_ns)),
        ("max", microseconds(report.max_ns)),
        ("CPU time", microseconds(report.cpu_ns)),
        ("per second", format!("{:.0}", report.per_second)),
    ];
    let rows = rows.map(|(name, value)| format!("{name:<12} {value:>12}\n"));
    let engine = match &report.because {
        None => report.engine.to_owned(),
        Some(because) => format!("{}: {because}", report.engine),
    };
    format!(
        "{}\n{}{:<12} {engine}\n",
        report.asked,
        rows.concat(),
        "engine"
    )
}

#[expect(
    clippy::cast_precision_loss,
    reason = "an evaluation takes less than the nanoseconds of a f64"
)]
fn microseconds(nanoseconds: u64) -> String {
    format!("{:.2} µs", nanoseconds as f64 / 1000.0)
}

/// What this thread has used so far, in user and system mode.
fn thread_cpu_time() -> Duration {
    // Linux always tells a thread's own usage.
    getrusage(UsageWho::RUSAGE_THREAD).map_or(Duration::ZERO, |usage| {
        let used = usage.user_time() + usage.system_time();
        Duration::from_micros(u64::try_from(used.num_microseconds()).unwrap_or_default())
    })
}
