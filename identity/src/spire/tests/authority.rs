//! The authority behind the server that the tests play.

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer};

use crate::spire::proto::types;

pub(super) struct Authority {
    pub(super) root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    pub(super) is_tainted: bool,
}

impl Authority {
    pub(super) fn new(trust_domain: &str, now: SystemTime) -> Self {
        Self::lasting(trust_domain, now, Duration::from_secs(365 * 24 * 3600))
    }

    pub(super) fn lasting(trust_domain: &str, now: SystemTime, life: Duration) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(now, life);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))];
        let name = format!("root {}", rand::random::<u32>());
        params.distinguished_name.push(DnType::CommonName, name);
        let root: CertificateDer<'static> = params.self_signed(&key).unwrap().into();
        Self {
            issuer: Issuer::from_ca_cert_der(&root, key).unwrap(),
            root,
            is_tainted: false,
        }
    }

    /// The leaf of an SVID for a key.
    pub(super) fn leaf(
        &self,
        id: &str,
        key: &impl PublicKeyData,
        now: SystemTime,
        life: Duration,
    ) -> CertificateDer<'static> {
        let mut params = params(now, life);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = vec![uri(id)];
        params.signed_by(key, &self.issuer).unwrap().into()
    }

    /// An SVID for the key of a request.
    pub(super) fn svid(
        &self,
        id: &str,
        request: &[u8],
        now: SystemTime,
        life: Duration,
    ) -> types::X509svid {
        let request = CertificateSigningRequestDer::from(request);
        let request = CertificateSigningRequestParams::from_der(&request).unwrap();
        let leaf = self.leaf(id, &request.public_key, now, life);
        types::X509svid {
            cert_chain: vec![leaf.to_vec()],
            id: Some(spiffe_id(id)),
            expires_at: 0,
        }
    }

    pub(super) fn certificate(&self) -> types::X509Certificate {
        types::X509Certificate {
            asn1: self.root.to_vec(),
            tainted: self.is_tainted,
        }
    }
}

pub(super) fn spiffe_id(id: &str) -> types::Spiffeid {
    let rest = id.strip_prefix("spiffe://").unwrap();
    let (trust_domain, path) = rest.split_once('/').unwrap();
    types::Spiffeid {
        trust_domain: trust_domain.to_owned(),
        path: format!("/{path}"),
    }
}

fn params(now: SystemTime, life: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (now - Duration::from_secs(10)).into();
    params.not_after = (now + life).into();
    let serial = rand::random::<u128>() >> 1;
    params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
    params
}

fn uri(id: &str) -> SanType {
    SanType::URI(id.try_into().unwrap())
}
