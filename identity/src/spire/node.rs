//! What a node shows to become an agent: `join_token` and `x509pop`.
//!
//! A join token is its own proof. With `x509pop` the node shows a certificate, and signs with its key
//! what server and node have drawn by lot: RSA-PSS or ECDSA with SHA-256 over both nonces.

use std::fmt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P521_SHA256_FIXED_SIGNING, EcdsaKeyPair,
    EcdsaSigningAlgorithm, KeyPair, RSA_PSS_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::bootstrap::{LARGEST, certificates};
use super::error::SpireError;
use crate::durable;

const NONCE: usize = 32;

/// More certificates than any chain has.
const LONGEST_CHAIN: usize = 16;

/// By what the server recognizes this node. The files are read when they are needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeAttestation {
    /// A file with a join token: it serves once, and not to attest the node anew.
    JoinToken(PathBuf),
    /// A certificate and the proof that its key is here.
    X509Pop {
        /// PEM, leaf first, up to and without the root that the server knows.
        certificates: PathBuf,
        /// PEM, PKCS#8, SEC 1 or PKCS#1: RSA, or ECDSA on P-256 or P-521.
        private_key: PathBuf,
    },
}

/// What is shown to the server.
pub(super) struct Evidence {
    /// The name of the attestor.
    pub(super) kind: &'static str,
    pub(super) payload: Zeroizing<Vec<u8>>,
    key: Option<PossessedKey>,
}

enum PossessedKey {
    Ecdsa(EcdsaKeyPair),
    Rsa(rsa::KeyPair),
}

#[derive(Serialize)]
struct Payload {
    certificates: Vec<String>,
}

/// One of them is there. Newer servers may say more.
#[derive(Deserialize)]
struct Challenge {
    rsa_signature: Option<Nonce>,
    ecdsa_signature: Option<Nonce>,
}

#[derive(Deserialize)]
struct Nonce {
    nonce: String,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Response {
    RsaSignature {
        nonce: String,
        signature: String,
    },
    /// Big-endian.
    EcdsaSignature {
        nonce: String,
        r: String,
        s: String,
    },
}

impl NodeAttestation {
    /// Whether the same can attest the node again.
    pub(super) fn is_repeatable(&self) -> bool {
        match self {
            Self::JoinToken(_) => false,
            Self::X509Pop { .. } => true,
        }
    }

    /// Reads what is to be shown.
    pub(super) fn evidence(&self) -> Result<Evidence, SpireError> {
        match self {
            Self::JoinToken(path) => {
                let content = read(path)?;
                let token = content.trim_ascii();
                if token.is_empty() {
                    let problem = format!("there is no join token in {}", path.display());
                    return Err(SpireError::Attestation(problem));
                }
                Ok(Evidence {
                    kind: "join_token",
                    payload: Zeroizing::new(token.to_vec()),
                    key: None,
                })
            }
            Self::X509Pop {
                certificates: path,
                private_key,
            } => {
                let chain = certificates(&read(path)?);
                let chain = chain.map_err(|problem| unusable(path, &problem))?;
                let leaf = match chain.as_slice() {
                    [leaf, ..] if chain.len() <= LONGEST_CHAIN => leaf,
                    [] => return Err(unusable(path, "there is no certificate in it")),
                    _ => return Err(unusable(path, "there are too many certificates in it")),
                };
                let key = PossessedKey::read(&read(private_key)?)
                    .map_err(|problem| unusable(private_key, problem))?;
                if !key.is_of(leaf) {
                    let problem = "it is not the key of the certificate";
                    return Err(unusable(private_key, problem));
                }
                let payload = Payload {
                    certificates: chain.iter().map(|der| STANDARD.encode(der)).collect(),
                };
                let payload = serde_json::to_vec(&payload)
                    .map_err(|error| SpireError::Attestation(error.to_string()))?;
                Ok(Evidence {
                    kind: "x509pop",
                    payload: Zeroizing::new(payload),
                    key: Some(key),
                })
            }
        }
    }
}

impl Evidence {
    /// The answer to a challenge.
    pub(super) fn respond(&self, challenge: &[u8]) -> Result<Vec<u8>, String> {
        let key = self.key.as_ref();
        let key = key.ok_or("a join token is challenged, which has no key")?;
        let challenge: Challenge = serde_json::from_slice(challenge)
            .map_err(|error| format!("the challenge cannot be read: {error}"))?;
        let ours: [u8; NONCE] = rand::random();
        let response = match (key, challenge.rsa_signature, challenge.ecdsa_signature) {
            (PossessedKey::Rsa(key), Some(theirs), None) => {
                let mut signature = vec![0; key.public_modulus_len()];
                let message = theirs.with(&ours)?;
                key.sign(
                    &RSA_PSS_SHA256,
                    &SystemRandom::new(),
                    &message,
                    &mut signature,
                )
                .map_err(|_| "the challenge cannot be signed")?;
                Response::RsaSignature {
                    nonce: STANDARD.encode(ours),
                    signature: STANDARD.encode(signature),
                }
            }
            (PossessedKey::Ecdsa(key), None, Some(theirs)) => {
                let signature = key
                    .sign(&SystemRandom::new(), &theirs.with(&ours)?)
                    .map_err(|_| "the challenge cannot be signed")?;
                let signature = signature.as_ref();
                let (r, s) = signature.split_at(signature.len() / 2);
                Response::EcdsaSignature {
                    nonce: STANDARD.encode(ours),
                    r: STANDARD.encode(r),
                    s: STANDARD.encode(s),
                }
            }
            _ => return Err("the challenge is not one for the key".to_owned()),
        };
        serde_json::to_vec(&response).map_err(|error| error.to_string())
    }
}

impl fmt::Debug for Evidence {
    /// Never shows the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Evidence");
        shown.field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Nonce {
    /// What is signed: theirs, then ours.
    fn with(&self, ours: &[u8; NONCE]) -> Result<Vec<u8>, String> {
        let theirs = STANDARD.decode(&self.nonce);
        match theirs {
            Ok(theirs) if theirs.len() == NONCE => Ok([theirs.as_slice(), ours].concat()),
            _ => Err(format!("the challenge is not one of {NONCE} bytes")),
        }
    }
}

impl PossessedKey {
    fn read(content: &[u8]) -> Result<Self, &'static str> {
        let blocks = pem::parse_many(content).map_err(|_| "it is not PEM")?;
        // The parameters of a curve may stand before it, and certificates beside it.
        let mut blocks = blocks.into_iter();
        let block = blocks.find(|block| block.tag().ends_with("PRIVATE KEY"));
        let block = block.ok_or("there is no private key in it")?;
        let der = Zeroizing::new(block.into_contents());
        let found = [
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &ECDSA_P521_SHA256_FIXED_SIGNING,
        ]
        .into_iter()
        .find_map(|algorithm| ecdsa(algorithm, &der))
        .or_else(|| {
            let key = rsa::KeyPair::from_pkcs8(&der).or_else(|_| rsa::KeyPair::from_der(&der));
            key.ok().map(Self::Rsa)
        });
        found.ok_or("it is no RSA key, and no ECDSA key on P-256 or P-521")
    }

    fn is_of(&self, leaf: &CertificateDer<'_>) -> bool {
        let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
            return false;
        };
        let certified = leaf.public_key().subject_public_key.data.as_ref();
        match self {
            Self::Ecdsa(key) => key.public_key().as_ref() == certified,
            Self::Rsa(key) => key.public_key().as_ref() == certified,
        }
    }
}

fn ecdsa(algorithm: &'static EcdsaSigningAlgorithm, der: &[u8]) -> Option<PossessedKey> {
    let key = EcdsaKeyPair::from_pkcs8(algorithm, der)
        .or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, der));
    key.ok().map(PossessedKey::Ecdsa)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, SpireError> {
    durable::read_bounded(path, LARGEST).map_err(|error| unusable(path, &error.to_string()))
}

fn unusable(path: &Path, problem: &str) -> SpireError {
    SpireError::Attestation(format!("{} cannot be used: {problem}", path.display()))
}
