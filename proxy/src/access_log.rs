//! The access log: one JSON line a request, written when its response has ended.
//!
//! Workers never wait for it: what the writer cannot take is dropped and counted.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::SystemTime;

use serde::Serialize;
use sidegate_policy::{Denial, DynamicMetadata};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;

use crate::error::DENIED_NOW;
use crate::guard::Progress;
use crate::metrics::{ListenerMetrics, Verdict};
use crate::open_request::Opened;

/// Lines that wait to be written.
const QUEUE: usize = 16 * 1024;

/// The workers' end of the log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
}

/// The thread that writes the log; it ends when every [`AccessLog`] is gone.
#[derive(Debug)]
pub struct AccessLogWriter(JoinHandle<()>);

/// One request, from its head to the end of its response.
///
/// Dropping it writes the line: a body that was not read to its end was cut.
pub(crate) struct Record {
    pub(crate) line: Line,
    /// Where the policy allowed it.
    pub(crate) opened: Option<Opened>,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Arc<ListenerMetrics>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) started: Instant,
}

/// The fields of a line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// When the head was complete, RFC 3339.
    pub(crate) time: String,
    pub(crate) request_id: String,
    pub(crate) listener: Arc<str>,
    pub(crate) downstream: Arc<str>,
    /// The peer's SPIFFE ID.
    pub(crate) peer: Arc<str>,
    pub(crate) protocol: &'static str,
    pub(crate) method: String,
    pub(crate) authority: String,
    pub(crate) path: String,
    pub(crate) verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decision_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy_generation: Option<u64>,
    /// What the policy tells, besides its verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dynamic_metadata: Option<DynamicMetadata>,
    pub(crate) status: u16,
    pub(crate) response_bytes: u64,
    pub(crate) duration_ms: f64,
    /// What ended the request early, as in the metrics.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) error: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) code: Option<&'static str>,
    /// The error with its causes, for the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) detail: Option<String>,
    #[serde(skip)]
    pub(crate) complete: bool,
}

impl AccessLog {
    /// Starts the thread that writes lines to `output`.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(output: impl Write + Send + 'static) -> io::Result<(Self, AccessLogWriter)> {
        let (lines, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn(move || write_all(&receiver, output))?;
        Ok((Self { lines }, AccessLogWriter(thread)))
    }

    fn write(&self, line: &Line, metrics: &ListenerMetrics) {
        let mut text = match serde_json::to_vec(line) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(code = "SG0330", %error, "an access-log line cannot be written");
                return;
            }
        };
        text.push(b'\n');
        match self.lines.try_send(text) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => metrics.line_dropped(),
        }
    }
}

impl AccessLogWriter {
    /// Waits until everything is written, once every [`AccessLog`] is gone.
    pub fn finish(self) {
        if self.0.join().is_err() {
            tracing::error!(code = "SG0330", "the access log's writer failed");
        }
    }
}

impl Record {
    pub(crate) fn sent(&mut self, bytes: usize) {
        self.line.response_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    pub(crate) fn complete(&mut self) {
        self.line.complete = true;
    }

    /// The policy ended it while its response ran.
    pub(crate) fn denied(&mut self, denial: &Denial) {
        self.line.error = Some(DENIED_NOW);
        self.line.code = Some("SG0340");
        self.line.detail = Some(denial.reason.to_string());
        self.line.complete = true;
    }

    pub(crate) fn broken(&mut self, error: &dyn std::error::Error) {
        self.line.error = Some("response_broken");
        self.line.code = Some("SG0324");
        self.line.detail = Some(error.to_string());
        self.line.complete = true;
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let elapsed = self.started.elapsed();
        if !self.line.complete && self.progress.has_stalled() {
            self.line.error.get_or_insert("stream_idle");
            self.line.code.get_or_insert("SG0361");
        } else if !self.line.complete {
            self.line.error.get_or_insert("downstream_gone");
        }
        self.line.duration_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        self.metrics
            .finished(self.line.verdict, self.line.status, elapsed);
        self.log.write(&self.line, &self.metrics);
    }
}

/// RFC 3339 in UTC.
pub(crate) fn timestamp(now: SystemTime) -> String {
    OffsetDateTime::from(now)
        .format(&Rfc3339)
        .unwrap_or_default()
}

fn write_all(lines: &Receiver<Vec<u8>>, mut output: impl Write) {
    while let Ok(line) = lines.recv() {
        let mut batch = line;
        // What has gathered meanwhile goes out in one write.
        while batch.len() < 64 * 1024
            && let Ok(line) = lines.try_recv()
        {
            batch.extend_from_slice(&line);
        }
        if let Err(error) = output.write_all(&batch).and_then(|()| output.flush()) {
            tracing::error!(code = "SG0331", %error, "the access log cannot be written");
        }
    }
}
