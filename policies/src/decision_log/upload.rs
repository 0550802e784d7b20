//! Chunks on their way to a receiver, on a thread of their own: one that is slow
//! or away costs chunks in the end, never time of a request.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http::StatusCode;

use super::chunk::Chunk;
use super::metrics::DecisionLogMetrics;

/// The first wait after a failure, as in OPA; each further one is longer.
const FIRST_DELAY: Duration = Duration::from_millis(100);

/// The longest wait once the log is to end.
const LAST_DELAY: Duration = Duration::from_millis(500);

/// Brings chunks to a receiver of OPA's decision log API.
pub trait Upload: Send + 'static {
    /// Posts a gzip'd JSON array of events and waits for the answer, for as long
    /// as it is willing to. A chunk may be brought more than once.
    ///
    /// # Errors
    ///
    /// Whenever the receiver did not accept the chunk.
    fn upload(&mut self, chunk: &[u8]) -> Result<(), UploadError>;
}

/// Why a chunk was not accepted.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// There is no answer.
    #[error("the receiver of the decision log does not answer")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The answer is no success.
    #[error("the receiver of the decision log answers with status {0}")]
    Status(StatusCode),
}

/// When chunks are made and how many may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadOptions {
    /// The largest chunk in bytes, compressed.
    pub chunk_size: usize,
    /// An event waits for others at least this long, unless they fill a chunk.
    pub min_delay: Duration,
    /// An event waits for others at most this long; so long is also the longest
    /// wait after a failure.
    pub max_delay: Duration,
    /// Bytes of chunks that may wait. The oldest go first.
    pub buffer_size: usize,
}

/// The end that chunks are put into.
pub(super) struct Uploader {
    waiting: Arc<Waiting>,
    thread: JoinHandle<()>,
}

/// Chunks that wait.
struct Waiting {
    queue: Mutex<Queue>,
    changed: Condvar,
    limit: usize,
    metrics: DecisionLogMetrics,
}

#[derive(Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// Of these chunks and the one that is under way.
    bytes: usize,
    events: u64,
    is_closed: bool,
}

impl UploadError {
    /// Whether the chunk itself is what the receiver will not have: it would
    /// stand in the way of all others for ever.
    fn is_refusal(&self) -> bool {
        let refusals = [
            StatusCode::BAD_REQUEST,
            StatusCode::PAYLOAD_TOO_LARGE,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            StatusCode::UNPROCESSABLE_ENTITY,
        ];
        matches!(self, Self::Status(status) if refusals.contains(status))
    }
}

impl Uploader {
    pub(super) fn start(
        upload: Box<dyn Upload>,
        options: UploadOptions,
        metrics: DecisionLogMetrics,
    ) -> io::Result<Self> {
        let waiting = Arc::new(Waiting {
            queue: Mutex::default(),
            changed: Condvar::new(),
            limit: options.buffer_size,
            metrics,
        });
        let thread = std::thread::Builder::new()
            .name("decision-upload".to_owned())
            .spawn({
                let waiting = Arc::clone(&waiting);
                move || waiting.upload_all(upload, options.max_delay)
            })?;
        Ok(Self { waiting, thread })
    }

    /// Adds a chunk. Where there is no room for it, the oldest go.
    pub(super) fn add(&self, chunk: Chunk) {
        let mut queue = self.waiting.lock();
        queue.bytes = queue.bytes.saturating_add(chunk.bytes.len());
        queue.events = queue.events.saturating_add(chunk.events);
        queue.chunks.push_back(chunk);
        self.waiting.make_room(&mut queue);
        self.waiting.changed.notify_one();
    }

    /// Waits until all chunks are uploaded.
    pub(super) fn finish(self) {
        self.waiting.lock().is_closed = true;
        self.waiting.changed.notify_one();
        if self.thread.join().is_err() {
            tracing::error!(code = "SG0264", "the upload of the decision log failed");
        }
    }
}

impl Waiting {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn upload_all(&self, mut upload: Box<dyn Upload>, max_delay: Duration) {
        let mut failures = 0_u32;
        while let Some(chunk) = self.next() {
            let outcome = upload.upload(&chunk.bytes);
            let mut queue = self.lock();
            match outcome {
                Ok(()) => {
                    self.metrics.uploads.inc();
                    self.metrics.events.inc_by(chunk.events);
                    self.metrics.condition.recovered();
                    self.gone(&mut queue, &chunk);
                    if failures > 0 {
                        tracing::info!("the receiver of the decision log is back");
                    }
                    failures = 0;
                    continue;
                }
                Err(error) if error.is_refusal() => {
                    tracing::error!(
                        code = "SG0265",
                        %error,
                        events = chunk.events,
                        "the receiver refuses a chunk of the decision log: its events are lost"
                    );
                    self.metrics.failed_uploads.inc();
                    self.metrics.condition.failed(chain(&error));
                    self.metrics.drops.refused.inc_by(chunk.events);
                    self.gone(&mut queue, &chunk);
                    continue;
                }
                Err(error) => {
                    self.metrics.failed_uploads.inc();
                    self.metrics.condition.failed(chain(&error));
                    if failures == 0 {
                        tracing::warn!(
                            code = "SG0263",
                            error = chain(&error),
                            "the decision log cannot be uploaded; it is tried again"
                        );
                    }
                    failures = failures.saturating_add(1);
                    queue.chunks.push_front(chunk);
                    self.make_room(&mut queue);
                }
            }
            drop(queue);
            self.wait(backoff(failures, max_delay));
        }
    }

    /// The oldest chunk, once there is one; `None` when there will be none.
    fn next(&self) -> Option<Chunk> {
        let mut queue = self.lock();
        loop {
            match queue.chunks.pop_front() {
                Some(chunk) => return Some(chunk),
                None if queue.is_closed => return None,
                None => {
                    let waited = self.changed.wait(queue);
                    queue = waited.unwrap_or_else(PoisonError::into_inner);
                }
            }
        }
    }

    /// Waits before the next attempt, not as long if the log is to end.
    fn wait(&self, delay: Duration) {
        let begin = Instant::now();
        let mut queue = self.lock();
        loop {
            let delay = match queue.is_closed {
                true => delay.min(LAST_DELAY),
                false => delay,
            };
            let left = delay.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return;
            }
            let waited = self.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn make_room(&self, queue: &mut Queue) {
        while queue.bytes > self.limit
            && let Some(oldest) = queue.chunks.pop_front()
        {
            self.metrics.drops.buffer_full.inc_by(oldest.events);
            self.gone(queue, &oldest);
        }
        self.show(queue);
    }

    fn gone(&self, queue: &mut Queue, chunk: &Chunk) {
        queue.bytes = queue.bytes.saturating_sub(chunk.bytes.len());
        queue.events = queue.events.saturating_sub(chunk.events);
        self.show(queue);
    }

    fn show(&self, queue: &Queue) {
        let bytes = i64::try_from(queue.bytes).unwrap_or(i64::MAX);
        self.metrics.buffer.set(bytes);
        self.metrics.condition.waits(queue.events);
    }
}

/// Twice as long with each failure, with some chance in it, so that instances
/// that lost their receiver together do not come back together.
fn backoff(failures: u32, longest: Duration) -> Duration {
    let doublings = failures.saturating_sub(1).min(20);
    let delay = FIRST_DELAY.saturating_mul(1 << doublings).min(longest);
    delay.mul_f64(rand::random_range(0.8..=1.0))
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use prometheus_client::registry::Registry;

    use super::*;

    /// Hands chunks over and answers as it is told.
    struct Scripted {
        seen: Sender<Vec<u8>>,
        answers: Receiver<Result<(), UploadError>>,
    }

    impl Upload for Scripted {
        fn upload(&mut self, chunk: &[u8]) -> Result<(), UploadError> {
            self.seen.send(chunk.to_vec()).unwrap();
            self.answers.recv().unwrap()
        }
    }

    struct Stage {
        uploader: Uploader,
        seen: Receiver<Vec<u8>>,
        answers: Sender<Result<(), UploadError>>,
        metrics: DecisionLogMetrics,
    }

    fn stage(buffer_size: usize) -> Stage {
        let (seen, seen_here) = channel();
        let (answers_here, answers) = channel();
        let options = UploadOptions {
            chunk_size: 100,
            min_delay: Duration::ZERO,
            max_delay: Duration::from_millis(1),
            buffer_size,
        };
        let metrics = DecisionLogMetrics::register(&mut Registry::default());
        let upload = Box::new(Scripted { seen, answers });
        let uploader = Uploader::start(upload, options, metrics.clone()).unwrap();
        Stage {
            uploader,
            seen: seen_here,
            answers: answers_here,
            metrics,
        }
    }

    fn chunk(name: &str) -> Chunk {
        Chunk {
            bytes: name.as_bytes().to_vec(),
            events: 2,
        }
    }

    fn status(status: StatusCode) -> Result<(), UploadError> {
        Err(UploadError::Status(status))
    }

    #[test]
    fn a_chunk_that_fails_comes_again_before_all_others() {
        let Stage {
            uploader,
            seen,
            answers,
            metrics,
        } = stage(1000);
        for name in ["one", "two", "three"] {
            uploader.add(chunk(name));
        }
        let away = io::Error::from(io::ErrorKind::ConnectionRefused);
        answers
            .send(Err(UploadError::Transport(away.into())))
            .unwrap();
        answers
            .send(status(StatusCode::INTERNAL_SERVER_ERROR))
            .unwrap();
        answers.send(status(StatusCode::UNAUTHORIZED)).unwrap();
        for _ in 0..3 {
            answers.send(Ok(())).unwrap();
        }
        uploader.finish();
        let seen: Vec<_> = seen.iter().collect();
        assert_eq!(
            seen,
            [b"one".as_slice(), b"one", b"one", b"one", b"two", b"three"]
        );
        assert_eq!(metrics.events.get(), 6);
        assert_eq!(
            (metrics.uploads.get(), metrics.failed_uploads.get()),
            (3, 3)
        );
        assert_eq!(metrics.buffer.get(), 0);
    }

    #[test]
    fn what_waits_is_bounded_and_the_oldest_go_first() {
        let Stage {
            uploader,
            seen,
            answers,
            metrics,
        } = stage(10);
        uploader.add(chunk("first"));
        // It is under way and counts, but it cannot go.
        assert_eq!(seen.recv().unwrap(), b"first");
        for name in ["aaaaa", "bbbbb", "ccccc"] {
            uploader.add(chunk(name));
        }
        assert_eq!(metrics.drops.buffer_full.get(), 4);
        assert_eq!(metrics.buffer.get(), 10);
        // It comes back and is the oldest: there is room for it still.
        answers.send(status(StatusCode::BAD_GATEWAY)).unwrap();
        assert_eq!(seen.recv().unwrap(), b"first");
        for _ in 0..2 {
            answers.send(Ok(())).unwrap();
        }
        uploader.finish();
        assert_eq!(seen.iter().collect::<Vec<_>>(), [b"ccccc"]);
        assert_eq!(metrics.events.get(), 4);
    }

    #[test]
    fn a_chunk_that_is_refused_stands_in_nobodys_way() {
        let Stage {
            uploader,
            seen,
            answers,
            metrics,
        } = stage(1000);
        uploader.add(chunk("bad"));
        uploader.add(chunk("good"));
        answers.send(status(StatusCode::BAD_REQUEST)).unwrap();
        answers.send(Ok(())).unwrap();
        uploader.finish();
        assert_eq!(seen.iter().count(), 2);
        assert_eq!(metrics.drops.refused.get(), 2);
        assert_eq!(metrics.events.get(), 2);
    }

    #[test]
    fn waits_grow_up_to_the_longest() {
        let longest = Duration::from_secs(10);
        for (failures, expected) in [(1, 100), (2, 200), (4, 800), (8, 10_000), (4_000, 10_000)] {
            let expected = Duration::from_millis(expected);
            let delay = backoff(failures, longest);
            assert!(
                delay <= expected && delay >= expected.mul_f64(0.79),
                "{delay:?}"
            );
        }
    }
}
