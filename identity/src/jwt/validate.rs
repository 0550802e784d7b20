//! Validation of JWT-SVIDs, own and of other trust domains.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use spiffe::bundle::BundleSource;
use spiffe::{JwtSvid, SpiffeId, TrustDomain};

use super::JwtBundle;

/// What is told of a token of another trust domain: what it says beyond this is not known here.
const FOREIGN_CLAIMS: [&str; 3] = ["sub", "exp", "aud"];

/// A token whose signature, audience and time are right.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidJwtSvid {
    /// Whose it is.
    pub spiffe_id: SpiffeId,
    /// Its claims; `aud` is always a list.
    pub claims: Map<String, Value>,
}

/// Why a token is refused. The text may be told to the caller.
#[derive(Debug, thiserror::Error)]
#[error("the JWT-SVID is not valid: {reason}")]
pub struct InvalidJwtSvid {
    reason: String,
}

/// The bundles, as the verifier asks for them.
struct Bundles<'a>(&'a BTreeMap<TrustDomain, Arc<JwtBundle>>);

impl BundleSource for Bundles<'_> {
    type Item = spiffe::JwtBundle;
    type Error = Infallible;

    fn bundle_for_trust_domain(
        &self,
        trust_domain: &TrustDomain,
    ) -> Result<Option<Arc<Self::Item>>, Self::Error> {
        let bundle = self.0.get(trust_domain);
        Ok(bundle.map(|bundle| Arc::new(bundle.parsed().clone())))
    }
}

/// Validates a token for one audience against the bundle of its own trust domain (JWT-SVID.md
/// section 5).
///
/// # Errors
/// When any rule is broken.
pub fn validate(
    token: &str,
    audience: &str,
    bundles: &BTreeMap<TrustDomain, Arc<JwtBundle>>,
    own: &TrustDomain,
) -> Result<ValidJwtSvid, InvalidJwtSvid> {
    let invalid = |reason: String| InvalidJwtSvid { reason };
    let svid = JwtSvid::parse_and_validate(token, &Bundles(bundles), &[audience])
        .map_err(|error| invalid(crate::chain(&error)))?;
    let mut claims =
        claims(token).ok_or_else(|| invalid("its claims cannot be read".to_owned()))?;
    if let Some(audience @ Value::String(_)) = claims.get("aud").cloned() {
        claims.insert("aud".to_owned(), Value::Array(vec![audience]));
    }
    if svid.spiffe_id().trust_domain() != own {
        claims.retain(|name, _| FOREIGN_CLAIMS.contains(&name.as_str()));
    }
    Ok(ValidJwtSvid {
        spiffe_id: svid.spiffe_id().clone(),
        claims,
    })
}

fn claims(token: &str) -> Option<Map<String, Value>> {
    let payload = token.split('.').nth(1)?;
    let payload = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}
