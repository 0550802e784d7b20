//! A root, or an intermediate with its chain, that the user brings.
//!
//! Below a root an intermediate is made here, and renewed at half of its life. An intermediate signs
//! SVIDs itself: whoever issued it may have forbidden another one below it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use spiffe::TrustDomain;
use zeroize::Zeroizing;

use super::signer::SigningCertificate;
use super::state::unreadable;
use super::{AuthorityError, EmbeddedAuthority, Lifetimes, Signer, intermediate};
use crate::entry::{Entry, EntryRequest};
use crate::slots::{AuthorityStatus, Phase};
use crate::tls::verify_chain;

/// The files of an authority that is brought along, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BroughtFiles {
    /// The signing certificate, and those above it without the root.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// The roots that peers are to trust; needed unless the certificate is a root.
    pub bundle: Option<PathBuf>,
}

/// An authority that was brought along.
pub(super) struct Brought {
    path: PathBuf,
    signing: Arc<SigningCertificate>,
    /// The signing certificate and those above it, without the root.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    /// Ours, below a root.
    intermediate: Option<RwLock<Arc<SigningCertificate>>>,
}

impl Brought {
    pub(super) fn read(
        files: &BroughtFiles,
        trust_domain: &TrustDomain,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<Self, AuthorityError> {
        let refused = |path: &Path, problem: &str| AuthorityError::Brought {
            path: path.to_owned(),
            trust_domain: trust_domain.clone(),
            problem: problem.to_owned(),
        };
        let chain = certificates(&files.certificate)?;
        let first = chain
            .first()
            .ok_or_else(|| refused(&files.certificate, "it holds no certificate"))?;
        let key = private_key(&files.key, &refused)?;
        let signing = SigningCertificate::read(first.clone(), key)
            .map_err(|problem| refused(&files.certificate, &problem))?;
        let named = signing.spiffe_id();
        let named = named.map_err(|problem| refused(&files.certificate, &problem))?;
        if let Some(found) = named.filter(|id| *id != trust_domain.id_string()) {
            return Err(AuthorityError::ForeignTrustDomain {
                path: files.certificate.clone(),
                found,
                wanted: trust_domain.clone(),
            });
        }
        let is_root = signing
            .names_itself()
            .map_err(|problem| refused(&files.certificate, &problem))?;
        let roots = match (&files.bundle, is_root) {
            (Some(bundle), _) => certificates(bundle)?,
            (None, true) => vec![first.clone()],
            (None, false) => {
                let problem = "it is no root, so `bundle` must name the roots above it";
                return Err(refused(&files.certificate, problem));
            }
        };
        if is_root && chain.len() > 1 {
            return Err(refused(&files.certificate, "certificates follow a root"));
        }
        if is_root && !roots.contains(first) {
            return Err(refused(
                &files.certificate,
                "it is a root and not in `bundle`",
            ));
        }
        let signing = Arc::new(signing);
        let intermediate = is_root
            .then(|| intermediate(trust_domain, &signing, lifetimes, now))
            .transpose()?;
        Ok(Self {
            path: files.certificate.clone(),
            chain: if is_root { Vec::new() } else { chain },
            signing,
            roots,
            intermediate: intermediate.map(|made| RwLock::new(Arc::new(made))),
        })
    }

    /// Renews the intermediate at half of its life.
    pub(super) fn renew(
        &self,
        trust_domain: &TrustDomain,
        lifetimes: Lifetimes,
        now: SystemTime,
    ) -> Result<(), AuthorityError> {
        let Some(current) = &self.intermediate else {
            return Ok(());
        };
        let half = {
            let current = current.read().unwrap_or_else(PoisonError::into_inner);
            current.validity.tenth(5)
        };
        if now >= half {
            let made = intermediate(trust_domain, &self.signing, lifetimes, now)?;
            *current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(made);
        }
        Ok(())
    }

    pub(super) fn signer(&self) -> Signer {
        match &self.intermediate {
            Some(made) => {
                let made = made.read().unwrap_or_else(PoisonError::into_inner);
                Signer {
                    signer: Arc::clone(&made),
                    chain: vec![made.certificate.clone()],
                }
            }
            None => Signer {
                signer: Arc::clone(&self.signing),
                chain: self.chain.clone(),
            },
        }
    }

    pub(super) fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn status(&self) -> Vec<AuthorityStatus> {
        let (id, validity) = (self.signing.key_id(), self.signing.validity);
        vec![AuthorityStatus::new(id, Phase::Active, validity)]
    }
}

impl EmbeddedAuthority {
    /// Signs one SVID and verifies it as a peer would: whatever is wrong with what was brought, it
    /// shows before any workload gets it.
    pub(super) fn prove(&self, path: &Path, now: SystemTime) -> Result<(), AuthorityError> {
        let refused = |problem: String| AuthorityError::Brought {
            path: path.to_owned(),
            trust_domain: self.trust_domain.clone(),
            problem,
        };
        let request = EntryRequest {
            spiffe_id: format!("{}/probe", self.trust_domain.id_string()),
            selectors: vec!["unix:uid:0".to_owned()],
            ..EntryRequest::default()
        };
        let entry = Entry::new(request, &self.trust_domain);
        let entry = entry.map_err(|error| refused(error.to_string()))?;
        let probe = self.mint(&entry, now)?;
        verify_chain(probe.chain(), &self.bundle()?, now)
            .map_err(|error| refused(format!("peers would refuse its SVIDs: {error}")))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, AuthorityError> {
    let content = fs::read(path).map_err(|source| unreadable(path, source))?;
    CertificateDer::pem_slice_iter(&content)
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(path, io::Error::other(error.to_string())))
}

/// A private key that others cannot read.
fn private_key(
    path: &Path,
    refused: &impl Fn(&Path, &str) -> AuthorityError,
) -> Result<KeyPair, AuthorityError> {
    let metadata = fs::metadata(path).map_err(|source| unreadable(path, source))?;
    if metadata.mode() & 0o027 != 0 {
        let problem = "others may read or change it; a private key's mode should be 600 or 640";
        return Err(refused(path, problem));
    }
    let content = fs::read_to_string(path).map(Zeroizing::new);
    let content = content.map_err(|source| unreadable(path, source))?;
    KeyPair::from_pem(&content).map_err(|_| refused(path, "it holds no private key in PEM"))
}
