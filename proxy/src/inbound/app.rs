//! A local app's connection to an outbound listener.
//!
//! ```text
//!  HTTP: accept → for each request: normalize → route → resolve → authorize → dial → stream
//!  TCP:  accept → resolve → authorize → dial → pass bytes
//! ```
//! What is between is told in [`super`].

use std::future::ready;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HOST;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Uri};
use sidegate_policy::Permit;
use tokio::net::TcpStream;
use tokio::time::timeout_at;
use tracing::{debug, info};
use uuid::Uuid;

use super::downstream::Downstream;
use super::identify::{Identified, Stream};
use super::{concluded, tcp, watch};
use crate::access_log::Record;
use crate::activity::Watched;
use crate::error::ProxyError;
use crate::head::REQUEST_ID;
use crate::open_request::{Circumstances, Head};
use crate::outbound::{Destination, Outbound};
use crate::protocol::Protocol;
use crate::tunnel::relay;
use crate::upstream::{Decided, DecidedStream, UpstreamError, Way};
use crate::worker::{Listener, Worker};

/// What is needed of an upstream.
trait Connect: Sync {
    type Connected: Send;

    fn connect(
        &self,
        upstream: Decided<'_>,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self::Connected, UpstreamError>> + Send;
}

/// A connection that takes an HTTP request, which may ask to switch protocols.
struct ForRequest {
    switches: bool,
}

/// A connection that takes anything.
struct ForBytes;

/// Serves one accepted connection to its end.
pub(super) async fn connection(
    worker: Arc<Worker>,
    listener: Arc<Listener>,
    outbound: Arc<Outbound>,
    stream: TcpStream,
    address: SocketAddr,
) {
    let generation = worker.identities.borrow().generation;
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection was gone at once");
        return;
    }
    let identified = Identified {
        stream: Stream::Right(stream),
        tls: listener.tls.as_ref().map(|tls| Arc::clone(tls.own())),
    };
    let downstream = match Downstream::new(&worker, &listener, &identified, address) {
        Ok(downstream) => Arc::new(downstream),
        Err(error) => {
            info!(code = error.code(), downstream = %address, %error, "an app is turned away");
            return;
        }
    };
    // The app may have lost its identity between the look at it and the entry in the table.
    if worker.identities.borrow().generation != generation {
        downstream.verify_again();
    }
    let stream = identified.stream;
    match listener.protocol {
        Protocol::Auto | Protocol::Http1 | Protocol::Http2 => {
            watch::serve_decided(stream, downstream).await;
        }
        Protocol::Tcp => {
            let passing = Box::pin(pass(Arc::clone(&downstream), outbound, stream));
            watch::live(passing, |_| {}, &downstream).await;
        }
    }
}

/// Resolves where a request goes, asks the policy whether it may, and connects: to the first address
/// that takes the connection. What was asked about is what is dialled.
pub(super) async fn authorize(
    downstream: &Downstream,
    outbound: &Outbound,
    place: Option<usize>,
    head: Parts,
    circumstances: &mut Circumstances,
    switches: bool,
    record: &mut Record,
) -> Result<(Permit, Way), ProxyError> {
    let upstream = upstream(downstream, place)?;
    reach(
        downstream,
        outbound,
        place,
        upstream,
        head,
        circumstances,
        record,
        &ForRequest { switches },
    )
    .await
}

fn upstream(downstream: &Downstream, place: Option<usize>) -> Result<Decided<'_>, ProxyError> {
    let route = place.and_then(|place| downstream.listener.routes.get(place));
    // The configuration has no other routes.
    let decided = route.and_then(|route| route.upstream.decided());
    decided.ok_or(ProxyError::NoRoute)
}

#[expect(clippy::too_many_arguments, reason = "all that a decision is made of")]
async fn reach<C: Connect>(
    downstream: &Downstream,
    outbound: &Outbound,
    place: Option<usize>,
    upstream: Decided<'_>,
    head: Parts,
    circumstances: &mut Circumstances,
    record: &mut Record,
    connection: &C,
) -> Result<(Permit, C::Connected), ProxyError> {
    let addresses = upstream.addresses().await?;
    let principal = upstream.principal();
    let mut head = Some(head);
    let mut left = addresses.len();
    let mut failed = ProxyError::NoRoute;
    for address in addresses {
        left -= 1;
        let asked = if left == 0 {
            head.take()
        } else {
            head.as_ref().map(|head| Head::of(head).parts())
        };
        let Some(asked) = asked else { break };
        let destination = Arc::new(Destination {
            address,
            principal: principal.clone(),
        });
        circumstances.destination = Some(Arc::clone(&destination));
        let facts = circumstances.of(asked);
        let asked = outbound.ask(downstream.facts(place), facts, &destination);
        let permit = concluded(asked.ok_or(ProxyError::NoPolicy)?, record)?;
        match connection.connect(upstream, address).await {
            Ok(way) => return Ok((permit, way)),
            // Another one may take it.
            Err(error @ (UpstreamError::Connect(_) | UpstreamError::ConnectTimeout)) => {
                failed = error.into();
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(failed)
}

impl Connect for ForRequest {
    type Connected = Way;

    async fn connect(
        &self,
        upstream: Decided<'_>,
        address: SocketAddr,
    ) -> Result<Way, UpstreamError> {
        upstream.way(address, self.switches).await
    }
}

impl Connect for ForBytes {
    type Connected = DecidedStream;

    async fn connect(
        &self,
        upstream: Decided<'_>,
        address: SocketAddr,
    ) -> Result<DecidedStream, UpstreamError> {
        upstream.connect(address).await
    }
}

/// Passes the bytes of a connection on, once that is allowed.
async fn pass(downstream: Arc<Downstream>, outbound: Arc<Outbound>, stream: Stream) {
    let _in_flight = downstream.activity.begin();
    let request_id = Uuid::new_v4();
    let (mut head, ()) = Request::new(()).into_parts();
    head.method = Method::CONNECT;
    let mut record = downstream.connection_record(request_id.to_string());
    match connect(&downstream, &outbound, head, request_id, &mut record).await {
        Ok(upstream) => {
            let activity = Arc::clone(&downstream.activity);
            let stream = Watched::new(stream, activity, None);
            relay(&mut record, ready(Ok((stream, upstream)))).await;
        }
        Err(error) => tcp::failed(&mut record, &error),
    }
}

/// Asks about the connection as about a `CONNECT` to the upstream, and makes it.
async fn connect(
    downstream: &Downstream,
    outbound: &Outbound,
    mut head: Parts,
    request_id: Uuid,
    record: &mut Record,
) -> Result<DecidedStream, ProxyError> {
    if !downstream.caller.may_ask() {
        return Err(ProxyError::RateLimited);
    }
    let place = downstream.listener.routes.len().checked_sub(1);
    let upstream = upstream(downstream, place)?;
    let authority = upstream.authority();
    record.line.authority = Some(authority.clone());
    head.uri = Uri::from(authority.clone());
    // Neither can be anything else.
    let request_id = request_id.to_string();
    for (name, text) in [(HOST, authority.as_str()), (REQUEST_ID, &request_id)] {
        if let Ok(value) = HeaderValue::from_str(text) {
            head.headers.insert(name, value);
        }
    }
    let mut circumstances = Circumstances {
        scheme: "tcp",
        time: downstream.worker.clock.now(),
        declared_body_bytes: None,
        body: sidegate_policy::RequestBody::default(),
        destination: None,
    };
    let deadline = record.started + downstream.listener.timeouts.request;
    let reaching = reach(
        downstream,
        outbound,
        place,
        upstream,
        head,
        &mut circumstances,
        record,
        &ForBytes,
    );
    let reached = timeout_at(deadline, reaching).await;
    let (permit, stream) = reached.map_err(|_| ProxyError::RequestTimeout)??;
    record.opened = Some(downstream.open(&permit, circumstances, place, record.started));
    drop(permit);
    Ok(stream)
}
