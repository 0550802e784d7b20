//! The public keys of one trust domain's JWT-SVIDs, as a JWK Set (RFC 7517).

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use spiffe::{JwtBundle as Parsed, TrustDomain};

/// A JWK Set, as text for clients and parsed for our own verification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtBundle {
    jwks: Arc<String>,
    parsed: Parsed,
    /// Keys whose tokens are still valid and handed out no more.
    tainted: Vec<String>,
}

/// A JWK Set that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the JWK Set of `{trust_domain}` cannot be used")]
pub struct JwtBundleError {
    trust_domain: TrustDomain,
    source: Box<dyn std::error::Error + Send + Sync>,
}

/// A P-256 public key.
#[derive(Debug, Serialize)]
pub(super) struct Jwk<'a> {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    purpose: &'static str,
    kid: &'a str,
    x: String,
    y: String,
}

#[derive(Debug, Serialize)]
struct Jwks<'a> {
    keys: Vec<Jwk<'a>>,
}

impl<'a> Jwk<'a> {
    /// From an uncompressed point: 4, then 32 bytes each of x and y (SEC 1 section 2.3.3).
    pub(super) fn new(kid: &'a str, point: &[u8]) -> Option<Self> {
        let (x, y) = point.strip_prefix(&[4])?.split_at_checked(32)?;
        Some(Self {
            kty: "EC",
            crv: "P-256",
            alg: "ES256",
            purpose: "jwt-svid",
            kid,
            x: URL_SAFE_NO_PAD.encode(x),
            y: URL_SAFE_NO_PAD.encode(y),
        })
    }
}

impl JwtBundle {
    pub(super) fn from_keys(
        trust_domain: &TrustDomain,
        keys: Vec<Jwk<'_>>,
        tainted: Vec<String>,
    ) -> Result<Self, JwtBundleError> {
        let jwks = serde_json::to_string(&Jwks { keys }).map_err(|error| JwtBundleError {
            trust_domain: trust_domain.clone(),
            source: error.into(),
        })?;
        let bundle = Self::new(trust_domain, jwks)?;
        Ok(Self { tainted, ..bundle })
    }

    /// A trust domain's JWK Set.
    ///
    /// # Errors
    /// When a key cannot verify JWT-SVIDs.
    pub fn new(trust_domain: &TrustDomain, jwks: String) -> Result<Self, JwtBundleError> {
        let parsed = Parsed::from_jwt_authorities(trust_domain.clone(), jwks.as_bytes());
        let parsed = parsed.map_err(|error| JwtBundleError {
            trust_domain: trust_domain.clone(),
            source: error.into(),
        })?;
        Ok(Self {
            jwks: Arc::new(jwks),
            parsed,
            tainted: Vec::new(),
        })
    }

    /// The same JWK Set, of which these keys sign nothing any more.
    pub(crate) fn with_tainted(self, tainted: Vec<String>) -> Self {
        Self { tainted, ..self }
    }

    /// The JWK Set, JSON.
    pub fn jwks(&self) -> &str {
        &self.jwks
    }

    /// The same JWK Set is the same value: what was made of it need not be made again.
    pub(crate) fn shared_jwks(&self) -> &Arc<String> {
        &self.jwks
    }

    /// Shares the JWK Set of the bundle before, where it is the same.
    pub(crate) fn after(self, before: &Self) -> Self {
        if self.jwks != before.jwks {
            return self;
        }
        Self {
            jwks: Arc::clone(&before.jwks),
            ..self
        }
    }

    /// Whether this key is one of it.
    pub(crate) fn has_key(&self, key_id: &str) -> bool {
        self.parsed.find_jwt_authority(key_id).is_some()
    }

    /// Whether tokens that this key signed may still be handed out.
    pub(super) fn vouches_for(&self, key_id: &str) -> bool {
        self.has_key(key_id) && !self.tainted.iter().any(|tainted| tainted == key_id)
    }

    pub(super) fn parsed(&self) -> &Parsed {
        &self.parsed
    }
}
