//! What we say of a peer's certificate in `x-forwarded-client-cert`, byte by byte as Envoy does.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rustls::pki_types::CertificateDer;
use sidegate_identity::encoding::certificates_pem;
use sidegate_identity::tls::PeerError;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::parse_x509_certificate;

use super::subject::subject;
use super::{ClientCertDetails, Peer};

/// What Envoy's own URL encoding of a certificate leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// One element: `By`, `Hash` and the details that are wanted, in Envoy's order.
pub(super) fn element(
    details: ClientCertDetails,
    peer: Peer<'_>,
) -> Result<HeaderValue, PeerError> {
    let leaf = peer.chain.first().ok_or(PeerError::Unparsable)?;
    let hash = sidegate_identity::hex(digest(&SHA256, leaf).as_ref());
    // SPIFFE IDs have no character that would need quoting.
    let mut pairs = vec![format!("By={}", peer.shown), format!("Hash={hash}")];
    if details.cert {
        pairs.push(format!("Cert=\"{}\"", url_encoded([leaf])));
    }
    if details.chain {
        pairs.push(format!("Chain=\"{}\"", url_encoded(peer.chain)));
    }
    // It is parsed again only where something is wanted that the verifier does not keep.
    let certificate = match details.subject || details.dns {
        true => Some(parse(leaf)?),
        false => None,
    };
    if let (true, Some(certificate)) = (details.subject, &certificate) {
        let subject = subject(certificate.subject()).ok_or(PeerError::Unparsable)?;
        // It is there even when it is empty.
        pairs.push(format!("Subject=\"{subject}\""));
    }
    if details.uri {
        pairs.push(format!("URI={}", peer.spiffe_id));
    }
    if let (true, Some(certificate)) = (details.dns, &certificate) {
        let names = dns_names(certificate)?;
        pairs.extend(names.iter().map(|name| format!("DNS={}", quoted(name))));
    }
    HeaderValue::from_str(&pairs.join(";")).map_err(|_| PeerError::Unparsable)
}

/// Certificates as Envoy tells of them to policies and upstreams.
pub(crate) fn url_encoded<'a>(
    certificates: impl IntoIterator<Item = &'a CertificateDer<'a>>,
) -> String {
    utf8_percent_encode(&certificates_pem(certificates), UNRESERVED).to_string()
}

fn parse<'a>(leaf: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, PeerError> {
    match parse_x509_certificate(leaf) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(PeerError::Unparsable),
    }
}

fn dns_names<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, PeerError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| PeerError::Unparsable)?;
    let names = names.map_or(&[][..], |names| &names.value.general_names);
    let names = names.iter().filter_map(|name| match name {
        GeneralName::DNSName(name) => Some(*name),
        _ => None,
    });
    Ok(names.collect())
}

/// A value in quotes where it could be taken for several. Envoy writes names as they are, and
/// relies on authorities to sign none with such characters.
fn quoted(name: &str) -> Cow<'_, str> {
    match name.contains([',', ';', '=', '"', '\\', ' ']) {
        true => {
            let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
            Cow::Owned(format!("\"{escaped}\""))
        }
        false => Cow::Borrowed(name),
    }
}
