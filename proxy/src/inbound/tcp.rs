//! Connections that are no more than bytes: allowed as a whole, and passed on as they are.
//!
//! ```text
//!  permit ── the listener's upstream is connected to ── bytes both ways ── both sides have ended ▶
//!                 │ it cannot be                            │ idle, or what had allowed it is gone
//!                 └──────────────── one line in the access log, with the reason ────────────────▶
//! ```
//! Nobody waits for the client's first bytes: servers may speak first.

use std::sync::Arc;

use sidegate_policy::ConnectPermit;
use tracing::info;
use uuid::Uuid;

use super::downstream::Downstream;
use super::identify::Stream;
use super::watch::live;
use crate::access_log::Record;
use crate::activity::Watched;
use crate::connect::Refusal;
use crate::error::ProxyError;
use crate::metrics::Verdict;
use crate::tunnel::relay;
use crate::upstream::{self, Upstream};

/// Passes bytes on until both sides have ended or the connection must end. This uses the permit up.
pub(super) async fn serve(stream: Stream, downstream: Arc<Downstream>, permit: ConnectPermit) {
    let mut record = record(&downstream);
    record.line.verdict = Verdict::allow;
    record.line.decision_id = permit.decision_id();
    record.line.policy_generation = Some(permit.generation());
    drop(permit);
    // It is not between two requests, ever.
    let _in_flight = downstream.activity.begin();
    let passing = async {
        match connect(&downstream).await {
            Ok(upstream) => {
                let activity = Arc::clone(&downstream.activity);
                let stream = Watched::new(stream, activity, None);
                let ends = std::future::ready(Ok((stream, upstream)));
                relay(&mut record, ends).await;
            }
            Err(error) => failed(&mut record, &error),
        }
    };
    // What runs is not asked to end: nothing in it would say when.
    live(Box::pin(passing), |_| {}, &downstream).await;
}

/// Records a connection that was refused.
pub(super) fn refused(downstream: &Downstream, refusal: Refusal, code: &'static str) {
    let mut record = record(downstream);
    record.line.verdict = Verdict::deny;
    record.line.decision_id = refusal.decision_id;
    record.line.policy_generation = Some(refusal.generation);
    record.line.error = Some(refusal.reason);
    record.line.code = Some(code);
    record.line.detail = Some(refusal.error);
    record.complete();
}

fn record(downstream: &Downstream) -> Box<Record> {
    downstream.connection_record(Uuid::new_v4().to_string())
}

async fn connect(downstream: &Downstream) -> Result<upstream::Stream, ProxyError> {
    let mut routes = downstream.listener.routes.iter();
    let upstream = routes.find_map(|route| match &route.upstream {
        Upstream::Tcp(upstream) => Some(upstream),
        Upstream::Service { .. }
        | Upstream::Http1(_)
        | Upstream::Http2(_)
        | Upstream::Mtls(_)
        | Upstream::Direct(_) => None,
    });
    Ok(upstream.ok_or(ProxyError::NoRoute)?.connect().await?)
}

/// There is no upstream to pass bytes on to.
pub(super) fn failed(record: &mut Record, error: &ProxyError) {
    let telling = error.telling();
    if let Some(limit) = error.limit() {
        record.metrics.limit_exceeded(limit);
    }
    record.line.error = Some(telling.label);
    record.line.code = telling.code;
    record.line.detail = Some(error.chain());
    record.complete();
    info!(
        code = telling.code,
        listener = %record.line.listener,
        downstream = %record.line.downstream,
        error = error.chain(),
        "a TCP connection cannot be passed on",
    );
}
