//! An HTTP/1.1 upstream with a pool of kept-alive connections.

use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self as conn, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioIo;

use super::address::Address;
use super::{UpstreamError, broken, mtls};
use crate::request_body::RequestBody;

/// Idle connections that are kept, for each worker.
const MAX_IDLE: usize = 256;

pub(super) type Sender = SendRequest<RequestBody>;

/// A connection for a request.
pub(crate) struct Way {
    sender: Sender,
    /// Whether it was there before.
    is_reused: bool,
}

/// One server, spoken to over plaintext HTTP/1.1.
#[derive(Clone)]
pub struct Http1Upstream {
    pool: Arc<Pool>,
}

pub(super) struct Pool {
    address: Address,
    connect_timeout: Duration,
    idle: Mutex<Vec<Sender>>,
}

/// A response's body; once it has been read to its end, its connection goes back to the pool.
pub(crate) struct PooledBody {
    body: Incoming,
    connection: Option<(Sender, Home)>,
}

/// Where a connection goes once its response has been read.
pub(super) enum Home {
    Plain(Arc<Pool>),
    Mtls(mtls::Home),
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
        request: Request<RequestBody>,
    ) -> Result<Response<PooledBody>, UpstreamError> {
        self.send_on(None, request).await
    }

    /// The same, on this connection first.
    pub(super) async fn send_on(
        &self,
        mut way: Option<Way>,
        request: Request<RequestBody>,
    ) -> Result<Response<PooledBody>, UpstreamError> {
        let mut request = prepared(request);
        loop {
            let Way { sender, is_reused } = match way.take() {
                Some(way) => way,
                None => self.way().await?,
            };
            let home = Home::Plain(Arc::clone(&self.pool));
            match send_on(sender, home, request, is_reused).await? {
                Ok(response) => return Ok(response),
                Err(unsent) => request = unsent,
            }
        }
    }

    /// An idle connection, or a new one.
    pub(super) async fn way(&self) -> Result<Way, UpstreamError> {
        Ok(match self.pool.take() {
            Some(sender) => Way {
                sender,
                is_reused: true,
            },
            None => Way {
                sender: self.pool.connect().await?,
                is_reused: false,
            },
        })
    }
}

/// A request as it is written to an HTTP/1.1 connection.
pub(super) fn prepared(mut request: Request<RequestBody>) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_11;
    if let Some(authority) = request.uri().authority() {
        // A connection that spoke HTTP/2 did not take it.
        let host = HeaderValue::from_str(authority.as_str());
        let target = request.uri().path_and_query().cloned();
        if let (Ok(host), Some(target)) = (host, target) {
            request.headers_mut().insert(HOST, host);
            *request.uri_mut() = Uri::from(target);
        }
    }
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
    request
}

/// Sends a prepared request on a connection. It comes back where a connection that was there before
/// did not take it.
pub(super) async fn send_on(
    mut sender: Sender,
    home: Home,
    request: Request<RequestBody>,
    reused: bool,
) -> Result<Result<Response<PooledBody>, Request<RequestBody>>, UpstreamError> {
    if let Err(error) = sender.ready().await {
        return match reused {
            true => Ok(Err(request)),
            false => Err(UpstreamError::Reset(error)),
        };
    }
    match sender.try_send_request(request).await {
        Ok(response) => {
            let stays = response.status() != StatusCode::SWITCHING_PROTOCOLS;
            let connection = stays.then_some((sender, home));
            Ok(Ok(response.map(|body| PooledBody { body, connection })))
        }
        Err(mut error) => match error.take_message() {
            Some(unsent) if reused => Ok(Err(unsent)),
            _ => Err(broken(error.into_error())),
        },
    }
}

/// Begins to speak HTTP/1.1 on a connection.
pub(super) async fn handshake(
    io: impl Read + Write + Unpin + Send + 'static,
) -> Result<Sender, UpstreamError> {
    let (sender, connection) = conn::handshake(io).await.map_err(UpstreamError::Reset)?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "an upstream connection ended");
        }
    });
    Ok(sender)
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
        handshake(TokioIo::new(stream)).await
    }
}

impl PooledBody {
    fn give_back(&mut self) {
        match self.connection.take() {
            Some((sender, Home::Plain(pool))) => pool.give_back(sender),
            Some((sender, Home::Mtls(home))) => home.give_back(sender),
            None => {}
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
