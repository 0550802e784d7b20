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
    Explain(Box<ExplainArguments>),
    Replay(ReplayArguments),
    /// Show the generation that decides in a running instance, what became of the last change, and
    /// how a candidate compares; 1 where a change was refused or has made denials jump
    Status(StateArguments),
    /// Have a running instance return to the generation before; a second time, forward again
    Rollback(StateArguments),
    /// Have the candidate of a running instance decide, until it ends: the configuration stays as
    /// it is; 1 where the candidate's sources decide already
    Promote(StateArguments),
}

#[derive(Debug, Args)]
pub(crate) struct PolicyPaths {
    /// Files, directories with .rego files and data.json or data.yaml, or OPA bundles (.tar.gz, or
    /// a directory with a .manifest) [default: the stock policy]
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

/// Say why a policy answers as it does: which rules fired, which came closest, and on which
/// expression they stopped; or what it reads.
///
/// The request is an input document, or told by --method, --path and --principal, or found in a
/// decision log by its id. Values of credential headers are never shown. Exit codes: 0 explained, 2
/// could not.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("asked").required(true).multiple(true).args(["input", "method", "decision", "read_set"]))]
pub(crate) struct ExplainArguments {
    #[command(flatten)]
    pub(crate) paths: PolicyPaths,

    /// The input document, JSON; `-` is standard input
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["method", "decision", "read_set"])]
    pub(crate) input: Option<PathBuf>,

    /// A request's method
    #[arg(long, value_name = "METHOD", requires = "path", conflicts_with_all = ["decision", "read_set"])]
    pub(crate) method: Option<http::Method>,

    /// The request's path, with its query
    #[arg(long, value_name = "PATH", requires = "method")]
    pub(crate) path: Option<http::uri::PathAndQuery>,

    /// The caller's SPIFFE ID [default: an anonymous caller]
    #[arg(long, value_name = "SPIFFE_ID", requires = "method")]
    pub(crate) principal: Option<spiffe::SpiffeId>,

    /// A header of the request, as 'name: value'; may be given several times
    #[arg(long = "header", value_name = "HEADER", value_parser = header, requires = "method")]
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,

    /// The authority that the request is for
    #[arg(
        long,
        value_name = "HOST",
        default_value = "localhost",
        requires = "method"
    )]
    pub(crate) host: String,

    /// The SPIFFE ID that the request is sent to
    #[arg(long, value_name = "SPIFFE_ID", requires = "method")]
    pub(crate) destination: Option<spiffe::SpiffeId>,

    /// A decision by its id, or a request by its x-request-id
    #[arg(long, value_name = "ID", requires = "log", conflicts_with = "read_set")]
    pub(crate) decision: Option<String>,

    /// The decision log that it is in; `-` is standard input
    #[arg(long, value_name = "FILE", requires = "decision")]
    pub(crate) log: Option<PathBuf>,

    /// Say what the policy reads of its input, and whether its decisions are remembered
    #[arg(long)]
    pub(crate) read_set: bool,

    /// The rule to explain [default: that of the decision, else envoy/authz/allow]
    #[arg(long, value_name = "RULE")]
    pub(crate) entrypoint: Option<String>,

    /// What to print
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

/// Put the decisions of a decision log before another policy, and show which verdicts would change.
///
/// Exit codes: 0 none changes, 1 some change, 2 could not read or replay all of them.
#[derive(Debug, Args)]
pub(crate) struct ReplayArguments {
    /// The decision log: JSON lines or arrays, compressed with gzip or not; `-` is standard input
    #[arg(value_name = "LOG")]
    pub(crate) log: PathBuf,

    /// The policy: a directory, a .rego file, or an OPA bundle (.tar.gz, or a directory with a
    /// .manifest)
    #[arg(long, value_name = "PATH")]
    pub(crate) bundle: PathBuf,

    /// The rule to ask [default: that of each decision]
    #[arg(long, value_name = "RULE")]
    pub(crate) entrypoint: Option<String>,

    /// What to print; `json` is one document a line
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
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

/// `name: value`. The value may be a credential, so no message repeats it.
fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) = text
        .split_once(':')
        .ok_or_else(|| "a header is written 'name: value'".to_owned())?;
    let name = name.trim().parse();
    let name = name.map_err(|_| "its name is not one that HTTP has".to_owned())?;
    let value = http::HeaderValue::from_str(value.trim());
    let value = value.map_err(|_| "its value is not one that HTTP can carry".to_owned())?;
    Ok((name, value))
}
