//! What moves on a connection: an I/O adapter between TLS and HTTP that notes it, and the deadlines
//! that follow from it.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use crate::guard::{Flood, Http2Guard};

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
    /// What the client sent too much of.
    flood: OnceLock<Flood>,
    /// Whether it was cut in the middle of something.
    cut: AtomicBool,
}

/// What can end without sending the rest.
pub(crate) trait Reset {
    /// Has what is unsent thrown away when this is closed, and the other side told so. Otherwise the
    /// system keeps it, and sends it, for as long as it pleases the other side to read.
    fn reset_when_closed(&self);
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
            flood: OnceLock::new(),
            cut: AtomicBool::new(false),
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

    /// Why the connection must end: its client sends too much of this.
    pub(crate) fn flood(&self) -> Option<Flood> {
        self.flood.get().copied()
    }

    /// The connection is dropped where it is. If a request is under way, nothing more of it is sent.
    pub(crate) fn cut(&self) {
        self.cut.store(!self.is_idle(), Relaxed);
    }

    fn moved(&self) -> u64 {
        let now = u64::try_from(self.opened.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last.store(now, Relaxed);
        now
    }

    /// Bytes have come from the client.
    pub(crate) fn received(&self) {
        let now = self.moved();
        if self.is_idle() && self.unclaimed.load(Relaxed) == 0 {
            self.unclaimed.store(now.max(1), Relaxed);
        }
    }

    /// The same where HTTP/2 frames tell when a head begins.
    fn head_began(&self, since: Option<u64>) {
        let since = since.map_or(0, |since| since.max(1));
        self.unclaimed.store(since, Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Relaxed);
    }
}

pin_project_lite::pin_project! {
    /// Notes each read and write of a stream, and fails once an HTTP/2 client sends too much of
    /// something.
    pub(crate) struct Watched<S: Reset> {
        #[pin]
        stream: S,
        activity: Arc<Activity>,
        guard: Option<Box<Http2Guard>>,
    }

    impl<S: Reset> PinnedDrop for Watched<S> {
        fn drop(this: Pin<&mut Self>) {
            if this.activity.cut.load(Relaxed) {
                this.stream.reset_when_closed();
            }
        }
    }
}

impl<S: Reset> Watched<S> {
    /// With a guard where the connection speaks HTTP/2.
    pub(crate) fn new(stream: S, activity: Arc<Activity>, guard: Option<Http2Guard>) -> Self {
        Self {
            stream,
            activity,
            guard: guard.map(Box::new),
        }
    }
}

impl<S: AsyncWrite + Reset> Watched<S> {
    /// Bytes were written: the first `written` ones of these.
    fn wrote<'a>(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        written: usize,
        buffers: impl IntoIterator<Item = &'a [u8]>,
    ) -> io::Result<()> {
        if written == 0 {
            return Ok(());
        }
        let this = self.project();
        let now = this.activity.moved();
        let Some(guard) = this.guard else {
            return Ok(());
        };
        let mut left = written;
        for buffer in buffers {
            let sent = buffer.get(..left).unwrap_or(buffer);
            left -= sent.len();
            match guard.sent(sent, now) {
                Ok(()) => {}
                // It is the library that ends the connection, and says so.
                Err(Flood::other) => {
                    this.activity.flood.get_or_init(|| Flood::other);
                }
                Err(flood) => return Err(end(this.stream, this.activity, guard, flood, context)),
            }
        }
        Ok(())
    }
}

/// Ends a connection on which there is too much of something, and tells the client if that can be
/// done at once.
fn end(
    mut stream: Pin<&mut impl AsyncWrite>,
    activity: &Activity,
    guard: &Http2Guard,
    flood: Flood,
    context: &mut Context<'_>,
) -> io::Error {
    activity.flood.get_or_init(|| flood);
    if let Some(goaway) = guard.goaway() {
        // A client that does not read has no right to hear of it.
        let _ = stream.as_mut().poll_write(context, &goaway);
        let _ = stream.poll_shutdown(context);
    }
    io::Error::new(io::ErrorKind::ConnectionAborted, flood)
}

impl<S: AsyncRead + AsyncWrite + Reset> AsyncRead for Watched<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        let before = buffer.filled().len();
        let mut stream = this.stream;
        let polled = stream.as_mut().poll_read(context, buffer);
        let received = buffer.filled().get(before..).unwrap_or_default();
        match this.guard {
            _ if received.is_empty() => {}
            None => this.activity.received(),
            Some(guard) => {
                let now = this.activity.moved();
                if let Err(flood) = guard.received(received, now) {
                    let ended = end(stream, this.activity, guard, flood, context);
                    return Poll::Ready(Err(ended));
                }
                this.activity.head_began(guard.head_since());
            }
        }
        polled
    }
}

impl<S: AsyncWrite + Reset> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let stream = self.as_mut().project().stream;
        let written = ready!(stream.poll_write(context, buffer))?;
        self.wrote(context, written, [buffer])?;
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.as_mut().project().stream;
        let written = ready!(stream.poll_write_vectored(context, buffers))?;
        let buffers = buffers.iter().map(|buffer| &**buffer);
        self.wrote(context, written, buffers)?;
        Poll::Ready(Ok(written))
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
