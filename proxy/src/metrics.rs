//! What the data plane counts. Labels are bounded: never a path, never a peer.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use serde::Serialize;

use crate::guard::Flood;

/// Counters of every listener. Cloning shares them.
#[derive(Debug, Clone)]
pub struct ProxyMetrics {
    requests: Family<RequestLabels, Counter>,
    duration: Family<ListenerLabel, Histogram, fn() -> Histogram>,
    open: Family<ListenerLabel, Gauge>,
    handshakes: Family<HandshakeLabels, Counter>,
    cut: Family<CutLabels, Counter>,
    cut_requests: Family<ListenerLabel, Counter>,
    refused: Family<ListenerLabel, Counter>,
    limits: Family<LimitLabels, Counter>,
    floods: Family<FloodLabels, Counter>,
    dropped_lines: Counter,
}

/// One listener's share of them.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    listener: String,
    requests: Family<RequestLabels, Counter>,
    /// Those of the requests so far, found without their labels.
    known: RwLock<HashMap<(Verdict, u16), Counter>>,
    duration: Histogram,
    open: Gauge,
    handshakes: Family<HandshakeLabels, Counter>,
    cut: [Counter; 3],
    cut_requests: Counter,
    refused: Counter,
    limits: [Counter; Limit::ALL.len()],
    floods: [Counter; Flood::ALL.len()],
    dropped_lines: Counter,
}

/// Why a live connection was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the labels' values")]
pub(crate) enum Cut {
    /// Trust in the peer was withdrawn.
    trust,
    /// The policy denies it now.
    policy,
    /// The peer's SVID ended.
    expired,
}

/// A limit of a listener, by the name of its key in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(non_camel_case_types, reason = "the names are the labels' values")]
pub(crate) enum Limit {
    max_connections,
    max_connections_per_identity,
    max_handshakes,
    requests_per_second,
    max_headers,
    max_header_bytes,
    max_uri_bytes,
    max_request_bytes,
    header_read,
    idle,
    stream_idle,
    body_read,
    request,
    connect,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(non_camel_case_types, reason = "the names are the labels' values")]
pub(crate) enum Verdict {
    /// The policy allowed it.
    allow,
    /// The policy denied it.
    deny,
    /// It never came to a decision.
    none,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    listener: String,
    verdict: Verdict,
    code: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabel {
    listener: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CutLabels {
    listener: String,
    reason: Cut,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    listener: String,
    limit: Limit,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FloodLabels {
    listener: String,
    kind: Flood,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    listener: String,
    result: &'static str,
}

/// Counts an open connection until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection(Gauge);

impl ProxyMetrics {
    /// Makes and registers them.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(request_duration),
            open: Family::default(),
            handshakes: Family::default(),
            cut: Family::default(),
            cut_requests: Family::default(),
            refused: Family::default(),
            limits: Family::default(),
            floods: Family::default(),
            dropped_lines: Counter::default(),
        };
        registry.register(
            "requests",
            "Requests by verdict and status",
            metrics.requests.clone(),
        );
        registry.register(
            "request_duration_seconds",
            "From a request's head to the end of its response",
            metrics.duration.clone(),
        );
        registry.register(
            "connections_open",
            "Downstream connections after their handshake",
            metrics.open.clone(),
        );
        registry.register(
            "tls_handshakes",
            "TLS handshakes by result",
            metrics.handshakes.clone(),
        );
        registry.register(
            "connections_cut",
            "Downstream connections that were ended because what had allowed them was gone",
            metrics.cut.clone(),
        );
        registry.register(
            "requests_cut",
            "Open requests that were ended because a changed policy denies them",
            metrics.cut_requests.clone(),
        );
        registry.register(
            "connections_refused",
            "Downstream connections that the policy denied after their handshake",
            metrics.refused.clone(),
        );
        registry.register(
            "limits_exceeded",
            "What was over a limit of a listener, by the limit",
            metrics.limits.clone(),
        );
        registry.register(
            "http2_floods",
            "HTTP/2 connections that were ended because of the frames on them, by their kind",
            metrics.floods.clone(),
        );
        registry.register(
            "access_log_dropped",
            "Access-log lines that could not be taken",
            metrics.dropped_lines.clone(),
        );
        metrics
    }

    pub(crate) fn of(&self, listener: &str) -> Arc<ListenerMetrics> {
        let label = ListenerLabel {
            listener: listener.to_owned(),
        };
        Arc::new(ListenerMetrics {
            listener: listener.to_owned(),
            requests: self.requests.clone(),
            known: RwLock::default(),
            duration: self.duration.get_or_create(&label).clone(),
            open: self.open.get_or_create(&label).clone(),
            handshakes: self.handshakes.clone(),
            cut: [Cut::trust, Cut::policy, Cut::expired].map(|reason| {
                self.cut.get_or_create_owned(&CutLabels {
                    listener: listener.to_owned(),
                    reason,
                })
            }),
            cut_requests: self.cut_requests.get_or_create_owned(&label),
            refused: self.refused.get_or_create_owned(&label),
            limits: Limit::ALL.map(|limit| {
                self.limits.get_or_create_owned(&LimitLabels {
                    listener: listener.to_owned(),
                    limit,
                })
            }),
            floods: Flood::ALL.map(|kind| {
                self.floods.get_or_create_owned(&FloodLabels {
                    listener: listener.to_owned(),
                    kind,
                })
            }),
            dropped_lines: self.dropped_lines.clone(),
        })
    }
}

impl ListenerMetrics {
    pub(crate) fn handshake(&self, result: &'static str) {
        let labels = HandshakeLabels {
            listener: self.listener.clone(),
            result,
        };
        self.handshakes.get_or_create(&labels).inc();
    }

    pub(crate) fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    pub(crate) fn finished(&self, verdict: Verdict, code: u16, duration: Duration) {
        self.duration.observe(duration.as_secs_f64());
        let known = self.known.read();
        let known = known.unwrap_or_else(PoisonError::into_inner);
        if let Some(counter) = known.get(&(verdict, code)) {
            counter.inc();
            return;
        }
        drop(known);
        let counter = self.requests.get_or_create_owned(&RequestLabels {
            listener: self.listener.clone(),
            verdict,
            code,
        });
        counter.inc();
        let known = self.known.write();
        let mut known = known.unwrap_or_else(PoisonError::into_inner);
        known.insert((verdict, code), counter);
    }

    pub(crate) fn cut(&self, reason: Cut) {
        let [trust, policy, expired] = &self.cut;
        match reason {
            Cut::trust => trust.inc(),
            Cut::policy => policy.inc(),
            Cut::expired => expired.inc(),
        };
    }

    pub(crate) fn request_cut(&self) {
        self.cut_requests.inc();
    }

    pub(crate) fn connection_refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn limit_exceeded(&self, limit: Limit) {
        if let Some(counter) = self.limits.get(limit as usize) {
            counter.inc();
        }
    }

    pub(crate) fn flooded(&self, kind: Flood) {
        if let Some(counter) = self.floods.get(kind as usize) {
            counter.inc();
        }
    }

    /// The listener's name.
    pub(crate) fn name(&self) -> &str {
        &self.listener
    }

    pub(crate) fn line_dropped(&self) {
        self.dropped_lines.inc();
    }
}

impl Limit {
    /// In the order of their declaration.
    const ALL: [Self; 14] = [
        Self::max_connections,
        Self::max_connections_per_identity,
        Self::max_handshakes,
        Self::requests_per_second,
        Self::max_headers,
        Self::max_header_bytes,
        Self::max_uri_bytes,
        Self::max_request_bytes,
        Self::header_read,
        Self::idle,
        Self::stream_idle,
        Self::body_read,
        Self::request,
        Self::connect,
    ];
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn request_duration() -> Histogram {
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
    ])
}
