//! PEM, for peers and tools that want it.

use rustls::pki_types::CertificateDer;
use zeroize::Zeroizing;

/// Certificates as PEM, one after the other.
pub fn certificates_pem<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> String {
    certificates
        .into_iter()
        .map(|certificate| pem::Pem::new("CERTIFICATE", certificate.as_ref()))
        .map(|block| pem::encode_config(&block, line_feeds()))
        .collect()
}

/// A PKCS#8 private key as PEM.
pub fn private_key_pem(pkcs8: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(pem::encode_config(
        &pem::Pem::new("PRIVATE KEY", pkcs8),
        line_feeds(),
    ))
}

pub(crate) fn line_feeds() -> pem::EncodeConfig {
    pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF)
}
