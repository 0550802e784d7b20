//! Why a source has nothing new to give, or cannot do what is asked of it.

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use spiffe::{SpiffeId, TrustDomain};

use super::SourceKind;
use crate::clock::rfc3339;
use crate::svid::UnusableRoot;

/// What is wrong with what a source gives, or with what is asked of it.
#[derive(Debug, thiserror::Error)]
pub enum ReceivedError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An SVID or bundle would not do, for what the source calls it.
    #[error("{what} is refused")]
    Refused {
        /// What it is.
        what: String,
        /// Why.
        #[source]
        source: Unusable,
    },
    /// Entries are for IDs that the source does not hold.
    #[error(
        "no SVID for `{wanted}` of the entries: the source `{kind}` holds {}, and cannot mint; \
         `embedded` can",
        listed(held)
    )]
    NotHeld {
        /// The source.
        kind: SourceKind,
        /// The first of them.
        wanted: SpiffeId,
        /// What it holds.
        held: Vec<SpiffeId>,
    },
    /// The Workload API cannot be asked, or ended the conversation.
    #[error("the Workload API at {socket} cannot be asked")]
    Unreachable {
        /// Its address.
        socket: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The Workload API ended the conversation, and gave no reason.
    #[error("the Workload API at {socket} ended the stream")]
    Ended {
        /// Its address.
        socket: String,
    },
    /// The Workload API said something that cannot be understood whole.
    #[error("what the Workload API at {socket} says is refused")]
    Message {
        /// Its address.
        socket: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The Workload API has no identity for this process.
    #[error("the Workload API at {socket} has no identity for this process")]
    NoIdentity {
        /// Its address.
        socket: String,
    },
    /// What only a source that mints can do.
    #[error("the source `{kind}` cannot {what}; `embedded` can")]
    CannotMint {
        /// The source.
        kind: SourceKind,
        /// What was asked of it.
        what: &'static str,
    },
}

/// Why an SVID or a bundle would not do.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// There is no certificate at all.
    #[error("there is no certificate")]
    Empty,
    /// The leaf breaks a rule of X509-SVID.md.
    #[error("peers would refuse it: {0}")]
    Peers(String),
    /// It is another trust domain's.
    #[error("`{found}` is outside the trust domain `{wanted}`")]
    ForeignTrustDomain {
        /// Whose it is.
        found: SpiffeId,
        /// The source's own trust domain.
        wanted: TrustDomain,
    },
    /// It does not count now.
    #[error(
        "it counts from {} to {}, and that is not now",
        rfc3339(*not_before),
        rfc3339(*not_after)
    )]
    NotNow {
        /// The first moment at which it counts.
        not_before: SystemTime,
        /// The moment from which it no longer counts.
        not_after: SystemTime,
    },
    /// The key is of another certificate, or none that TLS can sign with.
    #[error("the private key is not the certificate's, or cannot be used: {0}")]
    Key(String),
    /// A root that cannot be trusted as one.
    #[error(transparent)]
    Root(#[from] UnusableRoot),
    /// No root of it counts any more.
    #[error("all of its roots have expired")]
    ExpiredRoots,
    /// There are no roots to check it with.
    #[error("the trust domain `{0}` has no bundle")]
    NoBundle(TrustDomain),
}

impl ReceivedError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::CannotMint { .. } => "SG0162",
            Self::NotHeld { .. } => "SG0163",
            Self::Read { .. } => "SG0164",
            Self::File { .. } => "SG0165",
            Self::Refused { .. } => "SG0166",
            Self::Unreachable { .. } | Self::Ended { .. } => "SG0167",
            Self::Message { .. } => "SG0168",
            Self::NoIdentity { .. } => "SG0169",
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NotHeld { .. } => {
                Some("name an ID that it holds, or have its issuer give it this one")
            }
            Self::NoIdentity { .. } => Some("register this process with whom it asks"),
            Self::CannotMint {
                kind: SourceKind::SpireServer,
                ..
            } => Some("say it to the SPIRE server, with `spire-server`"),
            Self::Read { .. }
            | Self::File { .. }
            | Self::Refused { .. }
            | Self::Unreachable { .. }
            | Self::Ended { .. }
            | Self::Message { .. }
            | Self::CannotMint { .. } => None,
        }
    }

    /// Whether it may pass by itself soon after a start, as while an agent starts too.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::NotHeld { .. }
            | Self::Unreachable { .. }
            | Self::Ended { .. }
            | Self::NoIdentity { .. } => true,
            Self::Read { .. }
            | Self::File { .. }
            | Self::Refused { .. }
            | Self::Message { .. }
            | Self::CannotMint { .. } => false,
        }
    }
}

fn listed(ids: &[SpiffeId]) -> String {
    if ids.is_empty() {
        return "none".to_owned();
    }
    let ids: Vec<_> = ids.iter().map(|id| format!("`{id}`")).collect();
    ids.join(", ")
}
