//! The access log: one line a request, written when its response has ended.
//!
//! Workers never wait for it: what the writer cannot take is dropped and counted.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use http::Method;
use http::StatusCode;
use http::uri::Authority;
use serde::{Serialize, Serializer};
use sidegate_policy::{Denial, DynamicMetadata};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::time::Instant;
use uuid::Uuid;

use crate::connections::{CutBy, LiveConnection};
use crate::error::{DENIED, DENIED_NOW};
use crate::guard::Progress;
use crate::line_format::LineFormat;
use crate::metrics::{
    Called, ErrorType, HttpVersion, KnownMethod, ListenerMetrics, RouteMetrics, Served, Verdict,
};
use crate::open_request::Opened;
use crate::trace::{Ended, EndedCall, SpanId, Trace, TraceId};

/// Bytes of one worker's lines that wait to be written.
const LIMIT: usize = 8 * 1024 * 1024;

/// How long lines gather before they are written. A thread that is woken for each line costs more
/// than the lines.
const GATHERING: Duration = Duration::from_millis(20);

/// A worker's end of the log.
#[derive(Debug, Clone)]
pub struct AccessLog {
    lines: Lines,
    /// All workers' lines.
    all: Arc<Mutex<Vec<Lines>>>,
    /// Wakes the writer.
    wake: SyncSender<()>,
    format: AccessLogFormat,
}

/// How lines are written, which can be changed meanwhile. Its copies are one.
#[derive(Debug, Clone)]
pub struct AccessLogFormat {
    is_text: Arc<AtomicBool>,
}

/// Whole lines of one worker.
type Lines = Arc<Mutex<Vec<u8>>>;

/// The thread that writes the log; it ends when every [`AccessLog`] is gone.
#[derive(Debug)]
pub struct AccessLogWriter(JoinHandle<()>);

/// One request, from its head to the end of its response, or one connection without requests.
///
/// Dropping it writes the line: a body that was not read to its end was cut.
pub(crate) struct Record {
    pub(crate) line: Line,
    pub(crate) connection: Arc<LiveConnection>,
    /// Where the policy allowed it.
    pub(crate) opened: Option<Opened>,
    /// What is counted of its route.
    pub(crate) route: Arc<RouteMetrics>,
    pub(crate) method: KnownMethod,
    /// `https` or `http`.
    pub(crate) scheme: &'static str,
    pub(crate) version: HttpVersion,
    /// Where it was forwarded.
    pub(crate) call: Option<Call>,
    pub(crate) trace: Trace,
    pub(crate) log: AccessLog,
    pub(crate) metrics: Arc<ListenerMetrics>,
    pub(crate) progress: Arc<Progress>,
    /// When its head was complete, as the calendar has it, and the runtime.
    pub(crate) begun: SystemTime,
    pub(crate) started: Instant,
}

/// A request's way to the upstream.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    started: Instant,
    /// Of the upstream's response, once it is there.
    status: Option<u16>,
}

/// The fields of a line.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Line {
    /// When the head was complete, RFC 3339.
    pub(crate) time: String,
    pub(crate) request_id: String,
    /// Of a request only, as is its own span.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) trace_id: Option<TraceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) span_id: Option<SpanId>,
    pub(crate) listener: Arc<str>,
    pub(crate) downstream: Arc<str>,
    /// The peer's SPIFFE ID, if it has shown one.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(crate) peer: Arc<str>,
    pub(crate) protocol: &'static str,
    /// Of a request only, as are its authority, path and status.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub(crate) method: Option<Method>,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "text")]
    pub(crate) authority: Option<Authority>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) path: String,
    /// The name of the route that it took.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<Arc<str>>,
    /// Where it was forwarded, as the configuration has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) upstream: Option<Arc<str>>,
    pub(crate) verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "id")]
    pub(crate) decision_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy_generation: Option<u64>,
    /// What the policy tells, besides its verdict.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) dynamic_metadata: Option<DynamicMetadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    /// Of a tunnel only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) request_bytes: Option<u64>,
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
    /// Starts the thread that writes lines to `output`, and flushes it behind whole lines only.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start(
        output: impl Write + Send + 'static,
        format: LineFormat,
    ) -> io::Result<(Self, AccessLogWriter)> {
        let (wake, woken) = sync_channel(1);
        let lines = Lines::default();
        let all = Arc::new(Mutex::new(vec![Arc::clone(&lines)]));
        let thread = std::thread::Builder::new()
            .name("access-log".to_owned())
            .spawn({
                let all = Arc::clone(&all);
                move || write_all(&woken, &all, output)
            })?;
        let log = Self {
            lines,
            all,
            wake,
            format: AccessLogFormat {
                is_text: Arc::new(AtomicBool::new(format == LineFormat::Text)),
            },
        };
        Ok((log, AccessLogWriter(thread)))
    }

    /// What changes how lines are written.
    pub fn format(&self) -> AccessLogFormat {
        self.format.clone()
    }

    /// The end of another worker, which waits for nobody but the writer.
    pub(crate) fn for_worker(&self) -> Self {
        let lines = Lines::default();
        locked(&self.all).push(Arc::clone(&lines));
        Self {
            lines,
            ..self.clone()
        }
    }

    fn write(&self, line: &Line, metrics: &ListenerMetrics) {
        let mut lines = locked(&self.lines);
        let before = lines.len();
        if before > LIMIT {
            drop(lines);
            return metrics.line_dropped();
        }
        if let Err(error) = self.format.get().write(line, &mut lines) {
            lines.truncate(before);
            tracing::error!(code = "SG0330", %error, "an access-log line cannot be written");
            return;
        }
        lines.push(b'\n');
        drop(lines);
        if before == 0 {
            // If it is on its way already, it comes by here too.
            let _ = self.wake.try_send(());
        }
    }
}

impl AccessLogFormat {
    /// Has lines written so from now on.
    pub fn set(&self, format: LineFormat) {
        self.is_text.store(format == LineFormat::Text, Relaxed);
    }

    fn get(&self) -> LineFormat {
        match self.is_text.load(Relaxed) {
            true => LineFormat::Text,
            false => LineFormat::Json,
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
    /// It takes this route.
    pub(crate) fn takes(&mut self, route: &Arc<RouteMetrics>) {
        self.line.route = route.route().cloned();
        self.route = Arc::clone(route);
    }

    /// It is forwarded to its route's upstream.
    pub(crate) fn forwarded(&mut self) {
        let destination = self.route.destination();
        self.line.upstream = destination.map(|it| Arc::clone(&it.name));
        self.call = Some(Call {
            started: Instant::now(),
            status: None,
        });
    }

    /// The upstream's response has begun.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        if let Some(call) = &mut self.call {
            call.status = Some(status.as_u16());
        }
    }

    pub(crate) fn sent(&mut self, bytes: usize) {
        self.line.response_bytes += u64::try_from(bytes).unwrap_or(u64::MAX);
    }

    /// Whether its response has no content (RFC 9110 section 6.4.1).
    pub(crate) fn has_no_content(&self) -> bool {
        self.line.method == Some(Method::HEAD) || matches!(self.line.status, Some(204 | 304))
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

    /// The upstream ended a tunnel otherwise than it should.
    pub(crate) fn tunnel_broken(&mut self, error: &dyn std::error::Error) {
        self.line.error = Some("tunnel_broken");
        self.line.code = Some("SG0317");
        self.line.detail = Some(error.to_string());
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
        if !self.line.complete && self.progress.has_panicked() {
            self.line.error.get_or_insert("panic");
            self.line.code.get_or_insert("SG0308");
        } else if !self.line.complete && self.progress.has_stalled() {
            self.line.error.get_or_insert("stream_idle");
            self.line.code.get_or_insert("SG0361");
        } else if !self.line.complete {
            let cut_by = self.connection.cut_by.get().copied();
            let label = cut_by.map_or("downstream_gone", CutBy::label);
            self.line.error.get_or_insert(label);
            self.line.code = self.line.code.or(cut_by.map(CutBy::code));
        }
        self.line.duration_ms = (elapsed.as_secs_f64() * 1e6).round() / 1e3;
        match self.line.status {
            Some(_) => self.tell(elapsed),
            None => self.metrics.tcp.ended(self.line.error),
        }
        self.log.write(&self.line, &self.metrics);
    }
}

impl Record {
    /// Tells the metrics and the trace of it.
    fn tell(&self, elapsed: Duration) {
        // A policy that says no has decided: that is no error.
        let error = self.line.error.filter(|error| *error != DENIED);
        let status = self.line.status.filter(|status| *status != 0);
        let served = Served {
            method: self.method,
            scheme: self.scheme,
            version: self.version,
            verdict: self.line.verdict,
            status,
            error: ErrorType::of_served(error, status),
        };
        self.route.served(served, elapsed);
        let call = self.call.map(|Call { started, status }| {
            let called = Called {
                method: self.method,
                status,
                error: ErrorType::of_called(error, status),
            };
            let elapsed = started.elapsed();
            self.route.called(called, elapsed);
            EndedCall {
                called,
                destination: self.route.destination(),
                elapsed,
            }
        });
        self.trace.end(&Ended {
            line: &self.line,
            served,
            elapsed,
            call,
        });
    }
}

fn text<T: AsRef<str>, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
    value.as_ref().map(AsRef::as_ref).serialize(serializer)
}

fn id<S: Serializer>(id: &Option<Uuid>, serializer: S) -> Result<S::Ok, S::Error> {
    let mut text = Uuid::encode_buffer();
    let id = id.map(|id| &*id.hyphenated().encode_lower(&mut text));
    id.serialize(serializer)
}

thread_local! {
    /// The last second that was written, and how: it is the same for thousands of requests.
    static SECOND: RefCell<(i64, String)> = const { RefCell::new((0, String::new())) };
}

/// RFC 3339 in UTC, with microseconds.
pub(crate) fn timestamp(now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    let second = now.unix_timestamp();
    SECOND.with_borrow_mut(|(known, text)| {
        if *known != second || text.is_empty() {
            let whole = now.replace_nanosecond(0).unwrap_or(now);
            *text = whole.format(&Rfc3339).unwrap_or_default();
            text.truncate(text.len().saturating_sub(1));
            *known = second;
        }
        format!("{text}.{:06}Z", now.microsecond())
    })
}

fn write_all(woken: &Receiver<()>, all: &Mutex<Vec<Lines>>, mut output: impl Write) {
    let mut batch = Vec::new();
    let mut is_open = true;
    while is_open {
        is_open = woken.recv().is_ok();
        if is_open {
            gather();
        }
        let workers = locked(all).clone();
        for lines in workers {
            std::mem::swap(&mut *locked(&lines), &mut batch);
            if batch.is_empty() {
                continue;
            }
            if let Err(error) = output.write_all(&batch).and_then(|()| output.flush()) {
                tracing::error!(code = "SG0331", %error, "the access log cannot be written");
            }
            batch.clear();
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "there is no condition to wait for: it is for more to come"
)]
fn gather() {
    std::thread::sleep(GATHERING);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
