//! An HTTP/2 upstream without TLS (h2c with prior knowledge), such as a gRPC server: one connection
//! a worker, which carries all its requests.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, HeaderValue, TE};
use http::uri::{Authority, Parts, Scheme};
use http::{Request, Response, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::Mutex;

use super::address::Address;
use super::{UpstreamError, broken};
use crate::request_body::RequestBody;

/// What a stream of a response may have in flight, and all of them together.
const STREAM_WINDOW: u32 = 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// An idle connection that does not answer a PING is given up.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

pub(super) type Sender = SendRequest<RequestBody>;

/// One server, spoken to over plaintext HTTP/2.
#[derive(Clone)]
pub struct Http2Upstream {
    shared: Arc<Shared>,
}

struct Shared {
    address: Address,
    connect_timeout: Duration,
    /// Who finds none connects; the others wait for that one's.
    current: Mutex<Current>,
}

/// The connection, and how many there were until it.
#[derive(Default)]
struct Current {
    number: u64,
    sender: Option<Sender>,
}

impl Http2Upstream {
    /// An upstream at an address. Nothing is connected yet.
    pub fn new(address: Address, connect_timeout: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                address,
                connect_timeout,
                current: Mutex::default(),
            }),
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.shared.address
    }

    pub(crate) fn for_worker(&self) -> Self {
        Self::new(self.shared.address.clone(), self.shared.connect_timeout)
    }

    /// Sends a request on the connection, or on a new one. A request that a dying connection did
    /// not take goes on to the next.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
    ) -> Result<Response<Incoming>, UpstreamError> {
        let request = with_pseudo_headers(request, Scheme::HTTP);
        let (mut sender, number, reused) = self.sender(None).await?;
        match sender.try_send_request(request).await {
            Ok(response) => Ok(response),
            Err(mut error) => match error.take_message() {
                Some(unsent) if reused => {
                    let (mut sender, ..) = self.sender(Some(number)).await?;
                    sender.send_request(unsent).await.map_err(broken)
                }
                _ => Err(broken(error.into_error())),
            },
        }
    }

    /// Connects, where there is no connection.
    pub(super) async fn connected(&self) -> Result<(), UpstreamError> {
        self.sender(None).await.map(drop)
    }

    /// The connection with its number, and whether it was there before. It is not the one that
    /// failed: of all whose requests that one did not take, the first connects.
    async fn sender(&self, failed: Option<u64>) -> Result<(Sender, u64, bool), UpstreamError> {
        let mut current = self.shared.current.lock().await;
        let sender = current.sender.as_ref().filter(|sender| !sender.is_closed());
        if let Some(sender) = sender.filter(|_| failed != Some(current.number)) {
            return Ok((sender.clone(), current.number, true));
        }
        let stream = self.shared.address.connect(self.shared.connect_timeout);
        let stream = stream.await?;
        let sender = handshake(TokioIo::new(stream)).await?;
        *current = Current {
            number: current.number + 1,
            sender: Some(sender.clone()),
        };
        Ok((sender, current.number, false))
    }
}

/// Begins to speak HTTP/2 on a connection.
pub(super) async fn handshake(
    io: impl Read + Write + Unpin + Send + 'static,
) -> Result<Sender, UpstreamError> {
    let (sender, connection) = Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(io)
        .await
        .map_err(UpstreamError::Reset)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection ended");
        }
    });
    Ok(sender)
}

/// In HTTP/2 the authority is part of the target, and `TE` says that trailers pass: gRPC servers
/// insist on it.
pub(super) fn with_pseudo_headers(
    mut request: Request<RequestBody>,
    scheme: Scheme,
) -> Request<RequestBody> {
    *request.version_mut() = Version::HTTP_2;
    let authority = request.headers_mut().remove(HOST);
    let authority = authority.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    // One that another connection did not take has it there already.
    let authority = authority.or_else(|| request.uri().authority().cloned());
    let mut target = Parts::default();
    target.path_and_query = request.uri().path_and_query().cloned();
    target.scheme = Some(scheme);
    target.authority = authority;
    if let Ok(target) = Uri::from_parts(target) {
        *request.uri_mut() = target;
    }
    let trailers = HeaderValue::from_static("trailers");
    request.headers_mut().insert(TE, trailers);
    request
}

impl fmt::Debug for Http2Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Http2Upstream({})", self.shared.address)
    }
}
