//! Developer commands: `cargo xtask test`, `cargo xtask bench`, `cargo xtask guests`, `cargo xtask docs`.
#![expect(
    clippy::print_stdout,
    reason = "what a developer's command does is told on standard output"
)]

mod bench;
mod docs;
mod guests;
#[cfg(test)]
mod house;
mod step;
mod test;
mod tools;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "Developer commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Set up what the tests need, build the release binary, and run every check and test
    Test {
        /// Run only the tests whose name contains this
        #[arg(long, value_name = "PATTERN")]
        only: Option<String>,
    },
    /// Measure what the release binary costs
    Bench {
        #[command(subcommand)]
        plane: Plane,
    },
    /// Write the pages of docs/reference that are made from the code
    Docs {
        /// Only check that the pages are those that the code would make
        #[arg(long)]
        check: bool,
    },
    /// Rebuild the WebAssembly components of guests/
    Guests {
        /// Only check that the committed components are those of the committed sources
        #[arg(long)]
        check: bool,
    },
}

#[derive(Debug, Subcommand)]
enum Plane {
    /// Signing, the Workload API's fetches, and its open streams
    Identity {
        /// Options of the bench, such as `-o json` or `--only signing`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Decisions: what one costs, remembered or not
    Policy {
        /// Options of the bench, such as `-o json` or `--only ten-rule`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
    /// Requests, handshakes and idle connections, beside a floor and other proxies
    Proxy {
        /// Options of the bench, such as `-o json`, `--quick` or `--only h1,handshake`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<String>,
    },
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Test { only } => test::run_all(only.as_deref()),
        Command::Bench {
            plane: Plane::Identity { options },
        } => bench::identity(&options),
        Command::Bench {
            plane: Plane::Policy { options },
        } => bench::policy(&options),
        Command::Bench {
            plane: Plane::Proxy { options },
        } => bench::proxy(&options),
        Command::Docs { check } => docs::run(check),
        Command::Guests { check } => guests::run(check),
    }
}

/// The folder of the project.
fn root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask).to_owned()
}
