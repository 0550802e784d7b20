//! `sidegate log`.

use clap::{Args, Subcommand};

use super::StateArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum LogCommand {
    /// Show which events are logged, or have others logged until the next reload or restart
    Level(LevelArguments),
}

#[derive(Debug, Args)]
pub(crate) struct LevelArguments {
    /// A level, or a list such as info,sidegate_proxy=debug [default: show the present one]
    #[arg(value_name = "DIRECTIVES")]
    pub(crate) directives: Option<String>,

    #[command(flatten)]
    pub(crate) instance: StateArguments,
}
