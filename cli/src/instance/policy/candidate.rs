//! The candidate for the next policy: `[policy.shadow]`, loaded at start and again whenever its
//! files change. The policy that decides does not depend on it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use sidegate_identity::clock::Clock;
use sidegate_policy::bundle::{Bundle, BundleError, Limits, merge};
use sidegate_policy::shadow::{Shadow, ShadowControl, ShadowCounts, ShadowMetrics};
use sidegate_policy::{Policy, PolicyError, PolicyOptions, PolicySources, is_bundle};
use tokio::task::{JoinError, spawn_blocking};
use tracing::{error, info};

use super::ChangeError;
use super::files::PolicyFiles;
use crate::admin::{RefusedSources, ShadowFacts};
use crate::config::{Config, ConfigSource, Key, PolicyShadow};
use crate::failure::{Failure, chain};
use crate::instance::status::seconds;
use crate::instance::{policy_options, refused};

/// A candidate that was loaded, and what its files were then.
pub(crate) struct LoadedCandidate {
    shadow: PolicyShadow,
    options: PolicyOptions,
    policy: Policy,
    files: PolicyFiles,
}

/// The candidate of a running instance.
pub(crate) struct Candidate {
    shadow: PolicyShadow,
    options: PolicyOptions,
    control: ShadowControl,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

struct State {
    policy: Policy,
    since: SystemTime,
    /// The newest sources, if they are not a policy.
    refused: Option<RefusedSources>,
}

/// Why there is no other candidate.
#[derive(Debug, thiserror::Error)]
enum CandidateError {
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("loading the candidate failed")]
    Broken(#[from] JoinError),
}

/// Loads the candidate that is configured, if there is one.
pub(crate) fn load(
    config: &Config,
    source: Option<&ConfigSource>,
) -> Result<Option<LoadedCandidate>, Failure> {
    let Some(shadow) = &config.policy.shadow else {
        return Ok(None);
    };
    let options = policy_options(config);
    // Looked at before they are read, so that no change in between is missed.
    let files = PolicyFiles::new(&shadow.path);
    let policy = read(&shadow.path, &options).map_err(|error| {
        let key = Key::of("policy").child("shadow").child("path");
        refused(source, &key, error.code(), &error)
    })?;
    Ok(Some(LoadedCandidate {
        shadow: shadow.clone(),
        options,
        policy,
        files,
    }))
}

impl LoadedCandidate {
    /// Starts to compare it.
    pub(crate) fn start(
        self,
        metrics: ShadowMetrics,
        clock: &Arc<dyn Clock>,
    ) -> Result<(Shadow, Candidate, PolicyFiles), Failure> {
        let Self {
            shadow,
            options,
            policy,
            files,
        } = self;
        let started = Shadow::start(&policy, shadow.sample, metrics);
        let (workers, control) = started.map_err(|error| Failure::new(error.code(), &error))?;
        let candidate = Candidate {
            shadow,
            options,
            control,
            state: Mutex::new(State {
                policy,
                since: clock.now(),
                refused: None,
            }),
            clock: Arc::clone(clock),
        };
        Ok((workers, candidate, files))
    }

    /// In a line, for people.
    pub(crate) fn summary(&self) -> String {
        let (path, sample) = (&self.shadow.path, self.shadow.sample.share());
        let counts = ShadowCounts::default();
        facts(path, sample, &self.policy, counts).summary()
    }
}

impl Candidate {
    /// Loads it whenever its files change.
    pub(super) async fn follow(&self, mut files: PolicyFiles) {
        loop {
            let path = files.changed().await;
            self.load(path).await;
        }
    }

    async fn load(&self, path: Arc<Path>) {
        let (options, control) = (self.options.clone(), self.control.clone());
        let last = self.state().policy.clone();
        let loaded = spawn_blocking(move || {
            let sources = read_sources(&path)?;
            if *last.sources() == sources {
                return Ok(None);
            }
            let policy = Policy::load(sources, &options)?;
            control.replace(&policy)?;
            Ok::<_, CandidateError>(Some(policy))
        });
        let loaded = loaded.await.map_err(CandidateError::from);
        let mut state = self.state();
        match loaded.flatten() {
            Ok(None) => state.refused = None,
            Ok(Some(policy)) => {
                let status = policy.status();
                let (modules, tests) = (status.modules, status.tests);
                info!(
                    modules,
                    tests, "another candidate is compared with the policy"
                );
                state.policy = policy;
                state.since = self.clock.now();
                state.refused = None;
            }
            Err(error) => {
                let message = chain(&error);
                error!(
                    code = error.code(),
                    error = message,
                    "a new candidate is refused; the last one is still compared with the policy",
                );
                state.refused = Some(RefusedSources {
                    at: seconds(self.clock.now()),
                    code: error.code().to_owned(),
                    message,
                });
            }
        }
    }

    /// What would be promoted.
    ///
    /// # Errors
    /// The newest sources are no policy: whoever promotes would not get what they see.
    pub(super) fn policy(&self) -> Result<Policy, ChangeError> {
        let state = self.state();
        match &state.refused {
            None => Ok(state.policy.clone()),
            Some(refused) => Err(ChangeError::CandidateRefused {
                code: refused.code.clone(),
                message: refused.message.clone(),
            }),
        }
    }

    pub(super) fn facts(&self) -> ShadowFacts {
        let (path, sample) = (&self.shadow.path, self.shadow.sample.share());
        let state = self.state();
        ShadowFacts {
            since: seconds(state.since),
            refused: state.refused.clone(),
            ..facts(path, sample, &state.policy, self.control.counts())
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CandidateError {
    fn code(&self) -> &'static str {
        match self {
            Self::Policy(error) => error.code(),
            Self::Bundle(error) => error.code(),
            Self::Broken(_) => "SG0250",
        }
    }
}

fn facts(path: &Path, sample: f64, policy: &Policy, counts: ShadowCounts) -> ShadowFacts {
    let status = policy.status();
    ShadowFacts {
        path: path.display().to_string(),
        sample,
        modules: status.modules,
        tests: status.tests,
        since: 0,
        generation: counts.generation,
        compared: counts.compared(),
        same: counts.same,
        allowed_to_denied: counts.allowed_to_denied,
        denied_to_allowed: counts.denied_to_allowed,
        edits: counts.edits,
        error: counts.error,
        dropped: counts.dropped,
        refused: None,
    }
}

fn read(path: &Path, options: &PolicyOptions) -> Result<Policy, CandidateError> {
    Ok(Policy::load(read_sources(path)?, options)?)
}

/// Reads a bundle as one, and all else as `policy.path` is read. A bundle that is signed is refused:
/// no key says whether it may decide, and what is promoted decides.
fn read_sources(path: &Path) -> Result<PolicySources, CandidateError> {
    if !is_bundle(path) {
        return Ok(PolicySources::read(path)?);
    }
    let bundle = Bundle::read_path(path, &Limits::default(), None)?;
    Ok(merge([("shadow", &bundle)])?)
}
