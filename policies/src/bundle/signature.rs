//! The signature of a bundle: `.signatures.json` holds one JWT that lists every file with its hash.
//!
//! OPA's "Bundle file format" and "Signing" say what is signed. Of the token, only the files, the
//! key's id and the scope are looked at; a bundle has no time at which it ends.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Algorithm, Context, SHA224, SHA256, SHA384, SHA512, SHA512_256};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::canonical;
use super::error::BundleError;
use super::files::Files;
use super::keys::VerificationKey;
use super::manifest::MANIFEST;

/// The file with the signatures.
pub(super) const SIGNATURES: &str = ".signatures.json";

/// How a bundle's signature is verified. Without one, a signed bundle is refused.
#[derive(Debug, Clone)]
pub struct Verification {
    key: VerificationKey,
    key_id: Option<String>,
    scope: String,
    exclude: Vec<GlobMatcher>,
}

/// `.signatures.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Signatures {
    #[serde(default)]
    signatures: Vec<String>,
    #[serde(default)]
    plugin: String,
}

#[derive(Debug, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that must be understood; none is.
    crit: Option<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct Payload {
    files: Vec<SignedFile>,
    #[serde(default)]
    keyid: Option<String>,
    #[serde(default)]
    scope: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SignedFile {
    name: String,
    hash: String,
    algorithm: String,
}

impl Verification {
    /// Demands a signature by `key`.
    #[must_use]
    pub fn new(key: VerificationKey) -> Self {
        Self {
            key,
            key_id: None,
            scope: String::new(),
            exclude: Vec::new(),
        }
    }

    /// Refuses a token that names another key than this.
    #[must_use]
    pub fn key_id(mut self, key_id: Option<String>) -> Self {
        self.key_id = key_id;
        self
    }

    /// The scope that the token must have; empty, it must have none.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Files that need not be signed: patterns in which `*` and `?` stand for anything but `/`.
    ///
    /// # Errors
    /// What is not a pattern.
    pub fn exclude<Text: AsRef<str>>(
        mut self,
        patterns: impl IntoIterator<Item = Text>,
    ) -> Result<Self, BundleError> {
        for pattern in patterns {
            self.exclude.push(exclusion(pattern.as_ref())?);
        }
        Ok(self)
    }
}

/// Patterns mean what they mean to OPA, or nothing: elsewhere `**` and braces would exclude more.
fn exclusion(pattern: &str) -> Result<GlobMatcher, BundleError> {
    let refused = |reason: String| BundleError::Key {
        problem: format!("`{pattern}` is not a pattern for files to exclude: {reason}"),
    };
    if pattern.contains("**") || pattern.contains(['{', '}']) {
        return Err(refused(
            "`**`, `{` and `}` have no meaning in it".to_owned(),
        ));
    }
    let glob = GlobBuilder::new(pattern)
        .literal_separator(true)
        .backslash_escape(true)
        .build();
    Ok(glob
        .map_err(|error| refused(error.to_string()))?
        .compile_matcher())
}

/// Takes the signatures from the files, and verifies all others.
pub(super) fn verify(
    files: &mut Files,
    verification: Option<&Verification>,
) -> Result<(), BundleError> {
    let (signatures, verification) = match (files.remove(SIGNATURES), verification) {
        (None, None) => return Ok(()),
        (None, Some(_)) => return Err(BundleError::Unsigned),
        (Some(_), None) => return Err(BundleError::NoKey),
        (Some(signatures), Some(verification)) => (signatures, verification),
    };
    let signatures: Signatures =
        serde_json::from_slice(&signatures).map_err(|error| BundleError::Manifest {
            file: SIGNATURES.to_owned(),
            problem: format!("cannot be read: {error}"),
        })?;
    if !matches!(signatures.plugin.as_str(), "" | "_default") {
        return Err(refused(format!(
            "it needs the plugin `{}`",
            signatures.plugin
        )));
    }
    let [token] = signatures.signatures.as_slice() else {
        let count = signatures.signatures.len();
        return Err(refused(format!("expected one token, found {count}")));
    };
    let mut signed = signed_files(token, verification)?;
    for (path, content) in files.iter() {
        let Some(file) = signed.remove(path.as_str()) else {
            if verification.exclude.iter().any(|it| it.is_match(path)) {
                continue;
            }
            return Err(differs(path, "is not in the bundle's signature"));
        };
        if !verification.exclude.iter().any(|it| it.is_match(path)) {
            compare(path, content, &file)?;
        }
    }
    match signed.into_keys().next() {
        None => Ok(()),
        Some(path) => Err(differs(&path, "is signed, and is not in the bundle")),
    }
}

/// The files that a token lists, once it is known to be the key's.
fn signed_files(
    token: &str,
    verification: &Verification,
) -> Result<BTreeMap<String, SignedFile>, BundleError> {
    let malformed = || refused("it is not a JWT".to_owned());
    let (message, signature) = token.rsplit_once('.').ok_or_else(malformed)?;
    let (header, payload) = message.split_once('.').ok_or_else(malformed)?;
    let decode = |text: &str| BASE64_URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed());
    let header: Header = serde_json::from_slice(&decode(header)?)
        .map_err(|error| refused(format!("its header cannot be read: {error}")))?;
    if header.crit.is_some() {
        return Err(refused("its header has critical extensions".to_owned()));
    }
    let algorithm = verification.key.algorithm().name();
    if header.alg != algorithm {
        let found = header.alg;
        return Err(refused(format!("it is by {found}, expected {algorithm}")));
    }
    if !verification
        .key
        .verifies(message.as_bytes(), &decode(signature)?)
    {
        return Err(refused("it is not by the configured key".to_owned()));
    }
    let payload: Payload = serde_json::from_slice(&decode(payload)?)
        .map_err(|error| refused(format!("its payload cannot be read: {error}")))?;
    let key_id = header.kid.or(payload.keyid).filter(|id| !id.is_empty());
    if let (Some(expected), Some(found)) = (&verification.key_id, key_id)
        && *expected != found
    {
        return Err(refused(format!(
            "it names the key `{found}`, expected `{expected}`"
        )));
    }
    let scope = payload.scope.unwrap_or_default();
    if scope != verification.scope {
        let expected = &verification.scope;
        return Err(refused(format!(
            "its scope is `{scope}`, expected `{expected}`"
        )));
    }
    let mut signed = BTreeMap::new();
    for file in payload.files {
        let name = file.name.strip_prefix('/').unwrap_or(&file.name).to_owned();
        if let Some(file) = signed.insert(name, file) {
            return Err(differs(&file.name, "is in the bundle's signature twice"));
        }
    }
    Ok(signed)
}

fn compare(path: &str, content: &[u8], signed: &SignedFile) -> Result<(), BundleError> {
    let Some(algorithm) = algorithm(&signed.algorithm) else {
        let name = &signed.algorithm;
        let problem = format!("is signed by its {name:?} hash, which is not taken");
        return Err(differs(path, problem));
    };
    let mut context = Context::new(algorithm);
    if is_structured(path) {
        canonical::feed(content, &mut |part| context.update(part))
            .map_err(|problem| differs(path, format!("cannot be read: {problem}")))?;
    } else {
        context.update(content);
    }
    let found: String = context
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    match found.eq_ignore_ascii_case(&signed.hash) {
        true => Ok(()),
        false => Err(differs(path, "is not the file that was signed")),
    }
}

/// Hashes by OPA's names. MD5 and SHA-1 can be forged; SHA-512/224 nobody uses.
fn algorithm(name: &str) -> Option<&'static Algorithm> {
    match name {
        "SHA-224" => Some(&SHA224),
        "SHA-256" => Some(&SHA256),
        "SHA-384" => Some(&SHA384),
        "SHA-512" => Some(&SHA512),
        "SHA-512-256" => Some(&SHA512_256),
        _ => None,
    }
}

fn is_structured(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "data.json" | "data.yaml" | "data.yml") || name == MANIFEST
}

fn refused(problem: String) -> BundleError {
    BundleError::Signature { problem }
}

fn differs(file: &str, problem: impl Into<String>) -> BundleError {
    BundleError::SignedFile {
        file: file.to_owned(),
        problem: problem.into(),
    }
}

#[cfg(test)]
mod tests;
