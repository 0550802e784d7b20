//! Certificates, good and hostile.

use std::path::Path;

use aws_lc_rs::digest;
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use time::{Duration, OffsetDateTime};

/// A chain, leaf first, and the leaf's key.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A root, and an intermediate that signs.
pub(crate) struct Authority {
    root: Issuer<'static, KeyPair>,
    intermediate: Issuer<'static, KeyPair>,
    intermediate_der: CertificateDer<'static>,
}

impl Identity {
    /// Reads PEM files.
    pub(crate) fn read(chain: &Path, key: &Path) -> Self {
        Self {
            chain: certificates(chain),
            key: PrivateKeyDer::from_pem_file(key).expect("a private key"),
        }
    }

    /// SHA-256 of the leaf, in hexadecimal.
    pub(crate) fn hash(&self) -> String {
        let hash = digest::digest(&digest::SHA256, &self.chain[0]);
        super::configuration::hexadecimal(hash.as_ref())
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            chain: self.chain.clone(),
            key: self.key.clone_key(),
        }
    }
}

impl Authority {
    /// The authority in a state directory.
    pub(crate) fn of(state: &Path) -> Self {
        let blocks = std::fs::read(state.join("authority.pem")).expect("the authority is kept");
        let blocks = pem::parse_many(blocks).expect("it is PEM");
        let [root, root_key, intermediate, intermediate_key] = blocks.as_slice() else {
            panic!("four blocks, not {}", blocks.len());
        };
        let issuer = |certificate: &pem::Pem, key: &pem::Pem| {
            let key = KeyPair::from_pem(&pem::encode(key)).expect("a private key");
            Issuer::from_ca_cert_der(&certificate.contents().into(), key).expect("a certificate")
        };
        Self {
            root: issuer(root, root_key),
            intermediate: issuer(intermediate, intermediate_key),
            intermediate_der: intermediate.contents().to_vec().into(),
        }
    }

    /// Another authority for a trust domain, of the same make.
    pub(crate) fn foreign(trust_domain: &str) -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::default();
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
            params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
            params
        };
        let root = Issuer::new(authority("root"), KeyPair::generate().unwrap());
        let (params, key) = (authority("intermediate"), KeyPair::generate().unwrap());
        let certificate = params.signed_by(&key, &root).expect("it is signed");
        Self {
            root,
            intermediate: Issuer::new(params, key),
            intermediate_der: certificate.der().clone(),
        }
    }

    /// Signs a leaf with the intermediate.
    pub(crate) fn issue(&self, leaf: &CertificateParams) -> Identity {
        let mut identity = sign(leaf, &self.intermediate);
        identity.chain.push(self.intermediate_der.clone());
        identity
    }

    /// Signs a leaf with the root itself.
    pub(crate) fn issue_from_root(&self, leaf: &CertificateParams) -> Identity {
        sign(leaf, &self.root)
    }

    /// The intermediate, shown as if it were a leaf.
    pub(crate) fn as_leaf(&self) -> Identity {
        Identity {
            chain: vec![self.intermediate_der.clone()],
            key: PrivateKeyDer::Pkcs8(self.intermediate.key().serialize_der().into()),
        }
    }
}

/// A leaf as the SPIFFE standard wants it, with these URIs as names.
pub(crate) fn leaf(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = uris.iter().map(|name| uri(name)).collect();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    let now = now();
    params.not_before = now - Duration::minutes(1);
    params.not_after = now + Duration::hours(1);
    params
}

/// The certificates in a PEM file.
pub(crate) fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path)
        .expect("the file is read")
        .collect::<Result<_, _>>()
        .expect("it is PEM")
}

#[expect(
    clippy::disallowed_methods,
    reason = "certificates are made for the clock that the binary reads"
)]
pub(crate) fn now() -> OffsetDateTime {
    std::time::SystemTime::now().into()
}

fn sign(leaf: &CertificateParams, issuer: &Issuer<'_, KeyPair>) -> Identity {
    let key = KeyPair::generate().expect("a key pair");
    let certificate = leaf.signed_by(&key, issuer).expect("it is signed");
    Identity {
        chain: vec![certificate.der().clone()],
        key: PrivateKeyDer::Pkcs8(key.serialize_der().into()),
    }
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().expect("it is ASCII"))
}
