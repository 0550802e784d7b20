//! The decision log: what was decided and on what grounds, as OPA tells it.
//!
//! ```text
//! workers ── Record ──▶ bounded queue, never waited for
//!                          │
//! "decision-log" thread    ▼
//!   the input built anew ─ credentials erased ─ the policy's drop and mask rules
//!                          │
//!                          ▼
//!   standard output │ file │ chunks ──▶ "decision-upload" thread ── Upload ──▶ receiver
//! ```
//!
//! A worker copies the head of a request and counts a few references up.
//! Everything else happens on the log's own threads; what they cannot take is
//! dropped and counted.

mod chunk;
mod credentials;
mod event;
mod file;
mod mask;
mod metrics;
mod record;
mod rules;
mod sink;
mod status;
#[cfg(test)]
mod tests;
mod upload;
mod writer;

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use http::HeaderName;

pub use credentials::CREDENTIAL_HEADERS;
pub use file::FileOptions;
pub use metrics::DecisionLogMetrics;
pub(crate) use record::{Answer, Asked, AskedRequest, HeadCopy, Record, empty_head};
pub use status::{DecisionLogStatus, Lost};
pub use upload::{Upload, UploadError, UploadOptions};
pub(crate) use writer::RateLimit;

use chunk::Chunks;
use event::EventBuilder;
use file::RotatingFile;
use rules::LogRules;
use sink::{Sink, Uploading};
use upload::Uploader;
use writer::Writer;

/// Decisions that wait for the log's thread.
const QUEUE: usize = 16 * 1024;

/// Bytes of decisions that wait for the log's thread.
const QUEUE_BYTES: usize = 64 * 1024 * 1024;

/// What is logged, and where.
pub struct DecisionLogOptions {
    /// What every event says of this instance: `id`, `version` and others.
    pub labels: BTreeMap<String, String>,
    /// Headers whose values are erased before a policy's own mask rules are
    /// asked; [`CREDENTIAL_HEADERS`] and others.
    pub erased_headers: Vec<HeaderName>,
    /// More than so many decisions a second are dropped.
    pub max_decisions_per_second: Option<u32>,
    /// Where events go.
    pub output: DecisionLogOutput,
}

/// Where events go.
pub enum DecisionLogOutput {
    /// A stream with other lines in it, such as standard output.
    Stream(Box<dyn Write + Send>),
    /// A file of their own.
    File(FileOptions),
    /// A receiver of OPA's decision log API.
    Upload(Box<dyn Upload>, UploadOptions),
}

/// The workers' end of the log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct DecisionLog {
    records: SyncSender<Message>,
    shared: Arc<Shared>,
    metrics: DecisionLogMetrics,
}

/// The log's own thread.
#[derive(Debug)]
pub struct DecisionLogWriter {
    records: SyncSender<Message>,
    shared: Arc<Shared>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
}

/// Why there is no decision log, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum DecisionLogError {
    /// The file cannot be opened or made.
    #[error("the decision log cannot be written")]
    Open(#[source] io::Error),
    /// There can be no more threads.
    #[error("a thread of the decision log cannot be started")]
    Thread(#[source] io::Error),
    /// The time was over.
    #[error("not all of the decision log was taken within {0:?}: the rest is lost")]
    Unfinished(Duration),
}

/// What both ends know.
#[derive(Debug, Default)]
struct Shared {
    /// Bytes that wait.
    bytes: AtomicUsize,
    /// Whether the log is to end when nothing waits any more.
    is_ending: AtomicBool,
}

enum Message {
    Decided(Arc<Record>),
    /// Looks whether the log is to end.
    Wake,
}

impl DecisionLogError {
    /// The stable diagnostic code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Open(_) => "SG0262",
            Self::Thread(_) => "SG0008",
            Self::Unfinished(_) => "SG0264",
        }
    }
}

impl DecisionLog {
    /// Starts the log's threads.
    ///
    /// # Errors
    ///
    /// A file that cannot be written, or threads that cannot be had.
    pub fn start(
        options: DecisionLogOptions,
        metrics: DecisionLogMetrics,
    ) -> Result<(Self, DecisionLogWriter), DecisionLogError> {
        Self::start_with_queue(options, metrics, QUEUE)
    }

    fn start_with_queue(
        options: DecisionLogOptions,
        metrics: DecisionLogMetrics,
        queue: usize,
    ) -> Result<(Self, DecisionLogWriter), DecisionLogError> {
        let sink = match options.output {
            DecisionLogOutput::Stream(stream) => Sink::Stream(stream),
            DecisionLogOutput::File(options) => {
                Sink::File(RotatingFile::open(options).map_err(DecisionLogError::Open)?)
            }
            DecisionLogOutput::Upload(upload, options) => {
                let uploader = Uploader::start(upload, options, metrics.clone());
                Sink::Upload(Uploading {
                    chunks: Chunks::new(options.chunk_size),
                    uploader: uploader.map_err(DecisionLogError::Thread)?,
                    options,
                    due: None,
                })
            }
        };
        let shared = Arc::new(Shared::default());
        let (records, receiver) = sync_channel(queue);
        let (running, ended) = sync_channel(0);
        let writer = Writer {
            records: receiver,
            shared: Arc::clone(&shared),
            events: EventBuilder::new(options.labels),
            erased_headers: options.erased_headers,
            rate_limit: options.max_decisions_per_second.map(RateLimit::new),
            rules: LogRules::default(),
            metrics: metrics.clone(),
            is_failing: false,
        };
        std::thread::Builder::new()
            .name("decision-log".to_owned())
            .spawn(move || {
                writer.run(sink);
                drop(running);
            })
            .map_err(DecisionLogError::Thread)?;
        let writer = DecisionLogWriter {
            records: records.clone(),
            shared: Arc::clone(&shared),
            ended,
        };
        let log = Self {
            records,
            shared,
            metrics,
        };
        Ok((log, writer))
    }

    /// Notes a decision, or counts that it could not. Never waits.
    pub(crate) fn record(&self, record: Arc<Record>) {
        let size = record.size();
        let waiting = self.shared.bytes.fetch_add(size, Relaxed);
        let has_room = waiting.saturating_add(size) <= QUEUE_BYTES;
        let message = Message::Decided(record);
        if !has_room || self.records.try_send(message).is_err() {
            self.shared.bytes.fetch_sub(size, Relaxed);
            self.metrics.drops.queue_full.inc();
        }
    }
}

impl DecisionLogWriter {
    /// Waits until everything that was noted is written, at most so long.
    ///
    /// # Errors
    ///
    /// When the time is over.
    pub fn finish(self, deadline: Duration) -> Result<(), DecisionLogError> {
        self.shared.is_ending.store(true, Relaxed);
        // Where the queue is full nobody sleeps on it.
        let _ = self.records.try_send(Message::Wake);
        match self.ended.recv_timeout(deadline) {
            Ok(()) | Err(RecvTimeoutError::Disconnected) => Ok(()),
            Err(RecvTimeoutError::Timeout) => Err(DecisionLogError::Unfinished(deadline)),
        }
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Decided(_) => "Decided",
            Self::Wake => "Wake",
        })
    }
}
