//! The agent: one step after the other, each bringing what is here to what the server has.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use spiffe::TrustDomain;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::attest::{half_life, no_trust};
use super::audience::AudienceRule;
use super::backoff::{BatchSize, Pause};
use super::bootstrap::Bootstrap;
use super::credentials::{Credentials, StateDirectory};
use super::error::{Denial, SpireError};
use super::messages::{Bundle, Outcome};
use super::node::NodeAttestation;
use super::session::Session;
use super::status::{AgentStatus, Failing, Phase};
use super::sync::{Authorized, Known};
use super::tls::Trust;
use crate::chain;
use crate::clock::{Clock, seconds};
use crate::entry::Entry;
use crate::metrics::IdentityMetrics;
use crate::registry::Registration;
use crate::svid::{Identities, Issued, X509Bundle, X509Svid};

/// How often the server is asked, where nothing else is said.
pub const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// How often a step begins anew, where the server denies the agent's SVID: with the one before, and
/// with a new one.
const ATTEMPTS: usize = 3;

/// The pause between two looks for a key that is newer than the bundle.
const CATCH_UP: Duration = Duration::from_secs(1);

/// What an agent needs to know.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Host and port of the SPIRE server.
    pub server: String,
    /// The trust domain of server and agent.
    pub trust_domain: TrustDomain,
    /// What the server is verified by at first contact.
    pub bootstrap: Bootstrap,
    /// By what the server recognizes this node.
    pub attestation: NodeAttestation,
    /// The state directory: the agent's own key and SVID, and the last bundle, are kept there.
    pub directory: PathBuf,
    /// How often the server is asked for entries and bundles; not zero.
    pub sync_interval: Duration,
    /// For whom workloads may ask for JWT-SVIDs.
    pub audience_rules: Vec<AudienceRule>,
}

/// The agent of a SPIRE server, as a source of SVIDs.
pub struct SpireAgent {
    pub(super) config: AgentConfig,
    pub(super) directory: StateDirectory,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: IdentityMetrics,
    /// One step at a time.
    held: tokio::sync::Mutex<Held>,
    /// Apart from what is held, since it is asked for while a step waits for the server.
    signing: Mutex<Signing>,
    status: Mutex<AgentStatus>,
    pub(super) sender: watch::Sender<Arc<Identities>>,
}

/// Everything that changes.
pub(super) struct Held {
    pub(super) credentials: Credentials,
    /// When to renew the agent's SVID.
    pub(super) renew_at: SystemTime,
    /// A join token has been decided about: it is of no more use.
    pub(super) is_token_spent: bool,
    /// The server has the node attested anew instead of renewing its SVID, as far as it has said.
    pub(super) is_reattestable: bool,
    /// The server wants the node attested anew; what is in use counts until then.
    pub(super) must_reattest: bool,
    /// Why the server last wanted that.
    pub(super) denial: Option<Denial>,
    /// The credentials are written.
    pub(super) is_kept: bool,
    pub(super) is_banned: bool,
    /// There is something to publish. A step that is given up in the middle leaves it so.
    pub(super) is_dirty: bool,
    /// The last step has brought everything that the server has, whatever else failed.
    is_followed: bool,
    /// What the server is verified by: the newest own bundle, or what there was before it.
    pub(super) trust: Option<Arc<X509Bundle>>,
    pub(super) session: Option<Current>,
    /// The own bundle, once the server has told it.
    pub(super) bundle: Option<Bundle>,
    pub(super) is_bundle_kept: bool,
    pub(super) federated: BTreeMap<TrustDomain, Bundle>,
    pub(super) bundle_problems: Vec<String>,
    pub(super) authorized: Authorized,
    /// By the ids of their entries.
    pub(super) svids: BTreeMap<String, HeldSvid>,
    pub(super) unsigned: Vec<String>,
    pub(super) batch: BatchSize,
    /// When the next SVIDs under a tainted authority may be replaced.
    pub(super) next_tainted: SystemTime,
    /// The bundle's sequence number that the server was told of.
    pub(super) posted: Option<u64>,
    pub(super) synced: Option<SystemTime>,
    /// When a token last had a key that the bundle lacked.
    caught_up: Option<Instant>,
}

/// An SVID in use.
pub(super) struct HeldSvid {
    pub(super) issued: Issued,
    pub(super) due: SystemTime,
    /// It leads to an authority that is tainted.
    pub(super) is_tainted: bool,
}

/// The session in use, and what it was made under.
pub(super) struct Current {
    session: Arc<Session>,
    shown: Option<Arc<X509Svid>>,
    trust: Arc<X509Bundle>,
}

/// What it takes to have a token signed.
#[derive(Default)]
pub(super) struct Signing {
    session: Option<Arc<Session>>,
    /// Those that are served.
    pub(super) entries: Vec<Registration>,
}

impl SpireAgent {
    /// Takes what an earlier run left in the state directory. There is no contact with the server
    /// before the first step, and no SVID before it succeeds.
    ///
    /// # Errors
    /// When what an earlier run left cannot be used.
    pub fn new(
        config: AgentConfig,
        clock: Arc<dyn Clock>,
        metrics: IdentityMetrics,
    ) -> Result<Self, SpireError> {
        let trust_domain = config.trust_domain.clone();
        let directory = StateDirectory::new(&config.directory, trust_domain.clone());
        let held = Held::new(directory.credentials()?);
        let empty = Identities::new(0, trust_domain, vec![], [].into(), [].into());
        Ok(Self {
            config,
            directory,
            clock,
            metrics,
            held: tokio::sync::Mutex::new(held),
            signing: Mutex::default(),
            status: Mutex::default(),
            sender: watch::Sender::new(Arc::new(empty)),
        })
    }

    /// Keeps everything as the server has it until told to stop, or until the server bans the agent.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut pause = Pause::new(self.config.sync_interval);
        loop {
            let (step, is_followed) = tokio::select! {
                () = stop.cancelled() => return,
                mut held = self.held.lock() => {
                    let step = self.advance(&mut held).await;
                    (step, held.is_followed)
                }
            };
            let wait = match step {
                Ok(due) => pause.succeeded(due),
                Err(SpireError::Banned) => return,
                // What the server takes back must not wait for what is wrong here.
                Err(_) if is_followed => pause.succeeded(Duration::MAX),
                Err(_) => pause.failed(self.left()),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Brings everything to what the server has, and says for how long nothing is due. What does not
    /// succeed leaves what is there, and shows in the status.
    ///
    /// # Errors
    /// What did not succeed.
    pub async fn step(&self) -> Result<Duration, SpireError> {
        let mut held = self.held.lock().await;
        self.advance(&mut held).await
    }

    /// Has the bundle that has this key of JWT-SVIDs, if the server has one. Many may ask for it at once,
    /// and a server whose bundle lags behind must not be asked for it with every token.
    pub(super) async fn catch_up(&self, key_id: &str) {
        let mut held = self.held.lock().await;
        let is_soon = held.caught_up.is_some_and(|last| last.elapsed() < CATCH_UP);
        if !self.knows_jwt_key(key_id) && !is_soon {
            held.caught_up = Some(Instant::now());
            // What did not succeed is told by the status; what the token is worth is looked at next.
            let _ = self.advance(&mut held).await;
        }
    }

    async fn advance(&self, held: &mut Held) -> Result<Duration, SpireError> {
        if held.is_banned {
            return Err(SpireError::Banned);
        }
        if held.is_dirty {
            self.publish(held);
        }
        held.is_followed = false;
        let mut done = self.round(held).await;
        for _ in 1..ATTEMPTS {
            let Err(SpireError::Denied { reason, .. }) = &done else {
                break;
            };
            done = match self.denied(held, *reason) {
                Ok(()) => self.round(held).await,
                Err(error) => Err(error),
            };
        }
        let now = self.clock.now();
        held.is_dirty |= held.prune(now);
        if held.is_dirty {
            self.publish(held);
        }
        self.record(held, done.as_ref().err(), now);
        done.map(|()| held.idle(now))
    }

    /// How the agent stands.
    pub fn status(&self) -> AgentStatus {
        let status = self.status.lock();
        status.unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn round(&self, held: &mut Held) -> Result<(), SpireError> {
        let attested = self.ensure_attested(held).await;
        let can_go_on = held.trust.is_some() && held.has_counting_svid(self.clock.now());
        if attested.is_err() && !can_go_on {
            return attested;
        }
        let kept = self.keep(held);
        let renewed = self.renew_if_due(held).await;
        if let Err(SpireError::Denied { .. }) = renewed {
            return renewed;
        }
        let session = self.session(held)?;
        let update = self.fetch(held, &session).await?;
        held.is_followed = true;
        held.confirm();
        let takes_back = self.apply(held, update);
        if takes_back {
            // Not after all that there is to sign.
            self.publish(held);
        }
        let kept = kept.and(self.keep(held));
        let outcome = self.sign(held, &session).await;
        if held.is_dirty {
            self.publish(held);
        }
        self.post_status(held, &session).await;
        attested.and(renewed).and(kept).and(outcome)
    }

    /// The session under the newest SVID and bundle.
    pub(super) fn session(&self, held: &mut Held) -> Result<Arc<Session>, SpireError> {
        let trust = held.trust.as_ref().ok_or_else(no_trust)?;
        let shown = held.credentials.in_use.as_ref();
        let is_same = |current: &Current| {
            current.trust.roots() == trust.roots()
                && current.shown.as_ref().map(Arc::as_ptr) == shown.map(Arc::as_ptr)
        };
        if let Some(current) = held.session.as_ref().filter(|it| is_same(it)) {
            return Ok(Arc::clone(&current.session));
        }
        let session = Arc::new(Session::new(
            &self.config.server,
            &self.config.trust_domain,
            Trust::Bundle(Arc::clone(trust)),
            shown.map(Arc::as_ref),
            Arc::clone(&self.clock),
        )?);
        let current = Current {
            session: Arc::clone(&session),
            shown: shown.cloned(),
            trust: Arc::clone(trust),
        };
        held.session = Some(current);
        self.signing().session = Some(Arc::clone(&session));
        Ok(session)
    }

    /// Makes what is held the next generation.
    pub(super) fn publish(&self, held: &mut Held) {
        held.is_dirty = false;
        let generation = self.sender.borrow().generation + 1;
        info!(generation, "identities renewed");
        let trust_domain = &self.config.trust_domain;
        let own = held.bundle.iter().map(|bundle| (trust_domain, bundle));
        let bundles: Vec<_> = own.chain(&held.federated).collect();
        let x509 = bundles.iter();
        let x509 = x509.map(|(name, bundle)| (TrustDomain::clone(name), Arc::clone(&bundle.x509)));
        let jwt = bundles.iter();
        let jwt = jwt.map(|(name, bundle)| (TrustDomain::clone(name), Arc::clone(&bundle.jwt)));
        let next = Identities::new(
            generation,
            trust_domain.clone(),
            held.issued(),
            x509.collect(),
            jwt.collect(),
        );
        self.metrics.first_expires(&next);
        let mut signing = self.signing();
        signing.entries = held.registrations();
        if held.is_banned {
            signing.session = None;
        }
        drop(signing);
        self.sender.send_replace(Arc::new(next));
    }

    /// The newest generation.
    pub(super) fn identities(&self) -> Arc<Identities> {
        Arc::clone(&self.sender.borrow())
    }

    /// The server's id of an entry, and where to have a token signed for it.
    pub(super) fn signs(&self, entry: &Entry) -> Option<(String, Arc<Session>)> {
        let signing = self.signing();
        let mut entries = signing.entries.iter();
        let known = entries.find(|known| *known.entry == *entry)?;
        Some((known.id.clone(), Arc::clone(signing.session.as_ref()?)))
    }

    pub(super) fn signing(&self) -> std::sync::MutexGuard<'_, Signing> {
        self.signing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the first of the SVIDs still counts.
    fn left(&self) -> Option<Duration> {
        let (identities, now) = (self.identities(), self.clock.now());
        let ends = identities.issued().iter();
        let ends = ends.map(|issued| issued.svid.validity().not_after);
        // What has ended already is no reason to hurry.
        let first = ends.filter(|end| now < *end).min()?;
        first.duration_since(now).ok()
    }

    /// Keeps how a step went, to be shown, and logs what did not fail in the same way before.
    fn record(&self, held: &Held, error: Option<&SpireError>, now: SystemTime) {
        self.metrics.source_is_up(error.is_none());
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let failing = error.map(|error| Failing {
            code: error.code().to_owned(),
            error: chain(error),
            hint: error.hint().map(str::to_owned),
        });
        match &failing {
            Some(failing) if status.failing.as_ref() != Some(failing) => {
                let Failing { code, error, .. } = failing;
                error!(
                    code,
                    error, "the SPIRE server is not followed; what is there stays until it expires"
                );
            }
            None if status.failing.is_some() => info!("the SPIRE server is followed again"),
            _ => {}
        }
        let mut told = held.unsigned.iter().chain(&held.bundle_problems);
        let before =
            |problem| status.unsigned.contains(problem) || status.bundles.contains(problem);
        while let Some(problem) = told.find(|problem| !before(problem)) {
            warn!(
                code = "SG0196",
                problem, "of what the SPIRE server gives, this is not taken"
            );
        }
        let known = held.authorized.values();
        let ends = held.svids.values();
        let ends = ends.map(|svid| seconds(svid.issued.svid.validity().not_after));
        let in_use = held.credentials.in_use.as_ref();
        *status = AgentStatus {
            phase: match (held.is_banned, &failing, held.synced) {
                (true, ..) => Phase::Banned,
                (false, Some(_), Some(_)) => Phase::Failing,
                (false, None, Some(_)) => Phase::Serving,
                (false, _, None) => Phase::Starting,
            },
            agent_id: in_use.map(|svid| svid.id().to_string()),
            agent_expires: in_use.map(|svid| seconds(svid.validity().not_after)),
            synced: held.synced.map(seconds),
            failing_since: failing
                .as_ref()
                .map(|_| status.failing_since.unwrap_or(seconds(now))),
            failing,
            first_expiry: ends.clone().min(),
            last_expiry: ends.max(),
            served: held.svids.len(),
            unsigned: held.unsigned.clone(),
            foreign: known
                .clone()
                .filter(|known| known.outcome == Outcome::Foreign)
                .count(),
            refused: known.filter_map(|known| known.refused().cloned()).collect(),
            bundles: held.bundle_problems.clone(),
            any_audience: held.any_audience(&self.config.audience_rules),
        };
    }
}

impl Held {
    fn new(credentials: Credentials) -> Self {
        let never = SystemTime::UNIX_EPOCH;
        let in_use = credentials.in_use.as_deref();
        Self {
            renew_at: in_use.map_or(never, half_life),
            credentials,
            is_token_spent: false,
            is_reattestable: false,
            must_reattest: false,
            denial: None,
            is_kept: true,
            is_banned: false,
            is_dirty: false,
            is_followed: false,
            trust: None,
            session: None,
            bundle: None,
            is_bundle_kept: true,
            federated: BTreeMap::new(),
            bundle_problems: Vec::new(),
            authorized: Authorized::new(),
            svids: BTreeMap::new(),
            unsigned: Vec::new(),
            batch: BatchSize::default(),
            next_tainted: never,
            posted: None,
            synced: None,
            caught_up: None,
        }
    }
}

impl Known {
    /// The entry, where it is served.
    pub(super) fn served(&self) -> Option<&Arc<Entry>> {
        match &self.outcome {
            Outcome::Served(entry) => Some(entry),
            Outcome::Foreign | Outcome::Refused(_) => None,
        }
    }

    fn refused(&self) -> Option<&super::status::RefusedEntry> {
        match &self.outcome {
            Outcome::Refused(refused) => Some(refused),
            Outcome::Served(_) | Outcome::Foreign => None,
        }
    }
}
