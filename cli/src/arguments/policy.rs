//! What `sidegate policy` takes.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use regex::Regex;

use super::{OutputFormat, StateArguments};

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    Test(TestArguments),
    Check(PolicyCheckArguments),
    Eval(EvalArguments),
    Bench(BenchArguments),
    /// Show the generation that decides in a running instance, and what became of the last change;
    /// 1 where it was refused or has made denials jump
    Status(StateArguments),
    /// Have a running instance return to the generation before; a second time, forward again
    Rollback(StateArguments),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyPaths {
    /// Files, or directories with .rego files and data.json or data.yaml [default: the stock policy]
    #[arg(value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
}

/// Run the tests of a policy: its rules whose names start with `test_`.
///
/// Exit codes: 0 all pass, 1 a test fails or the coverage is below the threshold, 2 could not run.
#[derive(Debug, Args)]
pub(crate) struct TestArguments {
    #[command(flatten)]
    pub(crate) paths: PolicyPaths,

    /// Run only tests whose name matches, such as data.envoy.authz_test.test_admin
    #[arg(long, value_name = "REGEX", value_parser = Regex::new)]
    pub(crate) run: Option<Regex>,

    /// Say which lines the tests evaluate
    #[arg(long)]
    pub(crate) coverage: bool,

    /// Fail if less than this share of the lines is evaluated, in percent
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    pub(crate) threshold: Option<f64>,

    /// Show cases and prints of tests that pass too
    #[arg(short, long)]
    pub(crate) verbose: bool,

    /// What to print
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

/// Show everything that is wrong with a policy, and what in it is unused.
///
/// Exit codes: 0 no error, 1 an error, or with --strict a warning, 2 could not check.
#[derive(Debug, Args)]
pub(crate) struct PolicyCheckArguments {
    #[command(flatten)]
    pub(crate) paths: PolicyPaths,

    /// A rule that must be there; may be given several times
    #[arg(long, value_name = "RULE", default_value = "envoy/authz/allow")]
    pub(crate) entrypoint: Vec<String>,

    /// Let a warning count as an error
    #[arg(long)]
    pub(crate) strict: bool,

    /// What to print
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

/// What is asked of a policy.
#[derive(Debug, Args)]
pub(crate) struct QuestionArguments {
    #[command(flatten)]
    pub(crate) paths: PolicyPaths,

    /// The input document, JSON; `-` is standard input [default: none]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,

    /// The rule, package or data to ask for, as envoy/authz/allow or data.envoy.authz.allow
    /// [default: that of the point, else envoy/authz/allow]
    #[arg(long, value_name = "RULE")]
    pub(crate) entrypoint: Option<String>,

    /// Let a builtin that fails be an error; otherwise it is undefined
    #[arg(long)]
    pub(crate) strict_builtin_errors: bool,

    /// What to print
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

/// Ask a policy with an input, and print the value as JSON.
///
/// What `print` says goes to standard error. Exit codes: 0 there is a value, and with --point it
/// allows; 1 it is undefined, or does not allow; 2 could not evaluate.
#[derive(Debug, Args)]
pub(crate) struct EvalArguments {
    #[command(flatten)]
    pub(crate) question: QuestionArguments,

    /// Say how Sidegate would take the answer at this decision point
    #[arg(long, value_enum)]
    pub(crate) point: Option<PointName>,
}

/// Time a policy: ask it with an input again and again, on one thread.
///
/// Exit codes: 0 done, 2 could not evaluate.
#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(flatten)]
    pub(crate) question: QuestionArguments,

    /// How often to ask [default: for the time]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=10_000_000), conflicts_with = "time")]
    pub(crate) count: Option<u32>,

    /// How long to ask
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = bench_time)]
    pub(crate) time: std::time::Duration,
}

/// A place where policies decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PointName {
    /// HTTP requests to a workload
    Ingress,
    /// Connections to a workload
    Connect,
    /// Requests of a workload
    Egress,
    /// The start of a component
    Admit,
}

fn percent(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err("a number from 0 to 100".to_owned()),
    }
}

fn bench_time(text: &str) -> Result<std::time::Duration, String> {
    let time = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let longest = std::time::Duration::from_secs(600);
    match time.is_zero() || time > longest {
        false => Ok(time),
        true => Err("more than nothing and at most 10m".to_owned()),
    }
}
