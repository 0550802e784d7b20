//! A root, or an intermediate with its chain, that the user brings.
//!
//! Below a root an intermediate is made here, and renewed at half of its life. An intermediate signs
//! SVIDs itself: whoever issued it may have forbidden another one below it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::SystemTime;

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use spiffe::TrustDomain;
use zeroize::Zeroizing;

use super::signer::{self, SigningCertificate};
use super::state::unreadable;
use super::{AuthorityError, EmbeddedAuthority, Lifetimes, Signer, intermediate};
use crate::entry::{Entry, EntryRequest};
use crate::slots::{AuthorityStatus, Phase};
use crate::spiffe_bundle::SpiffeBundle;
use crate::svid::X509Bundle;
use crate::tls::{describe, verify_chain};

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
    /// When the first of the signing certificate, those above it and the roots ends.
    end: SystemTime,
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
        let of_certificate = |problem: String| refused(&files.certificate, &problem);
        if is_root {
            signing.check_signs_signers().map_err(of_certificate)?;
        }
        check_order(&chain, is_root).map_err(of_certificate)?;
        let of_bundle = files.bundle.as_ref().unwrap_or(&files.certificate);
        check_roots(&roots, trust_domain).map_err(|problem| refused(of_bundle, &problem))?;
        let ends = chain.iter().chain(&roots).map(signer::end);
        let end = ends
            .collect::<Result<Vec<_>, _>>()
            .map_err(of_certificate)?;
        let end = end.into_iter().min().unwrap_or(now);
        if end <= now {
            return Err(AuthorityError::Expired {
                path: files.certificate.clone(),
            });
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
            end,
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
                    end: self.end.min(made.validity.not_after),
                }
            }
            None => Signer {
                signer: Arc::clone(&self.signing),
                chain: self.chain.clone(),
                end: self.end,
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
        verify_chain(probe.chain(), &self.bundle()?, now).map_err(|error| {
            refused(format!(
                "peers would refuse its SVIDs: {}",
                describe(&error)
            ))
        })
    }
}

/// Each certificate is followed by the one that signed it, and none is a root: peers have those.
fn check_order(chain: &[CertificateDer<'_>], is_root: bool) -> Result<(), String> {
    for (issued, issuer) in chain.iter().zip(chain.iter().skip(1)) {
        if !signer::names_as_issuer(issued, issuer)? {
            return Err("a certificate is not followed by the one that signed it".to_owned());
        }
    }
    match chain.last() {
        Some(last) if !is_root && signer::names_as_issuer(last, last)? => {
            Err("the root is among its certificates; it belongs into `bundle` alone".to_owned())
        }
        _ => Ok(()),
    }
}

/// Roots that peers could use: in every form in which bundles are given to them.
fn check_roots(
    roots: &[CertificateDer<'static>],
    trust_domain: &TrustDomain,
) -> Result<(), String> {
    let causes = |error: &dyn std::error::Error| crate::chain(error);
    let bundle = X509Bundle::new(roots.to_vec()).map_err(|error| causes(&error))?;
    bundle.check(trust_domain).map_err(|error| causes(&error))?;
    let written = SpiffeBundle {
        x509_authorities: roots.to_vec(),
        ..SpiffeBundle::default()
    };
    let read = SpiffeBundle::parse(written.to_json().as_bytes()).map_err(|error| causes(&error))?;
    if read.x509_authorities.len() != roots.len() {
        return Err("a root's key is neither RSA nor on P-256, P-384 or P-521".to_owned());
    }
    Ok(())
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
    let mut file = File::open(path).map_err(|source| unreadable(path, source))?;
    let metadata = file.metadata();
    let metadata = metadata.map_err(|source| unreadable(path, source))?;
    if metadata.mode() & 0o027 != 0 {
        let problem = "others may read or change it; a private key's mode should be 600 or 640";
        return Err(refused(path, problem));
    }
    let mut content = Zeroizing::new(String::new());
    file.read_to_string(&mut content)
        .map_err(|source| unreadable(path, source))?;
    KeyPair::from_pem(&content).map_err(|_| refused(path, "it holds no private key in PEM"))
}
