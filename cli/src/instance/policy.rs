//! Policy generations: which one decides, which was before it, and what became of the last attempt
//! to change it.
//!
//! ```text
//! sources ── load, test, one evaluator a worker ──▶ swap ──▶ current; what was current is previous
//!                      │ any failure
//!                      └──▶ remembered and told; the current one stays
//! ```
//! Nothing changes by itself but what [`files`] sees changing. A [`candidate`] becomes the policy only
//! where an operator promotes it.

mod candidate;
mod denials;
mod files;
mod metrics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sidegate_identity::clock::Clock;
use sidegate_policy::decision_log::DecisionLog;
use sidegate_policy::shadow::Shadow;
use sidegate_policy::{
    Evaluator, Policy, PolicyError, PolicyMetrics, PolicyOptions, PolicySources,
};
use sidegate_proxy::{PolicySwap, PreparedGeneration};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::bundles::{BundleHandle, BundleSources, Update};
use super::decision_log::Losses;
use super::status::{self, seconds};
use crate::admin::{PolicyFacts, Promotion, RefusedSources};
use crate::check::EGRESS_HINT;
use crate::failure::chain;
pub(super) use candidate::{Candidate, load as load_candidate};
use denials::Denials;
pub(super) use files::{Files, PolicyFiles};
pub(super) use metrics::GenerationMetrics;

/// How often decisions are counted.
const COUNTED: Duration = Duration::from_secs(1);

/// Changes the policy of a running instance.
pub(crate) struct PolicyManager {
    parts: PolicyParts,
    swap: PolicySwap,
    /// Held by whoever changes the policy: one at a time.
    changing: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

/// What policies are loaded and counted with.
pub(super) struct PolicyParts {
    /// Those of the first generation.
    pub(super) options: PolicyOptions,
    pub(super) path: Option<String>,
    pub(super) evaluators: EvaluatorParts,
    pub(super) metrics: GenerationMetrics,
    pub(super) clock: Arc<dyn Clock>,
    /// What may be promoted.
    pub(super) candidate: Option<Candidate>,
    /// Where the policy comes from bundles.
    pub(super) bundles: Option<BundleHandle>,
}

/// What every evaluator gets.
#[derive(Clone)]
pub(super) struct EvaluatorParts {
    pub(super) decisions: PolicyMetrics,
    pub(super) log: Option<DecisionLog>,
    pub(super) shadow: Option<Shadow>,
}

/// Where the policy comes from, and what tells of changes there.
pub(super) enum PolicyOrigin {
    /// It comes with the binary, and never changes.
    Stock,
    Files(PolicyFiles),
    Bundles(BundleSources),
}

/// A policy that decides or has decided.
#[derive(Debug, Clone)]
struct Generation {
    policy: Policy,
    /// The generation that had its sources first.
    sources_of: u64,
    /// Its sources were those of the candidate.
    is_promoted: bool,
}

struct State {
    current: Generation,
    since: SystemTime,
    previous: Option<Generation>,
    /// The current one was the one before the previous one: an operator went back.
    is_rolled_back: bool,
    /// The newest sources, if they are not a policy.
    refused: Option<RefusedSources>,
    denials: Denials,
    /// Of the decision log.
    losses: Losses,
    /// Listeners of which nobody gets a connection where the policy does not decide on them.
    tcp_listeners: Vec<String>,
}

/// Why the policy does not change.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    /// The sources are no policy.
    #[error(transparent)]
    Sources(#[from] PolicyError),
    /// The engine broke on them.
    #[error("loading the policy failed")]
    Broken(#[from] JoinError),
    /// There was only ever one.
    #[error("there is no generation before the one that decides")]
    NoPrevious,
    /// There is nothing to promote.
    #[error("there is no candidate: `policy.shadow` is not configured")]
    NoCandidate,
    /// What would be promoted is not what its files say.
    #[error("the candidate's newest sources are refused: {code} {message}")]
    CandidateRefused {
        /// The stable diagnostic code of that.
        code: String,
        /// Why.
        message: String,
    },
}

impl EvaluatorParts {
    /// An evaluator that counts its decisions, and logs them where that is configured.
    pub(super) fn evaluator(&self, policy: &Policy) -> Result<Evaluator, PolicyError> {
        let mut evaluator = policy.evaluator(&self.decisions)?;
        if let Some(log) = &self.log {
            evaluator = evaluator.with_decision_log(log.clone());
        }
        if let Some(shadow) = &self.shadow {
            evaluator = evaluator.with_shadow(shadow.clone());
        }
        Ok(evaluator)
    }
}

impl PolicyManager {
    /// Takes over from the start: `policy` decides already.
    pub(super) fn new(policy: Policy, parts: PolicyParts, swap: PolicySwap) -> Self {
        parts.metrics.loaded(policy.generation());
        warn_of_egress(&policy);
        let state = State {
            since: parts.clock.now(),
            current: Generation {
                sources_of: policy.generation(),
                policy,
                is_promoted: false,
            },
            previous: None,
            is_rolled_back: false,
            refused: None,
            denials: Denials::default(),
            losses: Losses::default(),
            tcp_listeners: Vec::new(),
        };
        Self {
            parts,
            swap,
            changing: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// Knows which listeners take TCP from now on.
    pub(super) fn serves_tcp(&self, listeners: Vec<String>) {
        let mut state = self.state();
        if state.tcp_listeners != listeners {
            warn_of_tcp(&state.current.policy, &listeners);
            state.tcp_listeners = listeners;
        }
    }

    /// Follows where the policy and the candidate come from, and counts decisions, until told to
    /// stop.
    pub(super) async fn run(
        self: Arc<Self>,
        origin: PolicyOrigin,
        candidate: Option<PolicyFiles>,
        stop: CancellationToken,
    ) {
        let follow = async {
            match origin {
                PolicyOrigin::Stock => std::future::pending().await,
                PolicyOrigin::Files(mut files) => loop {
                    let path = files.changed().await;
                    // What fails is remembered there, and told.
                    let _ = self.read(move || PolicySources::read(&path)).await;
                },
                PolicyOrigin::Bundles(bundles) => self.follow(bundles).await,
            }
        };
        let compare = async {
            match (&self.parts.candidate, candidate) {
                (Some(candidate), Some(files)) => candidate.follow(files).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
            () = compare => {}
            () = self.count() => {}
        }
    }

    /// Makes each newer bundle part of the policy.
    async fn follow(&self, mut bundles: BundleSources) {
        while let Some(Update {
            sources,
            acceptance,
        }) = bundles.next().await
        {
            match self.apply(sources).await {
                Ok(_) => acceptance.accept(),
                Err(error) => acceptance.refuse(error.code(), error),
            }
        }
        std::future::pending().await
    }

    /// Makes sources the policy, and tells the generation that decides then. Sources that decide
    /// already, or that an operator went back from or promoted a candidate over, change nothing.
    ///
    /// Once begun it should be let come to its end.
    ///
    /// # Errors
    /// What is wrong with them. It is remembered; the policy stays as it is.
    pub(crate) async fn apply(&self, sources: PolicySources) -> Result<u64, ChangeError> {
        let _changing = self.changing.lock().await;
        let (current, given_up, options) = {
            let state = self.state();
            let given_up = state.given_up().map(|it| it.policy.clone());
            (state.current.policy.clone(), given_up, self.next(&state))
        };
        let (swap, parts) = (self.swap.clone(), self.parts.evaluators.clone());
        let loaded = spawn_blocking(move || {
            let decides = *current.sources() == sources;
            if decides || given_up.is_some_and(|it| *it.sources() == sources) {
                return Ok(Err(decides));
            }
            let policy = Policy::load(sources, &options)?;
            let prepared = swap.prepare(|| parts.evaluator(&policy))?;
            Ok::<_, PolicyError>(Ok((policy, prepared)))
        });
        let (policy, prepared) = match flat(loaded.await) {
            Ok(Ok(loaded)) => loaded,
            Ok(Err(decides)) => {
                let mut state = self.state();
                state.refused = None;
                // What is configured now is what was promoted.
                state.current.is_promoted &= !decides;
                return Ok(state.current.policy.generation());
            }
            Err(error) => return Err(self.refuse(error)),
        };
        let status = policy.status().clone();
        let generation = Generation {
            sources_of: status.generation,
            policy,
            is_promoted: false,
        };
        self.put(generation, prepared, |state| {
            state.is_rolled_back = false;
            state.refused = None;
        })
        .await;
        info!(
            generation = status.generation,
            modules = status.modules,
            tests = status.tests,
            "another policy decides",
        );
        Ok(status.generation)
    }

    /// Makes what can be read the policy, as [`PolicyManager::apply`] does.
    async fn read(
        &self,
        read: impl FnOnce() -> Result<PolicySources, PolicyError> + Send + 'static,
    ) -> Result<u64, ChangeError> {
        match flat(spawn_blocking(read).await) {
            Ok(sources) => self.apply(sources).await,
            Err(error) => Err(self.refuse(error)),
        }
    }

    /// Goes back to the generation before, or, right after that, forward again.
    ///
    /// # Errors
    /// There is none.
    pub(crate) async fn rollback(&self) -> Result<PolicyFacts, ChangeError> {
        let _changing = self.changing.lock().await;
        let (previous, options) = {
            let state = self.state();
            let previous = state.previous.clone().ok_or(ChangeError::NoPrevious)?;
            (previous, self.next(&state))
        };
        let policy = previous.policy.as_generation(options.generation);
        let (swap, parts) = (self.swap.clone(), self.parts.evaluators.clone());
        let prepared = spawn_blocking(move || {
            let prepared = swap.prepare(|| parts.evaluator(&policy))?;
            Ok::<_, PolicyError>((policy, prepared))
        });
        let (policy, prepared) = flat(prepared.await)?;
        let generation = Generation {
            policy,
            sources_of: previous.sources_of,
            is_promoted: previous.is_promoted,
        };
        self.put(generation, prepared, |state| {
            state.is_rolled_back = !state.is_rolled_back;
        })
        .await;
        let facts = self.facts();
        warn!(
            generation = facts.generation,
            sources_of = previous.sources_of,
            "the policy is rolled back",
        );
        Ok(facts)
    }

    /// Makes the candidate the policy, until other sources take its place. Nothing is loaded or
    /// tested again.
    ///
    /// # Errors
    /// There is no candidate, or its newest sources are refused.
    pub(crate) async fn promote(&self) -> Result<Promotion, ChangeError> {
        let candidate = self.parts.candidate.as_ref();
        let candidate = candidate.ok_or(ChangeError::NoCandidate)?;
        let _changing = self.changing.lock().await;
        let policy = candidate.policy()?;
        let (current, options) = {
            let state = self.state();
            (state.current.policy.clone(), self.next(&state))
        };
        let number = options.generation;
        let (swap, parts) = (self.swap.clone(), self.parts.evaluators.clone());
        let prepared = spawn_blocking(move || {
            if current.sources() == policy.sources() {
                return Ok(None);
            }
            let policy = policy.as_generation(number);
            let prepared = swap.prepare(|| parts.evaluator(&policy))?;
            Ok::<_, PolicyError>(Some((policy, prepared)))
        });
        let prepared = flat(prepared.await)?;
        let is_changed = prepared.is_some();
        if let Some((policy, prepared)) = prepared {
            let generation = Generation {
                policy,
                sources_of: number,
                is_promoted: true,
            };
            self.put(generation, prepared, |state| {
                state.is_rolled_back = false;
                state.refused = None;
            })
            .await;
            warn!(
                code = "SG0256",
                generation = number,
                "the candidate is promoted; the configuration still names another policy",
            );
        }
        Ok(Promotion {
            is_changed,
            policy: self.facts(),
        })
    }

    /// What to tell of the policy.
    pub(super) fn facts(&self) -> PolicyFacts {
        self.describe(&self.state())
    }

    /// Has the workers decide by it, and remembers that.
    async fn put(
        &self,
        generation: Generation,
        prepared: PreparedGeneration,
        note: impl FnOnce(&mut State),
    ) {
        let number = generation.policy.generation();
        let tcp_listeners = self.state().tcp_listeners.clone();
        warn_of_tcp(&generation.policy, &tcp_listeners);
        // Decisions from here on are after the change.
        let decisions = self.parts.evaluators.decisions.ingress_decisions().into();
        let retired = self.swap.swap(prepared).await;
        drop(spawn_blocking(move || drop(retired)));
        self.parts.metrics.loaded(number);
        warn_of_egress(&generation.policy);
        self.parts.metrics.jumped(false);
        let mut state = self.state();
        state.denials.changed(decisions);
        state.since = self.parts.clock.now();
        let before = std::mem::replace(&mut state.current, generation);
        state.previous = Some(before);
        note(&mut state);
    }

    /// Remembers why newer sources are not the policy, and tells it.
    fn refuse(&self, error: ChangeError) -> ChangeError {
        let message = chain(&error);
        let mut state = self.state();
        error!(
            code = error.code(),
            generation = state.current.policy.generation(),
            error = message,
            "a new policy is refused; the generation that decides stays",
        );
        self.parts.metrics.refused();
        state.refused = Some(RefusedSources {
            at: seconds(self.parts.clock.now()),
            code: error.code().to_owned(),
            message,
        });
        drop(state);
        error
    }

    /// Compares denials before and after the last change, and notes what the decision log loses, for
    /// as long as the process lives.
    async fn count(&self) {
        loop {
            tokio::time::sleep(COUNTED).await;
            let decisions = self.parts.evaluators.decisions.ingress_decisions().into();
            let mut state = self.state();
            if let Some(log) = &self.parts.evaluators.log {
                state.losses.look(&log.status(), self.parts.clock.now());
            }
            let generation = state.current.policy.generation();
            if let Some(jump) = state.denials.tick(decisions) {
                warn!(
                    code = "SG0252",
                    generation,
                    before = jump.before,
                    after = jump.after,
                    "many more requests are denied since the policy has changed",
                );
                self.parts.metrics.jumped(true);
            }
        }
    }

    /// How the next generation is loaded.
    fn next(&self, state: &State) -> PolicyOptions {
        PolicyOptions {
            generation: state.current.policy.generation() + 1,
            ..self.parts.options.clone()
        }
    }

    fn describe(&self, state: &State) -> PolicyFacts {
        let current = &state.current;
        let generation = current.policy.generation();
        let previous = state.previous.as_ref();
        // To go back from a promoted candidate is to go back to what is configured.
        let was_promoted = previous.is_some_and(|it| it.is_promoted);
        let bundles = self.parts.bundles.as_ref();
        let bundles = bundles.map(BundleHandle::status).unwrap_or_default();
        let log = self.parts.evaluators.log.as_ref();
        let now = self.parts.clock.now();
        // A server that takes a bundle back offers nothing that could be accepted.
        let is_refused = bundles.is_empty() || bundles.iter().any(|it| it.error.is_some());
        PolicyFacts {
            since: seconds(state.since),
            sources_of: Some(current.sources_of).filter(|number| *number != generation),
            is_rolled_back: state.is_rolled_back && !was_promoted,
            previous: previous.map(|it| it.policy.generation()),
            refused: state.refused.clone().filter(|_| is_refused),
            denials: state.denials.jump(),
            is_promoted: current.is_promoted,
            shadow: self.parts.candidate.as_ref().map(Candidate::facts),
            bundles,
            decision_log: log.map(|log| state.losses.facts(log.status(), now)),
            ..status::policy(self.parts.path.clone(), &current.policy)
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says that nobody gets a connection where the policy says nothing about them.
fn warn_of_tcp(policy: &Policy, listeners: &[String]) {
    if policy.status().connect {
        return;
    }
    for listener in listeners {
        warn!(
            code = "SG0386",
            listener,
            generation = policy.generation(),
            "no connection is allowed: the policy has no rule sidegate.connect.allow",
        );
    }
}

impl State {
    /// The generation whose sources are configured and do not decide, because an operator wants
    /// another.
    fn given_up(&self) -> Option<&Generation> {
        let previous = self.previous.as_ref().filter(|it| !it.is_promoted);
        previous.filter(|_| self.is_rolled_back || self.current.is_promoted)
    }
}

impl ChangeError {
    /// The stable diagnostic code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Sources(error) => error.code(),
            Self::Broken(_) => "SG0250",
            Self::NoPrevious => "SG0251",
            Self::NoCandidate => "SG0255",
            Self::CandidateRefused { .. } => "SG0257",
        }
    }
}

/// Tells of a policy that denies all that apps send because it does not know of it.
fn warn_of_egress(policy: &Policy) {
    if policy.status().egress == Some(false) {
        warn!(
            code = "SG0398",
            generation = policy.generation(),
            hint = EGRESS_HINT,
            "the policy says nothing of what apps send: all of it is denied",
        );
    }
}

/// What came of work on another thread.
fn flat<T>(outcome: Result<Result<T, PolicyError>, JoinError>) -> Result<T, ChangeError> {
    Ok(outcome??)
}
