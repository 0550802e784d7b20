//! JWT-SVIDs that were signed already and may be handed out again.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use spiffe::SpiffeId;

use super::{JwtBundle, JwtSvid};
use crate::entry::Entry;

/// More are not kept: what is asked for then is signed anew.
const LARGEST: usize = 1000;

/// Keeps a token until half of its life is over.
#[derive(Debug, Default)]
pub struct JwtCache {
    tokens: Mutex<HashMap<Key, JwtSvid>>,
}

/// Tokens are the same for the same ID, lifetime and audiences, in whichever order.
type Key = (SpiffeId, Option<Duration>, BTreeSet<String>);

impl JwtCache {
    /// The token for this entry and audience, kept or new. One whose key
    /// has left the bundle, or is tainted, is new.
    ///
    /// # Errors
    /// What `mint` fails with.
    pub fn get<E>(
        &self,
        entry: &Entry,
        audience: &[String],
        bundle: &JwtBundle,
        now: SystemTime,
        mint: impl FnOnce() -> Result<JwtSvid, E>,
    ) -> Result<JwtSvid, E> {
        let (id, ttl) = (entry.spiffe_id().clone(), entry.jwt_svid_ttl());
        let key = (id, ttl, audience.iter().cloned().collect());
        let is_fresh = |svid: &JwtSvid| {
            svid.validity.not_before <= now
                && now < svid.validity.tenth(5)
                && bundle.vouches_for(&svid.key_id)
        };
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(svid) = tokens.get(&key).filter(|svid| is_fresh(svid)) {
            return Ok(svid.clone());
        }
        let svid = mint()?;
        if tokens.len() >= LARGEST {
            tokens.retain(|_, kept| is_fresh(kept));
        }
        if tokens.len() < LARGEST {
            tokens.insert(key, svid.clone());
        }
        Ok(svid)
    }
}
