//! What an operator does while the source runs. Each is there for all watchers when it returns, or
//! nothing has changed.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use spiffe::TrustDomain;

use super::{EmbeddedError, EmbeddedSource, Failing, HeldSvid};
use crate::entry::{Entry, EntryRequest};
use crate::federation::{FederationError, Verifying};
use crate::registry::Registration;
use crate::slots::AuthorityStatus;
use crate::spiffe_bundle::SpiffeBundle;

/// A change is with every watcher on this machine within this time.
const PROPAGATION: Duration = Duration::from_secs(1);

/// Which authority is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthorityKind {
    /// The roots of X.509-SVIDs.
    X509,
    /// The keys that sign JWT-SVIDs.
    Jwt,
}

/// All authorities with their phases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorities {
    /// The roots of X.509-SVIDs.
    pub x509: Vec<AuthorityStatus>,
    /// The keys that sign JWT-SVIDs.
    pub jwt: Vec<AuthorityStatus>,
}

impl EmbeddedSource {
    /// All entries, in the order in which they count.
    pub fn entries(&self) -> Vec<Registration> {
        self.held().registry.all().to_vec()
    }

    /// Makes an entry and its SVID. Without an `id` it gets a UUID.
    ///
    /// # Errors
    /// The entry is refused, its SVID cannot be minted, or it cannot be kept.
    pub fn create_entry(
        &self,
        id: Option<String>,
        request: EntryRequest,
    ) -> Result<Registration, EmbeddedError> {
        let mut held = self.held();
        let registration = held.registry.examine(id, request, self.clock.now())?;
        let svid = self.hold(Arc::clone(&registration.entry))?;
        held.registry.insert(registration.clone())?;
        self.metrics.rotated(&svid.issued.svid);
        held.svids.push(svid);
        self.publish(&held);
        Ok(registration)
    }

    /// Removes an entry that was made at run time. Its SVID is withdrawn.
    ///
    /// # Errors
    /// There is none, or the change cannot be kept.
    pub fn delete_entry(&self, id: &str) -> Result<Registration, EmbeddedError> {
        let mut held = self.held();
        let removed = held.registry.remove(id)?;
        held.svids
            .retain(|svid| !Arc::ptr_eq(&svid.issued.entry, &removed.entry));
        let id = removed.entry.spiffe_id();
        if !held.svids.iter().any(|svid| svid.issued.svid.id() == id) {
            self.metrics.withdrawn(id);
        }
        self.publish(&held);
        Ok(removed)
    }

    /// Puts other entries of the configuration in the place of those that are there, together with
    /// what uses them. `prepare` gets all entries that will count, and makes what is to use them;
    /// what it returns then puts that into place. Entries that come are there before that, and those
    /// that go are there until after it. Nothing else changes meanwhile.
    ///
    /// # Errors
    /// An SVID cannot be minted, or those of `prepare`; nothing has changed then.
    pub fn replace_configured<P, T, E>(
        &self,
        configured: Vec<Entry>,
        prepare: impl FnOnce(&[Arc<Entry>]) -> Result<P, E>,
    ) -> Result<T, E>
    where
        P: FnOnce() -> T,
        E: From<EmbeddedError>,
    {
        let mut held = self.held();
        let registry = held.registry.with_configured(configured, self.clock.now());
        let entries = registry.all().iter().map(|known| Arc::clone(&known.entry));
        let entries: Vec<_> = entries.collect();
        let is_of = |svid: &HeldSvid, entry| Arc::ptr_eq(&svid.issued.entry, entry);
        let (mut svids, mut minted) = (Vec::with_capacity(entries.len()), Vec::new());
        for entry in &entries {
            let known = held.svids.iter().find(|svid| is_of(svid, entry)).cloned();
            svids.push(match known {
                Some(known) => known,
                None => {
                    let svid = self.hold(Arc::clone(entry)).map_err(EmbeddedError::from)?;
                    minted.push(Arc::clone(&svid.issued.svid));
                    svid
                }
            });
        }
        let put = prepare(&entries)?;
        let before = held.svids.iter();
        let going = before.filter(|svid| !entries.iter().any(|entry| is_of(svid, entry)));
        let going: Vec<_> = going.cloned().collect();
        let mut in_order = held.svids.iter().zip(&entries);
        let is_same =
            held.svids.len() == entries.len() && in_order.all(|(svid, entry)| is_of(svid, entry));
        held.registry = registry;
        if !is_same {
            held.svids = svids.iter().chain(&going).cloned().collect();
            self.publish(&held);
        }
        for svid in &minted {
            self.metrics.rotated(svid);
        }
        let done = put();
        if !going.is_empty() {
            held.svids = svids;
            for svid in &going {
                let id = svid.issued.svid.id();
                if !held.svids.iter().any(|svid| svid.issued.svid.id() == id) {
                    self.metrics.withdrawn(id);
                }
            }
            self.publish(&held);
        }
        Ok(done)
    }

    /// The bundles of all trust domains, the own one among them.
    ///
    /// # Errors
    /// The own one cannot be told in SPIFFE's format.
    pub fn spiffe_bundles(&self) -> Result<BTreeMap<TrustDomain, SpiffeBundle>, EmbeddedError> {
        let held = self.held();
        let mut bundles = held.federated.all().clone();
        let own = self.authority.trust_domain();
        let refused = |source| FederationError::Refused {
            trust_domain: own.clone(),
            source,
        };
        let jwks = self.jwt_authority.bundle()?;
        let mut bundle = SpiffeBundle::parse(jwks.jwks().as_bytes()).map_err(refused)?;
        bundle.x509_authorities = self.authority.bundle()?.roots().to_vec();
        bundles.insert(own.clone(), bundle);
        Ok(bundles)
    }

    /// Takes a foreign trust domain's bundle, in SPIFFE's format, in the place of the one before.
    ///
    /// # Errors
    /// It is refused, or the change cannot be kept.
    pub fn set_bundle(&self, trust_domain: &TrustDomain, json: &[u8]) -> Result<(), EmbeddedError> {
        let mut held = self.held();
        let Verifying { x509, jwt } = held.federated.set(trust_domain, json)?;
        let known = (
            held.bundles.get(trust_domain).map(|known| known.roots()),
            held.jwt_bundles.get(trust_domain).map(|known| known.jwks()),
        );
        if known == (Some(x509.roots()), Some(jwt.jwks())) {
            return Ok(());
        }
        held.bundles.insert(trust_domain.clone(), x509);
        held.jwt_bundles.insert(trust_domain.clone(), jwt);
        self.publish(&held);
        Ok(())
    }

    /// Gives up a foreign trust domain's bundle: nothing of it is trusted any more.
    ///
    /// # Errors
    /// There is none, or the change cannot be kept.
    pub fn delete_bundle(&self, trust_domain: &TrustDomain) -> Result<(), EmbeddedError> {
        let mut held = self.held();
        held.federated.remove(trust_domain)?;
        held.bundles.remove(trust_domain);
        held.jwt_bundles.remove(trust_domain);
        self.publish(&held);
        Ok(())
    }

    /// What cannot be done now, such as renewing an authority; it is tried again each second.
    pub fn failing(&self) -> Vec<String> {
        let failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        let text = |it: &Failing| format!("{}: {} [{}]", it.what, it.error, it.code);
        failing.iter().map(text).collect()
    }

    /// The authorities and their phases.
    pub fn authorities(&self) -> Authorities {
        Authorities {
            x509: self.authority.status(),
            jwt: self.jwt_authority.status(),
        }
    }

    /// Puts a successor in the active authority's place, after the time that everybody on this
    /// machine needs to take the new bundle.
    ///
    /// # Errors
    /// It cannot be made or kept.
    pub async fn rotate_authority(
        self: Arc<Self>,
        kind: AuthorityKind,
    ) -> Result<(), EmbeddedError> {
        let _turn = self.rotating.lock().await;
        self.in_background(move |source| source.prepare(kind))
            .await?;
        tokio::time::sleep(PROPAGATION).await;
        self.in_background(move |source| source.activate(kind))
            .await
    }

    /// Publishes the successor of the active authority, unless it is already. Says whether it was
    /// published now.
    ///
    /// # Errors
    /// It cannot be made or kept.
    pub fn prepare(&self, kind: AuthorityKind) -> Result<bool, EmbeddedError> {
        let mut held = self.held();
        let now = self.clock.now();
        let prepared = match kind {
            AuthorityKind::X509 => self.authority.prepare(now)?,
            AuthorityKind::Jwt => self.jwt_authority.prepare(now)?,
        };
        if prepared {
            self.take_bundle(&mut held, kind)?;
            self.publish(&held);
        }
        Ok(prepared)
    }

    /// Lets the prepared authority sign from now on. What the one before signed stays in use.
    ///
    /// # Errors
    /// There is none, or the change cannot be kept.
    pub fn activate(&self, kind: AuthorityKind) -> Result<(), EmbeddedError> {
        let _held = self.held();
        match kind {
            AuthorityKind::X509 => self.authority.activate()?,
            AuthorityKind::Jwt => self.jwt_authority.activate()?,
        }
        Ok(())
    }

    /// Marks an old authority, the newest without an `id`, and says which: every SVID that leads to
    /// it is replaced now, and tokens that it signed are not handed out any more.
    ///
    /// # Errors
    /// There is no such authority, or the change cannot be kept.
    pub fn taint(&self, kind: AuthorityKind, id: Option<&str>) -> Result<String, EmbeddedError> {
        let mut held = self.held();
        let tainted = match kind {
            AuthorityKind::X509 => self.authority.taint(id)?,
            AuthorityKind::Jwt => self.jwt_authority.taint(id)?,
        };
        self.take_bundle(&mut held, kind)?;
        let now = self.clock.now();
        self.renew(&mut held, now, |svid| {
            kind == AuthorityKind::X509 && *svid.authority == *tainted
        });
        self.publish(&held);
        Ok(tainted)
    }

    /// Takes a tainted authority out of the bundle, the newest without an `id`, and says which:
    /// nobody accepts any more what leads to it.
    ///
    /// # Errors
    /// There is no such authority, or the change cannot be kept.
    pub fn revoke(&self, kind: AuthorityKind, id: Option<&str>) -> Result<String, EmbeddedError> {
        let mut held = self.held();
        let revoked = match kind {
            AuthorityKind::X509 => self.authority.revoke(id)?,
            AuthorityKind::Jwt => self.jwt_authority.revoke(id)?,
        };
        self.take_bundle(&mut held, kind)?;
        self.publish(&held);
        Ok(revoked)
    }

    /// Making keys and syncing files takes its time.
    async fn in_background<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, EmbeddedError> + Send + 'static,
    ) -> Result<T, EmbeddedError> {
        let source = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || work(&source)).await;
        done.unwrap_or_else(|failure| Err(EmbeddedError::Ended(failure.to_string())))
    }
}
