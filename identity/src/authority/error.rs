//! What goes wrong with the authority.

use std::path::PathBuf;

use spiffe::TrustDomain;

use crate::slots::SlotError;
use crate::svid::{UnusableKey, UnusableRoot};

/// What goes wrong with the authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The file cannot be read or written.
    #[error("cannot {action} the authority's file {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file does not hold what it should.
    #[error("{} is not an authority's file: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file belongs to another trust domain.
    #[error("{} is the authority of `{found}`, not of `{wanted}`", path.display())]
    ForeignTrustDomain {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: TrustDomain,
    },
    /// The time of root or intermediate is over.
    #[error("a signing certificate in {} has expired", path.display())]
    Expired {
        /// The file.
        path: PathBuf,
    },
    /// A certificate could not be made.
    #[error("cannot sign a certificate")]
    Sign(#[from] rcgen::Error),
    /// A fresh key is of no use.
    #[error(transparent)]
    Key(#[from] UnusableKey),
    /// What the user brought does not serve.
    #[error("{} cannot sign for `{trust_domain}`: {problem}", path.display())]
    Brought {
        /// The file.
        path: PathBuf,
        /// For what it should sign.
        trust_domain: TrustDomain,
        /// What is wrong.
        problem: String,
    },
    /// An authority that was brought is not ours to replace.
    #[error("the authority was brought along: replace its files to replace it")]
    NotOurs,
    /// The authorities are not in the phase that this needs.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The root is of no use.
    #[error(transparent)]
    Root(#[from] UnusableRoot),
}

impl AuthorityError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "SG0120",
            Self::Damaged { .. } => "SG0121",
            Self::ForeignTrustDomain { .. } => "SG0122",
            Self::Expired { .. } => "SG0123",
            Self::Brought { .. } => "SG0139",
            Self::NotOurs | Self::Slot(_) => "SG0142",
            Self::Sign(_) | Self::Key(_) | Self::Root(_) => "SG0124",
        }
    }
}
