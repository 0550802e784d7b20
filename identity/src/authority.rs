//! The embedded certificate authority: a root that signs an intermediate that signs SVIDs.
//!
//! Roots follow one another as `slots.rs` says: published long before they sign, and as long as
//! what they signed may be in use. Intermediates are renewed at half of their life; the bundle does
//! not change by it.

mod state;
mod template;

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::CertificateDer;
use spiffe::TrustDomain;
use tracing::{info, warn};
use zeroize::Zeroizing;

use crate::entry::Entry;
use crate::slots::{self, Phase, Slot};
use crate::svid::{UnusableKey, UnusableRoot, Validity, X509Bundle, X509Svid};
use state::{Authority, SigningCertificate};

/// How long an intermediate may live at most.
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Certificates count from a little before they are made, for peers whose clocks are behind.
const BACKDATE: Duration = Duration::from_secs(10);

/// A self-made authority for one trust domain, P-256 throughout.
pub struct EmbeddedAuthority {
    path: PathBuf,
    trust_domain: TrustDomain,
    lifetimes: Lifetimes,
    slots: RwLock<Vec<Slot<Authority>>>,
}

/// How long what the authority makes may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// A root. Its successor is published at half of it, and signs from the last sixth on.
    pub root: Duration,
    /// An SVID whose entry sets none.
    pub svid: Duration,
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
    /// # Errors
    /// A file that is there and cannot be used is never overwritten.
    pub fn open(
        path: PathBuf,
        trust_domain: TrustDomain,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let slots = state::load(&path, &trust_domain)?;
        let known: Vec<_> = roots(&slots);
        let authority = Self {
            path,
            trust_domain,
            lifetimes,
            slots: RwLock::new(slots),
        };
        authority.advance(now)?;
        let trust_domain = &authority.trust_domain;
        if known.is_empty() {
            info!(%trust_domain, "a new CA is made: peers need its bundle");
        } else if !roots(&authority.slots())
            .iter()
            .any(|root| known.contains(root))
        {
            warn!(
                code = "SG0119",
                %trust_domain,
                "the CA expired while stopped and is replaced: peers need the new bundle",
            );
        }
        Ok(authority)
    }

    /// Prepares, activates and retires roots as their time comes, and renews the intermediate. Says
    /// whether the bundle changed.
    ///
    /// # Errors
    /// Everything stays as it was.
    pub fn advance(&self, now: SystemTime) -> Result<bool, AuthorityError> {
        let mut slots = self.slots();
        let changed = slots::advance(&mut slots, now, || self.make(now))?;
        let mut renewed = false;
        for slot in slots.iter_mut().filter(|slot| slot.phase == Phase::Active) {
            if now >= slot.authority.intermediate.validity.tenth(5) {
                slot.authority.intermediate = self.intermediate(&slot.authority.root, now)?;
                renewed = true;
            }
        }
        if changed || renewed {
            state::store(&self.path, &slots)?;
            *self.slots.write().unwrap_or_else(PoisonError::into_inner) = slots;
        }
        Ok(changed)
    }

    /// The bundle that verifies what this authority signs, or will sign, or has signed.
    ///
    /// # Errors
    /// When a root is not usable as one.
    pub fn bundle(&self) -> Result<X509Bundle, AuthorityError> {
        Ok(X509Bundle::new(roots(&self.slots()))?)
    }

    /// The trust domain in which it signs.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    fn slots(&self) -> Vec<Slot<Authority>> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots.clone()
    }

    fn make(&self, now: SystemTime) -> Result<Authority, AuthorityError> {
        let root = template::root(&self.trust_domain, span(now, self.lifetimes.root))?;
        let intermediate = self.intermediate(&root, now)?;
        let root = Arc::new(root);
        Ok(Authority { root, intermediate })
    }

    fn intermediate(
        &self,
        root: &SigningCertificate,
        now: SystemTime,
    ) -> Result<Arc<SigningCertificate>, AuthorityError> {
        let mut validity = span(now, INTERMEDIATE_LIFETIME.min(self.lifetimes.root / 2));
        validity.not_after = validity.not_after.min(root.validity.not_after);
        Ok(Arc::new(template::intermediate(
            &self.trust_domain,
            root,
            validity,
        )?))
    }

    /// A new key and an X.509-SVID for it.
    ///
    /// # Errors
    /// When the signer's time is over, or signing fails.
    pub fn mint(&self, entry: &Entry, now: SystemTime) -> Result<X509Svid, AuthorityError> {
        let slots = self.slots();
        let expired = || AuthorityError::Expired {
            path: self.path.clone(),
        };
        let signer = &slots::active(&slots).ok_or_else(expired)?.intermediate;
        let mut validity = span(now, entry.ttl().unwrap_or(self.lifetimes.svid));
        validity.not_after = validity.not_after.min(signer.validity.not_after);
        if validity.not_after <= now {
            return Err(expired());
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

/// The roots of all phases.
fn roots(slots: &[Slot<Authority>]) -> Vec<CertificateDer<'static>> {
    let roots = slots
        .iter()
        .map(|slot| slot.authority.root.certificate.clone());
    roots.collect()
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
