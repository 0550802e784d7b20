//! The `embedded` source: an authority on this machine, and every entry's SVID kept fresh.
//!
//! ```text
//!   minted ──── half of its life, give or take a tenth ───▶ replaced by a new one
//!      ▲                                                        │
//!      └── the authority fails: the old one stays in use, ◀─────┘
//!          tried again each second
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use spiffe::TrustDomain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::authority::{AuthorityError, EmbeddedAuthority};
use crate::chain;
use crate::clock::Clock;
use crate::entry::Entry;
use crate::jwt::{JwtAuthority, JwtBundle, JwtError, JwtSvid};
use crate::metrics::IdentityMetrics;
use crate::source::{Issuer, SvidSource};
use crate::svid::{Identities, Issued, X509Bundle, X509Svid};

const RETRY: Duration = Duration::from_secs(1);

/// No SVID is renewed more often, however little is left of its signer.
const SHORTEST: Duration = Duration::from_secs(1);

/// Looked at least this often: the time of day may jump, and time that a machine is suspended does
/// not count for timers.
const IDLE: Duration = Duration::from_secs(1);

/// SVIDs that are due within this span are renewed together, so that watchers wake once.
const BATCH: Duration = Duration::from_millis(200);

/// Why the source cannot begin.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    /// The X.509 authority fails.
    #[error(transparent)]
    X509(#[from] AuthorityError),
    /// The JWT authority fails.
    #[error(transparent)]
    Jwt(#[from] JwtError),
}

impl EmbeddedError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::X509(error) => error.code(),
            Self::Jwt(error) => error.code(),
        }
    }
}

/// Mints an SVID for each entry and replaces it at half of its life.
pub struct EmbeddedSource {
    authority: EmbeddedAuthority,
    jwt_authority: JwtAuthority,
    clock: Arc<dyn Clock>,
    metrics: IdentityMetrics,
    sender: watch::Sender<Arc<Identities>>,
}

impl EmbeddedSource {
    /// Mints the first SVID of every entry.
    ///
    /// # Errors
    /// When one of them cannot be minted.
    pub fn new(
        authority: EmbeddedAuthority,
        jwt_authority: JwtAuthority,
        entries: Vec<Entry>,
        clock: Arc<dyn Clock>,
        metrics: IdentityMetrics,
    ) -> Result<Self, EmbeddedError> {
        let now = clock.now();
        let issued = entries
            .into_iter()
            .map(|entry| {
                let svid = Arc::new(authority.mint(&entry, now)?);
                metrics.rotated(&svid);
                let entry = Arc::new(entry);
                Ok(Issued { entry, svid })
            })
            .collect::<Result<_, AuthorityError>>()?;
        let trust_domain = authority.trust_domain().clone();
        let bundles = BTreeMap::from([(trust_domain.clone(), Arc::new(authority.bundle()?))]);
        let jwt_bundle = Arc::new(jwt_authority.bundle()?);
        let jwt_bundles = BTreeMap::from([(trust_domain.clone(), jwt_bundle)]);
        let (sender, _) = watch::channel(Arc::new(Identities {
            generation: 1,
            trust_domain,
            issued,
            bundles,
            jwt_bundles,
        }));
        Ok(Self {
            authority,
            jwt_authority,
            clock,
            metrics,
            sender,
        })
    }

    /// Keeps the SVIDs fresh until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut schedule = self.first_schedule();
        loop {
            let now = self.clock.now();
            let wait = schedule
                .iter()
                .min()
                .map_or(IDLE, |due| {
                    due.duration_since(now).unwrap_or(Duration::ZERO)
                })
                .min(IDLE);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
            // Key generation and signing are short, but there may be many.
            let source = Arc::clone(&self);
            let task = tokio::task::spawn_blocking(move || {
                source.rotate(&mut schedule);
                schedule
            });
            match task.await {
                Ok(returned) => schedule = returned,
                Err(failure) => {
                    error!(code = "SG0125", %failure, "SVID rotation ended: nothing is renewed any more");
                    return;
                }
            }
        }
    }

    fn first_schedule(&self) -> Schedule {
        let now = self.clock.now();
        let identities = self.sender.borrow();
        let svids = identities.issued.iter().map(|issued| &issued.svid);
        svids.map(|svid| renewal(svid, now)).collect()
    }

    /// Renews what is due, and publishes the new generation.
    fn rotate(&self, schedule: &mut [SystemTime]) {
        let now = self.clock.now();
        let current = Arc::clone(&self.sender.borrow());
        let mut issued = current.issued.clone();
        let mut bundles = current.bundles.clone();
        let mut jwt_bundles = current.jwt_bundles.clone();
        let own = &current.trust_domain;
        let mut changed = publish(self.advance_x509(now), own, &mut bundles);
        changed |= publish(self.advance_jwt(now), own, &mut jwt_bundles);
        for (slot, due) in issued.iter_mut().zip(schedule) {
            if *due > now + BATCH && slot.svid.validity().contains(now) {
                continue;
            }
            match self.authority.mint(&slot.entry, now) {
                Ok(svid) => {
                    self.metrics.rotated(&svid);
                    *due = renewal(&svid, now);
                    slot.svid = Arc::new(svid);
                    changed = true;
                }
                Err(failure) => {
                    self.metrics.rotation_failed();
                    *due = now + RETRY;
                    error!(
                        code = failure.code(),
                        error = chain(&failure),
                        spiffe_id = %slot.entry.spiffe_id(),
                        "the SVID is not renewed; the old one stays in use",
                    );
                }
            }
        }
        if changed {
            let generation = current.generation + 1;
            info!(generation, "identities renewed");
            self.sender.send_replace(Arc::new(Identities {
                generation,
                trust_domain: current.trust_domain.clone(),
                issued,
                bundles,
                jwt_bundles,
            }));
        }
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

/// Puts a new bundle in the place of the one before, and says whether there is one. What fails is
/// tried again; until then the authority stays as it was.
fn publish<B>(
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
        Ok(None) => false,
        Err(failure) => {
            let (code, error) = (failure.code(), chain(&failure));
            error!(code, error, "the authority is not renewed");
            false
        }
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
        self.jwt_authority.mint(entry.spiffe_id(), audience, now)
    }
}

impl SvidSource for EmbeddedSource {
    fn watch(&self) -> watch::Receiver<Arc<Identities>> {
        self.sender.subscribe()
    }
}

/// When each SVID is due, in the order of the entries.
type Schedule = Vec<SystemTime>;

/// Half of what is left, give or take a tenth of that, so that many do not come due at once.
fn renewal(svid: &X509Svid, now: SystemTime) -> SystemTime {
    let left = svid
        .validity()
        .not_after
        .duration_since(now)
        .unwrap_or(Duration::ZERO);
    now + left.mul_f64(rand::random_range(0.45..=0.55)).max(SHORTEST)
}
