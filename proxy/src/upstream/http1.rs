//! An HTTP/1.1 upstream with a pool of kept-alive connections.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;

use super::address::Address;
use super::{UpstreamError, broken};
use crate::request_body::RequestBody;

/// Idle connections that are kept, for each worker.
const MAX_IDLE: usize = 256;

type Sender = SendRequest<RequestBody>;

/// One server, spoken to over plaintext HTTP/1.1.
#[derive(Clone)]
pub struct Http1Upstream {
    pool: Arc<Pool>,
}

struct Pool {
    address: Address,
    connect_timeout: Duration,
    idle: Mutex<Vec<Sender>>,
}

/// A response's body; once it has been read to its end, its connection goes back to the pool.
pub(crate) struct PooledBody {
    body: Incoming,
    connection: Option<(Sender, Arc<Pool>)>,
}

impl Http1Upstream {
    /// An upstream at an address. Nothing is connected yet.
    pub fn new(address: Address, connect_timeout: Duration) -> Self {
        let idle = Mutex::default();
        Self {
            pool: Arc::new(Pool {
                address,
                connect_timeout,
                idle,
            }),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.pool.address
    }

    pub(crate) fn for_worker(&self) -> Self {
        Self::new(self.pool.address.clone(), self.pool.connect_timeout)
    }

    /// Sends a request on an idle connection, or on a new one. A request that a dying idle
    /// connection did not take goes on to the next.
    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<PooledBody>, UpstreamError> {
        *request.version_mut() = Version::HTTP_11;
        let body = request.body();
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // Without it hyper would leave the body of a GET or HEAD out.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        if request.headers().contains_key(TE) {
            // Means this connection only (RFC 9110 section 10.1.4).
            let upgrades = request.headers().contains_key(UPGRADE);
            let named = if upgrades { "te, upgrade" } else { "te" };
            let named = HeaderValue::from_static(named);
            request.headers_mut().insert(CONNECTION, named);
        }
        loop {
            let (mut sender, reused) = match self.pool.take() {
                Some(sender) => (sender, true),
                None => (self.pool.connect().await?, false),
            };
            if let Err(error) = sender.ready().await {
                if reused {
                    continue;
                }
                return Err(UpstreamError::Reset(error));
            }
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let stays = response.status() != StatusCode::SWITCHING_PROTOCOLS;
                    let connection = stays.then(|| (sender, Arc::clone(&self.pool)));
                    return Ok(response.map(|body| PooledBody { body, connection }));
                }
                Err(mut error) => match error.take_message() {
                    Some(unsent) if reused => request = unsent,
                    _ => return Err(broken(error.into_error())),
                },
            }
        }
    }
}

impl Pool {
    /// The connection used last that can take a request now: one whose response came before its
    /// request was sent to the end cannot.
    fn take(&self) -> Option<Sender> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|sender| !sender.is_closed());
        let ready = idle.iter().rposition(Sender::is_ready)?;
        Some(idle.remove(ready))
    }

    fn give_back(&self, sender: Sender) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if !sender.is_closed() && idle.len() < MAX_IDLE {
            idle.push(sender);
        }
    }

    async fn connect(&self) -> Result<Sender, UpstreamError> {
        let stream = self.address.connect(self.connect_timeout).await?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(UpstreamError::Reset)?;
        tokio::spawn(async move {
            if let Err(error) = connection.with_upgrades().await {
                tracing::debug!(%error, "an upstream connection ended");
            }
        });
        Ok(sender)
    }
}

impl PooledBody {
    fn give_back(&mut self) {
        if let Some((sender, pool)) = self.connection.take() {
            pool.give_back(sender);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            // Nobody asks for more after trailers.
            Some(Ok(frame)) if frame.is_trailers() => self.give_back(),
            Some(Ok(_)) => {}
            Some(Err(_)) => self.connection = None,
            None => self.give_back(),
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

impl Drop for PooledBody {
    /// A body without content, or whose length was known, may never be asked for its end.
    fn drop(&mut self) {
        if self.body.is_end_stream() {
            self.give_back();
        }
    }
}

impl fmt::Debug for Http1Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Http1Upstream({})", self.pool.address)
    }
}
