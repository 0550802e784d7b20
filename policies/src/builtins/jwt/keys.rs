//! The keys that tokens are verified with.

use regorus::Value;
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};
use x509_parser::public_key::PublicKey as ParsedKey;

use super::signature::Curve;
use crate::builtins::pem::first_block;
use crate::builtins::values::{from_base64url, member, text};
use crate::builtins::x509::dotted;

/// Longer texts of keys, and larger sets of them, are refused.
const KEY_BYTES: usize = 1024 * 1024;
const KEYS: usize = 1_000;

/// Algorithms that OPA knows; keys for others in a set are passed over.
const ALGORITHMS: &[&str] = &[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256",
    "HS384", "HS512", "EdDSA",
];

/// A key, with what its JWK says of it; both empty if it says nothing.
pub(super) struct Key {
    pub(super) id: String,
    pub(super) algorithm: String,
    pub(super) key: PublicKey,
}

pub(super) enum PublicKey {
    /// Both big-endian, without leading zeros.
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// The point uncompressed.
    Ec {
        curve: Curve,
        point: Vec<u8>,
    },
    Ed25519(Vec<u8>),
    Secret(Vec<u8>),
    /// A key that is well-formed, but that signs no tokens.
    Other,
}

/// Reads a certificate or a public key in PEM, a JWK or a JWK Set. `None` if
/// it is none of these, or if one key of a set is malformed.
pub(super) fn parse(given: &str) -> Option<Vec<Key>> {
    if given.len() > KEY_BYTES {
        return None;
    }
    if let Some(block) = first_block(given) {
        if !block.rest.is_empty() {
            return None;
        }
        let key = match block.label {
            "CERTIFICATE" => {
                let (rest, certificate) = X509Certificate::from_der(&block.contents).ok()?;
                rest.is_empty()
                    .then(|| subject_key(certificate.public_key()))??
            }
            "PUBLIC KEY" => {
                let (rest, key) = SubjectPublicKeyInfo::from_der(&block.contents).ok()?;
                rest.is_empty().then(|| subject_key(&key))??
            }
            _ => return None,
        };
        return Some(vec![Key {
            id: String::new(),
            algorithm: String::new(),
            key,
        }]);
    }
    let json = Value::from_json_str(given).ok()?;
    let Some(keys) = member(&json, "keys") else {
        return Some(usable(vec![jwk(&json)?]));
    };
    let Value::Array(keys) = keys else {
        return None;
    };
    if keys.len() > KEYS {
        return None;
    }
    let keys = keys.iter().map(jwk).collect::<Option<Vec<Key>>>()?;
    Some(usable(keys))
}

/// The key of a certificate.
fn subject_key(info: &SubjectPublicKeyInfo<'_>) -> Option<PublicKey> {
    Some(match info.parsed().ok()? {
        ParsedKey::RSA(key) => PublicKey::Rsa {
            modulus: without_leading_zeros(key.modulus),
            exponent: without_leading_zeros(key.exponent),
        },
        ParsedKey::EC(point) => {
            let curve = info.algorithm.parameters.as_ref()?.as_oid().ok()?;
            Curve::of(&dotted(&curve)?).map_or(PublicKey::Other, |curve| PublicKey::Ec {
                curve,
                point: point.data().to_vec(),
            })
        }
        ParsedKey::Unknown(bytes) if dotted(&info.algorithm.algorithm)? == "1.3.101.112" => {
            PublicKey::Ed25519(bytes.to_vec())
        }
        _ => PublicKey::Other,
    })
}

/// RFC 7517 and RFC 7518 section 6.
fn jwk(value: &Value) -> Option<Key> {
    let bytes = |name| from_base64url(text(member(value, name)?)?);
    let optional = |name| match member(value, name) {
        None => Some(""),
        Some(value) => text(value),
    };
    let curve = optional("crv")?;
    let key = match text(member(value, "kty")?)? {
        "RSA" => PublicKey::Rsa {
            modulus: without_leading_zeros(&bytes("n")?),
            exponent: without_leading_zeros(&bytes("e")?),
        },
        "EC" => {
            let (x, y) = (bytes("x")?, bytes("y")?);
            let curve = match curve {
                "P-256" => Curve::P256,
                "P-384" => Curve::P384,
                "P-521" => Curve::P521,
                _ => return None,
            };
            PublicKey::Ec {
                curve,
                point: curve.point(&x, &y)?,
            }
        }
        "OKP" => match curve {
            "Ed25519" => PublicKey::Ed25519(bytes("x")?),
            "X25519" => PublicKey::Other,
            _ => return None,
        },
        "oct" => PublicKey::Secret(bytes("k")?),
        _ => return None,
    };
    // With its private part it is no public key.
    let private = member(value, "d").is_some();
    Some(Key {
        id: optional("kid")?.to_owned(),
        algorithm: optional("alg")?.to_owned(),
        key: if private { PublicKey::Other } else { key },
    })
}

/// The keys without those for algorithms that are no signatures of tokens.
fn usable(mut keys: Vec<Key>) -> Vec<Key> {
    keys.retain(|key| key.algorithm.is_empty() || ALGORITHMS.contains(&key.algorithm.as_str()));
    keys
}

fn without_leading_zeros(number: &[u8]) -> Vec<u8> {
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    number.iter().skip(zeros).copied().collect()
}
