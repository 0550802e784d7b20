//! Requests and responses on which nothing moves any more.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt::Executor;
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tracing::{debug, error};

use crate::contained;
use crate::metrics::Limit;
use crate::worker::Listener;

tokio::task_local! {
    static CURRENT: Arc<Progress>;
}

/// When something last moved in one request or its response.
#[derive(Debug)]
pub(crate) struct Progress {
    begun: Instant,
    /// Microseconds after `begun`.
    moved: AtomicU64,
    /// Microseconds after `begun` since which the request's body is waited for, or zero.
    waiting: AtomicU64,
    stalled: AtomicBool,
    panicked: AtomicBool,
}

/// What took too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Late {
    /// The response's head.
    Response,
    /// More of the request's body.
    RequestBody,
}

/// Runs HTTP/2 streams, each for as long as something moves in it. What pings or other streams do
/// does not count.
#[derive(Clone)]
pub(crate) struct StreamExecutor {
    listener: Arc<Listener>,
}

impl Progress {
    fn new(begun: Instant) -> Arc<Self> {
        Arc::new(Self {
            begun,
            moved: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            stalled: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        })
    }

    /// That of the HTTP/2 stream which runs now; one of its own for any other request, which begins
    /// now.
    pub(crate) fn current(now: Instant) -> Arc<Self> {
        CURRENT
            .try_with(Arc::clone)
            .unwrap_or_else(|_| Self::new(now))
    }

    /// Something has moved.
    pub(crate) fn moved(&self) {
        self.moved.store(self.now(), Relaxed);
        self.waiting.store(0, Relaxed);
    }

    /// More of the request's body is waited for.
    pub(crate) fn waits_for_body(&self) {
        if self.waiting.load(Relaxed) == 0 {
            self.waiting.store(self.now().max(1), Relaxed);
        }
    }

    /// Whether it was ended because nothing moved.
    pub(crate) fn has_stalled(&self) -> bool {
        self.stalled.load(Relaxed)
    }

    /// Whether it was ended because what served it panicked.
    pub(crate) fn has_panicked(&self) -> bool {
        // Of HTTP/1 the connection unwinds, with its request.
        self.panicked.load(Relaxed) || std::thread::panicking()
    }

    fn waiting_since(&self) -> Option<Instant> {
        match self.waiting.load(Relaxed) {
            0 => None,
            since => Some(self.begun + Duration::from_micros(since)),
        }
    }

    fn last_moved(&self) -> Instant {
        self.begun + Duration::from_micros(self.moved.load(Relaxed))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Does what has to be done by the deadline, while the request's body may pause for `pause` at most.
pub(crate) async fn within<T>(
    progress: &Progress,
    deadline: Instant,
    pause: Duration,
    work: impl Future<Output = T>,
) -> Result<T, Late> {
    let mut work = pin!(work);
    loop {
        let since = progress.waiting_since();
        let next = since.unwrap_or_else(Instant::now) + pause;
        if let Ok(done) = timeout_at(next.min(deadline), work.as_mut()).await {
            return Ok(done);
        }
        let now = Instant::now();
        let since = progress.waiting_since();
        if since.is_some_and(|since| since + pause <= now) {
            return Err(Late::RequestBody);
        }
        if deadline <= now {
            return Err(Late::Response);
        }
    }
}

impl StreamExecutor {
    pub(crate) fn new(listener: &Arc<Listener>) -> Self {
        Self {
            listener: Arc::clone(listener),
        }
    }
}

impl<F> Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // A stream that is switched to another protocol goes on as another task.
        let progress = Progress::current(Instant::now());
        let watched = WatchedStream {
            stream,
            timer: sleep_until(progress.begun + self.listener.timeouts.stream_idle),
            progress: Arc::clone(&progress),
            listener: Arc::clone(&self.listener),
        };
        tokio::spawn(CURRENT.scope(progress, watched));
    }
}

pin_project_lite::pin_project! {
    /// An HTTP/2 stream. It ends where nothing moves any more; dropping it resets it then.
    struct WatchedStream<F> {
        #[pin]
        stream: F,
        #[pin]
        timer: Sleep,
        progress: Arc<Progress>,
        listener: Arc<Listener>,
    }
}

impl<F: Future<Output = ()>> Future for WatchedStream<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        match contained::poll(this.stream, context) {
            Ok(Poll::Pending) => {}
            Ok(Poll::Ready(())) => return Poll::Ready(()),
            Err(panic) => {
                this.progress.panicked.store(true, Relaxed);
                this.listener.metrics.panicked();
                error!(
                    code = "SG0308",
                    listener = %this.listener.name,
                    panic,
                    "what served a stream panicked: the stream is ended",
                );
                return Poll::Ready(());
            }
        }
        while this.timer.as_mut().poll(context).is_ready() {
            let next = this.progress.last_moved() + this.listener.timeouts.stream_idle;
            if next <= Instant::now() {
                // A stream that became a tunnel is watched in two tasks.
                if !this.progress.stalled.swap(true, Relaxed) {
                    this.listener.metrics.limit_exceeded(Limit::stream_idle);
                    debug!(
                        code = "SG0361",
                        listener = %this.listener.name,
                        "nothing moves in a stream any more",
                    );
                }
                return Poll::Ready(());
            }
            this.timer.as_mut().reset(next);
        }
        Poll::Pending
    }
}
