//! A connection that was switched to another protocol: bytes go both ways until both sides have
//! ended, one breaks, or the policy denies the request that opened it.
//!
//! Of HTTP/1.1 it takes over the connection, with its watch: [`Tunnelled`]. Of HTTP/2 it is one
//! stream. A TCP connection is nothing else.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use prometheus_client::metrics::counter::Counter;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio_util::either::Either;

use crate::access_log::Record;
use crate::activity::InFlight;
use crate::guard::Progress;
use crate::upgrade::{Ends, UpstreamEnd};
use crate::upstream::Stream;

/// What is under way in one direction at most.
const BUFFER: usize = 8 * 1024;

/// Both sides of a request that was switched to another protocol. Dropping it writes its record.
pub(crate) struct Tunnel {
    ends: Ends,
    record: Box<Record>,
    _in_flight: InFlight,
}

/// A tunnel that runs.
type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What has passed in one direction.
struct Passed<'a> {
    bytes: &'a mut u64,
    /// Of all connections of a listener.
    total: Option<&'a Counter>,
}

/// What broke a tunnel.
pub(crate) enum Broken {
    Downstream(io::Error),
    Upstream(io::Error),
}

impl Tunnel {
    pub(crate) fn new(ends: Ends, record: Box<Record>, in_flight: InFlight) -> Self {
        Self {
            ends,
            record,
            _in_flight: in_flight,
        }
    }

    /// Lets bytes pass until it ends.
    pub(crate) async fn run(self) {
        let Self {
            ends,
            mut record,
            _in_flight,
        } = self;
        relay(&mut record, ends.open()).await;
    }
}

impl Ends {
    /// Waits until both are there.
    async fn open(self) -> Result<(TokioIo<Upgraded>, Either<TokioIo<Upgraded>, Stream>), Broken> {
        let downstream = self.downstream.await;
        let downstream = downstream.map_err(|error| Broken::Downstream(io::Error::other(error)))?;
        let upstream = match self.upstream {
            UpstreamEnd::Dialled(stream) => Either::Right(stream),
            UpstreamEnd::Switched(upstream) => {
                let upstream = upstream.await;
                let broken = |error| Broken::Upstream(io::Error::other(error));
                Either::Left(TokioIo::new(upstream.map_err(broken)?))
            }
        };
        Ok((TokioIo::new(downstream), upstream))
    }
}

/// Lets bytes pass between a client and a server, once both are there, and records how that ends.
pub(crate) async fn relay<D, U>(
    record: &mut Record,
    ends: impl Future<Output = Result<(D, U), Broken>>,
) where
    D: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let totals = record.line.status.is_none();
    let totals = totals.then(|| record.metrics.tcp.bytes());
    let [received_total, sent_total] = match &totals {
        Some([received, sent]) => [Some(received), Some(sent)],
        None => [None, None],
    };
    let received = Passed {
        bytes: record.line.request_bytes.insert(0),
        total: received_total,
    };
    let sent = Passed {
        bytes: &mut record.line.response_bytes,
        total: sent_total,
    };
    let progress = &record.progress;
    let passing = async {
        let (downstream, upstream) = ends.await?;
        pass(downstream, upstream, received, sent, progress).await
    };
    let ended = match &record.opened {
        Some(opened) => opened.unless_denied(passing).await,
        None => Ok(passing.await),
    };
    match ended {
        Ok(Ok(())) => record.complete(),
        Ok(Err(Broken::Upstream(error))) => record.tunnel_broken(&error),
        // The record knows what else there may be behind it.
        Ok(Err(Broken::Downstream(error))) => record.line.detail = Some(error.to_string()),
        Err(denial) => record.denied(&denial),
    }
}

impl Passed<'_> {
    fn add(&mut self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        *self.bytes += bytes;
        if let Some(total) = self.total {
            total.inc_by(bytes);
        }
    }
}

async fn pass(
    downstream: impl AsyncRead + AsyncWrite,
    upstream: impl AsyncRead + AsyncWrite,
    received: Passed<'_>,
    sent: Passed<'_>,
    progress: &Progress,
) -> Result<(), Broken> {
    let (mut from_client, mut to_client) = split(downstream);
    let (mut from_server, mut to_server) = split(upstream);
    let client: fn(io::Error) -> Broken = Broken::Downstream;
    let server: fn(io::Error) -> Broken = Broken::Upstream;
    let server_has_ended = AtomicBool::new(false);
    let receiving = pump(
        (&mut from_client, client),
        (&mut to_server, server),
        received,
        progress,
    );
    let sending = async {
        pump(
            (&mut from_server, server),
            (&mut to_client, client),
            sent,
            progress,
        )
        .await?;
        server_has_ended.store(true, Relaxed);
        Ok(())
    };
    match tokio::try_join!(receiving, sending) {
        // Many clients then just close.
        Err(Broken::Downstream(_)) if server_has_ended.load(Relaxed) => Ok(()),
        ended => ended.map(|_| ()),
    }
}

/// Passes on what comes from one side, and its end. Each side has what to call its errors.
async fn pump(
    (from, from_broken): (&mut (impl AsyncRead + Unpin), fn(io::Error) -> Broken),
    (to, to_broken): (&mut (impl AsyncWrite + Unpin), fn(io::Error) -> Broken),
    mut passed: Passed<'_>,
    progress: &Progress,
) -> Result<(), Broken> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(BUFFER);
        let read = from.read_buf(&mut buffer).await.map_err(from_broken)?;
        progress.moved();
        if read == 0 {
            return to.shutdown().await.map_err(to_broken);
        }
        to.write_all_buf(&mut buffer).await.map_err(to_broken)?;
        to.flush().await.map_err(to_broken)?;
        progress.moved();
        passed.add(read);
    }
}

pin_project_lite::pin_project! {
    /// An HTTP/1 connection, and the tunnel that it may become.
    pub(crate) struct Tunnelled<C, T> {
        #[pin]
        connection: C,
        take: T,
        running: Option<Running>,
    }
}

impl<C, T> Tunnelled<C, T> {
    /// `take` is asked for the tunnel once the connection has ended as such.
    pub(crate) fn new(connection: C, take: T) -> Self {
        Self {
            connection,
            take,
            running: None,
        }
    }

    /// The connection.
    pub(crate) fn connection(self: Pin<&mut Self>) -> Pin<&mut C> {
        self.project().connection
    }
}

impl<C, T, E> Future for Tunnelled<C, T>
where
    C: Future<Output = Result<(), E>>,
    T: Fn() -> Option<Tunnel>,
{
    type Output = Result<(), E>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let running = match this.running {
            Some(running) => running,
            None => {
                ready!(this.connection.poll(context))?;
                let Some(tunnel) = (this.take)() else {
                    return Poll::Ready(Ok(()));
                };
                this.running.insert(Box::pin(tunnel.run()))
            }
        };
        running.as_mut().poll(context).map(Ok)
    }
}
