//! `sidegate policy`.

use clap::Subcommand;

use super::StateArguments;

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show the generation that decides, and what became of the last change; 1 where it was refused
    /// or has made denials jump
    Status(StateArguments),
    /// Return to the generation before; a second time, forward again
    Rollback(StateArguments),
}
