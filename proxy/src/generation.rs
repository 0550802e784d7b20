//! Policy generations: each worker's own evaluator, and how another takes its place.
//!
//! ```text
//! control: PolicySwap::prepare ── one evaluator a worker ──▶ PolicySwap::swap ──▶ Retired, dropped
//!                                                              │    ▲
//! worker:                                       swaps its own ─▼────┘  then asks again (recheck.rs)
//! ```
//! Evaluators are built and dropped by the control side, because with much data either takes
//! longer than a worker may be held.

use std::cell::RefCell;
use std::sync::Arc;

use sidegate_policy::{Evaluator, PolicyError};
use tokio::sync::{mpsc, oneshot, watch};

thread_local! {
    /// The worker's own evaluator. Requests ask it synchronously, so that their futures stay `Send`.
    static EVALUATOR: RefCell<Option<Evaluator>> = const { RefCell::new(None) };
}

/// Puts another policy generation into the place of the one that decides. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PolicySwap {
    workers: Arc<[mpsc::Sender<Replacement>]>,
}

/// A generation with an evaluator for each worker.
#[derive(Debug)]
#[must_use = "a generation that decides nothing"]
pub struct PreparedGeneration {
    evaluators: Vec<Evaluator>,
}

/// Evaluators that no longer decide. With much data, dropping them takes a while.
#[derive(Debug)]
pub struct RetiredGeneration {
    _evaluators: Vec<Evaluator>,
}

/// A worker's next evaluator, and where its last one goes.
#[derive(Debug)]
pub(crate) struct Replacement {
    evaluator: Evaluator,
    retired: oneshot::Sender<Option<Evaluator>>,
}

/// A worker's end of the channel.
pub(crate) type Replacements = mpsc::Receiver<Replacement>;

impl PolicySwap {
    /// For so many workers, each of which gets one of the ends.
    pub(crate) fn new(workers: usize) -> (Self, Vec<Replacements>) {
        let channels = (0..workers).map(|_| mpsc::channel(1));
        let (senders, receivers): (Vec<_>, _) = channels.unzip();
        let workers = senders.into();
        (Self { workers }, receivers)
    }

    /// Has one evaluator built for each worker. Takes a while, so not for an async thread.
    ///
    /// # Errors
    /// When one of them cannot be built.
    pub fn prepare(
        &self,
        evaluator: impl Fn() -> Result<Evaluator, PolicyError>,
    ) -> Result<PreparedGeneration, PolicyError> {
        let evaluators = self.workers.iter().map(|_| evaluator());
        Ok(PreparedGeneration {
            evaluators: evaluators.collect::<Result<_, _>>()?,
        })
    }

    /// Hands each worker its evaluator. When this returns, every request whose head comes from now
    /// on is decided by them; those before were decided by one or the other.
    ///
    /// A worker that has ended decides nothing, and takes none.
    pub async fn swap(&self, prepared: PreparedGeneration) -> RetiredGeneration {
        let mut answers = Vec::new();
        let mut retired = Vec::new();
        // All are told before any is waited for.
        for (worker, evaluator) in self.workers.iter().zip(prepared.evaluators) {
            let (sender, receiver) = oneshot::channel();
            let replacement = Replacement {
                evaluator,
                retired: sender,
            };
            match worker.send(replacement).await {
                Ok(()) => answers.push(receiver),
                Err(refused) => retired.push(refused.0.evaluator),
            }
        }
        for answer in answers {
            retired.extend(answer.await.ok().flatten());
        }
        RetiredGeneration {
            _evaluators: retired,
        }
    }
}

/// Asks this thread's evaluator; `None` on a thread that has none.
pub(crate) fn with_evaluator<T>(ask: impl FnOnce(&mut Evaluator) -> T) -> Option<T> {
    EVALUATOR.with_borrow_mut(|evaluator| evaluator.as_mut().map(ask))
}

/// The number of the generation that decides on this thread.
pub(crate) fn current() -> u64 {
    with_evaluator(|evaluator| evaluator.generation()).unwrap_or_default()
}

/// Gives this thread its evaluator, and takes the last one.
pub(crate) fn replace(evaluator: Evaluator) -> Option<Evaluator> {
    EVALUATOR.replace(Some(evaluator))
}

/// Takes what the control side sends, for as long as it may send, and tells `changed` of it.
pub(crate) async fn take(changed: watch::Sender<u64>, mut replacements: Replacements) {
    while let Some(replacement) = replacements.recv().await {
        let generation = replacement.evaluator.generation();
        let retired = replace(replacement.evaluator);
        // Nobody waits any more where the instance ends.
        let _ = replacement.retired.send(retired);
        changed.send_replace(generation);
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use prometheus_client::registry::Registry;
    use sidegate_policy::{Policy, PolicyMetrics, PolicyOptions, PolicySources};

    use super::*;

    fn policy() -> Policy {
        let sources =
            PolicySources::from_modules([("a.rego", "package envoy.authz\nallow := true")]);
        Policy::load(sources.unwrap(), &PolicyOptions::default()).unwrap()
    }

    /// A worker's thread, which tells of every generation that decides there.
    fn worker(
        replacements: Replacements,
        stop: oneshot::Receiver<()>,
    ) -> (watch::Receiver<u64>, thread::JoinHandle<()>) {
        let (sender, receiver) = watch::channel(0);
        let work = async move {
            let taking = tokio::spawn(take(sender, replacements));
            let _ = stop.await;
            taking.abort();
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.unwrap();
        (receiver, thread::spawn(move || runtime.block_on(work)))
    }

    #[tokio::test]
    async fn all_workers_decide_by_the_new_generation_and_give_the_last_one_back() {
        let metrics = PolicyMetrics::register(&mut Registry::default());
        let (swap, replacements) = PolicySwap::new(2);
        let workers = replacements.into_iter().map(|replacements| {
            let (stop, stopped) = oneshot::channel();
            (stop, worker(replacements, stopped))
        });
        let mut workers: Vec<_> = workers.collect();
        let put = async |generation: u64| {
            let policy = policy().as_generation(generation);
            let prepared = swap.prepare(|| policy.evaluator(&metrics));
            let retired = swap.swap(prepared.unwrap()).await;
            let retired = retired._evaluators.iter().map(Evaluator::generation);
            retired.collect::<Vec<_>>()
        };
        // Nothing decides on these threads yet.
        assert!(put(1).await.is_empty());
        assert_eq!(put(2).await, [1, 1]);
        for (_, (current, _)) in &mut workers {
            assert_eq!(*current.wait_for(|current| *current == 2).await.unwrap(), 2);
        }
        // One that has ended leaves its new evaluator with us, and stops none of the others.
        let (stop, (_, thread)) = workers.remove(0);
        drop(stop);
        thread.join().unwrap();
        assert_eq!(put(3).await, [3, 2]);
        for (stop, (_, thread)) in workers {
            drop(stop);
            thread.join().unwrap();
        }
        assert_eq!(put(4).await, [4, 4]);
    }
}
