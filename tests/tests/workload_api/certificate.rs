//! What a test wants to know of a certificate.

use rcgen::{KeyPair, PublicKeyData};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// The serial number of a certificate in DER, in hexadecimal.
pub(crate) fn serial(der: &[u8]) -> String {
    parse(der).raw_serial_as_string().replace(':', "")
}

/// The SPIFFE ID in a certificate in DER.
pub(crate) fn spiffe_id(der: &[u8]) -> String {
    let certificate = parse(der);
    let names = certificate.subject_alternative_name();
    let names = names.expect("it is there once").expect("there are names");
    // DNS names may stand beside it.
    let uris = names.value.general_names.iter();
    let uris = uris.filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let [id] = Vec::from_iter(uris)[..] else {
        panic!("one URI: {names:?}");
    };
    id.to_owned()
}

/// When a certificate in DER begins and ceases to be valid.
pub(crate) fn validity(der: &[u8]) -> [OffsetDateTime; 2] {
    let certificate = parse(der);
    let validity = certificate.validity();
    [validity.not_before, validity.not_after].map(|time| time.to_datetime())
}

/// Whether a private key belongs to a certificate in DER.
pub(crate) fn belongs(key: &KeyPair, der: &[u8]) -> bool {
    key.subject_public_key_info() == parse(der).public_key().raw
}

fn parse(der: &[u8]) -> X509Certificate<'_> {
    let (rest, certificate) = X509Certificate::from_der(der).expect("a certificate in DER");
    assert!(rest.is_empty(), "it is one certificate");
    certificate
}
