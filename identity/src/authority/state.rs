//! The authorities on disk, as PEM in one file, so that replacing it is one atomic step.
//!
//! Each stands as root certificate, root key, intermediate certificate, intermediate key. The first
//! is the active one; one whose time begins later is prepared, one whose time began before is old.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::KeyPair;
use rustls::pki_types::CertificateDer;
use spiffe::TrustDomain;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::AuthorityError;
use crate::slots::{Lived, Phase, Slot};
use crate::svid::Validity;
use crate::{durable, encoding};

/// A root with the intermediate that signs for it.
#[derive(Clone)]
pub(super) struct Authority {
    pub(super) root: Arc<SigningCertificate>,
    pub(super) intermediate: Arc<SigningCertificate>,
}

impl Lived for Authority {
    fn validity(&self) -> Validity {
        self.root.validity
    }
}

/// A certificate that signs others, with its key.
pub(super) struct SigningCertificate {
    pub(super) certificate: CertificateDer<'static>,
    pub(super) key: KeyPair,
    pub(super) validity: Validity,
}

impl SigningCertificate {
    pub(super) fn issuer(&self) -> Result<rcgen::Issuer<'static, &KeyPair>, rcgen::Error> {
        rcgen::Issuer::from_ca_cert_der(&self.certificate, &self.key)
    }
}

/// Writes everything in one step, the active authority first.
pub(super) fn store(path: &Path, slots: &[Slot<Authority>]) -> Result<(), AuthorityError> {
    let (active, others): (Vec<_>, Vec<_>) =
        slots.iter().partition(|slot| slot.phase == Phase::Active);
    let mut content = Zeroizing::new(String::with_capacity(8192));
    for slot in active.into_iter().chain(others) {
        for signer in [&slot.authority.root, &slot.authority.intermediate] {
            content.push_str(&encoding::certificates_pem([&signer.certificate]));
            content.push_str(&encoding::private_key_pem(signer.key.serialized_der()));
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
    let content = match std::fs::read_to_string(path) {
        Ok(content) => Zeroizing::new(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => {
            return Err(AuthorityError::File {
                action: "read",
                path: path.to_owned(),
                source,
            });
        }
    };
    let damaged = |problem: String| AuthorityError::Damaged {
        path: path.to_owned(),
        problem,
    };
    let blocks = pem::parse_many(content.as_bytes()).map_err(|error| damaged(error.to_string()))?;
    let groups = blocks.chunks_exact(4);
    if blocks.is_empty() || !groups.remainder().is_empty() {
        return Err(damaged(format!(
            "it has {} PEM blocks, not four for each authority",
            blocks.len()
        )));
    }
    let authorities = groups
        .map(|group| authority(group).map_err(damaged))
        .collect::<Result<Vec<_>, _>>()?;
    for authority in &authorities {
        for signer in [&authority.root, &authority.intermediate] {
            let found = authority_id(&signer.certificate).map_err(damaged)?;
            if found != trust_domain.id_string() {
                return Err(AuthorityError::ForeignTrustDomain {
                    path: path.to_owned(),
                    found,
                    wanted: trust_domain.clone(),
                });
            }
        }
    }
    let since = authorities
        .first()
        .map(|active| active.root.validity.not_before);
    let slots = authorities
        .into_iter()
        .enumerate()
        .map(|(index, authority)| {
            let phase = match index {
                0 => Phase::Active,
                _ if Some(authority.root.validity.not_before) > since => Phase::Prepared,
                _ => Phase::Old,
            };
            Slot { phase, authority }
        });
    Ok(slots.collect())
}

/// One authority, from its four blocks.
fn authority(blocks: &[pem::Pem]) -> Result<Authority, String> {
    let [root, root_key, intermediate, intermediate_key] = blocks else {
        return Err("it has an authority that is not complete".to_owned());
    };
    let root = signer(root, root_key)?;
    let intermediate = signer(intermediate, intermediate_key)?;
    if !is_issued_by(&root, &root)? || is_issued_by(&intermediate, &intermediate)? {
        return Err("it has no root where one should be, or no intermediate".to_owned());
    }
    if !is_issued_by(&intermediate, &root)? {
        return Err("it has an intermediate that its root did not sign".to_owned());
    }
    Ok(Authority {
        root: Arc::new(root),
        intermediate: Arc::new(intermediate),
    })
}

fn signer(certificate: &pem::Pem, key: &pem::Pem) -> Result<SigningCertificate, String> {
    if (certificate.tag(), key.tag()) != ("CERTIFICATE", "PRIVATE KEY") {
        return Err(format!(
            "it has {} and {} where a certificate and its key should be",
            certificate.tag(),
            key.tag()
        ));
    }
    let der = CertificateDer::from(certificate.contents().to_vec());
    let key = KeyPair::try_from(key.contents()).map_err(|error| error.to_string())?;
    let parsed = parse(&der)?;
    if parsed.public_key().subject_public_key.data.as_ref() != rcgen::PublicKeyData::der_bytes(&key)
    {
        return Err("a key does not belong to the certificate before it".to_owned());
    }
    let validity = Validity {
        not_before: moment(parsed.validity().not_before.timestamp()),
        not_after: moment(parsed.validity().not_after.timestamp()),
    };
    Ok(SigningCertificate {
        certificate: der,
        key,
        validity,
    })
}

/// Whether one certificate names the other as its issuer. A chain that is broken otherwise does not
/// pass any peer; this finds files that were put together wrongly.
fn is_issued_by(issued: &SigningCertificate, issuer: &SigningCertificate) -> Result<bool, String> {
    let (issued, issuer) = (parse(&issued.certificate)?, parse(&issuer.certificate)?);
    Ok(issued.issuer() == issuer.subject())
}

/// The trust domain's SPIFFE ID in a signing certificate.
fn authority_id(der: &CertificateDer<'_>) -> Result<String, String> {
    let parsed = parse(der)?;
    let names = parsed
        .subject_alternative_name()
        .map_err(|error| error.to_string())?
        .ok_or("a certificate has no subject alternative name")?;
    match names.value.general_names.as_slice() {
        [GeneralName::URI(id)] => Ok((*id).to_owned()),
        _ => Err("a certificate does not carry exactly one URI".to_owned()),
    }
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("there are bytes behind a certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn moment(timestamp: i64) -> SystemTime {
    let seconds = u64::try_from(timestamp).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}
