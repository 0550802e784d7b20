//! Accepting connections from processes on a Unix socket.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tonic::transport::server::Connected;
use tracing::{debug, warn};

use super::authority::AuthorityFilter;
use super::unix::Caller;
use crate::metrics::IdentityMetrics;

/// More connections at once are turned away, so that one user cannot take all descriptors.
const MAX_CONNECTIONS_OF_A_USER: usize = 256;

/// How long to wait when nothing can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection whose caller is known.
#[derive(Debug)]
pub struct UnixPeer {
    stream: UnixStream,
    caller: Caller,
    authority: AuthorityFilter,
    _counted: Counted,
}

/// Accepts connections and finds out who each is from; for tonic's `serve_with_incoming`.
#[derive(Debug)]
pub struct UnixListenerStream {
    listener: UnixListener,
    connections: Arc<Mutex<HashMap<u32, usize>>>,
    metrics: IdentityMetrics,
    /// Set after a failure, until accepting is tried again.
    pause: Option<Pin<Box<Sleep>>>,
}

/// One connection of a user; dropping it is its end.
#[derive(Debug)]
struct Counted {
    uid: u32,
    connections: Arc<Mutex<HashMap<u32, usize>>>,
}

impl UnixListenerStream {
    /// Accepts on a bound socket.
    pub fn new(listener: UnixListener, metrics: IdentityMetrics) -> Self {
        Self {
            listener,
            connections: Arc::default(),
            metrics,
            pause: None,
        }
    }

    /// Counts a connection, unless its user has as many as one may.
    fn count(&self, uid: u32) -> Option<Counted> {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let open = connections.entry(uid).or_default();
        if *open >= MAX_CONNECTIONS_OF_A_USER {
            return None;
        }
        *open += 1;
        Some(Counted {
            uid,
            connections: Arc::clone(&self.connections),
        })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut connections = self
            .connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = connections.get_mut(&self.uid) {
            *open -= 1;
            if *open == 0 {
                connections.remove(&self.uid);
            }
        }
    }
}

impl Stream for UnixListenerStream {
    type Item = io::Result<UnixPeer>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(context));
                self.pause = None;
            }
            let stream = match ready!(self.listener.poll_accept(context)) {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most often: others must end first.
                    warn!(code = "SG0132", %error, "the Workload API's socket does not accept");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                    continue;
                }
            };
            match Caller::of(&stream) {
                Ok(caller) => match self.count(caller.uid()) {
                    Some(counted) => {
                        return Poll::Ready(Some(Ok(UnixPeer {
                            stream,
                            caller,
                            authority: AuthorityFilter::default(),
                            _counted: counted,
                        })));
                    }
                    None => {
                        // Counted, and no line for each: the caller could fill the log.
                        self.metrics.connection_refused();
                        debug!(
                            code = "SG0133",
                            uid = caller.uid(),
                            "a caller is turned away: its user has too many connections",
                        );
                    }
                },
                Err(error) => {
                    warn!(code = "SG0131", %error, "a caller is turned away: the kernel does not say who it is");
                }
            }
        }
    }
}

impl Connected for UnixPeer {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for UnixPeer {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Some(fresh) = buffer.filled_mut().get_mut(before..) {
            self.authority.pass(fresh);
        }
        polled
    }
}

impl AsyncWrite for UnixPeer {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
