//! What moves on a connection: an I/O adapter between TLS and HTTP that notes it, and the deadlines
//! that follow from it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// Shared between a connection's I/O, its requests and its watch.
#[derive(Debug)]
pub(crate) struct Activity {
    opened: Instant,
    /// Microseconds after `opened` at which bytes last moved.
    last: AtomicU64,
    /// Microseconds after `opened` at which the first bytes came that belong to no request yet;
    /// zero where there are none.
    unclaimed: AtomicU64,
    requests: AtomicUsize,
}

/// A request in flight; dropping it is its end.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Activity>);

impl Activity {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            opened: Instant::now(),
            last: AtomicU64::new(0),
            unclaimed: AtomicU64::new(0),
            requests: AtomicUsize::new(0),
        })
    }

    /// A request's head is complete.
    pub(crate) fn begin(self: &Arc<Self>) -> InFlight {
        self.unclaimed.store(0, Relaxed);
        self.requests.fetch_add(1, Relaxed);
        InFlight(Arc::clone(self))
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Relaxed) == 0
    }

    /// When the connection counts as dead, if nothing moves until then.
    pub(crate) fn idle_deadline(&self, idle: Duration) -> Instant {
        self.opened + Duration::from_micros(self.last.load(Relaxed)) + idle
    }

    /// When a head that has begun to arrive must be complete.
    pub(crate) fn head_deadline(&self, header_read: Duration) -> Option<Instant> {
        match self.unclaimed.load(Relaxed) {
            0 => None,
            since => Some(self.opened + Duration::from_micros(since) + header_read),
        }
    }

    fn moved(&self) -> u64 {
        let now = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.store(now, Relaxed);
        now
    }

    fn received(&self) {
        let now = self.moved();
        if self.is_idle() && self.unclaimed.load(Relaxed) == 0 {
            self.unclaimed.store(now.max(1), Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

pin_project_lite::pin_project! {
    /// Notes each read and write of a stream.
    pub(crate) struct Watched<S> {
        #[pin]
        stream: S,
        activity: Arc<Activity>,
    }
}

impl<S> Watched<S> {
    pub(crate) fn new(stream: S, activity: Arc<Activity>) -> Self {
        Self { stream, activity }
    }
}

impl<S: AsyncRead> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let polled = this.stream.poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.activity.received();
        }
        polled
    }
}

impl<S: AsyncWrite> AsyncWrite for Watched<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let polled = this.stream.poll_write(context, buffer);
        note_write(this.activity, &polled);
        polled
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.project();
        let polled = this.stream.poll_write_vectored(context, buffers);
        note_write(this.activity, &polled);
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.project().stream.poll_shutdown(context)
    }
}

fn note_write(activity: &Activity, polled: &Poll<io::Result<usize>>) {
    if matches!(polled, Poll::Ready(Ok(written)) if *written > 0) {
        activity.moved();
    }
}
