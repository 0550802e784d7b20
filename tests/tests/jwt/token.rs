//! Tokens taken apart, and forged.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

/// A token in its three parts.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) header: Value,
    pub(crate) claims: Value,
    pub(crate) signature: Vec<u8>,
    /// The header and the claims as they are signed.
    pub(crate) signed: String,
}

impl Token {
    pub(crate) fn new(text: &str) -> Self {
        let parts: Vec<_> = text.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            panic!("three parts: {text}");
        };
        Self {
            header: serde_json::from_slice(&decode(header)).expect("it is JSON"),
            claims: serde_json::from_slice(&decode(claims)).expect("it is JSON"),
            signature: decode(signature),
            signed: format!("{header}.{claims}"),
        }
    }

    /// It with other values, and the signature that it had.
    pub(crate) fn with(&self, header: &[(&str, Value)], claims: &[(&str, Value)]) -> Self {
        let mut token = self.clone();
        for (key, value) in header {
            token.header[*key] = value.clone();
        }
        for (key, value) in claims {
            token.claims[*key] = value.clone();
        }
        token.signed = [&token.header, &token.claims]
            .map(|part| encode(part.to_string().as_bytes()))
            .join(".");
        token
    }

    /// Signed by a key of ours.
    pub(crate) fn signed(mut self) -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let signature = key.sign(&SystemRandom::new(), self.signed.as_bytes());
        self.signature = signature.expect("a signature").as_ref().to_vec();
        self
    }

    /// HS256, with something that everybody knows as the secret.
    pub(crate) fn authenticated(mut self, secret: &[u8]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        self.signature = hmac::sign(&key, self.signed.as_bytes()).as_ref().to_vec();
        self
    }

    /// With another signature.
    pub(crate) fn signature(&self, signature: &[u8]) -> Self {
        let mut token = self.clone();
        token.signature = signature.to_vec();
        token
    }

    pub(crate) fn text(&self) -> String {
        format!("{}.{}", self.signed, encode(&self.signature))
    }
}

/// The public key of a JWK on P-256, as X9.62 and PEM.
#[derive(Debug)]
pub(crate) struct PublicKey {
    pub(crate) point: Vec<u8>,
    pub(crate) pem: String,
}

impl PublicKey {
    pub(crate) fn new(jwk: &Value) -> Self {
        assert_eq!(jwk["kty"], "EC", "{jwk}");
        assert_eq!(jwk["crv"], "P-256", "{jwk}");
        let mut point = vec![4];
        for name in ["x", "y"] {
            let coordinate = decode(jwk[name].as_str().expect("a coordinate"));
            assert_eq!(coordinate.len(), 32, "{name} is of full length: {jwk}");
            point.extend(coordinate);
        }
        // SubjectPublicKeyInfo of id-ecPublicKey on prime256v1, up to the point itself.
        let mut info = vec![
            0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06,
            0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
        ];
        info.extend(&point);
        let pem = pem::encode(&pem::Pem::new("PUBLIC KEY", info));
        Self { point, pem }
    }
}

/// A signature of JWS, two numbers of 32 bytes, as the `ECDSA-Sig-Value` that other programs know.
pub(crate) fn der(signature: &[u8]) -> Vec<u8> {
    assert_eq!(signature.len(), 64);
    let mut content = Vec::new();
    for number in signature.chunks(32) {
        let zeros = number.iter().take_while(|&&byte| byte == 0).count();
        let mut number = number[zeros..].to_vec();
        if number.first().is_none_or(|&byte| byte >= 0x80) {
            number.insert(0, 0);
        }
        content.extend([2, u8::try_from(number.len()).expect("it is short")]);
        content.extend(number);
    }
    let mut der = vec![0x30, u8::try_from(content.len()).expect("it is short")];
    der.extend(content);
    der
}

pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub(crate) fn decode(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD
        .decode(text)
        .unwrap_or_else(|error| panic!("{error}: {text}"))
}
