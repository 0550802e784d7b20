//! The keys that sign JWT-SVIDs: kept in one file, replaced in good time.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde::{Deserialize, Serialize};
use spiffe::{SpiffeId, TrustDomain};
use tracing::error;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::bundle::{Jwk, JwtBundle, JwtBundleError};
use crate::clock::{moment, seconds};
use crate::slots::{self, AuthorityStatus, Lived, Phase, Slot, SlotError};
use crate::svid::Validity;
use crate::{durable, encoding, hex};

const FORMAT: u32 = 1;
const KEY_LIFETIME: Duration = Duration::from_secs(24 * 3600);
const TOKEN_LIFETIME: Duration = Duration::from_secs(300);

/// Signs the JWT-SVIDs of one trust domain, ES256.
pub struct JwtAuthority {
    path: PathBuf,
    trust_domain: TrustDomain,
    keys: RwLock<Keys>,
}

/// A signed JWT-SVID.
#[derive(Clone, PartialEq, Eq)]
pub struct JwtSvid {
    /// Whose it is.
    pub spiffe_id: SpiffeId,
    /// Compact serialization. A bearer token: whoever has it is the workload.
    pub token: Zeroizing<String>,
    /// When it counts.
    pub validity: Validity,
    /// The key that signed it.
    pub key_id: String,
}

/// What goes wrong with the keys.
#[derive(Debug, thiserror::Error)]
pub enum JwtError {
    /// The file cannot be read or written.
    #[error("cannot {action} the JWT keys in {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{} does not hold JWT keys: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The file belongs to another trust domain.
    #[error("{} holds the JWT keys of `{found}`, not of `{wanted}`", path.display())]
    ForeignTrustDomain {
        /// The file.
        path: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it should be.
        wanted: TrustDomain,
    },
    /// A key cannot be made.
    #[error("cannot make a JWT key")]
    Key(#[from] rcgen::Error),
    /// A token cannot be signed.
    #[error("cannot sign a JWT-SVID")]
    Sign(#[from] jsonwebtoken::errors::Error),
    /// The entry does not list the audience.
    #[error("the entry does not allow this audience")]
    AudienceNotAllowed,
    /// There is no key that may sign.
    #[error("there is no active JWT key")]
    NoKey,
    /// The keys are not in the phase that this needs.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// The public keys cannot be published.
    #[error(transparent)]
    Bundle(#[from] JwtBundleError),
}

type Keys = Vec<Slot<Arc<Key>>>;

struct Key {
    id: String,
    pair: KeyPair,
    validity: Validity,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    trust_domain: String,
    keys: Vec<FileKey>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileKey {
    phase: Phase,
    /// PKCS#8, PEM.
    key: Zeroizing<String>,
    /// Seconds since 1970.
    not_before: u64,
    not_after: u64,
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: String,
    aud: &'a [String],
    iss: String,
    iat: u64,
    exp: u64,
    jti: String,
}

impl Lived for Arc<Key> {
    fn id(&self) -> &str {
        &self.id
    }

    fn validity(&self) -> Validity {
        self.validity
    }
}

impl JwtAuthority {
    /// Opens the keys in `path`, or makes the first where there is no file yet.
    ///
    /// # Errors
    /// A file that is there and cannot be used is never overwritten.
    pub fn open(
        path: PathBuf,
        trust_domain: TrustDomain,
        now: SystemTime,
    ) -> Result<Self, JwtError> {
        let keys = load(&path, &trust_domain)?;
        let authority = Self {
            path,
            trust_domain,
            keys: RwLock::new(keys),
        };
        if let Err(error) = authority.advance(now) {
            // Such as a full disk: the key that is there signs for as long as it can.
            let keys = authority.keys();
            if !slots::active(&keys).is_some_and(|key| key.validity.contains(now)) {
                return Err(error);
            }
            let (code, error) = (error.code(), crate::chain(&error));
            error!(
                code,
                error, "the JWT keys are not renewed; the old one signs for as long as it can"
            );
        }
        Ok(authority)
    }

    /// The keys that are kept in `path`, without changing anything; none where there is no file.
    ///
    /// # Errors
    /// When the file that is there cannot be used.
    pub fn examine(
        path: &Path,
        trust_domain: &TrustDomain,
    ) -> Result<Vec<AuthorityStatus>, JwtError> {
        Ok(slots::status(&load(path, trust_domain)?))
    }

    /// Prepares, activates and retires keys as their time comes. Says whether the bundle changed.
    ///
    /// # Errors
    /// The keys stay as they were.
    pub fn advance(&self, now: SystemTime) -> Result<bool, JwtError> {
        self.change(|keys| {
            let changed = slots::advance(keys, now, || Key::generate(now).map(Arc::new))?;
            Ok((changed, changed))
        })
    }

    /// Makes the successor of the active key and publishes it, unless there is one. Says whether the
    /// bundle changed.
    ///
    /// # Errors
    /// The keys stay as they were.
    pub fn prepare(&self, now: SystemTime) -> Result<bool, JwtError> {
        self.change(|keys| {
            let changed = slots::prepare(keys, || Key::generate(now).map(Arc::new))?;
            Ok((changed, changed))
        })
    }

    /// Lets the prepared key sign from now on.
    ///
    /// # Errors
    /// When there is none; the keys stay as they were.
    pub fn activate(&self) -> Result<(), JwtError> {
        self.change(|keys| Ok((slots::activate(keys)?, true)))
    }

    /// Marks an old key, and says which: tokens that it signed are not handed out any more.
    ///
    /// # Errors
    /// When there is no such old key; the keys stay as they were.
    pub fn taint(&self, id: Option<&str>) -> Result<String, JwtError> {
        self.change(|keys| Ok((slots::taint(keys, id)?, true)))
    }

    /// Takes a tainted key out of the bundle, and says which: its tokens are not valid any more.
    ///
    /// # Errors
    /// When there is no such tainted key; the keys stay as they were.
    pub fn revoke(&self, id: Option<&str>) -> Result<String, JwtError> {
        self.change(|keys| Ok((slots::revoke(keys, id)?, true)))
    }

    /// The keys and their phases.
    pub fn status(&self) -> Vec<AuthorityStatus> {
        slots::status(&self.keys())
    }

    /// The public keys of all phases.
    ///
    /// # Errors
    /// When they make no JWK Set.
    pub fn bundle(&self) -> Result<JwtBundle, JwtError> {
        let keys = self.keys();
        let published = keys
            .iter()
            .filter_map(|slot| Jwk::new(&slot.authority.id, slot.authority.pair.public_key_raw()))
            .collect();
        let tainted = keys
            .iter()
            .filter(|slot| slot.phase == Phase::Tainted)
            .map(|slot| slot.authority.id.clone())
            .collect();
        Ok(JwtBundle::from_keys(
            &self.trust_domain,
            published,
            tainted,
        )?)
    }

    /// Signs a JWT-SVID for as long as the entry says, five minutes otherwise; less if the key ends
    /// before. Whether the entry allows the audience is for the caller to know.
    ///
    /// # Errors
    /// When there is no active key, or signing fails.
    pub fn mint(
        &self,
        spiffe_id: &SpiffeId,
        audience: &[String],
        ttl: Option<Duration>,
        now: SystemTime,
    ) -> Result<JwtSvid, JwtError> {
        let keys = self.keys();
        let key = slots::active(&keys).ok_or(JwtError::NoKey)?;
        let issued = seconds(now);
        let expires = issued + ttl.unwrap_or(TOKEN_LIFETIME).as_secs();
        let expires = expires.min(seconds(key.validity.not_after));
        if expires <= issued {
            return Err(JwtError::NoKey);
        }
        let claims = Claims {
            sub: spiffe_id.to_string(),
            aud: audience,
            iss: self.trust_domain.id_string(),
            iat: issued,
            exp: expires,
            jti: Uuid::new_v4().to_string(),
        };
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(key.id.clone());
        let signer = EncodingKey::from_ec_der(key.pair.serialized_der());
        let token = jsonwebtoken::encode(&header, &claims, &signer)?;
        Ok(JwtSvid {
            spiffe_id: spiffe_id.clone(),
            token: Zeroizing::new(token),
            validity: Validity {
                not_before: moment(issued),
                not_after: moment(expires),
            },
            key_id: key.id.clone(),
        })
    }

    /// Changes the keys and writes them, if `change` says so; both or neither.
    fn change<T>(
        &self,
        change: impl FnOnce(&mut Keys) -> Result<(T, bool), JwtError>,
    ) -> Result<T, JwtError> {
        let mut keys = self.keys();
        let (outcome, changed) = change(&mut keys)?;
        if changed {
            self.store(&keys)?;
            *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        }
        Ok(outcome)
    }

    fn keys(&self) -> Keys {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        keys.clone()
    }

    fn store(&self, keys: &Keys) -> Result<(), JwtError> {
        let file = File {
            format: FORMAT,
            trust_domain: self.trust_domain.to_string(),
            keys: keys
                .iter()
                .map(|slot| FileKey {
                    phase: slot.phase,
                    key: encoding::private_key_pem(slot.authority.pair.serialized_der()),
                    not_before: seconds(slot.authority.validity.not_before),
                    not_after: seconds(slot.authority.validity.not_after),
                })
                .collect(),
        };
        let text = serde_json::to_vec_pretty(&file).map(Zeroizing::new);
        text.map_err(io::Error::other)
            .and_then(|text| durable::replace(&self.path, &text))
            .map_err(|source| JwtError::File {
                action: "write",
                path: self.path.clone(),
                source,
            })
    }
}

impl Key {
    fn generate(now: SystemTime) -> Result<Self, JwtError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let now = moment(seconds(now));
        Ok(Self::new(
            pair,
            Validity {
                not_before: now,
                not_after: now + KEY_LIFETIME,
            },
        ))
    }

    fn new(pair: KeyPair, validity: Validity) -> Self {
        let mut id = hex(digest(&SHA256, pair.public_key_raw()).as_ref());
        id.truncate(32);
        Self { id, pair, validity }
    }
}

impl fmt::Debug for JwtSvid {
    /// Never shows the token.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("JwtSvid")
            .field("spiffe_id", &self.spiffe_id.to_string())
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}

impl JwtError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::File { .. } => "SG0126",
            Self::Damaged { .. } => "SG0127",
            Self::ForeignTrustDomain { .. } => "SG0128",
            Self::AudienceNotAllowed => "SG0135",
            Self::Slot(_) => "SG0142",
            Self::Key(_) | Self::Sign(_) | Self::NoKey | Self::Bundle(_) => "SG0129",
        }
    }
}

fn load(path: &Path, trust_domain: &TrustDomain) -> Result<Keys, JwtError> {
    let read = durable::read(path).map_err(|source| JwtError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })?;
    let Some(text) = read else {
        return Ok(Vec::new());
    };
    let damaged = |problem: String| JwtError::Damaged {
        path: path.to_owned(),
        problem,
    };
    let file: File = serde_json::from_slice(&text).map_err(|error| {
        // The error's own text could quote a key.
        damaged(format!("line {}, column {}", error.line(), error.column()))
    })?;
    if file.format != FORMAT {
        return Err(damaged(format!(
            "its format is {}, this version knows {FORMAT}",
            file.format
        )));
    }
    if file.trust_domain != trust_domain.as_str() {
        return Err(JwtError::ForeignTrustDomain {
            path: path.to_owned(),
            found: file.trust_domain,
            wanted: trust_domain.clone(),
        });
    }
    let keys = file
        .keys
        .into_iter()
        .map(|key| {
            let pair =
                KeyPair::from_pem(&key.key).map_err(|_| damaged("a key is no key".into()))?;
            let validity = Validity {
                not_before: moment(key.not_before),
                not_after: moment(key.not_after),
            };
            Ok(Slot {
                phase: key.phase,
                authority: Arc::new(Key::new(pair, validity)),
            })
        })
        .collect::<Result<Keys, JwtError>>()?;
    if keys
        .iter()
        .filter(|slot| slot.phase == Phase::Active)
        .count()
        != 1
    {
        return Err(damaged("there is not exactly one active key".to_owned()));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests;
