//! The configuration file, read again: on SIGHUP, and when it or a component's file has changed.
//!
//! ```text
//! file ── parse, check ── components ── entries, SVIDs ── sockets, TLS ──▶ all made
//!                     │ any failure                                          │
//!                     └──▶ told, and nothing changes                         ▼
//!          new entries published ─ listeners swapped in each worker ─ old entries withdrawn
//! ```
//! What needs a restart is named, and goes on as it was. With a signal the access log is opened again
//! either way.

mod outcome;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sidegate_host::HostMetrics;
use sidegate_identity::clock::Clock;
use sidegate_identity::embedded::EmbeddedError;
use sidegate_identity::received::ReceivedError;
use sidegate_proxy::access_log::AccessLogFormat;
use sidegate_proxy::{ListenerSwap, NextListener};
use tokio::runtime::Handle;
use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::access_output::{AccessOutputHandle, Opened};
use super::components::{self, Components};
use super::health::Health;
use super::listeners::{self, Served};
use super::policy::{Files, PolicyManager};
use super::status::{Changing, seconds};
use super::{SERVING, Source};
use crate::admin::ReloadFacts;
use crate::check::counted;
use crate::config::{self, AccessLogOutput, Config};
use crate::failure::{Failure, chain};
use crate::systemd::{Inherited, Systemd};
use crate::telemetry::LogLevel;
pub(super) use outcome::Outcome;

/// Takes other configurations while the instance runs.
pub(super) struct Reload {
    path: PathBuf,
    parts: ReloadParts,
    outcome: Arc<Outcome>,
    running: Mutex<Running>,
}

/// What is changed, and what that takes.
pub(super) struct ReloadParts {
    pub(super) level: LogLevel,
    pub(super) access: AccessOutputHandle,
    pub(super) access_format: AccessLogFormat,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) source: Source,
    pub(super) swap: ListenerSwap,
    pub(super) health: Arc<Health>,
    pub(super) policy: Arc<PolicyManager>,
    pub(super) status: Arc<Mutex<Changing>>,
    pub(super) host_metrics: HostMetrics,
    pub(super) workers: NonZeroUsize,
    pub(super) inherited: Inherited,
    /// How many file descriptors there may be.
    pub(super) descriptors: u64,
}

/// What runs.
pub(super) struct Running {
    pub(super) config: Config,
    pub(super) components: Components,
    pub(super) listeners: Vec<Served>,
}

/// Why the file is read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Signal,
    Change,
}

impl Reload {
    pub(super) fn new(
        path: &Path,
        parts: ReloadParts,
        outcome: Arc<Outcome>,
        running: Running,
    ) -> Self {
        Self {
            path: path.to_owned(),
            parts,
            outcome,
            running: Mutex::new(running),
        }
    }

    /// What is read for the configuration that runs.
    pub(super) fn files(&self) -> Files {
        let running = self.running.lock();
        Files::new(self.named(&running.unwrap_or_else(PoisonError::into_inner).config))
    }

    /// Reloads with each signal and each change of `files`, one at a time, until told to stop.
    pub(super) async fn run(
        self: Arc<Self>,
        mut hangup: Signal,
        mut files: Files,
        systemd: Arc<Systemd>,
        stop: CancellationToken,
    ) {
        loop {
            let cause = tokio::select! {
                () = stop.cancelled() => return,
                _ = hangup.recv() => Cause::Signal,
                () = files.changed() => Cause::Change,
            };
            systemd.reloading();
            // Looked at before they are read, so that no change in between is missed.
            files.look();
            let reload = Arc::clone(&self);
            match spawn_blocking(move || reload.once(cause)).await {
                Ok(named) => files.follow(named),
                Err(error) => error!(code = "SG0072", %error, "the reload failed"),
            }
            systemd.ready(&self.summary());
        }
    }

    /// In a line, for people.
    fn summary(&self) -> String {
        match self.outcome.facts() {
            Some(ReloadFacts {
                refused: Some(_), ..
            }) => format!("{SERVING}; the configuration file is refused"),
            Some(facts) if !facts.restart.is_empty() => {
                let changes = counted(facts.restart.len(), "change");
                format!(
                    "{SERVING}; {changes} of the configuration file not in use before a restart"
                )
            }
            _ => SERVING.to_owned(),
        }
    }

    /// Tells which files are to be watched from now on.
    fn once(&self, cause: Cause) -> Vec<PathBuf> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let last = self.outcome.facts();
        let mut named = self.named(&running.config);
        // Also where the file is refused: whoever rotates logs means the one that is written.
        let access_log = match cause {
            Cause::Signal => self.reopen(&running.config.log.access),
            Cause::Change => last.as_ref().and_then(|last| last.access_log.clone()),
        };
        let facts = ReloadFacts {
            at: seconds(self.parts.clock.now()),
            file: self.path.display().to_string(),
            refused: None,
            access_log,
            restart: Vec::new(),
        };
        let facts = match self.apply(&mut running, &mut named) {
            Err(failure) => {
                let message = failure.plain();
                error!(
                    code = "SG0072",
                    "the configuration file is refused, and nothing changes:\n{message}"
                );
                ReloadFacts {
                    refused: Some(message),
                    // What was pending still is.
                    restart: last.map(|last| last.restart).unwrap_or_default(),
                    ..facts
                }
            }
            Ok(restart) => {
                for key in &restart {
                    warn!(code = "SG0073", key, "a change needs a restart");
                }
                info!(
                    level = self.parts.level.get(),
                    "the configuration is reloaded"
                );
                ReloadFacts { restart, ..facts }
            }
        };
        self.outcome.set(facts);
        named
    }

    /// Tells the keys that need a restart, and notes in `named` which files are read.
    fn apply(
        &self,
        running: &mut Running,
        named: &mut Vec<PathBuf>,
    ) -> Result<Vec<String>, Failure> {
        let parts = &self.parts;
        let (new, source) = config::load(&self.path)?;
        let source = Some(&source);
        let (next, restart) = config::taken(&running.config, new);
        // A file that is refused may be mended by another file.
        named.extend(self.named(&next));
        let components = components::load(&next, source, &parts.host_metrics, &running.components)?;
        let is_same_output = next.log.access == running.config.log.access;
        let access = (!is_same_output).then(|| Opened::at(&next.log.access));
        let access = access.transpose();
        let access = access.map_err(|error| super::access_log_unwritable(source, &error))?;
        let entries = super::identity::entries(&next, source)?;
        let identities = parts.source.watch();
        let (served, descriptors) = parts.source.replace_configured(entries, |entries| {
            let made = listeners::Parts {
                workers: parts.workers,
                components: &components,
                identities: &identities,
                inherited: &parts.inherited,
                clock: &parts.clock,
                descriptors: parts.descriptors,
            };
            let made = listeners::make(&next, source, &made, entries, &running.listeners)?;
            tell(&made.next, &made.served, &running.listeners);
            let prepared = parts.swap.prepare(made.next);
            let prepared = prepared.map_err(|error| super::unwatched(&error))?;
            Ok::<_, NotReplaced>(move || {
                Handle::current().block_on(parts.swap.put(prepared));
                (made.served, made.descriptors)
            })
        })?;
        // From here on nothing fails.
        listeners::warn_unused(&parts.inherited, &served);
        if !is_same(&served, &running.listeners) {
            descriptors.warn();
        }
        parts.health.serve(served.iter().flat_map(Served::shown));
        parts.policy.serves_tcp(listeners::tcp(&served));
        *parts.status.lock().unwrap_or_else(PoisonError::into_inner) = Changing {
            components: components::status(&components),
            descriptors,
        };
        if let Some(access) = access {
            parts.access.switch(access);
        }
        parts.access_format.set(next.log.access_format);
        if let Err(error) = parts.level.set(&next.log.level) {
            error!(code = "SG0037", %error, "the log level stays as it is");
        }
        named.clear();
        named.extend(self.named(&next));
        *running = Running {
            config: next,
            components,
            listeners: served,
        };
        Ok(restart)
    }

    /// The files that a configuration is read from, and those it names that are read with it.
    fn named(&self, config: &Config) -> Vec<PathBuf> {
        let components = config.components.iter().map(|it| it.path.clone());
        [self.path.clone()].into_iter().chain(components).collect()
    }

    /// Opens the access log again, where it is a file, and tells what is wrong with it.
    fn reopen(&self, output: &AccessLogOutput) -> Option<String> {
        let AccessLogOutput::File(_) = output else {
            return None;
        };
        match Opened::at(output) {
            Ok(opened) => {
                self.parts.access.switch(opened);
                None
            }
            Err(problem) => {
                error!(
                    code = "SG0071",
                    %problem,
                    "the access log cannot be opened again: lines go to the file that was open",
                );
                Some(problem.to_string())
            }
        }
    }
}

/// Why entries and listeners stay as they are.
struct NotReplaced(Failure);

impl From<Failure> for NotReplaced {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl From<EmbeddedError> for NotReplaced {
    fn from(error: EmbeddedError) -> Self {
        Self(Failure::message(error.code(), chain(&error)))
    }
}

impl From<ReceivedError> for NotReplaced {
    fn from(error: ReceivedError) -> Self {
        Self(super::identity::not_received(&error))
    }
}

impl From<NotReplaced> for Failure {
    fn from(NotReplaced(failure): NotReplaced) -> Self {
        failure
    }
}

/// Names the listeners that are about to change.
fn tell(next: &[NextListener], served: &[Served], before: &[Served]) {
    for (next, served) in next.iter().zip(served) {
        let (listener, address) = (&served.status.name, served.status.address);
        match next {
            NextListener::Unchanged(_) => {}
            NextListener::Changed(..) => info!(listener, %address, "a listener changes"),
            NextListener::New(..) => info!(listener, %address, "a listener comes"),
        }
    }
    for gone in before {
        if !served
            .iter()
            .any(|it| it.status.address == gone.status.address)
        {
            let (listener, address) = (&gone.status.name, gone.status.address);
            info!(listener, %address, "a listener goes");
        }
    }
}

fn is_same(one: &[Served], other: &[Served]) -> bool {
    let mut pairs = one.iter().zip(other);
    one.len() == other.len() && pairs.all(|(one, other)| one.is_as(other))
}
