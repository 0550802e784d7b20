//! What the authority's certificates say (X509-SVID.md sections 2 to 5).

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use spiffe::TrustDomain;

use super::signer::SigningCertificate;
use crate::entry::Entry;
use crate::svid::Validity;

/// A new key and a self-signed root for it.
pub(super) fn root(
    trust_domain: &TrustDomain,
    validity: Validity,
) -> Result<SigningCertificate, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    // Roots that follow one another have names of their own, so that chains are told apart.
    let name = format!("Sidegate root {:08x}", rand::random::<u32>());
    let params = signing(trust_domain, &name, 1, validity)?;
    let certificate = params.self_signed(&key)?.into();
    SigningCertificate::new(certificate, key, validity)
}

/// A new key and an intermediate for it, signed by the root.
pub(super) fn intermediate(
    trust_domain: &TrustDomain,
    root: &SigningCertificate,
    validity: Validity,
) -> Result<SigningCertificate, rcgen::Error> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
    let mut params = signing(trust_domain, "Sidegate intermediate", 0, validity)?;
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&key, &root.issuer)?.into();
    SigningCertificate::new(certificate, key, validity)
}

/// The leaf of an entry's X.509-SVID.
pub(super) fn leaf(entry: &Entry, validity: Validity) -> Result<CertificateParams, rcgen::Error> {
    let mut params = base(validity);
    params.subject_alt_names = vec![SanType::URI(entry.spiffe_id().to_string().try_into()?)];
    for name in entry.dns_names() {
        params
            .subject_alt_names
            .push(SanType::DnsName(name.as_str().try_into()?));
    }
    if let Some(name) = entry.dns_names().first() {
        params
            .distinguished_name
            .push(DnType::CommonName, name.as_str());
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyAgreement,
    ];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    Ok(params)
}

fn signing(
    trust_domain: &TrustDomain,
    name: &str,
    path_length: u8,
    validity: Validity,
) -> Result<CertificateParams, rcgen::Error> {
    let mut params = base(validity);
    params.subject_alt_names = vec![SanType::URI(trust_domain.id_string().try_into()?)];
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn base(validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = validity.not_before.into();
    params.not_after = validity.not_after.into();
    // 127 random bits: positive, and unique without a counter to keep.
    let serial = rand::random::<u128>() >> 1;
    params.serial_number = Some(SerialNumber::from_slice(&serial.to_be_bytes()));
    params.distinguished_name = DistinguishedName::new();
    params
        .distinguished_name
        .push(DnType::OrganizationName, "Sidegate");
    params
}
