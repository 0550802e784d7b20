//! The SPIFFE bundle format (SPIFFE_Trust_Domain_and_Bundle.md section 4), as federation endpoints
//! and files carry it, and the bundle map that holds several.
//!
//! ```text
//! {"keys": [JWK, …], "spiffe_sequence": 7, "spiffe_refresh_hint": 300}
//! {"trust_domains": {"one.test": {"keys": …}, "two.test": {"keys": …}}}
//! ```
//!
//! What is read is taken whole or not at all. Only what the standard says to ignore is ignored: key
//! types and uses that are not understood, and members that it does not define.

mod jwk;
mod unique;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};
use spiffe::TrustDomain;

use jwk::Authority;
pub use jwk::JwtKey;

/// One trust domain's bundle in SPIFFE's format: a JWK Set with `spiffe_sequence` and
/// `spiffe_refresh_hint`. Without keys, everything of the trust domain is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpiffeBundle {
    /// Certificates of X.509-SVID authorities, DER.
    pub x509_authorities: Vec<CertificateDer<'static>>,
    /// Public keys of JWT-SVID authorities, each with a key id of its own.
    pub jwt_authorities: Vec<JwtKey>,
    /// Grows with each change of the bundle.
    pub sequence: Option<u64>,
    /// How often to look for a newer one. Whole seconds, as the publisher likes it: bound it before
    /// use.
    pub refresh_hint: Option<Duration>,
}

/// A bundle that is refused.
#[derive(Debug, thiserror::Error)]
pub enum SpiffeBundleError {
    /// It is not JSON, or an object says something twice.
    #[error("the bundle is not JSON in which every key stands once")]
    Json(#[source] serde_json::Error),
    /// It is JSON of another shape.
    #[error("the document is not a SPIFFE bundle")]
    Shape(#[source] serde_json::Error),
    /// One of its keys is damaged.
    #[error("{key} of the bundle cannot be used: {problem}")]
    Key {
        /// Which: `key 0`.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A bundle map has a name in it that is no trust domain's.
    #[error("`{0}` is not the name of a trust domain")]
    TrustDomain(String),
    /// One bundle of a bundle map is refused.
    #[error("the bundle of `{trust_domain}` is refused")]
    Member {
        /// Whose it is.
        trust_domain: TrustDomain,
        /// Why.
        #[source]
        source: Box<SpiffeBundleError>,
    },
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
    spiffe_sequence: Option<u64>,
    spiffe_refresh_hint: Option<u64>,
}

#[derive(Deserialize)]
struct BundleMap {
    trust_domains: BTreeMap<String, Value>,
}

impl SpiffeBundle {
    /// Reads a bundle.
    ///
    /// # Errors
    /// When anything of it that the standard defines cannot be used: nothing is taken then.
    pub fn parse(json: &[u8]) -> Result<Self, SpiffeBundleError> {
        Self::from_value(unique::parse(json).map_err(SpiffeBundleError::Json)?)
    }

    /// The bundle as JSON.
    ///
    /// A certificate whose public key is neither RSA nor on P-256, P-384 or P-521 has no JWK here
    /// and is left out.
    pub fn to_json(&self) -> String {
        self.to_value().to_string()
    }

    /// The keys of JWT-SVIDs alone as a JWK Set, as the Workload API sends it.
    pub fn jwks(&self) -> String {
        let keys = self.jwt_authorities.iter().map(JwtKey::to_value);
        object([("keys", keys.collect())]).to_string()
    }

    fn from_value(value: Value) -> Result<Self, SpiffeBundleError> {
        let document: Document = serde_json::from_value(value).map_err(SpiffeBundleError::Shape)?;
        let mut bundle = Self {
            sequence: document.spiffe_sequence,
            refresh_hint: document.spiffe_refresh_hint.map(Duration::from_secs),
            ..Self::default()
        };
        let mut ids = BTreeSet::new();
        for (index, key) in document.keys.into_iter().enumerate() {
            let refused = |problem: String| SpiffeBundleError::Key {
                key: format!("key {index}"),
                problem,
            };
            match Authority::parse(key).map_err(refused)? {
                Some(Authority::X509(certificate)) => bundle.x509_authorities.push(certificate),
                Some(Authority::Jwt(key)) => {
                    if !ids.insert(key.id().to_owned()) {
                        let problem = format!("there is another key with the id `{}`", key.id());
                        return Err(refused(problem));
                    }
                    bundle.jwt_authorities.push(key);
                }
                None => {}
            }
        }
        Ok(bundle)
    }

    fn to_value(&self) -> Value {
        let certificates = self.x509_authorities.iter();
        let keys = certificates
            .filter_map(jwk::of_certificate)
            .chain(self.jwt_authorities.iter().map(JwtKey::to_value));
        let mut value = Map::from_iter([("keys".to_owned(), keys.collect())]);
        if let Some(sequence) = self.sequence {
            value.insert("spiffe_sequence".to_owned(), sequence.into());
        }
        if let Some(hint) = self.refresh_hint {
            // Rounded up: a hint of zero would say that there is no pause at all.
            let seconds = hint.as_secs() + u64::from(hint.subsec_nanos() > 0);
            value.insert("spiffe_refresh_hint".to_owned(), seconds.into());
        }
        Value::Object(value)
    }
}

impl Serialize for SpiffeBundle {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().serialize(serializer)
    }
}

impl SpiffeBundleError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Json(_) => "SG0190",
            Self::Shape(_) => "SG0191",
            Self::Key { .. } => "SG0192",
            Self::TrustDomain(_) => "SG0193",
            Self::Member { source, .. } => source.code(),
        }
    }
}

/// Bundles of several trust domains as one JSON document.
pub fn bundle_map_json<'a>(
    bundles: impl IntoIterator<Item = (&'a TrustDomain, &'a SpiffeBundle)>,
) -> String {
    let bundles = bundles.into_iter();
    let bundles: Map<_, _> = bundles
        .map(|(trust_domain, bundle)| (trust_domain.to_string(), bundle.to_value()))
        .collect();
    object([("trust_domains", Value::Object(bundles))]).to_string()
}

/// Reads bundles of several trust domains. Names must be written as they are: in lower case, without
/// a scheme.
///
/// # Errors
/// When a name stands twice, or one bundle is refused: nothing is taken then.
pub fn parse_bundle_map(
    json: &[u8],
) -> Result<BTreeMap<TrustDomain, SpiffeBundle>, SpiffeBundleError> {
    let value = unique::parse(json).map_err(SpiffeBundleError::Json)?;
    let map: BundleMap = serde_json::from_value(value).map_err(SpiffeBundleError::Shape)?;
    let bundles = map.trust_domains.into_iter();
    bundles
        .map(|(name, value)| {
            let trust_domain = TrustDomain::new(&name).ok();
            let trust_domain = trust_domain
                .filter(|trust_domain| trust_domain.as_str() == name)
                .ok_or(SpiffeBundleError::TrustDomain(name))?;
            match SpiffeBundle::from_value(value) {
                Ok(bundle) => Ok((trust_domain, bundle)),
                Err(source) => Err(SpiffeBundleError::Member {
                    trust_domain,
                    source: Box::new(source),
                }),
            }
        })
        .collect()
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members.into_iter();
    Value::Object(
        members
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

#[cfg(test)]
mod tests;
