//! `sidegate identity`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use sidegate_identity::TrustDomain;

use super::{OutputFormat, jwt_svid_ttl, svid_ttl, trust_domain};

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Registration entries: which workload is given which SPIFFE ID
    #[command(subcommand)]
    Entry(EntryCommand),
    /// Trust bundles, in SPIFFE's format: the own one, and those of foreign trust domains
    #[command(subcommand)]
    Bundle(BundleCommand),
    /// Show the roots and JWT keys, and where in their lives they are
    Authorities(StateArguments),
    /// Put a new root or JWT key in the place of the active one
    Rotate(RotateArguments),
    /// Replace what an old root or JWT key has signed; peers still accept it
    Taint(AuthorityArguments),
    /// Take a tainted root or JWT key out of the bundle; what hangs on it is cut
    Revoke(AuthorityArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum EntryCommand {
    /// Make an entry; it is kept over restarts
    Create(CreateArguments),
    /// List all entries, those of the configuration first
    List(ListArguments),
    /// Show one entry
    Show(EntryArguments),
    /// Remove an entry that was made at run time; SVIDs that it gave stay valid until they expire
    Delete(EntryArguments),
}

#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Print a bundle, to be given to another trust domain
    Show(BundleShowArguments),
    /// List the trust domains whose bundles are known
    List(StateArguments),
    /// Take a foreign trust domain's bundle; entries that federate with it trust it from now on
    Set(BundleSetArguments),
    /// Give up a foreign trust domain's bundle
    Delete(BundleDeleteArguments),
}

#[derive(Debug, Args)]
pub(crate) struct BundleShowArguments {
    /// Whose bundle [default: the instance's own]
    #[arg(value_name = "TRUST_DOMAIN", value_parser = trust_domain)]
    pub(crate) trust_domain: Option<TrustDomain>,

    /// The state directory of the running instance
    #[arg(
        long,
        value_name = "DIR",
        env = "SIDEGATE_STATE",
        default_value = ".sidegate"
    )]
    pub(crate) state: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct BundleSetArguments {
    /// Whose bundle
    #[arg(value_name = "TRUST_DOMAIN", value_parser = trust_domain)]
    pub(crate) trust_domain: TrustDomain,

    /// The bundle's file, or - for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    pub(crate) file: PathBuf,

    #[command(flatten)]
    pub(crate) instance: StateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct BundleDeleteArguments {
    /// Whose bundle
    #[arg(value_name = "TRUST_DOMAIN", value_parser = trust_domain)]
    pub(crate) trust_domain: TrustDomain,

    #[command(flatten)]
    pub(crate) instance: StateArguments,
}

/// Which instance is meant.
#[derive(Debug, Args)]
pub(crate) struct StateArguments {
    /// The state directory of the running instance
    #[arg(
        long,
        value_name = "DIR",
        env = "SIDEGATE_STATE",
        default_value = ".sidegate"
    )]
    pub(crate) state: PathBuf,

    /// What to print
    #[arg(short, long, value_enum, default_value_t = OutputFormat::Text)]
    pub(crate) output: OutputFormat,
}

#[derive(Debug, Args)]
pub(crate) struct CreateArguments {
    /// The SPIFFE ID to give
    #[arg(long, value_name = "ID")]
    pub(crate) spiffe_id: String,

    /// What the workload must be, such as unix:uid:1000; repeat it for all that must hold
    #[arg(long, value_name = "SELECTOR", required = true)]
    pub(crate) selector: Vec<String>,

    /// Names the entry [default: a UUID]
    #[arg(long, value_name = "ENTRY")]
    pub(crate) entry_id: Option<String>,

    /// The lifetime of its X.509-SVIDs, whole seconds from 10s to 24h [default: the instance's]
    #[arg(long, value_name = "DURATION", value_parser = svid_ttl)]
    pub(crate) x509_svid_ttl: Option<Duration>,

    /// The lifetime of its JWT-SVIDs, whole seconds from 10s to 4h [default: 5m]
    #[arg(long, value_name = "DURATION", value_parser = jwt_svid_ttl)]
    pub(crate) jwt_svid_ttl: Option<Duration>,

    /// A DNS name for the certificate; may be repeated
    #[arg(long, value_name = "NAME")]
    pub(crate) dns_name: Vec<String>,

    /// Tells a workload with several SVIDs what this one is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) hint: String,

    /// An audience for which the workload may ask for JWT-SVIDs; may be repeated
    #[arg(long, value_name = "AUDIENCE")]
    pub(crate) audience: Vec<String>,

    /// A foreign trust domain whose bundle the workload gets; may be repeated
    #[arg(long, value_name = "TRUST_DOMAIN")]
    pub(crate) federates_with: Vec<String>,

    #[command(flatten)]
    pub(crate) instance: StateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    /// Only entries for this SPIFFE ID
    #[arg(long, value_name = "ID")]
    pub(crate) spiffe_id: Option<String>,

    /// Only entries with this selector; repeat it for all that an entry must have
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) selector: Vec<String>,

    #[command(flatten)]
    pub(crate) instance: StateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct EntryArguments {
    /// The entry, as `list` names it
    #[arg(value_name = "ENTRY", value_parser = entry_id)]
    pub(crate) entry: String,

    #[command(flatten)]
    pub(crate) instance: StateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArguments {
    /// Which authority
    #[arg(value_enum)]
    pub(crate) authority: AuthorityName,

    /// Only publish the successor, so that peers elsewhere get the new bundle first; the next
    /// `rotate` lets it sign
    #[arg(long)]
    pub(crate) prepare_only: bool,

    #[command(flatten)]
    pub(crate) instance: StateArguments,
}

#[derive(Debug, Args)]
pub(crate) struct AuthorityArguments {
    /// Which authority
    #[arg(value_enum)]
    pub(crate) authority: AuthorityName,

    /// Which one, as `authorities` names it [default: the newest that fits]
    #[arg(long, value_name = "ID")]
    pub(crate) authority_id: Option<String>,

    #[command(flatten)]
    pub(crate) instance: StateArguments,
}

/// An authority, as users name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AuthorityName {
    /// The root of X.509-SVIDs
    X509,
    /// The key that signs JWT-SVIDs
    Jwt,
}

/// An id can be written into a path as it is.
fn entry_id(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(is_plain) {
        return Err("an entry's id has letters, digits, `-`, `_` and `.`".to_owned());
    }
    Ok(text.to_owned())
}
