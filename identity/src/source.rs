//! The two powers over identities: to watch them, and to mint them.

use std::sync::Arc;
use std::time::SystemTime;

use spiffe::TrustDomain;
use tokio::sync::watch;

use crate::authority::AuthorityError;
use crate::entry::Entry;
use crate::jwt::{JwtError, JwtSvid};
use crate::svid::{Identities, X509Svid};

/// Where SVIDs and bundles come from. Every source can be watched; few can mint.
pub trait SvidSource: Send + Sync + 'static {
    /// The newest generation, and each that follows. The first is there at once.
    fn watch(&self) -> watch::Receiver<Arc<Identities>>;
}

/// Mints SVIDs. Passed only to what decides who gets which.
pub trait Issuer: Send + Sync + 'static {
    /// The trust domain in which it mints.
    fn trust_domain(&self) -> &TrustDomain;

    /// A new key and an SVID for it.
    ///
    /// # Errors
    /// When the authority cannot sign; the caller keeps what it has.
    fn mint(&self, entry: &Entry, now: SystemTime) -> Result<X509Svid, AuthorityError>;

    /// A JWT-SVID for an audience that the entry allows.
    ///
    /// # Errors
    /// When the entry does not allow the audience, or the authority cannot sign.
    fn mint_jwt(
        &self,
        entry: &Entry,
        audience: &[String],
        now: SystemTime,
    ) -> Result<JwtSvid, JwtError>;
}
