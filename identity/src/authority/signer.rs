//! A certificate that signs others, with its key.

use std::time::SystemTime;

use aws_lc_rs::digest::{SHA256, digest};
use rcgen::{Issuer, KeyPair};
use rustls::pki_types::CertificateDer;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::clock::moment_of;
use crate::hex;
use crate::svid::Validity;

/// A certificate that signs others, with its key.
pub(super) struct SigningCertificate {
    pub(super) certificate: CertificateDer<'static>,
    /// Its name and key, as they go into what it signs.
    pub(super) issuer: Issuer<'static, KeyPair>,
    pub(super) validity: Validity,
}

impl SigningCertificate {
    /// Puts a certificate and its own key together.
    pub(super) fn new(
        certificate: CertificateDer<'static>,
        key: KeyPair,
        validity: Validity,
    ) -> Result<Self, rcgen::Error> {
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        Ok(Self {
            certificate,
            issuer,
            validity,
        })
    }

    /// Puts together what somebody wrote.
    pub(super) fn read(certificate: CertificateDer<'static>, key: KeyPair) -> Result<Self, String> {
        let parsed = parse(&certificate)?;
        let certified = parsed.public_key().subject_public_key.data.as_ref();
        if certified != rcgen::PublicKeyData::der_bytes(&key) {
            return Err("a key does not belong to the certificate before it".to_owned());
        }
        let validity = Validity {
            not_before: moment_of(parsed.validity().not_before),
            not_after: moment_of(parsed.validity().not_after),
        };
        Self::new(certificate, key, validity).map_err(|error| error.to_string())
    }

    /// The subject key identifier, hex, or a digest where the certificate has none.
    pub(super) fn key_id(&self) -> String {
        key_id(&self.certificate)
    }

    /// Whether it says to be self-signed.
    pub(super) fn names_itself(&self) -> Result<bool, String> {
        names_as_issuer(&self.certificate, &self.certificate)
    }

    /// Whether it names the other as its issuer.
    pub(super) fn names_as_issuer(&self, issuer: &Self) -> Result<bool, String> {
        names_as_issuer(&self.certificate, &issuer.certificate)
    }

    /// Checks that it may sign certificates that sign others: a path's verification does not look at
    /// what its root may do.
    pub(super) fn check_signs_signers(&self) -> Result<(), String> {
        let parsed = parse(&self.certificate)?;
        let constraints = parsed.basic_constraints();
        let constraints = constraints.map_err(|error| error.to_string())?;
        match constraints.map(|extension| extension.value) {
            Some(found) if found.ca && found.path_len_constraint != Some(0) => Ok(()),
            Some(found) if found.ca => Err("its path length allows no intermediate".to_owned()),
            _ => Err("it is no signing certificate".to_owned()),
        }
    }

    /// The trust domain's SPIFFE ID, where the certificate has one.
    pub(super) fn spiffe_id(&self) -> Result<Option<String>, String> {
        let parsed = parse(&self.certificate)?;
        let names = parsed
            .subject_alternative_name()
            .map_err(|error| error.to_string())?;
        let names = names.map_or(&[][..], |names| &names.value.general_names);
        let mut uris = names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        });
        match (uris.next(), uris.next()) {
            (first, None) => Ok(first),
            _ => Err("a certificate carries several URIs".to_owned()),
        }
    }
}

/// Whether one certificate names the other as its issuer. A chain that is broken otherwise does not
/// pass any peer; this finds files that were put together wrongly.
pub(super) fn names_as_issuer(
    issued: &CertificateDer<'_>,
    issuer: &CertificateDer<'_>,
) -> Result<bool, String> {
    let (issued, issuer) = (parse(issued)?, parse(issuer)?);
    Ok(issued.issuer() == issuer.subject())
}

/// When a certificate ends.
pub(super) fn end(certificate: &CertificateDer<'_>) -> Result<SystemTime, String> {
    Ok(moment_of(parse(certificate)?.validity().not_after))
}

/// The subject key identifier of a certificate, hex, or a digest where it has none.
pub(super) fn key_id(certificate: &CertificateDer<'_>) -> String {
    let parsed = parse(certificate).ok();
    let identifier = parsed.as_ref().and_then(|parsed| {
        let mut extensions = parsed.extensions().iter();
        extensions.find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(identifier) => Some(hex(identifier.0)),
            _ => None,
        })
    });
    identifier.unwrap_or_else(|| hex(digest(&SHA256, certificate).as_ref()))
}

fn parse<'a>(der: &'a CertificateDer<'_>) -> Result<X509Certificate<'a>, String> {
    match X509Certificate::from_der(der) {
        Ok(([], parsed)) => Ok(parsed),
        Ok(_) => Err("there are bytes behind a certificate".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
