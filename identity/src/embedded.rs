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
use crate::jwt::{JwtAuthority, JwtBundle, JwtError, JwtSvid};
use crate::metrics::IdentityMetrics;
use crate::registry::EntryRegistry;
use crate::source::{Issuer, SvidSource};
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
    /// What cannot be done now, and is tried again.
    failing: Vec<String>,
}

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
            failing: Vec::new(),
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
            held.svids.push(svid);
        }
        source.publish(&held);
        drop(held);
        Ok(source)
    }

    /// Keeps the SVIDs fresh until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            let wait = self.next_due().min(IDLE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            // Key generation and signing are short, but there may be many.
            let source = Arc::clone(&self);
            if let Err(failure) = tokio::task::spawn_blocking(move || source.rotate()).await {
                error!(code = "SG0125", %failure, "SVID rotation ended: nothing is renewed any more");
                return;
            }
        }
    }

    fn next_due(&self) -> Duration {
        let now = self.clock.now();
        let held = self.held();
        let due = held.svids.iter().map(|svid| svid.due).min();
        due.map_or(IDLE, |due| due.duration_since(now).unwrap_or_default())
    }

    /// Renews what is due, and publishes the new generation.
    fn rotate(&self) {
        let now = self.clock.now();
        let mut held = self.held();
        let own = self.authority.trust_domain();
        let (x509, jwt) = (self.advance_x509(now), self.advance_jwt(now));
        let failed = [x509.as_ref().err(), jwt.as_ref().err()];
        self.report(&mut held, failed.into_iter().flatten());
        let mut changed = replace(x509, own, &mut held.bundles);
        changed |= replace(jwt, own, &mut held.jwt_bundles);
        changed |= self.renew(&mut held, now, |svid| {
            svid.due <= now + BATCH || !svid.issued.svid.validity().contains(now)
        });
        if changed {
            self.publish(&held);
        }
    }

    /// Keeps what fails, to be shown, and logs what did not fail before. It is tried again each
    /// second; until then the authority stays as it was.
    fn report<'a>(&self, held: &mut Held, failed: impl Iterator<Item = &'a EmbeddedError>) {
        let mut failing = Vec::new();
        for failure in failed {
            let (code, error) = (failure.code(), chain(failure));
            self.metrics.authority_failed();
            let failing_now = format!("the authority is not renewed: {error} [{code}]");
            if !held.failing.contains(&failing_now) {
                error!(
                    code,
                    error, "the authority is not renewed; it signs for as long as it can"
                );
            }
            failing.push(failing_now);
        }
        if failing.is_empty() && !held.failing.is_empty() {
            info!("the authority is renewed again");
        }
        held.failing = failing;
    }

    /// Renews the SVIDs that `is_due` chooses, and says whether there were any. One that cannot be
    /// renewed stays in use.
    fn renew(&self, held: &mut Held, now: SystemTime, is_due: impl Fn(&HeldSvid) -> bool) -> bool {
        let mut changed = false;
        for svid in held.svids.iter_mut().filter(|svid| is_due(svid)) {
            match self.hold(Arc::clone(&svid.issued.entry)) {
                Ok(renewed) => {
                    *svid = renewed;
                    changed = true;
                }
                Err(failure) => {
                    self.metrics.rotation_failed();
                    svid.due = now + RETRY;
                    error!(
                        code = failure.code(),
                        error = chain(&failure),
                        spiffe_id = %svid.issued.entry.spiffe_id(),
                        expires = ?svid.issued.svid.validity().not_after,
                        "the SVID is not renewed; the old one is in use until it expires",
                    );
                }
            }
        }
        changed
    }

    /// Mints an entry's SVID.
    fn hold(&self, entry: Arc<Entry>) -> Result<HeldSvid, AuthorityError> {
        let now = self.clock.now();
        let authority = self.authority.active_id();
        let svid = Arc::new(self.authority.mint(&entry, now)?);
        self.metrics.rotated(&svid);
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
        self.sender.send_replace(Arc::new(next));
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an authority's bundle as it is now.
    fn take_bundle(&self, held: &mut Held, kind: AuthorityKind) -> Result<(), EmbeddedError> {
        let own = self.authority.trust_domain().clone();
        match kind {
            AuthorityKind::X509 => {
                let bundle = Arc::new(self.authority.bundle()?);
                held.bundles.insert(own, bundle);
            }
            AuthorityKind::Jwt => {
                let bundle = Arc::new(self.jwt_authority.bundle()?);
                held.jwt_bundles.insert(own, bundle);
            }
        }
        Ok(())
    }

    /// The X.509 bundle, if it is another one now.
    fn advance_x509(&self, now: SystemTime) -> Result<Option<X509Bundle>, EmbeddedError> {
        let changed = self.authority.advance(now)?;
        Ok(changed.then(|| self.authority.bundle()).transpose()?)
    }

    /// The JWT bundle, if it is another one now.
    fn advance_jwt(&self, now: SystemTime) -> Result<Option<JwtBundle>, EmbeddedError> {
        let changed = self.jwt_authority.advance(now)?;
        Ok(changed.then(|| self.jwt_authority.bundle()).transpose()?)
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

/// Puts a new bundle in the place of the one before, and says whether there is one.
fn replace<B>(
    advanced: Result<Option<B>, EmbeddedError>,
    trust_domain: &TrustDomain,
    bundles: &mut BTreeMap<TrustDomain, Arc<B>>,
) -> bool {
    match advanced {
        Ok(Some(bundle)) => {
            info!(%trust_domain, "a bundle changes");
            bundles.insert(trust_domain.clone(), Arc::new(bundle));
            true
        }
        Ok(None) | Err(_) => false,
    }
}

impl Issuer for EmbeddedSource {
    fn trust_domain(&self) -> &TrustDomain {
        self.authority.trust_domain()
    }

    fn mint(&self, entry: &Entry, now: SystemTime) -> Result<X509Svid, AuthorityError> {
        self.authority.mint(entry, now)
    }

    fn mint_jwt(
        &self,
        entry: &Entry,
        audience: &[String],
        now: SystemTime,
    ) -> Result<JwtSvid, JwtError> {
        if !entry.allows(audience) {
            return Err(JwtError::AudienceNotAllowed);
        }
        let (id, ttl) = (entry.spiffe_id(), entry.jwt_svid_ttl());
        self.jwt_authority.mint(id, audience, ttl, now)
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
