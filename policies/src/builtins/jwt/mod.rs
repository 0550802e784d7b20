//! `io.jwt.*`: tokens in the compact form of RFC 7515, decoded and verified as
//! OPA does it.

mod claims;
mod keys;
mod signature;

use regorus::Value;

use self::keys::{Key, PublicKey};
use self::signature::Algorithm;
use super::values::{from_base64url, hexadecimal, member, text};

pub(super) use claims::decode_verify;

/// Longer tokens are refused; far above what a header can carry.
const TOKEN_BYTES: usize = 256 * 1024;

/// What the content type of a token says if it holds another token.
const NESTED: &str = "JWT";

/// A token whose header has been read.
struct Token<'a> {
    /// Header and payload as they are signed.
    signed: &'a str,
    payload: &'a str,
    signature: &'a str,
    header: Value,
}

/// The members of a header that count for verification.
#[derive(Default)]
struct Header<'a> {
    algorithm: &'a str,
    key_id: &'a str,
    content_type: &'a str,
    /// No member that must be understood is unknown.
    understood: bool,
}

impl<'a> Token<'a> {
    fn parse(token: &'a str) -> Option<Self> {
        if token.len() > TOKEN_BYTES {
            return None;
        }
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, payload) = signed.split_once('.')?;
        if payload.contains('.') {
            return None;
        }
        let header = json_object(&decoded_text(header)?)?;
        // An encrypted token (RFC 7516 section 9) is none of these.
        if member(&header, "enc").is_some() {
            return None;
        }
        Some(Self {
            signed,
            payload,
            signature,
            header,
        })
    }

    fn header(&self) -> Option<Header<'_>> {
        let Value::Object(members) = &self.header else {
            return None;
        };
        let mut header = Header::default();
        let mut critical = None;
        for (name, value) in members.iter() {
            match text(name)? {
                "alg" => header.algorithm = text(value)?,
                "kid" => header.key_id = text(value)?,
                "cty" => header.content_type = text(value)?,
                "typ" => {
                    text(value)?;
                }
                "crit" => {
                    let Value::Array(names) = value else {
                        return None;
                    };
                    critical = Some(names).filter(|names| names.first().and_then(text).is_some());
                    critical?;
                }
                _ => {}
            }
        }
        let known = ["alg", "kid", "cty", "typ", "crit"];
        header.understood = critical.is_none_or(|names| {
            !names.iter().any(|name| {
                members.contains_key(name) && !text(name).is_some_and(|name| known.contains(&name))
            })
        });
        Some(header)
    }

    fn signature(&self) -> Option<Vec<u8>> {
        from_base64url(self.signature)
    }
}

/// `io.jwt.decode(token)`: header, payload and signature, not verified.
pub(super) fn decode(arguments: &[Value]) -> Option<Value> {
    let [token] = arguments else { return None };
    let mut token_text = text(token)?.to_owned();
    // A token in a token is shorter than the one that holds it.
    loop {
        let token = Token::parse(&token_text)?;
        let payload = decoded_text(token.payload)?;
        let nested = match member(&token.header, "cty") {
            None => false,
            Some(content_type) => text(content_type)? == NESTED,
        };
        if nested {
            token_text = payload.trim_matches(['"', '\'']).to_owned();
            continue;
        }
        let payload = json_object(&payload)?;
        let signature = hexadecimal(&token.signature()?);
        return Some(Value::from(vec![token.header, payload, signature]));
    }
}

/// `io.jwt.verify_*(token, key)` with a public key: a certificate or a key in
/// PEM, a JWK or a JWK Set.
fn verify(arguments: &[Value], algorithm: Algorithm) -> Option<Value> {
    let [token, key] = arguments else {
        return None;
    };
    let token = Token::parse(text(token)?)?;
    let keys = keys::parse(text(key)?)?;
    let signature = token.signature()?;
    let header = token.header()?;
    let verified = any_key(&keys, &header, |key| {
        signature::verify(algorithm, key, token.signed, &signature)
    });
    Some(verified.into())
}

/// `io.jwt.verify_hs*(token, secret)`.
fn verify_secret(arguments: &[Value], algorithm: Algorithm) -> Option<Value> {
    let [token, secret] = arguments else {
        return None;
    };
    let (token, secret) = (text(token)?, text(secret)?);
    if token.len() > TOKEN_BYTES {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    if signed.matches('.').count() != 1 {
        return None;
    }
    let signature = from_base64url(signature)?;
    let key = PublicKey::Secret(secret.as_bytes().to_vec());
    Some(signature::verify(algorithm, &key, signed, &signature).into())
}

/// Whether the key that the header names, or else any key that may be meant,
/// fits.
fn any_key(keys: &[Key], header: &Header<'_>, verified: impl Fn(&PublicKey) -> bool) -> bool {
    let named = keys.iter().find(|key| key.id == header.key_id);
    if let Some(key) = named.filter(|_| !header.key_id.is_empty()) {
        return verified(&key.key);
    }
    let mut meant = keys
        .iter()
        .filter(|key| key.algorithm.is_empty() || key.algorithm == header.algorithm);
    meant.any(|key| verified(&key.key))
}

macro_rules! verifiers {
    ($($name:ident: $function:ident($algorithm:ident);)*) => {
        $(pub(super) fn $name(arguments: &[Value]) -> Option<Value> {
            $function(arguments, Algorithm::$algorithm)
        })*
    };
}

verifiers! {
    verify_rs256: verify(Rs256);
    verify_rs384: verify(Rs384);
    verify_rs512: verify(Rs512);
    verify_ps256: verify(Ps256);
    verify_ps384: verify(Ps384);
    verify_ps512: verify(Ps512);
    verify_es256: verify(Es256);
    verify_es384: verify(Es384);
    verify_es512: verify(Es512);
    verify_eddsa: verify(EdDsa);
    verify_hs256: verify_secret(Hs256);
    verify_hs384: verify_secret(Hs384);
    verify_hs512: verify_secret(Hs512);
}

fn decoded_text(part: &str) -> Option<String> {
    String::from_utf8(from_base64url(part)?).ok()
}

/// An object of JSON. Of members with the same name the last one counts.
fn json_object(json: &str) -> Option<Value> {
    let value = Value::from_json_str(json).ok()?;
    matches!(value, Value::Object(_)).then_some(value)
}

#[cfg(test)]
mod tests;
