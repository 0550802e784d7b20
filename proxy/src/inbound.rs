//! A request's way: accept, identify, then for each request normalize, authorize, connect, stream.
//!
//! Each phase has one error exit. What ends a connection before its first request is logged and
//! counted by [`identify`]; what ends a request is a [`ProxyError`], told to the caller, the
//! metrics and the access log by [`answer`]. A TCP listener's connection is not made of requests: it
//! is authorized as a whole, connected and streamed by [`tcp`].

mod answer;
mod app;
mod body;
mod downstream;
mod identify;
mod tcp;
mod watch;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use http_body_util::{Either, Empty};
use hyper::body::Incoming;
use sidegate_policy::{ConnectPermit, Denial, DynamicMetadata, Permit, RequestFacts};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tracing::info;
use uuid::Uuid;

use crate::access_log::Record;
use crate::body::{Recorded, Source};
use crate::connect;
use crate::connections::CutBy;
use crate::error::ProxyError;
use crate::generation::with_evaluator;
use crate::guard::{self, Late};
use crate::head::{self, HeadProblem};
use crate::metrics::Verdict;
use crate::open_request::Circumstances;
use crate::outbound;
use crate::protocol::Protocol;
use crate::request_body::RequestBody;
use crate::tunnel::Tunnel;
use crate::upgrade::Upgrade;
use crate::worker::{Listener, Worker};
use downstream::Downstream;
use identify::identify;
use watch::GOODBYE;

/// Serves one accepted connection to its end.
pub(crate) async fn connection(
    worker: Arc<Worker>,
    listener: Arc<Listener>,
    stream: TcpStream,
    address: SocketAddr,
) {
    if let Some(outbound) = listener.outbound.clone() {
        return app::connection(worker, listener, outbound, stream, address).await;
    }
    // accept → identify
    let generation = worker.identities.borrow().generation;
    let identified = tokio::select! {
        identified = identify(&listener, stream, address) => identified,
        () = worker.drain.cancelled() => None,
    };
    let Some(identified) = identified else {
        return;
    };
    let downstream = Downstream::new(&worker, &listener, &identified, address);
    let mut stream = identified.stream;
    let downstream = match downstream {
        Ok(downstream) => Arc::new(downstream),
        Err(error) => {
            info!(code = error.code(), downstream = %address, %error, "a peer is turned away");
            let _ = timeout(GOODBYE, stream.shutdown()).await;
            return;
        }
    };
    // Trust may have changed between the handshake and the entry in the table.
    if worker.identities.borrow().generation != generation {
        downstream.verify_again();
    }
    // → authorize the connection
    let Some(permit) = admit(&downstream) else {
        // Whether the peer hears of it is not our concern.
        let _ = timeout(GOODBYE, stream.shutdown()).await;
        return;
    };
    // → its requests, or its bytes
    match listener.protocol {
        Protocol::Tcp => tcp::serve(stream, downstream, permit).await,
        Protocol::Auto | Protocol::Http1 | Protocol::Http2 => {
            // What it was identified with needs no room any more.
            Box::pin(watch::serve(stream, downstream, permit)).await;
        }
    }
}

/// Asks the policy whether the peer may have a connection.
fn admit(downstream: &Downstream) -> Option<ConnectPermit> {
    let now = downstream.worker.clock.now();
    let refusal = match connect::ask(&downstream.listener, downstream.facts(None), now) {
        Ok(permit) => return Some(permit),
        Err(refusal) => refusal,
    };
    let code = refusal.code.unwrap_or("SG0341");
    downstream.listener.metrics.connection_refused();
    info!(
        code,
        listener = %downstream.listener.name,
        peer = %downstream.peer_id(),
        reason = refusal.reason,
        decision_id = refusal.decision_id.map(tracing::field::display),
        error = refusal.error,
        "a connection is refused",
    );
    if downstream.listener.protocol == Protocol::Tcp {
        tcp::refused(downstream, refusal, code);
    }
    None
}

/// Answers one request, by the upstream or here.
async fn request(
    downstream: Arc<Downstream>,
    request: Request<Incoming>,
) -> Result<Response<Either<Recorded, Empty<Bytes>>>, Infallible> {
    let in_flight = downstream.activity.begin();
    let (mut head, body) = request.into_parts();
    let request_id = downstream.request_id(&head);
    let upgrade = Upgrade::take(&mut head, &body);
    let id = answer::id(&request_id);
    let mut record = downstream.record(&head, request_id);
    let caller = answer::Caller::of(&head);
    let wish = upgrade.as_ref();
    let outcome = forward(&downstream, head, body, wish, &id, &mut record).await;
    let mut response = match outcome {
        Ok(response) => response,
        Err(error) => answer::local(error, caller, &mut record),
    };
    record.line.status = Some(response.status().as_u16());
    answer::finish(&mut response, id, &downstream, caller);
    let ends = upgrade.and_then(|upgrade| upgrade.accepted(&mut response));
    Ok(match ends {
        Some(ends) => {
            downstream.switch(Tunnel::new(ends, record, in_flight));
            response.map(|_| Either::Right(Empty::new()))
        }
        None => response.map(|source| Either::Left(Recorded::new(source, record, in_flight))),
    })
}

/// normalize → route → (read the body, if the policy has to see it) → authorize → connect → stream
async fn forward(
    downstream: &Downstream,
    mut head: Parts,
    body: Incoming,
    upgrade: Option<&Upgrade>,
    id: &HeaderValue,
    record: &mut Record,
) -> Result<Response<Source>, ProxyError> {
    guard::check(&head, &downstream.listener.limits)?;
    if !downstream.caller.may_ask() {
        return Err(ProxyError::RateLimited);
    }
    let is_connect = head.method == Method::CONNECT;
    if is_connect && !downstream.takes_connect() {
        return Err(HeadProblem::Connect.into());
    }
    if is_connect && upgrade.is_none() {
        return Err(HeadProblem::BadConnect.into());
    }
    let timeouts = &downstream.listener.timeouts;
    let paths = &downstream.listener.paths;
    let authority = head::normalize(&mut head, paths, &downstream.identity_headers, id)?;
    if record.line.path != head.uri.path() {
        record.line.path = head.uri.path().to_owned();
    }
    let outbound = downstream.listener.outbound.as_deref();
    if outbound.is_some() {
        outbound::unannounce(&mut head);
    }
    record.trace.put(&mut head.headers);
    if let Some(upgrade) = upgrade {
        upgrade.put(&mut head);
    }
    record.line.authority = Some(authority.clone());
    let place = downstream.route(&head, &authority);
    let route = place.and_then(|place| downstream.listener.routes.get(place));
    if let Some(metrics) = place.and_then(|place| downstream.listener.route_metrics.get(place)) {
        record.takes(metrics);
    }
    let limit = route.map_or(downstream.listener.timeouts.request, |route| {
        route.request_timeout
    });
    let deadline = record.started + limit;
    let now = record.begun;
    // The connection ends with the SVID; but its timers do not count while a machine is suspended.
    let peer = downstream.peer.as_ref();
    if peer.is_some_and(|peer| !peer.validity.contains(now)) {
        downstream.cut(CutBy::Expiry);
        return Err(ProxyError::PeerExpired);
    }

    let declared_body_bytes = body.size_hint().exact();
    let needs_body =
        with_evaluator(|evaluator| evaluator.needs_body(&head)).ok_or(ProxyError::NoPolicy)?;
    // At `egress` the policy sees no bodies.
    let needs_body = needs_body && outbound.is_none();
    let (seen, body) = if needs_body && !body.is_end_stream() {
        let limits = downstream.listener.body_limits;
        let reading = body::read(body, limits, &downstream.body_budget, timeouts.body_read);
        match timeout_at(deadline, reading).await {
            Ok(read) => read?,
            Err(_) => return Err(ProxyError::BodyTimeout),
        }
    } else {
        let unread = sidegate_policy::RequestBody::default();
        (unread, RequestBody::unread(body))
    };
    let mut circumstances = Circumstances {
        scheme: downstream.scheme(),
        time: now,
        declared_body_bytes,
        body: seen,
        destination: None,
    };
    let (permit, way) = match outbound {
        None => {
            let facts = circumstances.of(head);
            (authorize(downstream, place, facts, record)?, None)
        }
        Some(outbound) => {
            let switches = upgrade.is_some();
            let known = &mut circumstances;
            let going = app::authorize(downstream, outbound, place, head, known, switches, record);
            let going = timeout_at(deadline, Box::pin(going)).await;
            let (permit, way) = going.map_err(|_| ProxyError::RequestTimeout)??;
            (permit, Some(way))
        }
    };
    // Who may not ask does not learn what is there.
    let upstream = &match route {
        Some(route) => &route.upstream,
        None if is_connect => return Err(HeadProblem::Connect.into()),
        None => return Err(ProxyError::NoRoute),
    };
    if upgrade.is_some() && !upstream.can_upgrade() {
        return Err(ProxyError::NoUpgrade);
    }
    let opened = downstream.open(&permit, circumstances, place, record.started);
    record.forwarded();
    let opened = record.opened.insert(opened);

    let progress = &record.progress;
    let call = record.trace.call();
    let sending = Box::pin(upstream.send(permit, body.noting(progress), way, call));
    let sending = guard::within(progress, deadline, timeouts.body_read, sending);
    match opened.unless_denied(sending).await {
        Ok(Ok(response)) => {
            let mut response = response?;
            record.answered(response.status());
            if let Some(upgrade) = upgrade {
                upgrade.answer(&mut response)?;
            }
            Ok(response)
        }
        Ok(Err(Late::RequestBody)) => Err(ProxyError::BodyStalled),
        Ok(Err(Late::Response)) => Err(ProxyError::RequestTimeout),
        Err(denial) => {
            let metadata = denial.dynamic_metadata.as_ref();
            decided(
                record,
                Verdict::deny,
                denial.decision_id,
                denial.generation,
                metadata,
            );
            Err(ProxyError::DeniedNow(denial))
        }
    }
}

/// Asks the policy. What comes back is the only thing that can be forwarded.
fn authorize(
    downstream: &Downstream,
    route: Option<usize>,
    facts: RequestFacts,
    record: &mut Record,
) -> Result<Permit, ProxyError> {
    let asked = with_evaluator(|evaluator| evaluator.decide(downstream.facts(route), facts))
        .ok_or(ProxyError::NoPolicy)?;
    concluded(asked, record)
}

/// Records what the policy has said, and makes a denial an error.
fn concluded(
    asked: Result<Permit, Box<Denial>>,
    record: &mut Record,
) -> Result<Permit, ProxyError> {
    let (verdict, decision_id, generation, metadata) = match &asked {
        Ok(permit) => (
            Verdict::allow,
            permit.decision_id(),
            permit.generation(),
            permit.dynamic_metadata(),
        ),
        Err(denial) => (
            Verdict::deny,
            denial.decision_id,
            denial.generation,
            denial.dynamic_metadata.as_ref(),
        ),
    };
    decided(record, verdict, decision_id, generation, metadata);
    asked.map_err(ProxyError::Denied)
}

/// Records what was decided.
fn decided(
    record: &mut Record,
    verdict: Verdict,
    decision_id: Uuid,
    generation: u64,
    metadata: Option<&DynamicMetadata>,
) {
    record.line.verdict = verdict;
    record.line.decision_id = Some(decision_id);
    record.line.policy_generation = Some(generation);
    record.line.dynamic_metadata = metadata.cloned();
}
