//! Policy generations: which one decides, which was before it, and what became of the last attempt
//! to change it.
//!
//! ```text
//! sources ── load, test, one evaluator a worker ──▶ swap ──▶ current; what was current is previous
//!                      │ any failure
//!                      └──▶ remembered and told; the current one stays
//! ```
//! Nothing changes by itself but what [`files`] sees changing.

mod denials;
mod files;
mod metrics;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sidegate_identity::clock::Clock;
use sidegate_policy::decision_log::DecisionLog;
use sidegate_policy::{
    Evaluator, Policy, PolicyError, PolicyMetrics, PolicyOptions, PolicySources,
};
use sidegate_proxy::{PolicySwap, PreparedGeneration};
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::bundles::{BundleSources, Update};
use super::status::{self, seconds};
use crate::admin::{PolicyFacts, RefusedSources};
use crate::failure::chain;
use denials::Denials;
pub(super) use files::PolicyFiles;
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
}

/// What every evaluator gets.
#[derive(Clone)]
pub(super) struct EvaluatorParts {
    pub(super) decisions: PolicyMetrics,
    pub(super) log: Option<DecisionLog>,
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
}

impl EvaluatorParts {
    /// An evaluator that counts its decisions, and logs them where that is configured.
    pub(super) fn evaluator(&self, policy: &Policy) -> Result<Evaluator, PolicyError> {
        let evaluator = policy.evaluator(&self.decisions)?;
        Ok(match &self.log {
            Some(log) => evaluator.with_decision_log(log.clone()),
            None => evaluator,
        })
    }
}

impl PolicyManager {
    /// Takes over from the start: `policy` decides already.
    pub(super) fn new(policy: Policy, parts: PolicyParts, swap: PolicySwap) -> Self {
        parts.metrics.loaded(policy.generation());
        let state = State {
            since: parts.clock.now(),
            current: Generation {
                sources_of: policy.generation(),
                policy,
            },
            previous: None,
            is_rolled_back: false,
            refused: None,
            denials: Denials::default(),
        };
        Self {
            parts,
            swap,
            changing: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        }
    }

    /// Follows where the policy comes from, and counts decisions, until told to stop.
    pub(super) async fn run(self: Arc<Self>, origin: PolicyOrigin, stop: CancellationToken) {
        let follow = async {
            match origin {
                PolicyOrigin::Stock => std::future::pending().await,
                PolicyOrigin::Files(files) => files.follow(&self).await,
                PolicyOrigin::Bundles(bundles) => self.follow(bundles).await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = follow => {}
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
    /// already, or that an operator went back from, change nothing.
    ///
    /// Once begun it should be let come to its end.
    ///
    /// # Errors
    /// What is wrong with them. It is remembered; the policy stays as it is.
    pub(crate) async fn apply(&self, sources: PolicySources) -> Result<u64, ChangeError> {
        let _changing = self.changing.lock().await;
        let (known, options) = {
            let state = self.state();
            let given_up = state.previous.as_ref().filter(|_| state.is_rolled_back);
            let known = [Some(&state.current), given_up].map(|it| it.map(|it| it.policy.clone()));
            (known, self.next(&state))
        };
        let (swap, parts) = (self.swap.clone(), self.parts.evaluators.clone());
        let loaded = spawn_blocking(move || {
            if known.iter().flatten().any(|it| *it.sources() == sources) {
                return Ok(None);
            }
            let policy = Policy::load(sources, &options)?;
            let prepared = swap.prepare(|| parts.evaluator(&policy))?;
            Ok::<_, PolicyError>(Some((policy, prepared)))
        });
        let (policy, prepared) = match flat(loaded.await) {
            Ok(Some(loaded)) => loaded,
            Ok(None) => {
                let mut state = self.state();
                state.refused = None;
                return Ok(state.current.policy.generation());
            }
            Err(error) => return Err(self.refuse(error)),
        };
        let status = policy.status().clone();
        let generation = Generation {
            sources_of: status.generation,
            policy,
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
        // Decisions from here on are after the change.
        let decisions = self.parts.evaluators.decisions.ingress_decisions().into();
        let retired = self.swap.swap(prepared).await;
        drop(spawn_blocking(move || drop(retired)));
        self.parts.metrics.loaded(number);
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

    /// Compares denials before and after the last change, for as long as the process lives.
    async fn count(&self) {
        loop {
            tokio::time::sleep(COUNTED).await;
            let decisions = self.parts.evaluators.decisions.ingress_decisions().into();
            let mut state = self.state();
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
        PolicyFacts {
            since: seconds(state.since),
            sources_of: Some(current.sources_of).filter(|number| *number != generation),
            is_rolled_back: state.is_rolled_back,
            previous: state.previous.as_ref().map(|it| it.policy.generation()),
            refused: state.refused.clone(),
            denials: state.denials.jump(),
            ..status::policy(self.parts.path.clone(), &current.policy)
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ChangeError {
    /// The stable diagnostic code.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Sources(error) => error.code(),
            Self::Broken(_) => "SG0250",
            Self::NoPrevious => "SG0251",
        }
    }
}

/// What came of work on another thread.
fn flat<T>(outcome: Result<Result<T, PolicyError>, JoinError>) -> Result<T, ChangeError> {
    Ok(outcome??)
}
