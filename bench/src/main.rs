//! What the parts of Sidegate cost, measured: `cargo xtask bench`.
//!
//! Nothing here passes or fails. Figures are printed beside the goals, and whoever reads them
//! compares figures of one run: the speed of a machine drifts.

mod clock;
mod gate;
mod identity;
mod policy;
mod proxy;
mod report;
mod workload_api;

use std::fmt::Display;
use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde::Serialize;

use identity::Part;

// As in the measured binary.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "sidegate-bench", about = "Measures what Sidegate costs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Signing, the Workload API's fetches, and its open streams
    Identity {
        /// The binary to measure
        #[arg(long, value_name = "FILE")]
        binary: PathBuf,
        /// Measure only this part
        #[arg(long, value_name = "PART")]
        only: Option<Part>,
        /// How to print the figures
        #[arg(short, long, value_name = "FORMAT", default_value = "text")]
        output: OutputFormat,
    },
    /// Decisions: what one costs, remembered or not
    Policy {
        /// Measure only this policy
        #[arg(long, value_name = "NAME")]
        only: Option<String>,
        /// How to print the figures
        #[arg(short, long, value_name = "FORMAT", default_value = "text")]
        output: OutputFormat,
    },
    /// Requests, handshakes and idle connections through Sidegate, the floor and other proxies
    Proxy {
        #[command(flatten)]
        options: proxy::Options,
        /// How to print the figures
        #[arg(short, long, value_name = "FORMAT", default_value = "text")]
        output: OutputFormat,
    },
    /// The floor: forwards and does nothing else, until it is killed
    #[command(hide = true)]
    Floor(proxy::FloorOptions),
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum OutputFormat {
    Text,
    Json,
}

fn main() -> anyhow::Result<()> {
    let (_, descriptors) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, descriptors, descriptors)?;
    match Arguments::parse().command {
        Command::Identity {
            binary,
            only,
            output,
        } => show(&identity::measure(&binary, only, descriptors)?, output),
        Command::Policy { only, output } => show(&policy::measure(only.as_deref())?, output),
        Command::Proxy { options, output } => show(&proxy::measure(&options, descriptors)?, output),
        Command::Floor(options) => proxy::run_floor(&options),
    }
}

fn show<R: Display + Serialize>(report: &R, output: OutputFormat) -> anyhow::Result<()> {
    match output {
        OutputFormat::Text => report::print(&report.to_string()),
        OutputFormat::Json => report::print(&serde_json::to_string(report)?),
    }
    Ok(())
}
