//! Sources that mint nothing: SVIDs and bundles come from outside, each time all of them or none.
//!
//! ```text
//!  files, or a Workload API ── checked as a peer would ──▶ in the place of what was there
//!                                   │ refused, or away
//!                                   └──▶ told once; what is there serves until it expires
//! ```
//! An entry gives workloads an SVID that the source holds, and no other.

mod agent;
mod error;
mod files;
mod set;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use spiffe::{SpiffeId, TrustDomain};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::chain;
use crate::clock::{Clock, rfc3339, seconds};
use crate::embedded::prune;
use crate::entry::Entry;
use crate::jwt::JwtBundle;
use crate::metrics::IdentityMetrics;
use crate::registry::{EntryRegistry, Registration};
use crate::source::SvidSource;
use crate::svid::{Identities, Issued, X509Bundle, X509Svid};
pub use error::{ReceivedError, Unusable};
pub use files::SvidFiles;
use set::ReceivedSet;
pub use status::{Down, SourceKind, SourceStatus};

/// Holds what comes from outside, and gives each entry the SVID of its ID.
pub struct ReceivedSource {
    origin: Origin,
    trust_domain: TrustDomain,
    clock: Arc<dyn Clock>,
    metrics: IdentityMetrics,
    /// Everything that changes; whoever holds it may publish.
    held: Mutex<Held>,
    failing: Mutex<Option<Failing>>,
    sender: watch::Sender<Arc<Identities>>,
}

/// Where SVIDs and bundles come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// PEM files.
    Files(SvidFiles),
    /// The Workload API at this address, such as `unix:///run/agent.sock`.
    WorkloadApi(String),
}

/// What the next generation is made of.
struct Held {
    registry: EntryRegistry,
    svids: Vec<Arc<X509Svid>>,
    bundles: BTreeMap<TrustDomain, Arc<X509Bundle>>,
    jwt_bundles: BTreeMap<TrustDomain, Arc<JwtBundle>>,
}

/// Why the source is down.
struct Failing {
    code: &'static str,
    error: String,
    since: SystemTime,
}

/// What it means that there is no SVID for an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// The set is not the one that is meant: nothing of it is taken.
    Refused,
    /// It was withdrawn.
    Withdrawn,
}

impl ReceivedSource {
    /// A source that holds nothing yet.
    pub fn new(
        origin: Origin,
        trust_domain: TrustDomain,
        configured: Vec<Entry>,
        clock: Arc<dyn Clock>,
        metrics: IdentityMetrics,
    ) -> Self {
        let held = Held {
            registry: EntryRegistry::configured(trust_domain.clone(), configured, clock.now()),
            svids: Vec::new(),
            bundles: BTreeMap::new(),
            jwt_bundles: BTreeMap::new(),
        };
        let (sender, _) = watch::channel(Arc::new(held.generation(0, &trust_domain, &[])));
        Self {
            origin,
            trust_domain,
            clock,
            metrics,
            held: Mutex::new(held),
            failing: Mutex::default(),
            sender,
        }
    }

    /// Takes what the source gives first. What may pass by itself, such as an agent that starts too,
    /// is waited for.
    ///
    /// # Errors
    /// It gives nothing, or not what the entries need.
    pub async fn first(self: &Arc<Self>, patience: Duration) -> Result<(), ReceivedError> {
        match &self.origin {
            Origin::Files(files) => {
                let set = files.read(&self.trust_domain, self.clock.now())?;
                self.take(set, Absence::Refused)?;
                self.is_up();
                Ok(())
            }
            Origin::WorkloadApi(socket) => self.first_answer(socket, patience).await,
        }
    }

    /// Follows the source until told to stop.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        match self.origin.clone() {
            Origin::Files(files) => self.follow_files(files, stop).await,
            Origin::WorkloadApi(socket) => self.follow_api(&socket, stop).await,
        }
    }

    /// Which source it is.
    pub fn kind(&self) -> SourceKind {
        match self.origin {
            Origin::Files(_) => SourceKind::Files,
            Origin::WorkloadApi(_) => SourceKind::WorkloadApi,
        }
    }

    /// All entries, in the order in which they count.
    pub fn entries(&self) -> Vec<Registration> {
        self.held().registry.all().to_vec()
    }

    /// The IDs of the SVIDs that it holds.
    pub fn ids(&self) -> Vec<SpiffeId> {
        let held = self.held();
        held.svids.iter().map(|svid| svid.id().clone()).collect()
    }

    /// How it fares.
    pub fn status(&self) -> SourceStatus {
        let until = self.until();
        let failing = self.failing();
        let down = failing.as_ref().map(|failing| Down {
            code: failing.code.to_owned(),
            error: failing.error.clone(),
            since: seconds(failing.since),
            until: until.map(seconds),
        });
        SourceStatus {
            kind: self.kind(),
            down,
        }
    }

    /// Puts other entries of the configuration in the place of those that are there, together with
    /// what uses them, as [`EmbeddedSource::replace_configured`] does.
    ///
    /// # Errors
    /// The source holds no SVID for one of them, or those of `prepare`; nothing has changed then.
    ///
    /// [`EmbeddedSource::replace_configured`]: crate::embedded::EmbeddedSource::replace_configured
    pub fn replace_configured<P, T, E>(
        &self,
        configured: Vec<Entry>,
        prepare: impl FnOnce(&[Arc<Entry>]) -> Result<P, E>,
    ) -> Result<T, E>
    where
        P: FnOnce() -> T,
        E: From<ReceivedError>,
    {
        let mut held = self.held();
        let registry = held.registry.with_configured(configured, self.clock.now());
        let all = |registry: &EntryRegistry| -> Vec<_> {
            let entries = registry.all().iter();
            entries.map(|known| Arc::clone(&known.entry)).collect()
        };
        let (before, entries) = (all(&held.registry), all(&registry));
        // What could not be given before is no reason to refuse the rest.
        let new = entries.iter().filter(|entry| !before.contains(entry));
        self.check_held(new, &held.svids)?;
        let put = prepare(&entries)?;
        let going: Vec<_> = before
            .iter()
            .filter(|entry| !entries.contains(entry))
            .collect();
        let going = held.issued(going.into_iter());
        let is_same = before.len() == entries.len()
            && before
                .iter()
                .zip(&entries)
                .all(|(one, other)| Arc::ptr_eq(one, other));
        held.registry = registry;
        if !is_same {
            self.publish(&held, &going);
        }
        let done = put();
        if !going.is_empty() {
            self.publish(&held, &[]);
        }
        Ok(done)
    }

    /// Takes a whole set in the place of the one before.
    fn take(&self, set: ReceivedSet, absence: Absence) -> Result<(), ReceivedError> {
        let mut held = self.held();
        if absence == Absence::Refused {
            let entries = held.registry.all().iter().map(|known| &known.entry);
            self.check_held(entries, &set.svids)?;
        }
        let (mut svids, mut new) = (Vec::with_capacity(set.svids.len()), Vec::new());
        for svid in set.svids {
            let mut known = held.svids.iter();
            svids.push(match known.find(|known| is_same(known, &svid)) {
                Some(known) => Arc::clone(known),
                None => {
                    new.push(Arc::clone(&svid));
                    svid
                }
            });
        }
        let bundles = set.bundles.into_iter().map(|(name, bundle)| {
            let known = held.bundles.get(&name);
            let known = known.filter(|known| known.roots() == bundle.roots());
            (name, known.map_or(bundle, Arc::clone))
        });
        let bundles: BTreeMap<_, _> = bundles.collect();
        let are_same = svids.len() == held.svids.len()
            && svids
                .iter()
                .zip(&held.svids)
                .all(|(one, other)| Arc::ptr_eq(one, other))
            && bundles.len() == held.bundles.len()
            && bundles
                .iter()
                .zip(&held.bundles)
                .all(|((name, one), (other, two))| name == other && Arc::ptr_eq(one, two));
        if are_same {
            return Ok(());
        }
        self.replace(&mut held, svids, bundles);
        for svid in &new {
            self.metrics.rotated(svid);
        }
        Ok(())
    }

    /// Takes the JWT bundles in the place of those before.
    fn take_jwt(&self, bundles: BTreeMap<TrustDomain, Arc<JwtBundle>>) {
        let mut held = self.held();
        let shared = bundles.into_iter().map(|(name, bundle)| {
            let known = held.jwt_bundles.get(&name);
            let known = known.filter(|known| known.jwks() == bundle.jwks());
            (name, known.map_or(bundle, Arc::clone))
        });
        let bundles: BTreeMap<_, _> = shared.collect();
        if bundles != held.jwt_bundles {
            held.jwt_bundles = bundles;
            self.publish(&held, &[]);
        }
    }

    /// Whoever gave it has taken everything back.
    fn withdraw(&self) {
        let mut held = self.held();
        if !held.svids.is_empty() {
            held.jwt_bundles.clear();
            self.replace(&mut held, Vec::new(), BTreeMap::new());
        }
    }

    fn replace(
        &self,
        held: &mut Held,
        svids: Vec<Arc<X509Svid>>,
        bundles: BTreeMap<TrustDomain, Arc<X509Bundle>>,
    ) {
        let before = std::mem::replace(&mut held.svids, svids);
        held.bundles = bundles;
        for gone in before {
            if !held.svids.iter().any(|svid| svid.id() == gone.id()) {
                self.metrics.withdrawn(gone.id());
            }
        }
        self.publish(held, &[]);
    }

    /// Whether each of these entries has its SVID.
    fn check_held<'a>(
        &self,
        mut entries: impl Iterator<Item = &'a Arc<Entry>>,
        svids: &[Arc<X509Svid>],
    ) -> Result<(), ReceivedError> {
        let lacks = |entry: &&Arc<Entry>| svids.iter().all(|svid| svid.id() != entry.spiffe_id());
        match entries.find(lacks) {
            None => Ok(()),
            Some(entry) => Err(ReceivedError::NotHeld {
                kind: self.kind(),
                wanted: entry.spiffe_id().clone(),
                held: svids.iter().map(|svid| svid.id().clone()).collect(),
            }),
        }
    }

    /// Whether each entry has its SVID now.
    fn check_entries(&self) -> Result<(), ReceivedError> {
        let held = self.held();
        let entries = held.registry.all().iter().map(|known| &known.entry);
        self.check_held(entries, &held.svids)
    }

    /// What time does by itself: roots that have ended leave their bundles.
    fn tick(&self) {
        let mut held = self.held();
        if prune(&mut held.bundles, self.clock.now()) {
            self.publish(&held, &[]);
        }
    }

    /// The source gives what it should.
    fn is_up(&self) {
        self.metrics.source_is_up(true);
        if self.failing().take().is_some() {
            info!(source = %self.kind(), "the identity source is back");
        }
    }

    /// The source gives nothing new; told where it was not told before.
    fn fail(&self, error: &ReceivedError) {
        self.metrics.source_is_up(false);
        let (code, text, until) = (error.code(), chain(error), self.until());
        let mut failing = self.failing();
        let known = failing.as_ref();
        let is_told = known.is_some_and(|known| known.code == code && known.error == text);
        let since = known.map_or_else(|| self.clock.now(), |known| known.since);
        if !is_told {
            error!(
                code,
                error = text,
                source = %self.kind(),
                until = until.map(rfc3339),
                "the identity source is down; what is there stays in use until it expires",
            );
        }
        *failing = Some(Failing {
            code,
            error: text,
            since,
        });
    }

    /// When the first of the SVIDs ends.
    fn until(&self) -> Option<SystemTime> {
        // Not what is held: this is asked for while a reload holds it.
        let identities = self.sender.borrow();
        let ends = identities.issued().iter();
        ends.map(|issued| issued.svid.validity().not_after).min()
    }

    fn has_expired(&self) -> bool {
        self.until().is_some_and(|end| end <= self.clock.now())
    }

    fn publish(&self, held: &Held, going: &[Issued]) {
        let generation = self.sender.borrow().generation + 1;
        info!(generation, "identities renewed");
        let next = held.generation(generation, &self.trust_domain, going);
        self.metrics.first_expires(&next);
        self.sender.send_replace(Arc::new(next));
    }

    fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failing(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SvidSource for ReceivedSource {
    fn watch(&self) -> watch::Receiver<Arc<Identities>> {
        self.sender.subscribe()
    }
}

impl Held {
    /// `going` are entries that do not count any more, and are still in use.
    fn generation(
        &self,
        generation: u64,
        trust_domain: &TrustDomain,
        going: &[Issued],
    ) -> Identities {
        let entries = self.registry.all().iter().map(|known| &known.entry);
        let issued = self.issued(entries).into_iter();
        Identities::new(
            generation,
            trust_domain.clone(),
            issued.chain(going.iter().cloned()).collect(),
            self.bundles.clone(),
            self.jwt_bundles.clone(),
        )
    }

    /// These entries with their SVIDs, as far as there are any.
    fn issued<'a>(&self, entries: impl Iterator<Item = &'a Arc<Entry>>) -> Vec<Issued> {
        let issued = entries.filter_map(|entry| {
            let mut svids = self.svids.iter();
            let svid = svids.find(|svid| svid.id() == entry.spiffe_id())?;
            Some(Issued {
                entry: Arc::clone(entry),
                svid: Arc::clone(svid),
            })
        });
        issued.collect()
    }
}

/// Whether two SVIDs are the same certificates and key.
fn is_same(one: &X509Svid, other: &X509Svid) -> bool {
    one.chain() == other.chain() && one.key() == other.key()
}
