//! The arguments of `sidegate svid`.

use std::num::NonZeroU64;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use sidegate_identity::{SpiffeId, TrustDomain};

use super::{OutputFormat, trust_domain};

#[derive(Debug, Subcommand)]
pub(crate) enum SvidCommand {
    /// Fetch SVIDs once and print them; private keys are never printed
    #[command(subcommand)]
    Fetch(FetchCommand),
    /// Show X.509-SVIDs and bundles as they change, until SIGINT or SIGTERM
    Watch(WatchArguments),
    /// Show the trust bundles, X.509 and JWT
    Bundle(BundleArguments),
    /// Ask whether a JWT-SVID is valid; exit code 1 if it is not
    Validate(ValidateArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum FetchCommand {
    /// The X.509-SVIDs of the calling process
    X509(FetchX509Arguments),
    /// JWT-SVIDs of the calling process for an audience
    Jwt(FetchJwtArguments),
}

#[derive(Debug, Args)]
pub(crate) struct FetchX509Arguments {
    /// Write svid.0.pem, svid.0.key, bundle.0.pem and federated_bundle.0.0.pem to this directory,
    /// and those of further SVIDs; made if it is not there
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(crate) struct FetchJwtArguments {
    /// Whom the token is for; may be repeated
    #[arg(long, value_name = "AUDIENCE", required = true)]
    pub(crate) audience: Vec<String>,

    /// Which of several identities
    #[arg(long, value_name = "ID", value_parser = spiffe_id)]
    pub(crate) spiffe_id: Option<SpiffeId>,

    /// Write the token to this file instead of printing it; of several, the first
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(crate) struct WatchArguments {
    /// Keep the files of `fetch x509 --write` in this directory up to date
    #[arg(long, value_name = "DIR")]
    pub(crate) write: Option<PathBuf>,

    /// End after so many updates
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<NonZeroU64>,

    #[command(flatten)]
    pub(crate) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(crate) struct BundleArguments {
    /// What to print as text [default: pem]; with `-o json`, it is a SPIFFE bundle map
    #[arg(long, value_enum, conflicts_with = "output")]
    pub(crate) format: Option<BundleFormat>,

    /// The bundle of this trust domain only
    #[arg(long, value_name = "NAME", value_parser = trust_domain)]
    pub(crate) trust_domain: Option<TrustDomain>,

    /// Write to this file instead of printing
    #[arg(long, value_name = "FILE")]
    pub(crate) write: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) client: ClientArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ValidateArguments {
    /// The token, or - to read it from standard input
    #[arg(value_name = "TOKEN", default_value = "-")]
    pub(crate) token: String,

    /// Whom the token must be for
    #[arg(long, value_name = "AUDIENCE")]
    pub(crate) audience: String,

    #[command(flatten)]
    pub(crate) client: ClientArguments,
}

/// What every client of a Workload API is told.
#[derive(Debug, Args)]
pub(crate) struct ClientArguments {
    /// The Workload API's socket: unix:///path, or a path
    #[arg(long, value_name = "SOCKET", env = "SPIFFE_ENDPOINT_SOCKET")]
    pub(crate) socket: String,

    /// What to print
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

/// How bundles are written as text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum BundleFormat {
    /// X.509 authorities, one trust domain after the other
    #[default]
    Pem,
    /// One SPIFFE bundle, with X.509 and JWT authorities: that of the own trust domain
    Spiffe,
}

fn spiffe_id(text: &str) -> Result<SpiffeId, String> {
    SpiffeId::new(text).map_err(|error| error.to_string())
}
