//! The data plane: requests, handshakes and idle connections through our proxy with everything on,
//! beside the floor and other proxies.
//!
//! ```text
//!   load ── mutual TLS ──▶ a proxy, a process of its own ── plain text ──▶ upstream
//!   (threads of this process)     its CPU time counts           (threads of this process)
//! ```
//!
//! All proxies of a group run at once, and each round measures them one after the other: where the
//! machine becomes slower, it does so for all.

mod cases;
mod credentials;
mod floor;
mod http1;
mod load;
mod metrics;
mod process;
mod proxies;
mod report;
mod rounds;
mod upstream;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use cases::Case;
pub(crate) use floor::{FloorOptions, run as run_floor};
use proxies::Proxy;
pub(crate) use report::ProxyReport;

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// The binary to measure
    #[arg(long, value_name = "FILE")]
    binary: PathBuf,
    /// Envoy; left out without this
    #[arg(long, value_name = "FILE")]
    envoy: Option<PathBuf>,
    /// haproxy; left out without this
    #[arg(long, value_name = "FILE")]
    haproxy: Option<PathBuf>,
    /// nginx; left out without this
    #[arg(long, value_name = "FILE")]
    nginx: Option<PathBuf>,
    /// Measure only these cases
    #[arg(long, value_name = "CASE", value_delimiter = ',')]
    only: Vec<Case>,
    /// Measure only these proxies
    #[arg(long, value_name = "PROXY", value_delimiter = ',')]
    proxies: Vec<Proxy>,
    /// Worker threads of each proxy, and threads that make its load
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,
    /// Rounds, of which the middle one counts
    #[arg(long, value_name = "COUNT", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// How long each proxy is measured for each case and round
    #[arg(long, value_name = "SECONDS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Only HTTP/1.1, HTTP/2 and handshakes, within a minute
    #[arg(long, conflicts_with_all = ["only", "seconds"])]
    quick: bool,
}

/// How long a measurement takes.
#[derive(Debug, Clone, Copy)]
struct Window {
    warm_up: Duration,
    measured: Duration,
}

/// Measures what the options say. `descriptors`: how many files a process may have open.
pub(crate) fn measure(options: &Options, descriptors: u64) -> Result<ProxyReport> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        // Whatever ends the rounds, the proxies are killed when they are dropped.
        tokio::select! {
            report = rounds::run(options, descriptors) => report,
            _ = terminate.recv() => bail!("stopped by SIGTERM"),
            _ = interrupt.recv() => bail!("stopped by SIGINT"),
        }
    })
}

impl Options {
    fn window(&self) -> Window {
        if self.quick {
            // Five proxies, three cases and three rounds are 54 seconds.
            return Window {
                warm_up: Duration::from_millis(300),
                measured: Duration::from_millis(900),
            };
        }
        Window {
            warm_up: Duration::from_secs(1),
            measured: Duration::from_secs(self.seconds.into()),
        }
    }

    fn wants(&self, case: Case) -> bool {
        if self.quick {
            return case.is_quick();
        }
        self.only.is_empty() || self.only.contains(&case)
    }

    fn wants_proxy(&self, proxy: Proxy) -> bool {
        self.proxies.is_empty() || self.proxies.contains(&proxy)
    }
}
