//! `crypto.x509.*`: certificates as Go's `crypto/x509` gives them in JSON,
//! which is what policies know from OPA.

mod chain;
mod extensions;
mod fields;
mod name;
mod uri;

use regorus::Value;
use x509_parser::prelude::{FromDer, X509Certificate, X509CertificationRequest};

use super::pem::{first_block, is_pem};
use super::values::{from_base64, text};

pub(super) use chain::{parse_and_verify, parse_and_verify_with_options};
pub(super) use fields::dotted;

/// More than this, or more certificates, are refused.
const INPUT_BYTES: usize = 256 * 1024;
const CERTIFICATES: usize = 64;

/// `crypto.x509.parse_certificates(certificates)`: PEM, or base64 of PEM or of
/// DER, one certificate after the other.
pub(super) fn parse_certificates(arguments: &[Value]) -> Option<Value> {
    let [certificates] = arguments else {
        return None;
    };
    let ders = certificates_der(text(certificates)?)?;
    let certificates = ders.iter().map(|der| certificate(der, true));
    Some(Value::from(certificates.collect::<Option<Vec<Value>>>()?))
}

/// `crypto.x509.parse_certificate_request(request)`: PEM or base64 of DER.
/// `Attributes` is not there.
pub(super) fn parse_certificate_request(arguments: &[Value]) -> Option<Value> {
    let [request] = arguments else { return None };
    let given = text(request)?;
    if given.len() > INPUT_BYTES {
        return None;
    }
    let der = if given.starts_with("-----BEGIN CERTIFICATE REQUEST-----") {
        first_block(given)?.contents
    } else {
        let bytes = from_base64(given)?;
        let block = std::str::from_utf8(&bytes).ok().and_then(first_block);
        match block {
            Some(block) if block.label == "CERTIFICATE REQUEST" => block.contents,
            Some(_) => return None,
            None => bytes,
        }
    };
    let (rest, request) = X509CertificationRequest::from_der(&der).ok()?;
    if !rest.is_empty() {
        return None;
    }
    fields::request(&request)
}

/// The certificates of a text, each in DER.
fn certificates_der(given: &str) -> Option<Vec<Vec<u8>>> {
    if given.len() > INPUT_BYTES {
        return None;
    }
    let bytes = if is_pem(given) {
        pem_contents(given)?
    } else {
        let bytes = from_base64(given)?;
        match std::str::from_utf8(&bytes) {
            Ok(pem) if is_pem(pem) => pem_contents(pem)?,
            _ => bytes,
        }
    };
    let mut certificates = Vec::new();
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (after, _) = X509Certificate::from_der(rest).ok()?;
        let length = rest.len().checked_sub(after.len())?;
        certificates.push(rest.get(..length)?.to_vec());
        if certificates.len() > CERTIFICATES {
            return None;
        }
        rest = after;
    }
    Some(certificates)
}

/// What all blocks of a PEM text hold, one after the other.
fn pem_contents(mut pem: &str) -> Option<Vec<u8>> {
    let mut contents = Vec::new();
    while let Some(block) = first_block(pem) {
        if block.label != "CERTIFICATE" {
            return None;
        }
        contents.extend(block.contents);
        pem = block.rest;
    }
    Some(contents)
}

/// One certificate's document; `URIStrings` is OPA's addition to Go's fields.
fn certificate(der: &[u8], with_uri_strings: bool) -> Option<Value> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    fields::certificate(&certificate, with_uri_strings)
}

#[cfg(test)]
mod tests;
