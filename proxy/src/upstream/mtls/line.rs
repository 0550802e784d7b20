//! A connection to a server by mutual TLS, which lives no longer than what it was made under.
//!
//! ```text
//!  in use ──┬── the last tenth of an SVID, a newer SVID to show, a tainted root ──▶ retired: takes
//!           │                                                        no more requests, ends theirs
//!           └── the end of an SVID, trust withdrawn, the own entry gone ──▶ cut
//! ```

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use sidegate_identity::clock::Clock;
use sidegate_identity::tls::{ClientTls, Grounds, Trust};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use tracing::info;

use crate::metrics::{Cut, ListenerMetrics};

/// The life of a connection, shared by all who use it.
#[derive(Debug, Default)]
pub(crate) struct Line {
    retired: AtomicBool,
    cut: CancellationToken,
    /// Cancelled once nobody holds the socket any more.
    ended: CancellationToken,
}

/// Who watches over a connection.
pub(super) struct Watch {
    pub(super) line: Arc<Line>,
    pub(super) tls: ClientTls,
    pub(super) grounds: Grounds,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Option<Arc<ListenerMetrics>>,
    /// For the log: where the server is.
    pub(super) authority: String,
}

pin_project_lite::pin_project! {
    /// A stream that fails from the moment on at which its connection is cut.
    pub(crate) struct Cuttable<S> {
        #[pin]
        stream: S,
        cut: Pin<Box<WaitForCancellationFutureOwned>>,
        _ended: DropGuard,
    }
}

impl Line {
    /// Whether it should take no more requests.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.load(Relaxed) || self.cut.is_cancelled()
    }

    /// From now on it takes no more requests.
    pub(super) fn retire(&self) {
        self.retired.store(true, Relaxed);
    }

    /// The stream, which ends with the line; and the line with it.
    pub(super) fn bind<S>(&self, stream: S) -> Cuttable<S> {
        Cuttable {
            stream,
            cut: Box::pin(self.cut.clone().cancelled_owned()),
            _ended: self.ended.clone().drop_guard(),
        }
    }
}

impl Watch {
    /// Watches for as long as the connection lives. `retired` is told when it should take no more
    /// requests.
    pub(super) async fn run(self, retired: impl Fn()) {
        let mut identities = self.tls.identities();
        let now = (Instant::now(), self.clock.now());
        let (server, shown) = (self.grounds.server.validity, self.grounds.shown.validity());
        let last_tenth = server.tenth(9).min(shown.tenth(9));
        let mut expiring = Some(instant(last_tenth, now));
        let expired = instant(server.not_after.min(shown.not_after), now);
        loop {
            // Also at first: trust may have changed since the handshake.
            match self.tls.trust(&self.grounds, self.clock.now()) {
                Trust::Held => {}
                Trust::Ending => self.retire(&retired),
                Trust::Gone => return self.cut(Cut::trust),
            }
            tokio::select! {
                () = self.line.ended.cancelled() => return,
                changed = identities.changed() => if changed.is_err() {
                    // There is no source any more: the process ends.
                    return;
                },
                () = sleep_until(expiring.unwrap_or(expired)) => {
                    if Instant::now() >= expired {
                        return self.cut(Cut::expired);
                    }
                    expiring = None;
                    self.retire(&retired);
                }
            }
        }
    }

    fn listener(&self) -> Option<&str> {
        self.metrics.as_deref().map(ListenerMetrics::name)
    }

    fn retire(&self, retired: impl Fn()) {
        if !self.line.retired.swap(true, Relaxed) {
            tracing::debug!(
                listener = self.listener(),
                upstream = self.authority,
                server = %self.grounds.server.spiffe_id,
                "a connection to an upstream takes no more requests",
            );
        }
        retired();
    }

    fn cut(&self, reason: Cut) {
        let (code, message) = match reason {
            Cut::expired => (
                "SG0397",
                "a connection to an upstream is cut: an SVID has ended",
            ),
            Cut::trust | Cut::policy => (
                "SG0396",
                "a connection to an upstream is cut: what it was trusted by is gone",
            ),
        };
        info!(
            code,
            listener = self.listener(),
            upstream = self.authority,
            server = %self.grounds.server.spiffe_id,
            "{message}",
        );
        if let Some(metrics) = &self.metrics {
            metrics.upstream_cut(reason);
        }
        self.line.cut.cancel();
    }
}

/// A time of day as one of the runtime's clock.
fn instant(time: SystemTime, now: (Instant, SystemTime)) -> Instant {
    now.0 + time.duration_since(now.1).unwrap_or(Duration::ZERO)
}

impl<S> Cuttable<S> {
    /// What is below.
    pub(super) fn stream(&self) -> &S {
        &self.stream
    }

    fn check(
        cut: &mut Pin<Box<WaitForCancellationFutureOwned>>,
        context: &mut Context<'_>,
    ) -> io::Result<()> {
        match cut.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::Error::new(
                io::ErrorKind::ConnectionAborted,
                "what the connection to the server was trusted by is gone",
            )),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead> AsyncRead for Cuttable<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.project();
        Self::check(this.cut, context)?;
        this.stream.poll_read(context, buffer)
    }
}

impl<S: AsyncWrite> AsyncWrite for Cuttable<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write(context, buffer)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.project().stream.poll_write_vectored(context, buffers)
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
