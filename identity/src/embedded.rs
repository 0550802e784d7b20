//! The `embedded` source: an authority on this machine, and every entry's SVID kept fresh.
//!
//! ```text
//!   minted ──── half of its life, give or take a tenth ───▶ replaced by a new one
//!      ▲                                                        │
//!      └── the authority fails: the old one stays in use, ◀─────┘
//!          tried again each second
//! ```

mod error;
mod operations;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use spiffe::TrustDomain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::authority::{AuthorityError, EmbeddedAuthority};
use crate::chain;
use crate::clock::Clock;
use crate::entry::Entry;
use crate::federation::{self, FederatedBundles, Verifying};
use crate::jwt::{JwtAuthority, JwtBundle, JwtError};
use crate::metrics::IdentityMetrics;
use crate::registry::EntryRegistry;
use crate::slots::Phase;
use crate::source::{Issuer, MintError, Minting, SvidSource};
use crate::svid::{Identities, Issued, X509Bundle, X509Svid};
pub use error::{Blame, EmbeddedError};
pub use operations::{Authorities, AuthorityKind};

const RETRY: Duration = Duration::from_secs(1);

/// No SVID is renewed more often, however little is left of its signer.
const SHORTEST: Duration = Duration::from_secs(1);

/// Looked at least this often: the time of day may jump, and time that a machine is suspended does
/// not count for timers.
const IDLE: Duration = Duration::from_secs(1);

/// SVIDs that are due within this span are renewed together, so that watchers wake once.
const BATCH: Duration = Duration::from_millis(200);

/// Mints an SVID for each entry and replaces it at half of its life.
pub struct EmbeddedSource {
    authority: EmbeddedAuthority,
    jwt_authority: JwtAuthority,
    clock: Arc<dyn Clock>,
    metrics: IdentityMetrics,
    /// Everything that changes; whoever holds it may publish.
    held: Mutex<Held>,
    /// Apart from what is held, since it is asked for while much is being renewed.
    failing: Mutex<Vec<Failing>>,
    /// One rotation of an authority at a time.
    rotating: tokio::sync::Mutex<()>,
    sender: watch::Sender<Arc<Identities>>,
}

/// What the next generation is made of.
struct Held {
    registry: EntryRegistry,
    federated: FederatedBundles,
    /// In the order of the registrations.
    svids: Vec<HeldSvid>,
    bundles: BTreeMap<TrustDomain, Arc<X509Bundle>>,
    jwt_bundles: BTreeMap<TrustDomain, Arc<JwtBundle>>,
}

/// What cannot be done now, and is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Failing {
    code: &'static str,
    what: &'static str,
    error: String,
}

#[derive(Clone)]
struct HeldSvid {
    issued: Issued,
    /// The root that it leads to.
    authority: Arc<str>,
    due: SystemTime,
}

impl EmbeddedSource {
    /// Mints the first SVID of every entry.
    ///
    /// # Errors
    /// When one of them cannot be minted.
    pub fn new(
        authority: EmbeddedAuthority,
        jwt_authority: JwtAuthority,
        registry: EntryRegistry,
        federated: FederatedBundles,
        clock: Arc<dyn Clock>,
        metrics: IdentityMetrics,
    ) -> Result<Self, EmbeddedError> {
        let trust_domain = authority.trust_domain().clone();
        let mut held = Held {
            bundles: BTreeMap::from([(trust_domain.clone(), Arc::new(authority.bundle()?))]),
            jwt_bundles: BTreeMap::from([(trust_domain, Arc::new(jwt_authority.bundle()?))]),
            registry,
            federated,
            svids: Vec::new(),
        };
        for (trust_domain, bundle) in held.federated.all() {
            let Verifying { x509, jwt } = federation::verifying(trust_domain, bundle)?;
            held.bundles.insert(trust_domain.clone(), x509);
            held.jwt_bundles.insert(trust_domain.clone(), jwt);
        }
        let (sender, _) = watch::channel(Arc::new(held.generation(0, authority.trust_domain())));
        let source = Self {
            authority,
            jwt_authority,
            clock,
            metrics,
            held: Mutex::new(held),
            failing: Mutex::default(),
            rotating: tokio::sync::Mutex::default(),
            sender,
        };
        let mut held = source.held();
        let entries: Vec<_> = held
            .registry
            .all()
            .iter()
            .map(|known| Arc::clone(&known.entry))
            .collect();
        for entry in entries {
            let svid = source.hold(entry)?;
            source.metrics.rotated(&svid.issued.svid);
            held.svids.push(svid);
        }
        prune(&mut held.bundles, source.clock.now());
        source.metrics.source_is_up(true);
        source.publish(&held);
        drop(held);
        Ok(source)
    }

    /// Keeps the SVIDs fresh until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut wait = Duration::ZERO;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            // Key generation and signing are short, but there may be many.
            let source = Arc::clone(&self);
            wait = match tokio::task::spawn_blocking(move || source.rotate()).await {
                Ok(due) => due.min(IDLE),
                Err(failure) => {
                    error!(code = "SG0125", %failure, "SVIDs are not renewed; tried again");
                    RETRY
                }
            };
        }
    }

    /// Renews what is due, publishes the new generation, and says how long nothing is due.
    fn rotate(&self) -> Duration {
        let now = self.clock.now();
        let mut held = self.held();
        let mut changed = false;
        let mut failing = Vec::new();
        for kind in [AuthorityKind::X509, AuthorityKind::Jwt] {
            match self.advance(&mut held, kind, now) {
                Ok(advanced) => changed |= advanced,
                Err(failure) => {
                    self.metrics.authority_failed();
                    failing.push(Failing::new("the authority is not renewed", &failure));
                }
            }
        }
        self.show_expiry();
        changed |= prune(&mut held.bundles, now);
        let is_due =
            |svid: &HeldSvid| svid.due <= now + BATCH || !svid.issued.svid.validity().contains(now);
        let (renewed, failed) = self.renew(&mut held, now, is_due);
        changed |= renewed;
        failing.extend(failed);
        self.report(failing);
        if changed {
            self.publish(&held);
        }
        let due = held.svids.iter().map(|svid| svid.due).min();
        due.map_or(IDLE, |due| due.duration_since(now).unwrap_or_default())
    }

    fn show_expiry(&self) {
        let Authorities { x509, jwt } = self.authorities();
        for (name, all) in [("x509", x509), ("jwt", jwt)] {
            if let Some(active) = all.iter().find(|it| it.phase == Phase::Active) {
                self.metrics.authority_expires(name, active.not_after);
            }
        }
    }

    /// Brings an authority to where it must be now. Says whether its bundle changed.
    fn advance(
        &self,
        held: &mut Held,
        kind: AuthorityKind,
        now: SystemTime,
    ) -> Result<bool, EmbeddedError> {
        let changed = match kind {
            AuthorityKind::X509 => self.authority.advance(now)?,
            AuthorityKind::Jwt => self.jwt_authority.advance(now)?,
        };
        if changed {
            info!(?kind, "a bundle changes");
            self.take_bundle(held, kind)?;
        }
        Ok(changed)
    }

    /// Keeps what fails, to be shown, and logs what did not fail before: it is tried again each
    /// second, and what is there stays in use for as long as it counts.
    fn report(&self, failing: Vec<Failing>) {
        let mut known = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        for failing in failing.iter().filter(|failing| !known.contains(failing)) {
            let Failing { code, what, error } = failing;
            error!(
                code,
                error, "{what}; what is there stays in use until it expires"
            );
        }
        self.metrics.source_is_up(failing.is_empty());
        if failing.is_empty() && !known.is_empty() {
            info!("everything is renewed again");
        }
        *known = failing;
    }

    /// Renews the SVIDs that `is_due` chooses. Says whether there were any, and what failed. One that
    /// cannot be renewed stays in use.
    fn renew(
        &self,
        held: &mut Held,
        now: SystemTime,
        is_due: impl Fn(&HeldSvid) -> bool,
    ) -> (bool, Option<Failing>) {
        let mut changed = false;
        let mut failed = None;
        for svid in held.svids.iter_mut().filter(|svid| is_due(svid)) {
            match self.hold(Arc::clone(&svid.issued.entry)) {
                Ok(renewed) => {
                    self.metrics.rotated(&renewed.issued.svid);
                    *svid = renewed;
                    changed = true;
                }
                Err(failure) => {
                    self.metrics.rotation_failed();
                    svid.due = now + RETRY;
                    failed = Some(Failing::new("X.509-SVIDs are not renewed", &failure.into()));
                }
            }
        }
        (changed, failed)
    }

    /// Mints an entry's SVID.
    fn hold(&self, entry: Arc<Entry>) -> Result<HeldSvid, AuthorityError> {
        let now = self.clock.now();
        let authority = self.authority.active_id();
        let svid = Arc::new(self.authority.mint(&entry, now)?);
        Ok(HeldSvid {
            due: renewal(&svid, now),
            issued: Issued { entry, svid },
            authority,
        })
    }

    /// Makes what is held the next generation.
    fn publish(&self, held: &Held) {
        let generation = self.sender.borrow().generation + 1;
        info!(generation, "identities renewed");
        let trust_domain = self.authority.trust_domain();
        let next = held.generation(generation, trust_domain);
        self.metrics.first_expires(&next);
        self.sender.send_replace(Arc::new(next));
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an authority's bundle as it is now.
    fn take_bundle(&self, held: &mut Held, kind: AuthorityKind) -> Result<(), EmbeddedError> {
        let own = self.authority.trust_domain();
        match kind {
            AuthorityKind::X509 => {
                let mut bundle = self.authority.bundle()?;
                if let Some(before) = held.bundles.get(own) {
                    bundle = bundle.after(before);
                }
                held.bundles.insert(own.clone(), Arc::new(bundle));
            }
            AuthorityKind::Jwt => {
                let mut bundle = self.jwt_authority.bundle()?;
                if let Some(before) = held.jwt_bundles.get(own) {
                    bundle = bundle.after(before);
                }
                held.jwt_bundles.insert(own.clone(), Arc::new(bundle));
            }
        }
        Ok(())
    }
}

impl Held {
    fn generation(&self, generation: u64, trust_domain: &TrustDomain) -> Identities {
        Identities::new(
            generation,
            trust_domain.clone(),
            self.svids.iter().map(|svid| svid.issued.clone()).collect(),
            self.bundles.clone(),
            self.jwt_bundles.clone(),
        )
    }
}

impl Failing {
    fn new(what: &'static str, failure: &EmbeddedError) -> Self {
        Self {
            code: failure.code(),
            what,
            error: chain(failure),
        }
    }
}

/// Takes roots that have ended out of all bundles. Says whether there were any.
pub(crate) fn prune(bundles: &mut BTreeMap<TrustDomain, Arc<X509Bundle>>, now: SystemTime) -> bool {
    let mut changed = false;
    for (trust_domain, bundle) in bundles {
        match bundle.without_expired(now) {
            Ok(Some(rest)) => {
                info!(%trust_domain, "roots of a bundle have expired and are taken out");
                *bundle = Arc::new(rest);
                changed = true;
            }
            Ok(None) => {}
            Err(error) => error!(code = "SG0145", %trust_domain, %error, "a bundle stays as it is"),
        }
    }
    changed
}

impl Issuer for EmbeddedSource {
    fn allows(&self, entry: &Entry, audience: &[String]) -> bool {
        entry.allows(audience)
    }

    fn mint_jwt<'a>(&'a self, entry: &'a Entry, audience: &'a [String]) -> Minting<'a> {
        let minted = match self.allows(entry, audience) {
            true => {
                let (id, ttl) = (entry.spiffe_id(), entry.jwt_svid_ttl());
                let now = self.clock.now();
                self.jwt_authority.mint(id, audience, ttl, now)
            }
            false => Err(JwtError::AudienceNotAllowed),
        };
        Box::pin(ready(minted.map_err(MintError::from)))
    }
}

impl SvidSource for EmbeddedSource {
    fn watch(&self) -> watch::Receiver<Arc<Identities>> {
        self.sender.subscribe()
    }
}

/// Half of what is left, give or take a tenth of that, so that many do not come due at once.
fn renewal(svid: &X509Svid, now: SystemTime) -> SystemTime {
    let left = svid
        .validity()
        .not_after
        .duration_since(now)
        .unwrap_or(Duration::ZERO);
    now + left.mul_f64(rand::random_range(0.45..=0.55)).max(SHORTEST)
}

#[cfg(test)]
mod tests;
