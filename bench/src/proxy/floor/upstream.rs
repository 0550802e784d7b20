//! The floor's upstream: a pool of HTTP/1.1 connections, or one of HTTP/2. Each worker has its own.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use anyhow::{Result, bail};
use bytes::Bytes;
use http::{Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// Idle connections that are kept.
const MAX_IDLE: usize = 256;

/// Where requests go.
#[derive(Clone)]
pub(super) struct Upstream(Arc<Connections>);

struct Connections {
    address: SocketAddr,
    kept: Kept,
}

enum Kept {
    /// Those that wait for a request.
    Http1(Mutex<Vec<http1::SendRequest<Incoming>>>),
    /// The one, once there is one.
    Http2(tokio::sync::Mutex<Option<http2::SendRequest<Incoming>>>),
}

/// A response's body; once it has been read, its HTTP/1.1 connection waits for another request.
pub(super) struct Forwarded {
    body: Incoming,
    connection: Option<(http1::SendRequest<Incoming>, Upstream)>,
}

impl Upstream {
    /// Nothing is connected yet.
    pub(super) fn new(address: SocketAddr, is_http2: bool) -> Self {
        let kept = if is_http2 {
            Kept::Http2(tokio::sync::Mutex::default())
        } else {
            Kept::Http1(Mutex::default())
        };
        Self(Arc::new(Connections { address, kept }))
    }

    pub(super) fn is_http2(&self) -> bool {
        matches!(self.0.kept, Kept::Http2(_))
    }

    /// Sends a request. The upstream of a bench does not close connections, so none is tried again.
    pub(super) async fn send(&self, mut request: Request<Incoming>) -> Result<Response<Forwarded>> {
        match &self.0.kept {
            Kept::Http1(idle) => {
                *request.version_mut() = Version::HTTP_11;
                let kept = lock(idle).pop();
                let mut sender = match kept {
                    Some(sender) => sender,
                    None => self.connect().await?,
                };
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                let connection = Some((sender, self.clone()));
                Ok(response.map(|body| Forwarded { body, connection }))
            }
            Kept::Http2(one) => {
                *request.version_mut() = Version::HTTP_2;
                let mut sender = self.multiplexed(one).await?;
                sender.ready().await?;
                let response = sender.send_request(request).await?;
                Ok(response.map(|body| Forwarded {
                    body,
                    connection: None,
                }))
            }
        }
    }

    async fn connect(&self) -> Result<http1::SendRequest<Incoming>> {
        let (sender, connection) = http1::handshake(TokioIo::new(self.dial().await?)).await?;
        // How it ended is seen by whoever waits for a response.
        tokio::spawn(connection);
        Ok(sender)
    }

    async fn multiplexed(
        &self,
        one: &tokio::sync::Mutex<Option<http2::SendRequest<Incoming>>>,
    ) -> Result<http2::SendRequest<Incoming>> {
        let mut one = one.lock().await;
        if let Some(sender) = &*one {
            if sender.is_closed() {
                bail!("the upstream has closed its connection");
            }
            return Ok(sender.clone());
        }
        let stream = TokioIo::new(self.dial().await?);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        *one = Some(sender.clone());
        Ok(sender)
    }

    async fn dial(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.0.address).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

impl Forwarded {
    fn give_back(&mut self) {
        if let Some((sender, upstream)) = self.connection.take()
            && let Kept::Http1(idle) = &upstream.0.kept
            && !sender.is_closed()
        {
            let mut idle = lock(idle);
            if idle.len() < MAX_IDLE {
                idle.push(sender);
            }
        }
    }
}

impl Body for Forwarded {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.give_back();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Forwarded {
    /// A body whose length is known may never be asked for its end.
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
