//! The `files` source: PEM files that cert-manager, spiffe-helper, an istio agent or a person keeps.
//!
//! They are read twice a second, and taken once they have changed and then kept still for one look:
//! all three, or none of them. Reading sees what notifications of the kernel do not tell, such as
//! links that Kubernetes changes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1_SIGNING,
    EcdsaKeyPair, RsaKeyPair,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use spiffe::TrustDomain;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::error::ReceivedError;
use super::set::{Raw, ReceivedSet, bundle};
use super::{Absence, ReceivedSource};
use crate::durable;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// The longest file: more than any chain or bundle has.
const LONGEST: u64 = 1 << 20;

/// The files of one X.509-SVID, all PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SvidFiles {
    /// The SVID, followed by the certificates above it.
    pub svid: PathBuf,
    /// Its private key: PKCS#8, PKCS#1 or SEC 1.
    pub key: PathBuf,
    /// The roots of the trust domain.
    pub bundle: PathBuf,
}

/// What is in the files, in their order.
#[derive(PartialEq, Eq)]
struct Content([Zeroizing<Vec<u8>>; 3]);

/// What the files were read as last, and what came of it.
#[derive(Default)]
pub(super) struct Looks {
    last: Option<Content>,
    /// What was tried last, good or not.
    tried: Option<Content>,
    is_refused: bool,
}

impl SvidFiles {
    /// Reads and checks the files, as they are now.
    pub(super) fn read(
        &self,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<ReceivedSet, ReceivedError> {
        self.parse(&self.content()?, trust_domain, now)
    }

    fn content(&self) -> Result<Content, ReceivedError> {
        let read = |path: &Path| {
            durable::read_bounded(path, LONGEST).map_err(|source| ReceivedError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let Self { svid, key, bundle } = self;
        Ok(Content([read(svid)?, read(key)?, read(bundle)?]))
    }

    fn parse(
        &self,
        Content([svid, key, roots]): &Content,
        trust_domain: &TrustDomain,
        now: SystemTime,
    ) -> Result<ReceivedSet, ReceivedError> {
        let roots = certificates(&self.bundle, roots)?;
        let what = format!("the bundle in {}", self.bundle.display());
        let bundle = bundle(&what, trust_domain, roots, now)?;
        let raw = Raw {
            what: format!("the SVID in {}", self.svid.display()),
            chain: certificates(&self.svid, svid)?,
            key: private_key(&self.key, key)?,
        };
        let bundles = [(trust_domain.clone(), Arc::new(bundle))].into();
        let svid = raw.svid(trust_domain, &bundles, now)?;
        Ok(ReceivedSet {
            svids: vec![Arc::new(svid)],
            bundles,
        })
    }
}

impl ReceivedSource {
    /// Follows the files until told to stop.
    pub(super) async fn follow_files(self: Arc<Self>, files: SvidFiles, stop: CancellationToken) {
        let mut looks = Looks::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => {}
            }
            let (source, files) = (Arc::clone(&self), files.clone());
            let looked = tokio::task::spawn_blocking(move || {
                source.look(&files, &mut looks);
                looks
            });
            // A look that panics is forgotten: the next one reads everything again.
            looks = looked.await.unwrap_or_default();
        }
    }

    /// Takes the files where they have changed and kept still since the look before.
    fn look(&self, files: &SvidFiles, looks: &mut Looks) {
        self.tick();
        let content = match files.content() {
            Ok(content) => content,
            Err(error) => {
                // One that is being replaced may be away for a moment: two looks in a row count.
                if looks.last.take().is_none() {
                    looks.tried = None;
                    looks.is_refused = true;
                    self.fail(&error);
                }
                return;
            }
        };
        let is_still = looks.last.as_ref() == Some(&content);
        // What was refused may count by now, and what was taken no longer.
        let is_settled = !looks.is_refused && !self.has_expired();
        let is_known = looks.tried.as_ref() == Some(&content) && is_settled;
        if is_still && !is_known {
            let taken = files
                .parse(&content, self.trust_domain(), self.clock.now())
                .and_then(|set| self.take(set, Absence::Refused));
            looks.is_refused = taken.is_err();
            match taken {
                Ok(()) => self.is_up(),
                Err(error) => self.fail(&error),
            }
            looks.tried = looks.last.take();
        }
        looks.last = Some(content);
    }
}

fn certificates(
    path: &Path,
    content: &[u8],
) -> Result<Vec<CertificateDer<'static>>, ReceivedError> {
    let refused = |problem: String| ReceivedError::File {
        path: path.to_owned(),
        problem,
    };
    let certificates = CertificateDer::pem_slice_iter(content)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| refused(format!("is not PEM: {error}")))?;
    match certificates.as_slice() {
        [] => Err(refused("holds no certificate in PEM".to_owned())),
        _ => Ok(certificates),
    }
}

/// A private key as PKCS#8, in which the Workload API hands it out.
fn private_key(path: &Path, content: &[u8]) -> Result<Zeroizing<Vec<u8>>, ReceivedError> {
    let refused = |problem: &str| ReceivedError::File {
        path: path.to_owned(),
        problem: problem.to_owned(),
    };
    let key = PrivateKeyDer::from_pem_slice(content);
    let key = key.map_err(|_| refused("holds no private key in PEM"))?;
    let converted = match &key {
        PrivateKeyDer::Pkcs8(key) => Some(Zeroizing::new(key.secret_pkcs8_der().to_vec())),
        PrivateKeyDer::Pkcs1(key) => RsaKeyPair::from_der(key.secret_pkcs1_der())
            .ok()
            .and_then(|pair| AsDer::<Pkcs8V1Der<'_>>::as_der(&pair).ok())
            .map(|der| Zeroizing::new(der.as_ref().to_vec())),
        PrivateKeyDer::Sec1(key) => [
            &ECDSA_P256_SHA256_ASN1_SIGNING,
            &ECDSA_P384_SHA384_ASN1_SIGNING,
            &ECDSA_P521_SHA512_ASN1_SIGNING,
        ]
        .into_iter()
        .find_map(|curve| EcdsaKeyPair::from_private_key_der(curve, key.secret_sec1_der()).ok())
        .and_then(|pair| pair.to_pkcs8v1().ok())
        .map(|der| Zeroizing::new(der.as_ref().to_vec())),
        _ => None,
    };
    converted.ok_or_else(|| refused("holds a private key of a kind that cannot be used"))
}
