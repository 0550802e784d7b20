//! The server's messages as this crate's values. What does not fully fit is refused.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::CertificateDer;
use serde_json::json;
use spiffe::{SpiffeId, TrustDomain};
use x509_parser::oid_registry::{OID_EC_P256, OID_NIST_EC_P384, OID_NIST_EC_P521};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo};
use x509_parser::public_key::PublicKey;

use super::proto::types;
use super::status::RefusedEntry;
use crate::chain;
use crate::entry::{Entry, EntryError, EntryRequest};
use crate::jwt::JwtBundle;
use crate::selector::SelectorError;
use crate::spiffe_bundle::{JwtKey, SpiffeBundle};
use crate::svid::X509Bundle;

/// A trust domain's bundle, ready to verify with.
#[derive(Debug, Clone)]
pub(super) struct Bundle {
    /// As it was sent: what is the same needs no second look.
    pub(super) sent: types::Bundle,
    pub(super) x509: Arc<X509Bundle>,
    pub(super) jwt: Arc<JwtBundle>,
    /// Without the marks of taint, which SPIFFE's format does not have.
    pub(super) spiffe: SpiffeBundle,
}

/// What becomes of an authorized entry here.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Outcome {
    /// Workloads that match it get its SVID.
    Served(Arc<Entry>),
    /// No attestor here finds what it asks for: it is another program's business.
    Foreign,
    /// It breaks a rule.
    Refused(RefusedEntry),
}

/// The SPIFFE ID of a message.
pub(super) fn spiffe_id(id: Option<&types::Spiffeid>) -> Result<SpiffeId, String> {
    let text = text_of(id.ok_or("there is no SPIFFE ID in it")?);
    SpiffeId::new(&text).map_err(|error| format!("`{text}` is no SPIFFE ID: {error}"))
}

/// A path without its slash would become a part of the trust domain's name.
fn text_of(id: &types::Spiffeid) -> String {
    let slash = match id.path.as_str() {
        "" => "",
        path if path.starts_with('/') => "",
        _ => "/",
    };
    format!("spiffe://{}{slash}{}", id.trust_domain, id.path)
}

/// What becomes of an entry.
pub(super) fn entry(sent: &types::Entry, trust_domain: &TrustDomain) -> Outcome {
    let id = sent.spiffe_id.as_ref().map(text_of).unwrap_or_default();
    let refused = |code: &str, reason| {
        Outcome::Refused(RefusedEntry {
            entry_id: sent.id.clone(),
            spiffe_id: id.clone(),
            code: code.to_owned(),
            reason,
        })
    };
    if sent.store_svid {
        let reason = "its SVID is for a secret store, not for workloads".to_owned();
        return refused("SG0179", reason);
    }
    let selectors = sent.selectors.iter();
    let request = EntryRequest {
        spiffe_id: id.clone(),
        selectors: selectors
            .map(|selector| format!("{}:{}", selector.r#type, selector.value))
            .collect(),
        hint: sent.hint.clone(),
        federates_with: sent.federates_with.clone(),
        ..EntryRequest::default()
    };
    match Entry::new(request, trust_domain) {
        Ok(entry) => Outcome::Served(Arc::new(entry)),
        Err(EntryError::BadSelector {
            source: SelectorError::UnknownKind(_),
            ..
        }) => Outcome::Foreign,
        Err(error) => refused(error.code(), chain(&error)),
    }
}

/// Reads a bundle, which must be this trust domain's.
pub(super) fn bundle(sent: types::Bundle, trust_domain: &TrustDomain) -> Result<Bundle, String> {
    let found = TrustDomain::new(&sent.trust_domain);
    if !found.is_ok_and(|found| found == *trust_domain) {
        let found = &sent.trust_domain;
        return Err(format!(
            "it is the bundle of `{found}`, not of `{trust_domain}`"
        ));
    }
    let certificate = |sent: &types::X509Certificate| CertificateDer::from(sent.asn1.clone());
    let roots = &sent.x509_authorities;
    let tainted = roots.iter().filter(|root| root.tainted);
    let tainted: Vec<_> = tainted.map(certificate).collect();
    let keys = sent
        .jwt_authorities
        .iter()
        .filter_map(|sent| jwt_key(sent).transpose());
    let spiffe = SpiffeBundle {
        x509_authorities: roots.iter().map(certificate).collect(),
        jwt_authorities: keys.collect::<Result<_, _>>()?,
        sequence: Some(sent.sequence_number),
        refresh_hint: match u64::try_from(sent.refresh_hint) {
            Ok(0) => None,
            Ok(seconds) => Some(Duration::from_secs(seconds)),
            Err(_) => return Err("its refresh hint is negative".to_owned()),
        },
    };
    let x509 = X509Bundle::new(spiffe.x509_authorities.clone())
        .and_then(|x509| x509.check_anchors().map(|()| x509))
        .and_then(|x509| x509.tainted(&tainted));
    let jwt = JwtBundle::new(trust_domain, spiffe.jwks()).map_err(|error| chain(&error))?;
    let tainted = sent.jwt_authorities.iter().filter(|key| key.tainted);
    let tainted = tainted.map(|key| key.key_id.clone()).collect();
    Ok(Bundle {
        x509: Arc::new(x509.map_err(|error| chain(&error))?),
        jwt: Arc::new(jwt.with_tainted(tainted)),
        sent,
        spiffe,
    })
}

impl Bundle {
    /// Shares with the bundle before what is the same in both.
    pub(super) fn after(self, before: &Self) -> Self {
        let x509 = X509Bundle::clone(&self.x509).after(&before.x509);
        let jwt = JwtBundle::clone(&self.jwt).after(&before.jwt);
        Self {
            x509: Arc::new(x509),
            jwt: Arc::new(jwt),
            ..self
        }
    }
}

/// The key of a JWT authority, by way of its JWK; none of a kind that signs no JWT-SVIDs.
fn jwt_key(sent: &types::JwtKey) -> Result<Option<JwtKey>, String> {
    let refused = |problem: &str| format!("JWT key `{}` cannot be used: {problem}", sent.key_id);
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let Ok(([], key)) = SubjectPublicKeyInfo::from_der(&sent.public_key) else {
        return Err(refused("it is no public key"));
    };
    let jwk = match key.parsed() {
        Ok(PublicKey::RSA(rsa)) => json!({
            "kty": "RSA",
            "kid": sent.key_id,
            "n": encode(rsa.modulus),
            "e": encode(rsa.exponent),
        }),
        Ok(PublicKey::EC(point)) => {
            let parameters = key.algorithm.parameters.as_ref();
            let curve = parameters.and_then(|parameters| parameters.as_oid().ok());
            let (curve, length) = match curve {
                Some(curve) if curve == OID_EC_P256 => ("P-256", 32),
                Some(curve) if curve == OID_NIST_EC_P384 => ("P-384", 48),
                Some(curve) if curve == OID_NIST_EC_P521 => ("P-521", 66),
                _ => return Ok(None),
            };
            // Uncompressed: 4, then x and y (SEC 1 section 2.3.3).
            let point = point.data().strip_prefix(&[4]);
            let (x, y) = point
                .and_then(|point| point.split_at_checked(length))
                .ok_or_else(|| refused("it is no uncompressed point"))?;
            json!({
                "kty": "EC",
                "kid": sent.key_id,
                "crv": curve,
                "x": encode(x),
                "y": encode(y),
            })
        }
        _ => return Ok(None),
    };
    let read = JwtKey::parse(jwk.to_string().as_bytes());
    read.map_err(|error| refused(&chain(&error)))
}
