//! The embedded certificate authority: a root that signs an intermediate that signs SVIDs.
//!
//! Roots follow one another as `slots.rs` says: published long before they sign, and as long as
//! what they signed may be in use. Intermediates are renewed at half of their life; the bundle does
//! not change by it. A root, or an intermediate, may also be brought along: then only what is below
//! it is made here.

mod brought;
mod error;
mod signer;
mod state;
mod template;

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rcgen::{PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use rustls::pki_types::CertificateDer;
use spiffe::TrustDomain;
use tracing::{error, info, warn};
use zeroize::Zeroizing;

use crate::clock::{moment, seconds};
use crate::entry::Entry;
use crate::slots::{self, AuthorityStatus, Phase, Slot};
use crate::svid::{Validity, X509Bundle, X509Svid};
use brought::Brought;
pub use brought::BroughtFiles;
pub use error::AuthorityError;
use signer::SigningCertificate;
use state::Authority;

/// How long an intermediate may live at most.
const INTERMEDIATE_LIFETIME: Duration = Duration::from_secs(7 * 24 * 3600);

/// Certificates count from a little before they are made, for peers whose clocks are behind.
pub const BACKDATE: Duration = Duration::from_secs(10);

/// The authority of one trust domain.
pub struct EmbeddedAuthority {
    trust_domain: TrustDomain,
    lifetimes: Lifetimes,
    roots: Roots,
}

/// Where the root comes from.
enum Roots {
    /// Made here, P-256 throughout, and kept in a file.
    Own {
        path: PathBuf,
        slots: RwLock<Vec<Slot<Authority>>>,
    },
    /// The user's own.
    Brought(Box<Brought>),
}

/// How long what the authority makes may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifetimes {
    /// A root. Its successor is published at half of it, and signs from the last sixth on.
    pub root: Duration,
    /// An SVID whose entry sets none.
    pub svid: Duration,
}

/// A new key of a leaf. Unlike `rcgen::KeyPair` it is not encoded, parsed and checked again.
struct LeafKey(EcdsaKeyPair);

/// What signs SVIDs, and what stands between it and the roots.
struct Signer {
    signer: Arc<SigningCertificate>,
    /// The signer's own certificate, and those above it without the root.
    chain: Vec<CertificateDer<'static>>,
    /// When the first of all of them ends, roots included.
    end: SystemTime,
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
            trust_domain,
            lifetimes,
            roots: Roots::Own {
                path,
                slots: RwLock::new(slots),
            },
        };
        if let Err(error) = authority.advance(now) {
            // Such as a full disk: what is there signs for as long as it can.
            if !authority.can_sign(now) {
                return Err(error);
            }
            let (code, error) = (error.code(), crate::chain(&error));
            error!(
                code,
                error, "the authority is not renewed; it signs for as long as it can"
            );
        }
        let trust_domain = &authority.trust_domain;
        if known.is_empty() {
            info!(%trust_domain, "a new CA is made: peers need its bundle");
        } else if !authority.roots().iter().any(|root| known.contains(root)) {
            warn!(
                code = "SG0119",
                %trust_domain,
                "the CA expired while stopped and is replaced: peers need the new bundle",
            );
        }
        Ok(authority)
    }

    /// The roots that are kept in `path`, without changing anything; none where there is no file.
    ///
    /// # Errors
    /// When the file that is there cannot be used.
    pub fn examine(
        path: &Path,
        trust_domain: &TrustDomain,
    ) -> Result<Vec<AuthorityStatus>, AuthorityError> {
        Ok(slots::status(&state::load(path, trust_domain)?))
    }

    /// Takes a root, or an intermediate with its chain, from files.
    ///
    /// # Errors
    /// When it could not sign an SVID that peers accept.
    pub fn brought(
        files: &BroughtFiles,
        trust_domain: TrustDomain,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let brought = Brought::read(files, &trust_domain, lifetimes, now)?;
        let authority = Self {
            trust_domain,
            lifetimes,
            roots: Roots::Brought(Box::new(brought)),
        };
        authority.prove(&files.certificate, now)?;
        Ok(authority)
    }

    /// Prepares, activates and retires roots as their time comes, and renews the intermediate. Says
    /// whether the bundle changed.
    ///
    /// # Errors
    /// Everything stays as it was.
    pub fn advance(&self, now: SystemTime) -> Result<bool, AuthorityError> {
        match &self.roots {
            Roots::Brought(brought) => {
                brought.renew(&self.trust_domain, self.lifetimes, now)?;
                Ok(false)
            }
            Roots::Own { .. } => self.change(|slots| {
                let changed = slots::advance(slots, now, || self.make(now))?;
                let mut renewed = false;
                for slot in slots.iter_mut().filter(|slot| slot.phase == Phase::Active) {
                    if now >= slot.authority.intermediate.validity.tenth(5) {
                        slot.authority.intermediate =
                            self.intermediate(&slot.authority.root, now)?;
                        renewed = true;
                    }
                }
                Ok((changed, changed || renewed))
            }),
        }
    }

    /// Makes the successor of the active root and publishes it, unless there is one. Says whether
    /// the bundle changed.
    ///
    /// # Errors
    /// Everything stays as it was.
    pub fn prepare(&self, now: SystemTime) -> Result<bool, AuthorityError> {
        self.change(|slots| {
            let changed = slots::prepare(slots, || self.make(now))?;
            Ok((changed, changed))
        })
    }

    /// Lets the prepared root sign from now on.
    ///
    /// # Errors
    /// When there is none; everything stays as it was.
    pub fn activate(&self) -> Result<(), AuthorityError> {
        self.change(|slots| Ok((slots::activate(slots)?, true)))
    }

    /// Marks an old root, and says which: nothing that it signed should be in use any more.
    ///
    /// # Errors
    /// When there is no such old root; everything stays as it was.
    pub fn taint(&self, id: Option<&str>) -> Result<String, AuthorityError> {
        self.change(|slots| Ok((slots::taint(slots, id)?, true)))
    }

    /// Takes a tainted root out of the bundle, and says which.
    ///
    /// # Errors
    /// When there is no such tainted root; everything stays as it was.
    pub fn revoke(&self, id: Option<&str>) -> Result<String, AuthorityError> {
        self.change(|slots| Ok((slots::revoke(slots, id)?, true)))
    }

    /// The roots and their phases.
    pub fn status(&self) -> Vec<AuthorityStatus> {
        match &self.roots {
            Roots::Own { slots, .. } => slots::status(&read(slots)),
            Roots::Brought(brought) => brought.status(),
        }
    }

    /// The bundle that verifies what this authority signs, or will sign, or has signed.
    ///
    /// # Errors
    /// When a root is not usable as one.
    pub fn bundle(&self) -> Result<X509Bundle, AuthorityError> {
        let bundle = X509Bundle::new(self.roots())?;
        match &self.roots {
            Roots::Own { slots, .. } => {
                let slots = read(slots).into_iter();
                let tainted: Vec<_> = slots.filter(|slot| slot.phase == Phase::Tainted).collect();
                Ok(bundle.tainted(&roots(&tainted))?)
            }
            Roots::Brought(_) => Ok(bundle),
        }
    }

    /// Names the root that signs now.
    pub fn active_id(&self) -> Arc<str> {
        match &self.roots {
            Roots::Own { slots, .. } => {
                let slots = slots.read().unwrap_or_else(PoisonError::into_inner);
                slots::active(&slots).map_or_else(|| "".into(), |active| Arc::clone(&active.id))
            }
            Roots::Brought(_) => "".into(),
        }
    }

    /// The trust domain in which it signs.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// A new key and an X.509-SVID for it.
    ///
    /// # Errors
    /// When the signer's time is over, or signing fails.
    pub fn mint(&self, entry: &Entry, now: SystemTime) -> Result<X509Svid, AuthorityError> {
        let Signer { signer, chain, end } = self.signer()?;
        let mut validity = span(now, entry.x509_svid_ttl().unwrap_or(self.lifetimes.svid));
        validity.not_after = validity.not_after.min(end);
        if validity.not_after <= now {
            return Err(self.expired());
        }
        let key = LeafKey::generate()?;
        let leaf: CertificateDer<'static> = template::leaf(entry, validity)?
            .signed_by(&key, &signer.issuer)?
            .into();
        let key = key.to_pkcs8()?;
        let chain = std::iter::once(leaf).chain(chain).collect();
        Ok(X509Svid::new(
            entry.spiffe_id().clone(),
            chain,
            key,
            validity,
        )?)
    }

    fn can_sign(&self, now: SystemTime) -> bool {
        let signer = self.signer();
        signer.is_ok_and(|Signer { end, .. }| now < end)
    }

    fn signer(&self) -> Result<Signer, AuthorityError> {
        match &self.roots {
            Roots::Brought(brought) => Ok(brought.signer()),
            Roots::Own { slots, .. } => {
                let slots = slots.read().unwrap_or_else(PoisonError::into_inner);
                let active = slots::active(&slots).ok_or_else(|| self.expired())?;
                Ok(Signer {
                    signer: Arc::clone(&active.intermediate),
                    chain: vec![active.intermediate.certificate.clone()],
                    end: active.intermediate.validity.not_after,
                })
            }
        }
    }

    fn expired(&self) -> AuthorityError {
        AuthorityError::Expired {
            path: match &self.roots {
                Roots::Own { path, .. } => path.clone(),
                Roots::Brought(brought) => brought.path().to_owned(),
            },
        }
    }

    fn roots(&self) -> Vec<CertificateDer<'static>> {
        match &self.roots {
            Roots::Own { slots, .. } => roots(&read(slots)),
            Roots::Brought(brought) => brought.roots().to_vec(),
        }
    }

    /// Changes the slots and writes them, if `change` says so; both or neither.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Vec<Slot<Authority>>) -> Result<(T, bool), AuthorityError>,
    ) -> Result<T, AuthorityError> {
        let Roots::Own { path, slots: kept } = &self.roots else {
            return Err(AuthorityError::NotOurs);
        };
        let mut slots = read(kept);
        let (outcome, changed) = change(&mut slots)?;
        if changed {
            state::store(path, &slots)?;
            *kept.write().unwrap_or_else(PoisonError::into_inner) = slots;
        }
        Ok(outcome)
    }

    fn make(&self, now: SystemTime) -> Result<Authority, AuthorityError> {
        let root = template::root(&self.trust_domain, span(now, self.lifetimes.root))?;
        let intermediate = self.intermediate(&root, now)?;
        Ok(Authority::new(Arc::new(root), intermediate))
    }

    fn intermediate(
        &self,
        root: &SigningCertificate,
        now: SystemTime,
    ) -> Result<Arc<SigningCertificate>, AuthorityError> {
        let (trust_domain, lifetimes) = (&self.trust_domain, self.lifetimes);
        Ok(Arc::new(intermediate(trust_domain, root, lifetimes, now)?))
    }
}

impl LeafKey {
    fn generate() -> Result<Self, rcgen::Error> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING);
        Ok(Self(key.map_err(|_| rcgen::Error::RingUnspecified)?))
    }

    fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, rcgen::Error> {
        let document = self.0.to_pkcs8v1();
        let document = document.map_err(|_| rcgen::Error::RingUnspecified)?;
        Ok(Zeroizing::new(document.as_ref().to_vec()))
    }
}

impl PublicKeyData for LeafKey {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// An intermediate below a root, for as long as it may live.
fn intermediate(
    trust_domain: &TrustDomain,
    root: &SigningCertificate,
    lifetimes: Lifetimes,
    now: SystemTime,
) -> Result<SigningCertificate, AuthorityError> {
    let mut validity = span(now, INTERMEDIATE_LIFETIME.min(lifetimes.root / 2));
    validity.not_after = validity.not_after.min(root.validity.not_after);
    Ok(template::intermediate(trust_domain, root, validity)?)
}

fn read(slots: &RwLock<Vec<Slot<Authority>>>) -> Vec<Slot<Authority>> {
    let slots = slots.read().unwrap_or_else(PoisonError::into_inner);
    slots.clone()
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
    let now = moment(seconds(now));
    Validity {
        not_before: now.checked_sub(BACKDATE).unwrap_or(SystemTime::UNIX_EPOCH),
        not_after: now + lifetime,
    }
}

#[cfg(test)]
mod tests;
