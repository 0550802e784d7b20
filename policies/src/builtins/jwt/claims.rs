//! `io.jwt.decode_verify`: signature and claims under constraints.

use regorus::Value;

use super::keys::{self, Key, PublicKey};
use super::signature::{self, Algorithm};
use super::{Header, NESTED, Token, any_key, decoded_text, json_object};
use crate::builtins::clock;
use crate::builtins::values::{member, text};

/// Nanoseconds in the unit of claims.
const SECOND: f64 = 1_000_000_000.0;

/// What a token must be and what it is verified with.
struct Constraints<'a> {
    keys: Vec<Key>,
    algorithm: &'a str,
    issuer: &'a str,
    audience: &'a str,
    /// Nanoseconds since 1970.
    time: f64,
}

/// `io.jwt.decode_verify(token, constraints)`: whether the token is valid, its
/// header and its payload. Undefined where it is no token at all, or where the
/// constraints are none.
pub(crate) fn decode_verify(arguments: &[Value]) -> Option<Value> {
    let [token, constraints] = arguments else {
        return None;
    };
    let token = text(token)?;
    let constraints = Constraints::parse(constraints)?;
    Some(match verified(token, &constraints)? {
        Some((header, payload)) => Value::from(vec![true.into(), header, payload]),
        None => Value::from(vec![false.into(), Value::new_object(), Value::new_object()]),
    })
}

/// Header and payload of a token, or of the token in it, if it is valid.
fn verified(token: &str, constraints: &Constraints<'_>) -> Option<Option<(Value, Value)>> {
    let mut token_text = token.to_owned();
    loop {
        let token = Token::parse(&token_text)?;
        let header = token.header()?;
        if header.algorithm.is_empty()
            || !header.understood
            || !["", header.algorithm].contains(&constraints.algorithm)
        {
            return Some(None);
        }
        let signature = token.signature()?;
        if !constraints.sign(&header, token.signed, &signature) {
            return Some(None);
        }
        let payload = decoded_text(token.payload)?;
        if header.content_type.eq_ignore_ascii_case(NESTED) {
            token_text = payload;
            continue;
        }
        let payload = json_object(&payload)?;
        let valid = constraints.allow(&payload)?;
        return Some(valid.then_some((token.header, payload)));
    }
}

impl<'a> Constraints<'a> {
    /// Anything unknown among them is an error, and so is more or less than
    /// one kind of key.
    fn parse(constraints: &'a Value) -> Option<Self> {
        let Value::Object(members) = constraints else {
            return None;
        };
        let mut certificate = None;
        let mut secret = "";
        let mut time = None;
        let mut parsed = Self {
            keys: Vec::new(),
            algorithm: "",
            issuer: "",
            audience: "",
            time: 0.0,
        };
        for (name, value) in members.iter() {
            match text(name)? {
                "cert" => certificate = Some(keys::parse(text(value)?)?),
                "secret" => secret = text(value)?,
                "alg" => parsed.algorithm = text(value)?,
                "iss" => parsed.issuer = text(value)?,
                "aud" => parsed.audience = text(value)?,
                "time" => {
                    time = nanoseconds(value);
                    time?;
                }
                _ => return None,
            }
        }
        parsed.time = time.unwrap_or_else(clock::nanoseconds);
        parsed.keys = match (certificate, secret) {
            (Some(keys), "") => keys,
            (None, secret) if !secret.is_empty() => vec![Key {
                id: String::new(),
                algorithm: String::new(),
                key: PublicKey::Secret(secret.as_bytes().to_vec()),
            }],
            _ => return None,
        };
        Some(parsed)
    }

    /// Whether one of the keys signed the token, by the algorithm that its
    /// header names: a key only ever verifies algorithms of its own kind.
    fn sign(&self, header: &Header<'_>, signed: &str, signature: &[u8]) -> bool {
        let Some(algorithm) = Algorithm::named(header.algorithm) else {
            return false;
        };
        any_key(&self.keys, header, |key| {
            signature::verify(algorithm, key, signed, signature)
        })
    }

    /// Whether the claims fit; `None` if one is of the wrong type.
    fn allow(&self, payload: &Value) -> Option<bool> {
        if !self.issuer.is_empty() {
            let fits = match member(payload, "iss") {
                Some(issuer) => text(issuer)? == self.issuer,
                None => false,
            };
            if !fits {
                return Some(false);
            }
        }
        let for_us = match member(payload, "aud") {
            None => self.audience.is_empty(),
            Some(Value::Array(audiences)) => {
                let mut audiences = audiences.iter();
                audiences.any(|audience| text(audience) == Some(self.audience))
            }
            Some(audience) => text(audience) == Some(self.audience),
        };
        if !for_us {
            return Some(false);
        }
        let now = Value::from(self.time / SECOND);
        let expired = match member(payload, "exp") {
            None => false,
            Some(expiry @ Value::Number(_)) => now >= *expiry,
            Some(_) => return None,
        };
        if expired {
            return Some(false);
        }
        match member(payload, "nbf") {
            None => Some(true),
            Some(start @ Value::Number(_)) => Some(now >= *start),
            Some(_) => None,
        }
    }
}

/// A number, not negative, as near as a float comes to it.
fn nanoseconds(value: &Value) -> Option<f64> {
    let number = value.as_number().ok()?.format_decimal();
    let number: f64 = number.parse().ok()?;
    (number >= 0.0).then_some(number)
}
