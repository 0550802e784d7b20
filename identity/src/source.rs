//! The two powers over identities: to watch them, and to mint them.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::entry::Entry;
use crate::jwt::{JwtError, JwtSvid};
use crate::spire::SpireError;
use crate::svid::Identities;

/// Where SVIDs and bundles come from. Every source can be watched; few can mint.
pub trait SvidSource: Send + Sync + 'static {
    /// The newest generation, and each that follows. The first is there at once.
    fn watch(&self) -> watch::Receiver<Arc<Identities>>;
}

/// Mints what is asked for by a workload: JWT-SVIDs. X.509-SVIDs are minted ahead, and watched. Passed
/// only to what decides who gets which.
pub trait Issuer: Send + Sync + 'static {
    /// Whether a workload of this entry may ask for these audiences.
    fn allows(&self, entry: &Entry, audience: &[String]) -> bool;

    /// A JWT-SVID for audiences that the entry allows.
    ///
    /// # Errors
    /// When the entry does not allow them, or nobody signs now.
    fn mint_jwt<'a>(&'a self, entry: &'a Entry, audience: &'a [String]) -> Minting<'a>;
}

/// A JWT-SVID that is being signed, here or by a server.
pub type Minting<'a> = Pin<Box<dyn Future<Output = Result<JwtSvid, MintError>> + Send + 'a>>;

/// Why a JWT-SVID is not signed.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The keys of our own do not.
    #[error(transparent)]
    Own(#[from] JwtError),
    /// The SPIRE server does not.
    #[error(transparent)]
    Spire(#[from] SpireError),
}

impl MintError {
    /// Whether whoever signs is away, rather than unwilling.
    pub(crate) fn is_absence(&self) -> bool {
        match self {
            Self::Own(_) => false,
            Self::Spire(error) => error.is_absence(),
        }
    }

    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Own(error) => error.code(),
            Self::Spire(error) => error.code(),
        }
    }
}
