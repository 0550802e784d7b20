//! The embedded certificate authority: a root that signs an intermediate that signs SVIDs.
//!
//! One file holds both certificates and both keys, so that replacing it is one atomic step.

mod state;
mod template;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use spiffe::TrustDomain;
use zeroize::Zeroizing;

use crate::entry::Entry;
use crate::svid::{UnusableKey, UnusableRoot, Validity, X509Bundle, X509Svid};
use state::SigningCertificate;

const ROOT_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Certificates count from a little before they are made, for peers whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(10);

/// A self-made authority for one trust domain, P-256 throughout.
pub struct EmbeddedAuthority {
    path: PathBuf,
    trust_domain: TrustDomain,
    default_ttl: Duration,
    root: SigningCertificate,
    intermediate: RwLock<Arc<SigningCertificate>>,
}

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
    /// The root is of no use.
    #[error(transparent)]
    Root(#[from] UnusableRoot),
}

impl EmbeddedAuthority {
    /// Opens the authority in `path`, or makes one where there is no file yet.
    ///
    /// `default_ttl` is the lifetime of SVIDs whose entry sets none.
    ///
    /// # Errors
    /// A file that is there and cannot be used is never overwritten.
    pub fn open(
        path: PathBuf,
        trust_domain: TrustDomain,
        default_ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let authority = match state::load(&path, &trust_domain)? {
            Some((root, intermediate)) => Self {
                path,
                trust_domain,
                default_ttl,
                root,
                intermediate: RwLock::new(Arc::new(intermediate)),
            },
            None => Self::create(path, trust_domain, default_ttl, now)?,
        };
        if !authority.root.validity.contains(now) {
            return Err(AuthorityError::Expired {
                path: authority.path,
            });
        }
        authority.renew_intermediate(now)?;
        Ok(authority)
    }

    fn create(
        path: PathBuf,
        trust_domain: TrustDomain,
        default_ttl: Duration,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let root = template::root(&trust_domain, span(now, ROOT_LIFETIME))?;
        let intermediate =
            template::intermediate(&trust_domain, &root, span(now, INTERMEDIATE_LIFETIME))?;
        state::store(&path, &root, &intermediate)?;
        tracing::info!(%trust_domain, "a new CA is made: peers need its bundle");
        Ok(Self {
            path,
            trust_domain,
            default_ttl,
            root,
            intermediate: RwLock::new(Arc::new(intermediate)),
        })
    }

    /// Makes a new intermediate once half of the old one's life is over. The bundle, which holds
    /// roots only, does not change by it.
    ///
    /// # Errors
    /// The old intermediate stays in use.
    pub fn renew_intermediate(&self, now: SystemTime) -> Result<bool, AuthorityError> {
        if now < self.intermediate().validity.tenth(5) {
            return Ok(false);
        }
        let mut validity = span(now, INTERMEDIATE_LIFETIME);
        validity.not_after = validity.not_after.min(self.root.validity.not_after);
        let renewed = template::intermediate(&self.trust_domain, &self.root, validity)?;
        state::store(&self.path, &self.root, &renewed)?;
        *self
            .intermediate
            .write()
            .unwrap_or_else(PoisonError::into_inner) = Arc::new(renewed);
        Ok(true)
    }

    /// The bundle that verifies what this authority signs.
    ///
    /// # Errors
    /// When the root is not usable as one.
    pub fn bundle(&self) -> Result<X509Bundle, AuthorityError> {
        Ok(X509Bundle::new(vec![self.root.certificate.clone()])?)
    }

    fn intermediate(&self) -> Arc<SigningCertificate> {
        Arc::clone(
            &self
                .intermediate
                .read()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl EmbeddedAuthority {
    /// The trust domain in which it signs.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// A new key and an X.509-SVID for it.
    ///
    /// # Errors
    /// When the signer's time is over, or signing fails.
    pub fn mint(&self, entry: &Entry, now: SystemTime) -> Result<X509Svid, AuthorityError> {
        let signer = self.intermediate();
        let mut validity = span(now, entry.ttl().unwrap_or(self.default_ttl));
        validity.not_after = validity.not_after.min(signer.validity.not_after);
        if validity.not_after <= now {
            return Err(AuthorityError::Expired {
                path: self.path.clone(),
            });
        }
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let leaf: CertificateDer<'static> = template::leaf(entry, validity)?
            .signed_by(&key, &signer.issuer()?)?
            .into();
        let key = Zeroizing::new(key.serialize_der());
        let chain = vec![leaf, signer.certificate.clone()];
        Ok(X509Svid::new(
            entry.spiffe_id().clone(),
            chain,
            key,
            validity,
        )?)
    }
}

impl AuthorityError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "SG0120",
            Self::Damaged { .. } => "SG0121",
            Self::ForeignTrustDomain { .. } => "SG0122",
            Self::Expired { .. } => "SG0123",
            Self::Sign(_) | Self::Key(_) | Self::Root(_) => "SG0124",
        }
    }
}

/// From a little before now, for so long; whole seconds, as certificates count.
fn span(now: SystemTime, lifetime: Duration) -> Validity {
    let since_epoch = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(since_epoch.as_secs());
    Validity {
        not_before: now.checked_sub(BACKDATE).unwrap_or(SystemTime::UNIX_EPOCH),
        not_after: now + lifetime,
    }
}

#[cfg(test)]
mod tests;
