//! Who is told of the decisions that are measured: nobody, the decision log, or a shadow.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use prometheus_client::registry::Registry;
use sidegate_policy::decision_log::{
    CREDENTIAL_HEADERS, DecisionLog, DecisionLogMetrics, DecisionLogOptions, DecisionLogOutput,
    DecisionLogWriter, FileOptions,
};
use sidegate_policy::shadow::{Sample, Shadow, ShadowControl, ShadowMetrics};
use sidegate_policy::{Evaluator, Policy};
use tempfile::TempDir;

/// How long whoever is told may take for what it was told at once.
const PATIENCE: Duration = Duration::from_secs(60);

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nobody,
    /// A decision log that goes to a file.
    Log,
    /// The same policy as a candidate, for all requests.
    Shadow,
}

/// Whoever is told, on threads of its own.
pub(super) struct Listener {
    kind: Kind,
    /// Decisions that it was told of.
    told: u64,
}

enum Kind {
    Nobody,
    Log {
        metrics: DecisionLogMetrics,
        _writer: DecisionLogWriter,
        _folder: TempDir,
    },
    Shadow(ShadowControl),
}

impl Told {
    /// Has an evaluator of this policy tell it.
    pub(super) fn start(
        self,
        policy: &Policy,
        evaluator: Evaluator,
    ) -> Result<(Evaluator, Listener)> {
        let registry = &mut Registry::default();
        let (evaluator, kind) = match self {
            Self::Nobody => (evaluator, Kind::Nobody),
            Self::Log => {
                let folder = TempDir::new()?;
                let metrics = DecisionLogMetrics::register(registry);
                let options = DecisionLogOptions {
                    labels: std::collections::BTreeMap::new(),
                    erased_headers: CREDENTIAL_HEADERS.to_vec(),
                    max_decisions_per_second: None,
                    output: DecisionLogOutput::File(FileOptions {
                        path: folder.path().join("decisions.log"),
                        max_size: 16 * 1024 * 1024,
                        keep: 1,
                    }),
                };
                let (log, writer) = DecisionLog::start(options, metrics.clone())?;
                let kind = Kind::Log {
                    metrics,
                    _writer: writer,
                    _folder: folder,
                };
                (evaluator.with_decision_log(log), kind)
            }
            Self::Shadow => {
                let metrics = ShadowMetrics::register(registry);
                let (shadow, control) = Shadow::start(policy, Sample::EVERY, metrics)?;
                (evaluator.with_shadow(shadow), Kind::Shadow(control))
            }
        };
        Ok((evaluator, Listener { kind, told: 0 }))
    }
}

impl Listener {
    /// Waits until it has taken these decisions too, so that none is dropped.
    pub(super) fn take(&mut self, decisions: usize) -> Result<()> {
        self.told += u64::try_from(decisions)?;
        let began = Instant::now();
        while self.taken().is_some_and(|taken| taken < self.told) {
            ensure!(began.elapsed() < PATIENCE, "decisions were dropped");
            std::thread::park_timeout(Duration::from_millis(1));
        }
        Ok(())
    }

    /// How many decisions it has taken; `None` where nobody does.
    fn taken(&self) -> Option<u64> {
        match &self.kind {
            Kind::Nobody => None,
            Kind::Log { metrics, .. } => Some(metrics.written()),
            Kind::Shadow(control) => Some(control.counts().compared()),
        }
    }
}
