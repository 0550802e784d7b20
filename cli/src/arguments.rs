//! The command line.

mod check;
mod identity;
mod log;
mod policy;
mod svid;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use sidegate_identity::TrustDomain;

use crate::config::{UpstreamServer, jwt_svid_ttl, svid_ttl, upstream_server};
pub(crate) use check::CheckArguments;
pub(crate) use identity::{
    AuthorityArguments, AuthorityName, BundleCommand, BundleDeleteArguments, BundleSetArguments,
    BundleShowArguments, CreateArguments, EntryArguments, EntryCommand, IdentityCommand,
    ListArguments, RotateArguments, StateArguments,
};
pub(crate) use log::LogCommand;
pub(crate) use policy::{
    BenchArguments, EvalArguments, ExplainArguments, PointName, PolicyCheckArguments,
    PolicyCommand, PolicyPaths, QuestionArguments, ReplayArguments, TestArguments,
};
pub(crate) use svid::{
    BundleArguments, BundleFormat, FetchCommand, FetchJwtArguments, FetchX509Arguments,
    SvidCommand, ValidateArguments, WatchArguments,
};

/// Zero-trust sidecar: SPIFFE identities, mutual TLS and Rego for processes, Envoys and WebAssembly
/// components.
///
/// Exit codes: 0 done, 1 the answer is no, 2 could not do it.
#[derive(Debug, Parser)]
#[command(name = "sidegate", version, max_term_width = 100)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start everything on this machine with a CA of its own; nothing else is needed
    Up(UpArguments),
    /// Start what a configuration file says
    Run(RunArguments),
    Check(CheckArguments),
    /// Registration entries and authorities of a running instance
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// The log of a running instance
    #[command(subcommand)]
    Log(LogCommand),
    /// Test, check, ask, explain, replay and time policies; see which one a running instance has, and go back
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// Print a page of the reference that is made from the code
    #[command(hide = true)]
    Documentation {
        #[arg(value_enum)]
        page: DocumentationPage,
    },
    /// Fetch, watch and validate SVIDs by a SPIFFE Workload API
    #[command(subcommand)]
    Svid(SvidCommand),
}

/// What can be printed.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum DocumentationPage {
    Metrics,
}

#[derive(Debug, Args)]
pub(crate) struct UpArguments {
    /// The WebAssembly component to front [default: an example]
    #[arg(value_name = "COMPONENT", conflicts_with = "upstream")]
    pub(crate) component: Option<PathBuf>,

    /// Front a local HTTP server instead of a component, such as http://127.0.0.1:9000
    #[arg(long, value_name = "URL", value_parser = upstream_server)]
    pub(crate) upstream: Option<UpstreamServer>,

    /// Where the CA and the sockets live; made if it is not there
    #[arg(
        long,
        value_name = "DIR",
        env = "SIDEGATE_STATE",
        default_value = ".sidegate"
    )]
    pub(crate) state: PathBuf,

    /// The trust domain of the CA
    #[arg(
        long,
        value_name = "NAME",
        env = "SIDEGATE_TRUST_DOMAIN",
        default_value = "sidegate.local",
        value_parser = trust_domain
    )]
    pub(crate) trust_domain: TrustDomain,

    /// Rego policy: a directory or a file [default: the stock policy]
    #[arg(long, value_name = "PATH", env = "SIDEGATE_POLICY")]
    pub(crate) policy: Option<PathBuf>,

    /// Where to accept mutual TLS
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "SIDEGATE_LISTEN",
        default_value = "127.0.0.1:8443"
    )]
    pub(crate) listen: SocketAddr,

    /// Where to serve /livez, /readyz and /metrics
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "SIDEGATE_ADMIN",
        default_value = "127.0.0.1:15900"
    )]
    pub(crate) admin: SocketAddr,

    /// The lifetime of SVIDs, at least 10s; they are renewed at half of it
    #[arg(
        long,
        value_name = "DURATION",
        env = "SIDEGATE_SVID_TTL",
        default_value = "1h",
        value_parser = svid_ttl
    )]
    pub(crate) svid_ttl: std::time::Duration,

    /// What to print when ready
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct RunArguments {
    /// The configuration file
    #[arg(long, value_name = "FILE", env = "SIDEGATE_CONFIG")]
    pub(crate) config: PathBuf,

    /// What to print when ready
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OutputFormat {
    /// For people
    Text,
    /// One JSON document
    Json,
}

fn trust_domain(text: &str) -> Result<TrustDomain, String> {
    match TrustDomain::new(text) {
        Ok(trust_domain) if trust_domain.as_str() == text => Ok(trust_domain),
        Ok(trust_domain) => Err(format!("write it as `{trust_domain}`")),
        Err(error) => Err(error.to_string()),
    }
}
