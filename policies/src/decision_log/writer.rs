//! The log's own thread: from records to events to the sink.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};

use http::HeaderName;

use super::event::EventBuilder;
use super::metrics::DecisionLogMetrics;
use super::record::Record;
use super::rules::{LogRules, Verdict};
use super::sink::Sink;
use super::{Message, Shared, credentials};

/// How long records gather where there was one just now. A worker that notes
/// one meanwhile wakes nobody, which would cost it more than all the rest.
const GATHERING: Duration = Duration::from_millis(20);

/// What the thread works with.
pub(super) struct Writer {
    pub(super) records: Receiver<Message>,
    pub(super) shared: Arc<Shared>,
    pub(super) events: EventBuilder,
    pub(super) erased_headers: Vec<HeaderName>,
    pub(super) rate_limit: Option<RateLimit>,
    pub(super) rules: LogRules,
    pub(super) metrics: DecisionLogMetrics,
    /// Whether the last event could not be written.
    pub(super) is_failing: bool,
}

/// Lets a number of events pass in each second.
#[derive(Debug)]
pub(crate) struct RateLimit {
    most: u32,
    second: Instant,
    passed: u32,
}

impl Writer {
    /// Writes until the log is to end and nothing waits any more.
    pub(super) fn run(mut self, mut sink: Sink) {
        while let Some(message) = self.next(&mut sink) {
            if let Message::Decided(record) = message {
                self.write(Arc::unwrap_or_clone(record), &mut sink);
            }
        }
        if let Err(error) = sink.finish(&self.metrics) {
            tracing::error!(code = "SG0264", %error, "the end of the decision log is lost");
        }
    }

    /// The next message, or `None` at the end. Flushes the sink when that is due.
    fn next(&mut self, sink: &mut Sink) -> Option<Message> {
        let mut has_gathered = false;
        loop {
            if sink.due().is_some_and(|due| due <= Instant::now()) {
                let flushed = sink.flush(&self.metrics);
                self.note(flushed);
            }
            match self.records.try_recv() {
                Ok(message) => return Some(message),
                Err(TryRecvError::Disconnected) => return None,
                Err(TryRecvError::Empty) if self.shared.is_ending.load(Relaxed) => return None,
                Err(TryRecvError::Empty) => {}
            }
            if !has_gathered {
                has_gathered = true;
                std::thread::park_timeout(GATHERING);
                continue;
            }
            let received = match sink.due() {
                None => self
                    .records
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    self.records.recv_timeout(left)
                }
            };
            match received {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
    }

    fn write(&mut self, record: Record, sink: &mut Sink) {
        self.shared.bytes.fetch_sub(record.size(), Relaxed);
        if self
            .rate_limit
            .as_mut()
            .is_some_and(|limit| !limit.passes())
        {
            self.metrics.drops.rate_limit.inc();
            return;
        }
        let policy = Arc::clone(&record.policy);
        let mut event = self.events.build(record);
        credentials::erase(&mut event, &self.erased_headers);
        match self.rules.apply(&policy, &mut event) {
            Verdict::Log => {}
            Verdict::Withheld => {
                self.metrics.withheld.inc();
            }
            Verdict::Dropped => {
                self.metrics.drops.rule.inc();
                return;
            }
        }
        let written = sink.write(&event, &self.metrics);
        if written.is_err() {
            self.metrics.drops.write_failed.inc();
        }
        self.note(written);
    }

    /// Says once that events cannot be written, and once that they can.
    fn note(&mut self, written: io::Result<()>) {
        match written {
            Ok(()) if self.is_failing => {
                self.is_failing = false;
                self.metrics.condition.recovered();
                tracing::info!("the decision log can be written again");
            }
            Err(error) if !self.is_failing => {
                self.is_failing = true;
                self.metrics.condition.failed(error.to_string());
                tracing::error!(
                    code = "SG0262",
                    %error,
                    "the decision log cannot be written: events are lost"
                );
            }
            _ => {}
        }
    }
}

impl RateLimit {
    pub(crate) fn new(most: u32) -> Self {
        Self {
            most,
            second: Instant::now(),
            passed: 0,
        }
    }

    pub(crate) fn passes(&mut self) -> bool {
        if self.second.elapsed() >= Duration::from_secs(1) {
            self.second = Instant::now();
            self.passed = 0;
        }
        let passes = self.passed < self.most;
        if passes {
            self.passed = self.passed.saturating_add(1);
        }
        passes
    }
}
