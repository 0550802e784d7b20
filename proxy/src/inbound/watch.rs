//! Serves HTTP on a connection for as long as it may live.
//!
//! ```text
//!            ┌── the last tenth of the peer's SVID ──┐  ┌── its end
//!  serving ──┤   drain, or a tainted root            ├──┤   idle, or a head that does not end
//!            └── HTTP/2: GOAWAY; HTTP/1: `close` ────┘  └── cut by the connection table ──▶ cut
//! ```

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use sidegate_policy::ConnectPermit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::downstream::Downstream;
use super::identify::Stream;
use crate::activity::Watched;
use crate::connections::CutBy;
use crate::guard::{Http2Guard, StreamExecutor};
use crate::limits::HEADERS_ON_STACK;
use crate::metrics::Limit;
use crate::orders::Order;
use crate::protocol::{self, Protocol};
use crate::replayed::Replayed;
use crate::tunnel::Tunnelled;

/// Streams of one connection that h2 may reset for errors of the client. Those that come fast are
/// counted before.
const MAX_ERROR_RESETS: usize = 1024;

/// How much larger a head may be than the listener's limit for hyper to read it at all. What is in
/// between is refused with a line in the access log.
const HEAD_FACTOR: u32 = 2;

/// What one stream may keep waiting for a slow reader.
const MAX_SEND_BUFFER: usize = 64 * 1024;

/// How long an idle connection has to say goodbye.
pub(super) const GOODBYE: Duration = Duration::from_secs(1);

/// Serves the connection's requests until it ends or must end. This uses the permit up.
pub(super) async fn serve(stream: Stream, downstream: Arc<Downstream>, permit: ConnectPermit) {
    drop(permit);
    serve_decided(stream, downstream).await;
}

/// Serves a connection whose requests alone are decided.
pub(super) async fn serve_decided(mut stream: Stream, downstream: Arc<Downstream>) {
    let mut begun = BytesMut::new();
    let Some(is_http2) = find_out(&mut stream, &mut begun, &downstream).await else {
        let _ = timeout(GOODBYE, stream.shutdown()).await;
        return;
    };
    downstream.speaks(is_http2);
    let stream = Replayed::new(begun.freeze(), stream);
    let limits = downstream.listener.limits;
    let guard = is_http2.then(|| Http2Guard::new(&limits));
    let activity = Arc::clone(&downstream.activity);
    let io = TokioIo::new(Watched::new(stream, activity, guard));
    let max_header_bytes = limits.max_header_bytes.saturating_mul(HEAD_FACTOR);
    let service = {
        let downstream = Arc::clone(&downstream);
        // It is large, and hyper moves it several times before it is polled.
        service_fn(move |request| Box::pin(super::request(Arc::clone(&downstream), request)))
    };
    if is_http2 {
        let max_resets = usize::try_from(limits.http2.max_resets.get()).ok();
        let connection = http2::Builder::new(StreamExecutor::new(&downstream.listener))
            .timer(TokioTimer::new())
            .max_concurrent_streams(limits.http2.max_concurrent_streams)
            .max_header_list_size(max_header_bytes)
            .max_pending_accept_reset_streams(max_resets)
            .max_local_error_reset_streams(MAX_ERROR_RESETS)
            .max_send_buf_size(MAX_SEND_BUFFER)
            .enable_connect_protocol()
            .serve_connection(io, service);
        let shutdown =
            |connection: Pin<&mut http2::Connection<_, _, _>>| connection.graceful_shutdown();
        note_end(&downstream, live(connection, shutdown, &downstream).await);
    } else {
        let mut builder = http1::Builder::new();
        // Room for more would be allocated for each request.
        if limits.max_headers > HEADERS_ON_STACK {
            builder.max_headers(limits.max_headers);
        }
        let max_header_bytes = usize::try_from(max_header_bytes).unwrap_or(usize::MAX);
        let max_header_bytes = max_header_bytes.saturating_add(limits.max_uri_bytes);
        let connection = builder
            .timer(TokioTimer::new())
            // Heads are timed here: this timer would also end connections that are merely kept.
            .header_read_timeout(None)
            .max_header_size(max_header_bytes)
            .serve_connection(io, service)
            .with_upgrades();
        let connection = {
            let downstream = Arc::clone(&downstream);
            Tunnelled::new(connection, move || downstream.tunnel().take())
        };
        let shutdown = |tunnelled: Pin<&mut Tunnelled<http1::UpgradeableConnection<_, _>, _>>| {
            tunnelled.connection().graceful_shutdown();
        };
        note_end(&downstream, live(connection, shutdown, &downstream).await);
    }
}

/// Whether the client speaks HTTP/2. Without ALPN its first bytes tell, and are kept; `None` where
/// they never came.
async fn find_out(
    stream: &mut Stream,
    begun: &mut BytesMut,
    downstream: &Downstream,
) -> Option<bool> {
    let chosen = match stream {
        Stream::Left(tls) => tls.get_ref().1.alpn_protocol(),
        Stream::Right(_) => None,
    };
    match (downstream.listener.protocol, chosen) {
        (Protocol::Http1, _) => return Some(false),
        (Protocol::Http2, _) => return Some(true),
        (Protocol::Auto | Protocol::Tcp, Some(chosen)) => return Some(chosen == b"h2"),
        (Protocol::Auto | Protocol::Tcp, None) => {}
    }
    let given_up = CancellationToken::new();
    let reading = async {
        loop {
            if let Some(is_http2) = protocol::is_http2(begun) {
                return Some(is_http2);
            }
            let read = tokio::select! {
                read = stream.read_buf(begun) => read,
                () = given_up.cancelled() => return None,
            };
            if read.ok()? == 0 {
                return None;
            }
            // A head has begun: the same time counts for it.
            downstream.activity.received();
        }
    };
    live(reading, |_| given_up.cancel(), downstream)
        .await
        .flatten()
}

/// Drives a connection until it ends by itself, or its time is over: `None`.
pub(super) async fn live<C: Future>(
    connection: C,
    shutdown: impl Fn(Pin<&mut C>),
    downstream: &Downstream,
) -> Option<C::Output> {
    let mut connection = pin!(connection);
    let mut deadlines = Deadlines::new(downstream);
    let mut timer = pin!(sleep_until(deadlines.next(downstream)));
    let ended = poll_fn(|context| {
        if let Poll::Ready(ended) = connection.as_mut().poll(context) {
            return Poll::Ready(Some(ended));
        }
        let given = downstream.orders(context);
        if given.has(Order::Cut) {
            return Poll::Ready(None);
        }
        if !deadlines.draining && given.has(Order::Drain) {
            deadlines.draining = true;
            shutdown(connection.as_mut());
            context.waker().wake_by_ref();
        }
        if !deadlines.ending && given.has(Order::Close) {
            deadlines.ending = true;
            downstream.close_after_response();
            if downstream.is_http2() {
                shutdown(connection.as_mut());
                context.waker().wake_by_ref();
            }
        }
        loop {
            match deadlines.due(downstream, timer.as_mut(), context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Due::Cut) => return Poll::Ready(None),
                Poll::Ready(Due::Close) => {
                    downstream.close_after_response();
                    if downstream.is_http2() {
                        shutdown(connection.as_mut());
                        context.waker().wake_by_ref();
                    }
                }
                Poll::Ready(Due::Goodbye) => {
                    shutdown(connection.as_mut());
                    context.waker().wake_by_ref();
                }
            }
        }
    })
    .await;
    if ended.is_none() {
        downstream.activity.cut();
    }
    ended
}

/// Tells of a connection that ended by itself, if it ended otherwise than it should.
fn note_end(downstream: &Downstream, ended: Option<Result<(), hyper::Error>>) {
    let Some(ended) = ended else {
        return;
    };
    let listener = &downstream.listener;
    if let Some(flood) = downstream.activity.flood() {
        listener.metrics.flooded(flood);
        warn!(
            code = "SG0354",
            listener = %listener.name,
            downstream = downstream.address(),
            peer = %downstream.peer_id(),
            reason = %flood,
            "an HTTP/2 connection is ended",
        );
    }
    if let Err(error) = ended {
        if error.is_parse_too_large() {
            listener.metrics.limit_exceeded(Limit::max_header_bytes);
        }
        debug!(peer = %downstream.peer_id(), %error, "a connection broke");
    }
}

/// What a deadline asks for.
enum Due {
    /// Take no more requests, in whichever way the protocol has.
    Close,
    /// Nothing moves any more: end it in good order.
    Goodbye,
    /// End it now.
    Cut,
}

struct Deadlines {
    /// The last tenth of the peer's SVID begins; `None` once it has.
    expiring: Option<Instant>,
    /// `None` where the peer has no SVID.
    expired: Option<Instant>,
    /// When an idle connection that was asked to end is cut.
    goodbye: Option<Instant>,
    draining: bool,
    ending: bool,
}

impl Deadlines {
    fn new(downstream: &Downstream) -> Self {
        let now = (Instant::now(), downstream.worker.clock.now());
        let validity = downstream.peer.as_ref().map(|peer| peer.validity);
        Self {
            expiring: validity.map(|validity| instant(validity.tenth(9), now)),
            expired: validity.map(|validity| instant(validity.not_after, now)),
            goodbye: None,
            draining: false,
            ending: false,
        }
    }

    fn next(&self, downstream: &Downstream) -> Instant {
        let timeouts = &downstream.listener.timeouts;
        let idle = match self.goodbye {
            Some(goodbye) => goodbye,
            None => downstream.activity.idle_deadline(timeouts.idle),
        };
        let head = downstream.activity.head_deadline(timeouts.header_read);
        let others = [self.expiring, self.expired, head];
        others.into_iter().flatten().fold(idle, Instant::min)
    }

    /// Waits for the next deadline. The timer is only ever set back to an earlier one at once: a
    /// deadline that has moved on is found out when the timer fires.
    fn due(
        &mut self,
        downstream: &Downstream,
        mut timer: Pin<&mut Sleep>,
        context: &mut Context<'_>,
    ) -> Poll<Due> {
        loop {
            let next = self.next(downstream);
            if next < timer.deadline() {
                timer.as_mut().reset(next);
            }
            if timer.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            let now = Instant::now();
            if self.expired.is_some_and(|expired| expired <= now) {
                downstream.expire();
                return Poll::Ready(Due::Cut);
            }
            if self.expiring.is_some_and(|expiring| expiring <= now) {
                self.expiring = None;
                return Poll::Ready(Due::Close);
            }
            let timeouts = &downstream.listener.timeouts;
            let head = downstream.activity.head_deadline(timeouts.header_read);
            if head.is_some_and(|head| head <= now) {
                downstream
                    .listener
                    .metrics
                    .limit_exceeded(Limit::header_read);
                debug!(code = "SG0304", "a request's head took too long");
                return Poll::Ready(Due::Cut);
            }
            match self.goodbye {
                // A request that crossed the goodbye is served to its end.
                Some(_) if !downstream.activity.is_idle() => self.goodbye = None,
                Some(goodbye) if goodbye <= now => return Poll::Ready(Due::Cut),
                Some(_) => {}
                None if downstream.activity.idle_deadline(timeouts.idle) <= now => {
                    if !downstream.activity.is_idle() {
                        downstream.listener.metrics.limit_exceeded(Limit::idle);
                        debug!(code = "SG0305", "nothing moves in a request any more");
                        downstream.cut(CutBy::Idle);
                        return Poll::Ready(Due::Cut);
                    }
                    self.goodbye = Some(now + GOODBYE);
                    return Poll::Ready(Due::Goodbye);
                }
                None => {}
            }
            timer.as_mut().reset(self.next(downstream));
        }
    }
}

/// A time of day as one of the runtime's clock.
fn instant(time: SystemTime, now: (Instant, SystemTime)) -> Instant {
    now.0 + time.duration_since(now.1).unwrap_or(Duration::ZERO)
}
