//! JWT-SVIDs that were signed already and may be handed out again.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use spiffe::SpiffeId;

use super::{JwtBundle, JwtSvid};

/// More are not kept: what is asked for then is signed anew.
const LARGEST: usize = 1000;

/// Keeps a token until half of its life is over.
#[derive(Debug, Default)]
pub struct JwtCache {
    tokens: Mutex<HashMap<(SpiffeId, Vec<String>), JwtSvid>>,
}

impl JwtCache {
    /// The token for this ID and audience, kept or new. One whose key has left the bundle is new.
    ///
    /// # Errors
    /// What `mint` fails with.
    pub fn get<E>(
        &self,
        spiffe_id: &SpiffeId,
        audience: &[String],
        bundle: &JwtBundle,
        now: SystemTime,
        mint: impl FnOnce() -> Result<JwtSvid, E>,
    ) -> Result<JwtSvid, E> {
        let key = (spiffe_id.clone(), audience.to_vec());
        let is_fresh = |svid: &JwtSvid| {
            svid.validity.not_before <= now
                && now < svid.validity.tenth(5)
                && bundle.parsed().find_jwt_authority(&svid.key_id).is_some()
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
