//! Where one bundle comes from, and the task that looks for newer ones.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use sidegate_policy::bundle::{
    Bundle, BundleError, Fetch, Limits, Polling, Remote, Verification, kept,
};
use tokio::sync::{mpsc, oneshot};
use tracing::warn;

use super::status::Shared;
use crate::instance::policy::PolicyFiles;

/// How long a bundle may take to come.
const WHOLE: Duration = Duration::from_secs(600);

/// How long an `ETag` may be: it goes into every request, and into what is told of the bundle.
const ETAG: usize = 1024;

/// One bundle to be used.
pub(crate) struct BundleConfig {
    /// Its name: unique, and part of its files' names in messages.
    pub(crate) name: String,
    /// Where it comes from.
    pub(crate) origin: BundleOrigin,
    /// How it must be signed. Without it, it must not be.
    pub(crate) verification: Option<Verification>,
}

/// Where a bundle comes from.
pub(crate) enum BundleOrigin {
    /// A directory, or a file with a gzip tarball. It is read again whenever it changes.
    Path(PathBuf),
    /// A server that speaks OPA's bundle API.
    Server {
        /// How it is asked.
        fetch: Arc<dyn Fetch>,
        /// When it is asked.
        polling: Polling,
        /// The file that keeps the last accepted bundle, if it is to be kept.
        keep: Option<PathBuf>,
    },
}

/// One bundle's place in the set, and what it takes to read it.
pub(super) struct Source {
    pub(super) index: usize,
    place: Place,
    verification: Option<Verification>,
    limits: Limits,
}

enum Place {
    Path {
        path: PathBuf,
        files: PolicyFiles,
    },
    Server {
        remote: Remote,
        keep: Option<PathBuf>,
    },
}

/// A bundle that may be put to use.
pub(super) struct Candidate {
    pub(super) bundle: Arc<Bundle>,
    /// What came from the server, to be kept if it is accepted.
    pub(super) receipt: Receipt,
}

#[derive(Default)]
pub(super) struct Receipt {
    compressed: Option<Vec<u8>>,
    etag: Option<HeaderValue>,
    pub(super) is_kept: bool,
}

/// A candidate on its way to whoever puts it to use, and the way back.
pub(super) struct Found {
    pub(super) index: usize,
    pub(super) bundle: Arc<Bundle>,
    pub(super) answer: oneshot::Sender<Result<(), BundleError>>,
}

impl Source {
    pub(super) fn new(index: usize, config: BundleConfig, limits: Limits) -> Self {
        let place = match config.origin {
            BundleOrigin::Path(path) => Place::Path {
                // Looked at before they are read, so that no change in between is missed.
                files: PolicyFiles::new(&path),
                path,
            },
            BundleOrigin::Server {
                fetch,
                polling,
                keep,
            } => Place::Server {
                remote: Remote::new(fetch, polling),
                keep,
            },
        };
        Self {
            index,
            place,
            verification: config.verification,
            limits,
        }
    }

    /// What is there now, or `None` where it is known to be what was accepted last.
    pub(super) async fn load(&mut self) -> Result<Option<Candidate>, BundleError> {
        let (limits, verification) = (self.limits, self.verification.clone());
        match &mut self.place {
            Place::Path { path, .. } => {
                let path = path.clone();
                let read = move || Bundle::read_path(&path, &limits, verification.as_ref());
                Ok(Some(Candidate {
                    bundle: Arc::new(blocking(read).await?),
                    receipt: Receipt::default(),
                }))
            }
            Place::Server { remote, .. } => {
                let within = WHOLE.saturating_add(remote.waits().unwrap_or_default());
                let got = tokio::time::timeout(within, remote.get(&limits)).await;
                let got = got.unwrap_or_else(|_| Err(too_slow()));
                let Some(fetched) = got? else {
                    return Ok(None);
                };
                let (compressed, etag) = (fetched.compressed, fetched.etag);
                self.read(compressed, etag, false).await.map(Some)
            }
        }
    }

    /// The bundle that was kept, if there is one.
    pub(super) async fn load_kept(&self) -> Result<Option<Candidate>, BundleError> {
        let Place::Server {
            keep: Some(path), ..
        } = &self.place
        else {
            return Ok(None);
        };
        let (path, limits) = (path.clone(), self.limits);
        match blocking(move || kept::read(&path, &limits)).await? {
            None => Ok(None),
            Some(compressed) => self.read(compressed, None, true).await.map(Some),
        }
    }

    async fn read(
        &self,
        compressed: Vec<u8>,
        etag: Option<HeaderValue>,
        is_kept: bool,
    ) -> Result<Candidate, BundleError> {
        let (limits, verification) = (self.limits, self.verification.clone());
        let read = move || {
            let bundle = Bundle::read(compressed.as_slice(), &limits, verification.as_ref())?;
            Ok(Candidate {
                bundle: Arc::new(bundle),
                receipt: Receipt {
                    compressed: Some(compressed).filter(|_| !is_kept),
                    etag,
                    is_kept,
                },
            })
        };
        blocking(read).await
    }

    /// Takes note that a candidate is in use: asks for what is newer, and keeps it.
    pub(super) async fn accepted(&mut self, shared: &Shared, receipt: Receipt) {
        let Receipt {
            compressed,
            etag,
            is_kept,
        } = receipt;
        let etag = etag.filter(|etag| etag.len() <= ETAG || {
            let bundle = shared.slots().get(self.index).map(|it| it.status.name.clone());
            warn!(
                bundle,
                bytes = etag.len(),
                "the server's ETag is too long and not used: the bundle is fetched whole each time",
            );
            false
        });
        let text = etag.as_ref().and_then(|etag| etag.to_str().ok());
        let text = text.map(str::to_owned);
        shared.change(self.index, |slot, now| {
            slot.status.etag = text;
            slot.status.kept = is_kept;
            if !is_kept {
                slot.status.last_success = Some(now);
                slot.status.error = None;
            }
        });
        let Place::Server { remote, keep } = &mut self.place else {
            return;
        };
        remote.accepted(etag);
        if let (Some(path), Some(compressed)) = (keep.clone(), compressed) {
            // What cannot be kept is in use all the same.
            if let Err(error) = blocking(move || kept::write(&path, &compressed)).await {
                shared.failed(self.index, &error);
            }
        }
    }

    /// Looks for newer bundles until nobody listens any more.
    pub(super) async fn follow(mut self, shared: Arc<Shared>, found: mpsc::Sender<Found>) {
        let has_failed = |slot: &super::status::Slot| slot.status.error.is_some();
        let mut failures = u32::from(shared.slots().get(self.index).is_some_and(has_failed));
        loop {
            tokio::select! {
                () = self.pause(failures) => {}
                () = found.closed() => return,
            }
            let looked = tokio::select! {
                looked = self.look(&shared, &found) => looked,
                () = found.closed() => return,
            };
            match looked {
                Ok(()) => failures = 0,
                Err(error) => {
                    failures = failures.saturating_add(1);
                    shared.failed(self.index, &error);
                }
            }
        }
    }

    /// Until it may be worth while to look again.
    async fn pause(&mut self, failures: u32) {
        let remote = match &mut self.place {
            Place::Path { files, .. } => {
                files.changed().await;
                return;
            }
            Place::Server { remote, .. } => remote,
        };
        let chance = rand::random::<f64>();
        let delay = match failures {
            0 => remote.next_delay(chance),
            _ => remote.polling().after_failure(failures, chance),
        };
        tokio::time::sleep(delay).await;
    }

    async fn look(
        &mut self,
        shared: &Shared,
        found: &mpsc::Sender<Found>,
    ) -> Result<(), BundleError> {
        let Some(candidate) = self.load().await? else {
            shared.change(self.index, |slot, now| {
                slot.status.last_success = Some(now);
                slot.status.error = None;
            });
            return Ok(());
        };
        let Candidate { bundle, receipt } = candidate;
        let current = shared.current(self.index);
        if current.is_none_or(|current| !current.is_same(&bundle)) {
            let (answer, answered) = oneshot::channel();
            let index = self.index;
            let offered = Found {
                index,
                bundle,
                answer,
            };
            if found.send(offered).await.is_ok() {
                // Whoever drops it has not put it to use.
                answered.await.unwrap_or_else(|_| Err(unused()))?;
            }
        }
        self.accepted(shared, receipt).await;
        Ok(())
    }
}

fn too_slow() -> BundleError {
    BundleError::Fetch {
        source: "the answer does not come to its end".into(),
    }
}

fn unused() -> BundleError {
    BundleError::Refused {
        code: "SG0230",
        source: "nobody put it to use".into(),
    }
}

/// Runs what reads files or parses beside the runtime.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BundleError> + Send + 'static,
) -> Result<T, BundleError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(BundleError::Fetch {
            source: Box::new(error),
        })
    })
}
