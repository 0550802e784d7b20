//! The agent's own SVIDs, and the last bundle, in the state directory.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use serde::{Deserialize, Serialize};
use spiffe::TrustDomain;
use zeroize::Zeroizing;

use super::bootstrap::certificates;
use super::error::SpireError;
use super::key::{is_agent, is_of_key};
use crate::spiffe_bundle::SpiffeBundle;
use crate::svid::{X509Bundle, X509Svid};
use crate::tls::PeerIdentity;
use crate::{chain, durable, encoding};

const FORMAT: u32 = 1;

/// Where the agent keeps what must survive a restart.
#[derive(Debug)]
pub(super) struct StateDirectory {
    credentials: PathBuf,
    bundle: PathBuf,
    trust_domain: TrustDomain,
}

/// The agent's SVIDs.
#[derive(Debug, Clone, Default)]
pub(super) struct Credentials {
    /// Shown to the server.
    pub(super) in_use: Option<Arc<X509Svid>>,
    /// The one before, until the server has accepted the new one: only then it counts there.
    pub(super) fallback: Option<Arc<X509Svid>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    format: u32,
    trust_domain: String,
    /// The one in use, and the one to fall back to.
    svids: Vec<FileSvid>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileSvid {
    /// PKCS#8, PEM.
    key: Zeroizing<String>,
    /// PEM, leaf first.
    chain: String,
}

impl StateDirectory {
    pub(super) fn new(directory: &Path, trust_domain: TrustDomain) -> Self {
        Self {
            credentials: directory.join("spire_agent.json"),
            bundle: directory.join("spire_bundle.json"),
            trust_domain,
        }
    }

    /// What an earlier run left; none where there was none.
    pub(super) fn credentials(&self) -> Result<Credentials, SpireError> {
        let damaged = |problem| SpireError::Damaged {
            path: self.credentials.clone(),
            problem,
        };
        let Some(json) = read(&self.credentials)? else {
            return Ok(Credentials::default());
        };
        // The parser's message would quote what it met, and there are keys.
        let file: File = serde_json::from_slice(&json)
            .map_err(|error| damaged(format!("it is damaged at line {}", error.line())))?;
        if file.format != FORMAT {
            return Err(damaged(format!("its format {} is not known", file.format)));
        }
        if file.trust_domain != self.trust_domain.as_str() {
            let found = file.trust_domain;
            return Err(damaged(format!("it belongs to the trust domain `{found}`")));
        }
        let svids = file.svids.iter();
        let svids = svids.map(|svid| self.svid(svid).map(Arc::new).map_err(damaged));
        let mut svids = svids.collect::<Result<Vec<_>, _>>()?.into_iter();
        let credentials = Credentials {
            in_use: svids.next(),
            fallback: svids.next(),
        };
        match svids.next() {
            None => Ok(credentials),
            Some(_) => Err(damaged("it has more than two SVIDs".to_owned())),
        }
    }

    /// Replaces what is kept, in one step.
    pub(super) fn keep(&self, credentials: &Credentials) -> Result<(), SpireError> {
        let svids = [&credentials.in_use, &credentials.fallback];
        let file = File {
            format: FORMAT,
            trust_domain: self.trust_domain.to_string(),
            svids: svids
                .into_iter()
                .flatten()
                .map(|svid| FileSvid {
                    key: encoding::private_key_pem(svid.key()),
                    chain: encoding::certificates_pem(svid.chain()),
                })
                .collect(),
        };
        let json = serde_json::to_vec(&file).map_err(|error| self.unwritable(error.into()))?;
        let json = Zeroizing::new(json);
        durable::replace(&self.credentials, &json).map_err(|error| self.unwritable(error))
    }

    /// Gives up the agent's SVIDs.
    pub(super) fn forget(&self) -> Result<(), SpireError> {
        match std::fs::remove_file(&self.credentials) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => Err(SpireError::File {
                action: "remove",
                path: self.credentials.clone(),
                source,
            }),
            _ => Ok(()),
        }
    }

    /// The bundle that was there last.
    pub(super) fn bundle(&self) -> Result<Option<X509Bundle>, SpireError> {
        let damaged = |problem| SpireError::Damaged {
            path: self.bundle.clone(),
            problem,
        };
        let Some(json) = read(&self.bundle)? else {
            return Ok(None);
        };
        let bundle = SpiffeBundle::parse(&json).map_err(|error| damaged(chain(&error)))?;
        let bundle = X509Bundle::new(bundle.x509_authorities)
            .and_then(|bundle| bundle.check_anchors().map(|()| bundle));
        let bundle = bundle.map_err(|error| damaged(chain(&error)))?;
        match bundle.roots() {
            [] => Err(damaged("it has no certificates".to_owned())),
            _ => Ok(Some(bundle)),
        }
    }

    pub(super) fn keep_bundle(&self, bundle: &SpiffeBundle) -> Result<(), SpireError> {
        durable::replace(&self.bundle, bundle.to_json().as_bytes()).map_err(|source| {
            SpireError::File {
                action: "write",
                path: self.bundle.clone(),
                source,
            }
        })
    }

    fn svid(&self, svid: &FileSvid) -> Result<X509Svid, String> {
        let chain = certificates(svid.chain.as_bytes())?;
        let leaf = chain.first().ok_or("it has an SVID without certificate")?;
        let peer = PeerIdentity::from_leaf(leaf).map_err(|error| error.to_string())?;
        if !is_agent(&peer.spiffe_id, &self.trust_domain) {
            return Err(format!("`{}` is no agent's ID", peer.spiffe_id));
        }
        let pair = KeyPair::from_pem(&svid.key).map_err(|_| "it has a damaged key")?;
        if !is_of_key(leaf, &pair) {
            return Err("it has a key that does not belong to its certificate".to_owned());
        }
        let key = Zeroizing::new(pair.serialize_der());
        X509Svid::new(peer.spiffe_id, chain, key, peer.validity)
            .map_err(|error| crate::chain(&error))
    }

    fn unwritable(&self, source: io::Error) -> SpireError {
        SpireError::File {
            action: "write",
            path: self.credentials.clone(),
            source,
        }
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>, SpireError> {
    durable::read(path).map_err(|source| SpireError::File {
        action: "read",
        path: path.to_owned(),
        source,
    })
}
