//! The key that a bundle's signature must be made with.

use std::str::FromStr;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ParsedPublicKey,
    RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
    VerificationAlgorithm,
};
use x509_parser::prelude::{FromDer, SubjectPublicKeyInfo, X509Certificate};

use super::error::BundleError;

/// How a bundle is signed, by the names of RFC 7518 section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignatureAlgorithm {
    name: &'static str,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Secret(Digest),
    Pkcs1(Digest),
    Pss(Digest),
    Ecdsa(Digest),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Digest {
    Sha256,
    Sha384,
    Sha512,
}

/// A key, with the one algorithm that it is used for.
#[derive(Debug, Clone)]
pub struct VerificationKey {
    algorithm: SignatureAlgorithm,
    material: Material,
}

#[derive(Debug, Clone)]
enum Material {
    Secret(Box<hmac::Key>),
    Public(ParsedPublicKey),
}

impl SignatureAlgorithm {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::new("RS256", Kind::Pkcs1(Digest::Sha256)),
        Self::new("RS384", Kind::Pkcs1(Digest::Sha384)),
        Self::new("RS512", Kind::Pkcs1(Digest::Sha512)),
        Self::new("PS256", Kind::Pss(Digest::Sha256)),
        Self::new("PS384", Kind::Pss(Digest::Sha384)),
        Self::new("PS512", Kind::Pss(Digest::Sha512)),
        Self::new("ES256", Kind::Ecdsa(Digest::Sha256)),
        Self::new("ES384", Kind::Ecdsa(Digest::Sha384)),
        Self::new("ES512", Kind::Ecdsa(Digest::Sha512)),
        Self::new("HS256", Kind::Secret(Digest::Sha256)),
        Self::new("HS384", Kind::Secret(Digest::Sha384)),
        Self::new("HS512", Kind::Secret(Digest::Sha512)),
    ];

    const fn new(name: &'static str, kind: Kind) -> Self {
        Self { name, kind }
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }
}

impl Default for SignatureAlgorithm {
    /// RS256, as in OPA.
    fn default() -> Self {
        Self::new("RS256", Kind::Pkcs1(Digest::Sha256))
    }
}

impl FromStr for SignatureAlgorithm {
    type Err = BundleError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|known| known.name == name);
        known.ok_or_else(|| refused(format!("`{name}` is not a signature algorithm")))
    }
}

impl VerificationKey {
    /// Takes the content of a key file: PEM with a public key (`PUBLIC KEY`, `RSA PUBLIC KEY`) or
    /// a `CERTIFICATE`; for the HS algorithms the secret itself, to the last byte.
    ///
    /// # Errors
    /// What is not a key for this algorithm.
    pub fn new(algorithm: SignatureAlgorithm, content: &[u8]) -> Result<Self, BundleError> {
        let material = match algorithm.kind {
            Kind::Secret(_) if content.is_empty() => {
                return Err(refused("the secret is empty".to_owned()));
            }
            Kind::Secret(digest) => {
                Material::Secret(Box::new(hmac::Key::new(secret(digest), content)))
            }
            Kind::Pkcs1(digest) => public(algorithm.name, pkcs1(digest), content)?,
            Kind::Pss(digest) => public(algorithm.name, pss(digest), content)?,
            Kind::Ecdsa(digest) => public(algorithm.name, ecdsa(digest), content)?,
        };
        Ok(Self {
            algorithm,
            material,
        })
    }

    /// What it is used for.
    #[must_use]
    pub fn algorithm(&self) -> SignatureAlgorithm {
        self.algorithm
    }

    /// Whether `signature` is this key's over `message`.
    pub(super) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Secret(key) => hmac::verify(key, message, signature).is_ok(),
            Material::Public(key) => key.verify_sig(message, signature).is_ok(),
        }
    }
}

fn secret(digest: Digest) -> hmac::Algorithm {
    match digest {
        Digest::Sha256 => hmac::HMAC_SHA256,
        Digest::Sha384 => hmac::HMAC_SHA384,
        Digest::Sha512 => hmac::HMAC_SHA512,
    }
}

fn pkcs1(digest: Digest) -> &'static dyn VerificationAlgorithm {
    match digest {
        Digest::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
        Digest::Sha384 => &RSA_PKCS1_2048_8192_SHA384,
        Digest::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
    }
}

fn pss(digest: Digest) -> &'static dyn VerificationAlgorithm {
    match digest {
        Digest::Sha256 => &RSA_PSS_2048_8192_SHA256,
        Digest::Sha384 => &RSA_PSS_2048_8192_SHA384,
        Digest::Sha512 => &RSA_PSS_2048_8192_SHA512,
    }
}

fn ecdsa(digest: Digest) -> &'static dyn VerificationAlgorithm {
    match digest {
        Digest::Sha256 => &ECDSA_P256_SHA256_FIXED,
        Digest::Sha384 => &ECDSA_P384_SHA384_FIXED,
        Digest::Sha512 => &ECDSA_P521_SHA512_FIXED,
    }
}

fn public(
    name: &'static str,
    algorithm: &'static dyn VerificationAlgorithm,
    content: &[u8],
) -> Result<Material, BundleError> {
    let pem = pem::parse(content).map_err(|error| refused(error.to_string()))?;
    let der = pem.contents();
    let key = match pem.tag() {
        "RSA PUBLIC KEY" => der.to_vec(),
        "PUBLIC KEY" => {
            let (_, key) =
                SubjectPublicKeyInfo::from_der(der).map_err(|error| refused(error.to_string()))?;
            key.subject_public_key.data.into_owned()
        }
        "CERTIFICATE" => {
            let (_, certificate) =
                X509Certificate::from_der(der).map_err(|error| refused(error.to_string()))?;
            let key = &certificate.tbs_certificate.subject_pki;
            key.subject_public_key.data.to_vec()
        }
        other => {
            let text = format!("expected a public key or a certificate, found `{other}`");
            return Err(refused(text));
        }
    };
    let key = ParsedPublicKey::new(algorithm, key)
        .map_err(|_| refused(format!("it is not a key for {name}")))?;
    Ok(Material::Public(key))
}

fn refused(problem: String) -> BundleError {
    BundleError::Key { problem }
}
