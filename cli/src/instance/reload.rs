//! What SIGHUP does: the configuration file is read again, and what can be changed safely is.
//!
//! ```text
//! file ── parse, check ──▶ log.level applied, all other differences told: they need a restart
//!              └─ refused ──▶ told, and nothing changes
//! ```
//! The access log is opened again either way.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use sidegate_identity::clock::Clock;
use tokio::signal::unix::Signal;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::SERVING;
use super::access_file::AccessFileHandle;
use super::status::seconds;
use crate::admin::ReloadFacts;
use crate::check::counted;
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::systemd::Systemd;
use crate::telemetry::LogLevel;

/// Reads the configuration file again.
pub(super) struct Reload {
    path: PathBuf,
    /// As it was at the start.
    running: Config,
    level: LogLevel,
    access_file: Option<AccessFileHandle>,
    clock: Arc<dyn Clock>,
    last: Mutex<Option<ReloadFacts>>,
}

impl Reload {
    pub(super) fn new(
        path: &Path,
        running: &Config,
        level: LogLevel,
        access_file: Option<AccessFileHandle>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            path: path.to_owned(),
            running: running.clone(),
            level,
            access_file,
            clock,
            last: Mutex::default(),
        }
    }

    /// What came of the last time.
    pub(super) fn facts(&self) -> Option<ReloadFacts> {
        let last = self.last.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reloads with each signal, one at a time, until told to stop.
    pub(super) async fn run(
        self: Arc<Self>,
        mut hangup: Signal,
        systemd: Arc<Systemd>,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = hangup.recv() => {}
            }
            systemd.reloading();
            let reload = Arc::clone(&self);
            if let Err(error) = spawn_blocking(move || reload.once()).await {
                error!(code = "SG0072", %error, "the reload failed");
            }
            systemd.ready(&self.summary());
        }
    }

    /// In a line, for people.
    fn summary(&self) -> String {
        match self.facts() {
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

    fn once(&self) {
        // Also where the file is refused: whoever rotates logs means the one that is written.
        let facts = ReloadFacts {
            at: seconds(self.clock.now()),
            file: self.path.display().to_string(),
            refused: None,
            access_log: self.reopen(),
            restart: Vec::new(),
        };
        let facts = match self.apply() {
            Err(failure) => {
                let message = failure.plain();
                error!(
                    code = "SG0072",
                    "the configuration file is refused, and nothing changes:\n{message}"
                );
                ReloadFacts {
                    refused: Some(message),
                    // What was pending still is.
                    restart: self.facts().map(|last| last.restart).unwrap_or_default(),
                    ..facts
                }
            }
            Ok(restart) => {
                for key in &restart {
                    warn!(code = "SG0073", key, "a change needs a restart");
                }
                info!(level = self.level.get(), "the configuration is reloaded");
                ReloadFacts { restart, ..facts }
            }
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(facts);
    }

    /// The keys that need a restart.
    fn apply(&self) -> Result<Vec<String>, Failure> {
        let (new, _) = config::load(&self.path)?;
        let level = self.level.set(&new.log.level);
        level.map_err(|error| Failure::new("SG0037", &error))?;
        Ok(config::differences(&self.running, &new))
    }

    /// Opens the access log again, and tells what is wrong with it.
    fn reopen(&self) -> Option<String> {
        let reopened = self.access_file.as_ref()?.reopen();
        let problem = reopened.err()?;
        error!(
            code = "SG0071",
            %problem,
            "the access log cannot be opened again: lines go to the file that was open",
        );
        Some(problem.to_string())
    }
}
