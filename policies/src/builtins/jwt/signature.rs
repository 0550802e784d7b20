//! Signatures of tokens (RFC 7518 section 3, RFC 8037).

use aws_lc_rs::hmac::{self, HMAC_SHA256, HMAC_SHA384, HMAC_SHA512};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::keys::PublicKey;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    Es512,
    Hs256,
    Hs384,
    Hs512,
    EdDsa,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Curve {
    P256,
    P384,
    P521,
}

impl Algorithm {
    /// The algorithm of a header's `alg`.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "ES512" => Self::Es512,
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

impl Curve {
    /// The curve of an object identifier.
    pub(super) fn of(identifier: &str) -> Option<Self> {
        Some(match identifier {
            "1.2.840.10045.3.1.7" => Self::P256,
            "1.3.132.0.34" => Self::P384,
            "1.3.132.0.35" => Self::P521,
            _ => return None,
        })
    }

    /// The uncompressed form of a point (SEC 1 section 2.3.3).
    pub(super) fn point(self, x: &[u8], y: &[u8]) -> Option<Vec<u8>> {
        let size: usize = match self {
            Self::P256 => 32,
            Self::P384 => 48,
            Self::P521 => 66,
        };
        let mut point = vec![4];
        for coordinate in [x, y] {
            let padding = size.checked_sub(coordinate.len())?;
            point.extend(std::iter::repeat_n(0, padding));
            point.extend(coordinate);
        }
        Some(point)
    }
}

/// Whether a key of the algorithm's kind made the signature.
pub(super) fn verify(
    algorithm: Algorithm,
    key: &PublicKey,
    signed: &str,
    signature: &[u8],
) -> bool {
    let signed = signed.as_bytes();
    match (algorithm, key) {
        (Algorithm::Rs256, key) => rsa(&RSA_PKCS1_2048_8192_SHA256, key, signed, signature),
        (Algorithm::Rs384, key) => rsa(&RSA_PKCS1_2048_8192_SHA384, key, signed, signature),
        (Algorithm::Rs512, key) => rsa(&RSA_PKCS1_2048_8192_SHA512, key, signed, signature),
        (Algorithm::Ps256, key) => rsa(&RSA_PSS_2048_8192_SHA256, key, signed, signature),
        (Algorithm::Ps384, key) => rsa(&RSA_PSS_2048_8192_SHA384, key, signed, signature),
        (Algorithm::Ps512, key) => rsa(&RSA_PSS_2048_8192_SHA512, key, signed, signature),
        (Algorithm::Es256, PublicKey::Ec { curve, point }) if *curve == Curve::P256 => {
            ecdsa(&ECDSA_P256_SHA256_FIXED, point, signed, signature)
        }
        (Algorithm::Es384, PublicKey::Ec { curve, point }) if *curve == Curve::P384 => {
            ecdsa(&ECDSA_P384_SHA384_FIXED, point, signed, signature)
        }
        (Algorithm::Es512, PublicKey::Ec { curve, point }) if *curve == Curve::P521 => {
            ecdsa(&ECDSA_P521_SHA512_FIXED, point, signed, signature)
        }
        (Algorithm::Hs256, key) => code(HMAC_SHA256, key, signed, signature),
        (Algorithm::Hs384, key) => code(HMAC_SHA384, key, signed, signature),
        (Algorithm::Hs512, key) => code(HMAC_SHA512, key, signed, signature),
        (Algorithm::EdDsa, PublicKey::Ed25519(key)) => UnparsedPublicKey::new(&ED25519, key)
            .verify(signed, signature)
            .is_ok(),
        (Algorithm::Es256 | Algorithm::Es384 | Algorithm::Es512 | Algorithm::EdDsa, _) => false,
    }
}

fn rsa(
    parameters: &'static RsaParameters,
    key: &PublicKey,
    signed: &[u8],
    signature: &[u8],
) -> bool {
    let PublicKey::Rsa { modulus, exponent } = key else {
        return false;
    };
    let key = RsaPublicKeyComponents {
        n: modulus,
        e: exponent,
    };
    key.verify(parameters, signed, signature).is_ok()
}

fn ecdsa(
    algorithm: &'static EcdsaVerificationAlgorithm,
    point: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> bool {
    UnparsedPublicKey::new(algorithm, point)
        .verify(signed, signature)
        .is_ok()
}

fn code(algorithm: hmac::Algorithm, key: &PublicKey, signed: &[u8], signature: &[u8]) -> bool {
    let PublicKey::Secret(secret) = key else {
        return false;
    };
    let key = hmac::Key::new(algorithm, secret);
    hmac::verify(&key, signed, signature).is_ok()
}
