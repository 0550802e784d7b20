//! JWT-SVIDs that were signed already and may be handed out again.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use spiffe::SpiffeId;

use super::{JwtBundle, JwtSvid};
use crate::entry::Entry;
use crate::source::MintError;

/// More are not kept: what is asked for then is signed anew.
const LARGEST: usize = 1000;

/// Nor of one SPIFFE ID.
const LARGEST_OF_ONE: usize = 100;

/// A token for audiences of more bytes is not kept.
const LONGEST: usize = 4096;

/// How long a new token is waited for where there is one that still counts.
const PATIENCE: Duration = Duration::from_secs(2);

/// Keeps a token until half of its life is over.
#[derive(Debug, Default)]
pub struct JwtCache {
    tokens: Mutex<HashMap<Key, JwtSvid>>,
}

/// Tokens are the same for the same ID, lifetime and audiences, in whichever order.
type Key = (SpiffeId, Option<Duration>, BTreeSet<String>);

impl JwtCache {
    /// The token for this entry and audience, kept or new. One whose key has left the bundle, or is
    /// tainted, is new. While whoever signs is away, one that is past half of its life is given again.
    ///
    /// # Errors
    /// What `mint` fails with.
    pub async fn get(
        &self,
        entry: &Entry,
        audience: &[String],
        bundle: &JwtBundle,
        now: SystemTime,
        mint: impl Future<Output = Result<JwtSvid, MintError>>,
    ) -> Result<JwtSvid, MintError> {
        let (id, ttl) = (entry.spiffe_id().clone(), entry.jwt_svid_ttl());
        let key = (id, ttl, audience.iter().cloned().collect());
        let counts =
            |svid: &JwtSvid| svid.validity.contains(now) && bundle.vouches_for(&svid.key_id);
        let is_fresh = |svid: &JwtSvid| counts(svid) && now < svid.validity.tenth(5);
        let kept = self.tokens().get(&key).filter(|svid| counts(svid)).cloned();
        if let Some(svid) = kept.as_ref().filter(|svid| is_fresh(svid)) {
            return Ok(svid.clone());
        }
        // Not under the lock: whoever signs may be far away.
        let svid = match kept {
            None => mint.await?,
            Some(kept) => match tokio::time::timeout(PATIENCE, mint).await {
                Err(_) => return Ok(kept),
                Ok(Err(error)) if error.is_absence() => return Ok(kept),
                Ok(minted) => minted?,
            },
        };
        if audience.iter().map(String::len).sum::<usize>() > LONGEST {
            return Ok(svid);
        }
        let mut tokens = self.tokens();
        if tokens.len() >= LARGEST {
            tokens.retain(|_, kept| is_fresh(kept));
        }
        // No workload's tokens take the place of another's.
        let of_this = tokens.keys().filter(|(id, ..)| *id == key.0).count();
        if tokens.len() < LARGEST && of_this < LARGEST_OF_ONE {
            tokens.insert(key, svid.clone());
        }
        Ok(svid)
    }

    fn tokens(&self) -> MutexGuard<'_, HashMap<Key, JwtSvid>> {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
