//! The authorities on disk, as PEM in one file, so that replacing it is one atomic step.
//!
//! Each stands as root certificate, root key, intermediate certificate, intermediate key. A header of
//! the first block (RFC 1421 section 4.6) says in which phase it is.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rcgen::KeyPair;
use spiffe::TrustDomain;
use zeroize::Zeroizing;

use super::AuthorityError;
use super::signer::SigningCertificate;
use crate::slots::{Lived, Phase, Slot};
use crate::svid::Validity;
use crate::{durable, encoding};

const PHASE: &str = "Phase";

/// A root with the intermediate that signs for it.
#[derive(Clone)]
pub(super) struct Authority {
    /// The root's key identifier, hex.
    pub(super) id: Arc<str>,
    pub(super) root: Arc<SigningCertificate>,
    pub(super) intermediate: Arc<SigningCertificate>,
}

impl Authority {
    pub(super) fn new(
        root: Arc<SigningCertificate>,
        intermediate: Arc<SigningCertificate>,
    ) -> Self {
        Self {
            id: root.key_id().into(),
            root,
            intermediate,
        }
    }
}

impl Lived for Authority {
    fn id(&self) -> &str {
        &self.id
    }

    fn validity(&self) -> Validity {
        self.root.validity
    }
}

/// Writes everything in one step.
pub(super) fn store(path: &Path, slots: &[Slot<Authority>]) -> Result<(), AuthorityError> {
    let mut content = Zeroizing::new(String::with_capacity(8192));
    for slot in slots {
        for signer in [&slot.authority.root, &slot.authority.intermediate] {
            let mut block = pem::Pem::new("CERTIFICATE", signer.certificate.as_ref());
            if Arc::ptr_eq(signer, &slot.authority.root) {
                let phase = slot.phase.to_string();
                let added = block.headers_mut().add(PHASE, &phase);
                added.map_err(|error| damaged(path, error.to_string()))?;
            }
            content.push_str(&pem::encode_config(&block, encoding::line_feeds()));
            content.push_str(&encoding::private_key_pem(
                signer.issuer.key().serialized_der(),
            ));
        }
    }
    durable::replace(path, content.as_bytes()).map_err(|source| AuthorityError::File {
        action: "write",
        path: path.to_owned(),
        source,
    })
}

/// The authorities; none where there is no file.
pub(super) fn load(
    path: &Path,
    trust_domain: &TrustDomain,
) -> Result<Vec<Slot<Authority>>, AuthorityError> {
    let read = durable::read(path).map_err(|source| unreadable(path, source))?;
    let Some(content) = read else {
        return Ok(Vec::new());
    };
    let damaged = |problem: String| damaged(path, problem);
    let blocks = pem::parse_many(content.as_slice()).map_err(|error| damaged(error.to_string()))?;
    let groups = blocks.chunks_exact(4);
    if blocks.is_empty() || !groups.remainder().is_empty() {
        return Err(damaged(format!(
            "it has {} PEM blocks, not four for each authority",
            blocks.len()
        )));
    }
    let slots = groups
        .map(|group| slot(group).map_err(damaged))
        .collect::<Result<Vec<_>, _>>()?;
    for Slot { authority, .. } in &slots {
        for signer in [&authority.root, &authority.intermediate] {
            let found = signer.spiffe_id().map_err(damaged)?;
            if found.as_ref() != Some(&trust_domain.id_string()) {
                return Err(AuthorityError::ForeignTrustDomain {
                    path: path.to_owned(),
                    found: found.unwrap_or_default(),
                    wanted: trust_domain.clone(),
                });
            }
        }
    }
    let active = slots.iter().filter(|slot| slot.phase == Phase::Active);
    if active.count() != 1 {
        return Err(damaged("not exactly one authority is active".to_owned()));
    }
    Ok(slots)
}

pub(super) fn unreadable(path: &Path, source: io::Error) -> AuthorityError {
    AuthorityError::File {
        action: "read",
        path: path.to_owned(),
        source,
    }
}

fn damaged(path: &Path, problem: String) -> AuthorityError {
    AuthorityError::Damaged {
        path: path.to_owned(),
        problem,
    }
}

/// One authority, from its four blocks.
fn slot(blocks: &[pem::Pem]) -> Result<Slot<Authority>, String> {
    let [root, root_key, intermediate, intermediate_key] = blocks else {
        return Err("it has an authority that is not complete".to_owned());
    };
    let phase = match root.headers().get(PHASE) {
        Some("prepared") => Phase::Prepared,
        Some("active") => Phase::Active,
        Some("old") => Phase::Old,
        Some("tainted") => Phase::Tainted,
        _ => return Err("it has an authority whose phase is not known".to_owned()),
    };
    let root = signer(root, root_key)?;
    let intermediate = signer(intermediate, intermediate_key)?;
    if !root.names_itself()? || intermediate.names_itself()? {
        return Err("it has no root where one should be, or no intermediate".to_owned());
    }
    if !intermediate.names_as_issuer(&root)? {
        return Err("it has an intermediate that its root did not sign".to_owned());
    }
    let authority = Authority::new(Arc::new(root), Arc::new(intermediate));
    Ok(Slot { phase, authority })
}

fn signer(certificate: &pem::Pem, key: &pem::Pem) -> Result<SigningCertificate, String> {
    if (certificate.tag(), key.tag()) != ("CERTIFICATE", "PRIVATE KEY") {
        return Err(format!(
            "it has {} and {} where a certificate and its key should be",
            certificate.tag(),
            key.tag()
        ));
    }
    let key = KeyPair::try_from(key.contents()).map_err(|error| error.to_string())?;
    SigningCertificate::read(certificate.contents().to_vec().into(), key)
}
