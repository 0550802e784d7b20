//! What the data plane counts. Labels are bounded: never a path, never a peer.

mod histogram;
mod http;
mod tcp;

use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde::Serialize;
use sidegate_identity::tls::HandshakeProblem;

use crate::guard::Flood;
use crate::route::Route;
use crate::trace::TraceMetrics;
use http::HttpMetrics;
pub(crate) use http::{Called, ErrorType, HttpVersion, KnownMethod, RouteMetrics, Served};
pub(crate) use tcp::TcpCounters;
use tcp::TcpMetrics;

/// Stands for what the configuration or a peer names, in the documentation.
const CONFIGURED: &str = "…";

/// Counters of every listener. Cloning shares them.
#[derive(Debug, Clone)]
pub struct ProxyMetrics {
    http: HttpMetrics,
    traces: TraceMetrics,
    open: Family<ListenerLabel, Gauge>,
    handshakes: Family<HandshakeLabels, Counter>,
    cut: Family<CutLabels, Counter>,
    cut_upstreams: Family<CutLabels, Counter>,
    cut_requests: Family<ListenerLabel, Counter>,
    refused: Family<ListenerLabel, Counter>,
    not_accepted: Family<ListenerLabel, Counter>,
    panics: Family<ListenerLabel, Counter>,
    limits: Family<LimitLabels, Counter>,
    floods: Family<FloodLabels, Counter>,
    tcp: TcpMetrics,
    dropped_lines: Counter,
}

/// One listener's share of them.
#[derive(Debug)]
pub(crate) struct ListenerMetrics {
    listener: Arc<str>,
    http: HttpMetrics,
    open: Gauge,
    handshakes: Family<HandshakeLabels, Counter>,
    cut: [Counter; 3],
    /// Whose trust is gone, and whose SVID ended.
    cut_upstreams: [Counter; 2],
    cut_requests: Counter,
    refused: Counter,
    not_accepted: Counter,
    panics: Counter,
    limits: [Counter; Limit::ALL.len()],
    floods: [Counter; Flood::ALL.len()],
    pub(crate) tcp: TcpCounters,
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
    /// Makes and registers them: OpenTelemetry's under its own names, so the registry must have no
    /// prefix, and all others under `sidegate`.
    pub fn register(registry: &mut Registry) -> Self {
        let http = HttpMetrics::register(registry);
        let registry = registry.sub_registry_with_prefix("sidegate");
        let metrics = Self {
            http,
            traces: TraceMetrics::register(registry),
            open: Family::default(),
            handshakes: Family::default(),
            cut: Family::default(),
            cut_upstreams: Family::default(),
            cut_requests: Family::default(),
            refused: Family::default(),
            not_accepted: Family::default(),
            panics: Family::default(),
            limits: Family::default(),
            floods: Family::default(),
            tcp: TcpMetrics::register(registry),
            dropped_lines: Counter::default(),
        };
        registry.register(
            "connections_open",
            "Downstream connections after their handshake",
            metrics.open.clone(),
        );
        registry.register(
            "tls_handshakes",
            "TLS handshakes: `success`, or what went wrong",
            metrics.handshakes.clone(),
        );
        registry.register(
            "connections_cut",
            "Downstream connections that were ended because trust in their peer was withdrawn, a changed policy denies them, or their peer's SVID ended while requests or tunnels ran",
            metrics.cut.clone(),
        );
        registry.register(
            "upstream_connections_cut",
            "Connections to upstreams by mutual TLS that were ended because what they were trusted by was gone",
            metrics.cut_upstreams.clone(),
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
            "connections_not_accepted",
            "Attempts to accept a downstream connection that failed, as without file descriptors",
            metrics.not_accepted.clone(),
        );
        registry.register(
            "panics",
            "Connections and HTTP/2 streams that were ended because what served them panicked",
            metrics.panics.clone(),
        );
        registry.register(
            "limits_exceeded",
            "Connections that were turned away or ended, handshakes that had to wait, requests and streams that were refused or ended, by the limit or timeout of the listener that they were over",
            metrics.limits.clone(),
        );
        registry.register(
            "http2_floods",
            "HTTP/2 connections that were ended because of the frames on them; `header_block` is a head many times larger than `max_header_bytes`, `other` what the HTTP/2 library itself refuses",
            metrics.floods.clone(),
        );
        registry.register(
            "access_log_dropped",
            "Access-log lines that could not be taken",
            metrics.dropped_lines.clone(),
        );
        metrics
    }

    /// What is counted of spans.
    #[must_use]
    pub fn traces(&self) -> TraceMetrics {
        self.traces.clone()
    }

    pub(crate) fn of(&self, listener: &str) -> Arc<ListenerMetrics> {
        let label = ListenerLabel {
            listener: listener.to_owned(),
        };
        Arc::new(ListenerMetrics {
            listener: listener.into(),
            http: self.http.clone(),
            open: self.open.get_or_create(&label).clone(),
            handshakes: self.handshakes.clone(),
            cut: [Cut::trust, Cut::policy, Cut::expired].map(|reason| {
                self.cut.get_or_create_owned(&CutLabels {
                    listener: listener.to_owned(),
                    reason,
                })
            }),
            cut_upstreams: [Cut::trust, Cut::expired].map(|reason| {
                self.cut_upstreams.get_or_create_owned(&CutLabels {
                    listener: listener.to_owned(),
                    reason,
                })
            }),
            cut_requests: self.cut_requests.get_or_create_owned(&label),
            refused: self.refused.get_or_create_owned(&label),
            not_accepted: self.not_accepted.get_or_create_owned(&label),
            panics: self.panics.get_or_create_owned(&label),
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
            tcp: self.tcp.of(listener),
            dropped_lines: self.dropped_lines.clone(),
        })
    }

    /// Makes a series for every value of a label, for the documentation. What the configuration or
    /// a peer names is `…`.
    pub fn illustrate(&self) {
        let listener = self.of(CONFIGURED);
        for result in ["success", "plaintext", "timeout"]
            .into_iter()
            .chain(HandshakeProblem::LABELS)
        {
            listener.handshake(result);
        }
        for end in [None, Some(CONFIGURED)] {
            listener.tcp.ended(end);
        }
        listener.tcp.bytes();
        self.http.illustrate();
    }
}

impl ListenerMetrics {
    pub(crate) fn handshake(&self, result: &'static str) {
        let labels = HandshakeLabels {
            listener: self.listener.to_string(),
            result,
        };
        self.handshakes.get_or_create(&labels).inc();
    }

    pub(crate) fn opened(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// What is counted of a route's requests, for one worker.
    pub(crate) fn of_route(&self, route: &Route) -> Arc<RouteMetrics> {
        let destination = route.upstream.destination();
        self.http
            .of(&self.listener, Some((&route.name, destination)))
    }

    /// What is counted of requests that have no route, for one worker.
    pub(crate) fn of_no_route(&self) -> Arc<RouteMetrics> {
        self.http.of(&self.listener, None)
    }

    pub(crate) fn cut(&self, reason: Cut) {
        let [trust, policy, expired] = &self.cut;
        match reason {
            Cut::trust => trust.inc(),
            Cut::policy => policy.inc(),
            Cut::expired => expired.inc(),
        };
    }

    pub(crate) fn upstream_cut(&self, reason: Cut) {
        let [trust, expired] = &self.cut_upstreams;
        match reason {
            Cut::trust | Cut::policy => trust.inc(),
            Cut::expired => expired.inc(),
        };
    }

    pub(crate) fn request_cut(&self) {
        self.cut_requests.inc();
    }

    pub(crate) fn connection_refused(&self) {
        self.refused.inc();
    }

    pub(crate) fn not_accepted(&self) {
        self.not_accepted.inc();
    }

    pub(crate) fn panicked(&self) {
        self.panics.inc();
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

impl Verdict {
    /// In the order of their declaration.
    const ALL: [Self; 3] = [Self::allow, Self::deny, Self::none];

    /// As labels have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::allow => "allow",
            Self::deny => "deny",
            Self::none => "none",
        }
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
