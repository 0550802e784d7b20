//! `sidegate check`.

use std::path::PathBuf;

use clap::Args;

use super::OutputFormat;

/// Check a running instance, or a configuration file before it is used.
///
/// Nothing is changed. Exit codes: 0 all is well, 1 something is not, or no instance runs, 2 could
/// not check: a file that cannot be read, an instance that cannot be asked.
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The state directory of the running instance [env: SIDEGATE_STATE] [default: .sidegate]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    pub(crate) state: Option<PathBuf>,

    /// Check whether `sidegate run` could start with this file
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,

    /// Let a warning count as a failure
    #[arg(long)]
    pub(crate) strict: bool,

    /// What to print
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}
