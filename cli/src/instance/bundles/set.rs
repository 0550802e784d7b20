//! All configured bundles: the first policy that they make, and each one after it.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::SystemTime;

use sidegate_policy::bundle::{Bundle, BundleError, Cause, Limits, merge};
use sidegate_policy::{PolicyError, PolicySources};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::source::{BundleConfig, Candidate, Found, Source, blocking};
use super::status::{BundleHandle, Clock, Shared};

/// The configured bundles. Dropping it ends all that looks for newer ones.
pub(crate) struct BundleSources {
    shared: Arc<Shared>,
    found: mpsc::Receiver<Found>,
    _tasks: JoinSet<()>,
}

/// A policy in which one bundle is newer.
pub(crate) struct Update<'a> {
    /// The policy: all bundles, with the new one among them.
    pub(crate) sources: PolicySources,
    /// What is to be told of it.
    pub(crate) acceptance: Acceptance<'a>,
}

/// Tells whether an update was put to use. Dropped, it was not.
///
/// Until then there is no other update, because it would lack this one.
#[must_use = "what is not told to be accepted is fetched again"]
pub(crate) struct Acceptance<'a> {
    index: usize,
    bundle: Arc<Bundle>,
    shared: Arc<Shared>,
    answer: oneshot::Sender<Result<(), BundleError>>,
    _only: PhantomData<&'a mut BundleSources>,
}

impl BundleSources {
    /// Reads all bundles and has `load` make a policy of them; then looks for newer ones.
    ///
    /// A bundle that cannot be fetched, or that `load` does not take, is replaced by the one that
    /// was kept, if there is one. Needs a tokio runtime.
    ///
    /// # Errors
    /// Why a bundle cannot be used, or what `load` said.
    pub(crate) async fn start<Loaded>(
        configs: Vec<BundleConfig>,
        limits: Limits,
        clock: Clock,
        load: impl FnMut(PolicySources) -> Result<Loaded, PolicyError>,
    ) -> Result<(Self, Loaded), BundleError> {
        let names = configs.iter().map(|config| config.name.clone());
        let shared = Arc::new(Shared::new(names, clock));
        let First {
            sources,
            candidates,
            loaded,
        } = First::read(configs, limits, &shared, load).await?;

        let (sender, found) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        for (mut source, candidate) in sources.into_iter().zip(candidates) {
            let Candidate { bundle, receipt } = candidate;
            activate(&shared, source.index, bundle);
            source.accepted(&shared, receipt).await;
            let (shared, sender) = (Arc::clone(&shared), sender.clone());
            tasks.spawn(source.follow(shared, sender));
        }
        let started = Self {
            shared,
            found,
            _tasks: tasks,
        };
        Ok((started, loaded))
    }

    /// Reads all bundles as [`BundleSources::start`] does, and has `load` make a policy of them.
    /// Nothing is kept, and nothing looked for afterwards.
    ///
    /// # Errors
    /// As [`BundleSources::start`].
    pub(crate) async fn examine<Loaded>(
        configs: Vec<BundleConfig>,
        limits: Limits,
        load: impl FnMut(PolicySources) -> Result<Loaded, PolicyError>,
    ) -> Result<Loaded, BundleError> {
        let names = configs.iter().map(|config| config.name.clone());
        let nowhen: Clock = Arc::new(|| SystemTime::UNIX_EPOCH);
        let shared = Arc::new(Shared::new(names, nowhen));
        let first = First::read(configs, limits, &shared, load).await?;
        Ok(first.loaded)
    }

    /// The next policy; `None` only where nothing is looked for any more.
    ///
    /// A new bundle that does not go together with the others is refused here and not shown. To
    /// drop this while it waits loses nothing: what was found is found again.
    pub(crate) async fn next(&mut self) -> Option<Update<'_>> {
        loop {
            let Found {
                index,
                bundle,
                answer,
            } = self.found.recv().await?;
            let with_new: Vec<(String, Arc<Bundle>)> = {
                let slots = self.shared.slots();
                let others = slots.iter().enumerate().filter_map(|(other, slot)| {
                    let used = match other == index {
                        true => Arc::clone(&bundle),
                        false => Arc::clone(slot.bundle.as_ref()?),
                    };
                    Some((slot.status.name.clone(), used))
                });
                others.collect()
            };
            match merge_named(with_new).await {
                Ok(sources) => {
                    let shared = Arc::clone(&self.shared);
                    return Some(Update {
                        sources,
                        acceptance: Acceptance {
                            index,
                            bundle,
                            shared,
                            answer,
                            _only: PhantomData,
                        },
                    });
                }
                // Whoever offered it has ended, or logs it.
                Err(error) => drop(answer.send(Err(error))),
            }
        }
    }

    /// Asks for status, also while [`BundleSources::next`] waits.
    #[must_use]
    pub(crate) fn handle(&self) -> BundleHandle {
        BundleHandle {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Acceptance<'_> {
    /// The policy is in use: its bundle is kept, and asked for no more.
    pub(crate) fn accept(self) {
        activate(&self.shared, self.index, self.bundle);
        drop(self.answer.send(Ok(())));
    }

    /// The policy is not used. The bundle before stays, and this one is tried again later.
    pub(crate) fn refuse(self, code: &'static str, reason: impl Into<Cause>) {
        let source = reason.into();
        let refused = BundleError::Refused { code, source };
        drop(self.answer.send(Err(refused)));
    }
}

/// The bundles at the start.
struct First<Loaded> {
    sources: Vec<Source>,
    /// One for each source.
    candidates: Vec<Candidate>,
    loaded: Loaded,
}

impl<Loaded> First<Loaded> {
    async fn read(
        configs: Vec<BundleConfig>,
        limits: Limits,
        shared: &Arc<Shared>,
        mut load: impl FnMut(PolicySources) -> Result<Loaded, PolicyError>,
    ) -> Result<Self, BundleError> {
        let names: Vec<String> = configs.iter().map(|config| config.name.clone()).collect();
        let mut reading = JoinSet::new();
        for (index, config) in configs.into_iter().enumerate() {
            let shared = Arc::clone(shared);
            reading.spawn(async move {
                let mut source = Source::new(index, config, limits);
                let candidate = first(&mut source, &shared).await;
                (source, candidate)
            });
        }
        let mut read = reading.join_all().await;
        read.sort_by_key(|(source, _)| source.index);
        let mut sources = Vec::new();
        let mut candidates = Vec::new();
        for ((source, candidate), name) in read.into_iter().zip(&names) {
            sources.push(source);
            candidates.push(candidate.map_err(|error| error.of(name))?);
        }

        let mut put_to_use = async |candidates: &[Candidate]| -> Result<Loaded, BundleError> {
            let merged = merge_all(&names, candidates).await?;
            Ok(load(merged)?)
        };
        let loaded = match put_to_use(&candidates).await {
            Ok(loaded) => loaded,
            Err(error) => {
                let replaced = replace_by_kept(&sources, &mut candidates).await;
                let loaded = match replaced {
                    true => put_to_use(&candidates).await.ok(),
                    false => None,
                };
                let Some(loaded) = loaded else {
                    return Err(error);
                };
                for (index, candidate) in candidates.iter().enumerate() {
                    if candidate.receipt.is_kept {
                        shared.failed(index, &error);
                    }
                }
                loaded
            }
        };
        Ok(Self {
            sources,
            candidates,
            loaded,
        })
    }
}

/// What the source has, or what was kept of it.
async fn first(source: &mut Source, shared: &Shared) -> Result<Candidate, BundleError> {
    let error = match source.load().await {
        Ok(Some(candidate)) => return Ok(candidate),
        Ok(None) => BundleError::Fetch {
            source: "the server has nothing newer than nothing".into(),
        },
        Err(error) => error,
    };
    match source.load_kept().await {
        Ok(Some(kept)) => {
            shared.failed(source.index, &error);
            Ok(kept)
        }
        Ok(None) => Err(error),
        Err(unusable) => {
            shared.failed(source.index, &unusable);
            Err(error)
        }
    }
}

/// Whether any of the candidates was replaced by a kept one.
async fn replace_by_kept(sources: &[Source], candidates: &mut [Candidate]) -> bool {
    let mut replaced = false;
    for (source, candidate) in sources.iter().zip(candidates) {
        if !candidate.receipt.is_kept
            && let Ok(Some(kept)) = source.load_kept().await
        {
            *candidate = kept;
            replaced = true;
        }
    }
    replaced
}

async fn merge_all(
    names: &[String],
    candidates: &[Candidate],
) -> Result<PolicySources, BundleError> {
    let bundles = candidates.iter().map(|it| Arc::clone(&it.bundle));
    merge_named(names.iter().cloned().zip(bundles).collect()).await
}

async fn merge_named(bundles: Vec<(String, Arc<Bundle>)>) -> Result<PolicySources, BundleError> {
    blocking(move || merge(bundles.iter().map(|(name, it)| (name.as_str(), &**it)))).await
}

fn activate(shared: &Shared, index: usize, bundle: Arc<Bundle>) {
    shared.change(index, |slot, now| {
        tracing::info!(
            bundle = slot.status.name,
            revision = bundle.revision(),
            "the bundle is in use",
        );
        bundle.revision().clone_into(&mut slot.status.revision);
        slot.status.last_activation = Some(now);
        slot.bundle = Some(bundle);
    });
}

#[cfg(test)]
mod tests;
