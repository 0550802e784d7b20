//! Requests as OpenTelemetry's conventions for HTTP tell them, with what is our own: the listener,
//! the route and the verdict.
//!
//! Each worker finds the series of a request by what differs between the requests of a route, all
//! of it small and of a known set; labels are made once for each.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use foldhash::fast::RandomState;
use http::Version;
use prometheus_client::encoding::{
    EncodeLabel, EncodeLabelSet, EncodeLabelValue, LabelSetEncoder, LabelValueEncoder,
};
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::histogram::Durations;
use super::{CONFIGURED, Verdict};
use crate::upstream::Destination;

/// The two metrics. Cloning shares them.
#[derive(Debug, Clone)]
pub(super) struct HttpMetrics {
    server: Family<ServerLabels, Durations>,
    client: Family<ClientLabels, Durations>,
}

/// One route's share of them, on one worker.
#[derive(Debug)]
pub(crate) struct RouteMetrics {
    listener: Arc<str>,
    /// Nothing for requests that have no route.
    route: Option<Arc<str>>,
    destination: Option<Destination>,
    all: HttpMetrics,
    /// Those of the requests so far, found without their labels.
    served: Known<Served>,
    called: Known<Called>,
}

type Known<K> = RwLock<HashMap<K, Durations, RandomState>>;

/// What differs between the requests of one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Served {
    pub(crate) method: KnownMethod,
    pub(crate) scheme: &'static str,
    pub(crate) version: HttpVersion,
    pub(crate) verdict: Verdict,
    /// Nothing where there was no response.
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<ErrorType>,
}

/// What differs between the calls of one route's upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Called {
    pub(crate) method: KnownMethod,
    /// Nothing where there was no response.
    pub(crate) status: Option<u16>,
    pub(crate) error: Option<ErrorType>,
}

/// A method of HTTP, or any other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(
    clippy::upper_case_acronyms,
    reason = "the names are the labels' values"
)]
pub(crate) enum KnownMethod {
    GET,
    HEAD,
    POST,
    PUT,
    DELETE,
    CONNECT,
    OPTIONS,
    TRACE,
    PATCH,
    _OTHER,
}

/// A version of HTTP, by its number alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum HttpVersion {
    Http10,
    Http11,
    Http2,
}

/// What was wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ErrorType {
    /// What ended it early, as in the access log.
    Label(&'static str),
    /// The response's status, which tells of an error by itself.
    Status(u16),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ServerLabels {
    listener: Arc<str>,
    route: Option<Arc<str>>,
    served: Served,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct ClientLabels {
    listener: Arc<str>,
    route: Option<Arc<str>>,
    destination: Destination,
    called: Called,
}

impl HttpMetrics {
    /// Makes and registers them. The registry must have no prefix: the names are OpenTelemetry's.
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            server: Family::default(),
            client: Family::default(),
        };
        registry.register_with_unit(
            "http_server_request_duration",
            "From a request's head to the end of its response, or of its tunnel",
            Unit::Seconds,
            metrics.server.clone(),
        );
        registry.register_with_unit(
            "http_client_request_duration",
            "From the call of an upstream to the end of its response, or of the tunnel",
            Unit::Seconds,
            metrics.client.clone(),
        );
        metrics
    }

    /// One route's share, for one worker.
    pub(super) fn of(
        &self,
        listener: &Arc<str>,
        route: Option<(&Arc<str>, Destination)>,
    ) -> Arc<RouteMetrics> {
        let (route, destination) = route.unzip();
        Arc::new(RouteMetrics {
            listener: Arc::clone(listener),
            // The worker's own: each request counts a reference to it.
            route: route.map(|name| Arc::from(&**name)),
            destination,
            all: self.clone(),
            served: RwLock::default(),
            called: RwLock::default(),
        })
    }

    /// Makes series with every value that is not the configuration's, for the documentation.
    pub(super) fn illustrate(&self) {
        let configured: Arc<str> = CONFIGURED.into();
        let destination = Destination {
            name: Arc::clone(&configured),
            address: Arc::clone(&configured),
            port: Some(0),
            version: None,
        };
        let versions = [HttpVersion::Http10, HttpVersion::Http11, HttpVersion::Http2];
        let verdicts = Verdict::ALL.into_iter().cycle();
        let versions = versions.into_iter().cycle();
        let schemes = ["https", "http"].into_iter().cycle();
        let combined = KnownMethod::ALL.into_iter().zip(versions).zip(verdicts);
        for (((method, version), verdict), scheme) in combined.zip(schemes) {
            let destination = Destination {
                // Upstreams are not spoken to in 1.0.
                version: Some(match version {
                    HttpVersion::Http10 => HttpVersion::Http11,
                    other => other,
                }),
                ..destination.clone()
            };
            let route = self.of(&configured, Some((&configured, destination)));
            let error = Some(ErrorType::Label(CONFIGURED));
            let served = Served {
                method,
                scheme,
                version,
                verdict,
                status: Some(0),
                error,
            };
            route.served(served, Duration::ZERO);
            let called = Called {
                method,
                status: Some(0),
                error,
            };
            route.called(called, Duration::ZERO);
        }
    }
}

impl RouteMetrics {
    /// The route's name.
    pub(crate) fn route(&self) -> Option<&Arc<str>> {
        self.route.as_ref()
    }

    /// Where the route's requests go.
    pub(crate) fn destination(&self) -> Option<&Destination> {
        self.destination.as_ref()
    }

    /// A request has ended.
    pub(crate) fn served(&self, served: Served, duration: Duration) {
        let make = || {
            Some(self.all.server.get_or_create_owned(&ServerLabels {
                listener: Arc::clone(&self.listener),
                route: self.route.clone(),
                served,
            }))
        };
        observe(&self.served, served, duration, make);
    }

    /// A call of the route's upstream has ended.
    pub(crate) fn called(&self, called: Called, duration: Duration) {
        let make = || {
            let destination = self.destination.clone()?;
            Some(self.all.client.get_or_create_owned(&ClientLabels {
                listener: Arc::clone(&self.listener),
                route: self.route.clone(),
                destination,
                called,
            }))
        };
        observe(&self.called, called, duration, make);
    }
}

/// Adds a duration to those that are known for a key, or that are made.
fn observe<K: Copy + Eq + Hash>(
    known: &Known<K>,
    key: K,
    duration: Duration,
    make: impl FnOnce() -> Option<Durations>,
) {
    let found = known.read().unwrap_or_else(PoisonError::into_inner);
    if let Some(durations) = found.get(&key) {
        return durations.observe(duration);
    }
    drop(found);
    if let Some(durations) = make() {
        durations.observe(duration);
        let mut known = known.write().unwrap_or_else(PoisonError::into_inner);
        known.insert(key, durations);
    }
}

impl KnownMethod {
    /// In the order of their declaration.
    const ALL: [Self; 10] = [
        Self::GET,
        Self::HEAD,
        Self::POST,
        Self::PUT,
        Self::DELETE,
        Self::CONNECT,
        Self::OPTIONS,
        Self::TRACE,
        Self::PATCH,
        Self::_OTHER,
    ];

    /// As labels have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GET => "GET",
            Self::HEAD => "HEAD",
            Self::POST => "POST",
            Self::PUT => "PUT",
            Self::DELETE => "DELETE",
            Self::CONNECT => "CONNECT",
            Self::OPTIONS => "OPTIONS",
            Self::TRACE => "TRACE",
            Self::PATCH => "PATCH",
            Self::_OTHER => "_OTHER",
        }
    }

    pub(crate) fn of(method: &http::Method) -> Self {
        match *method {
            http::Method::GET => Self::GET,
            http::Method::HEAD => Self::HEAD,
            http::Method::POST => Self::POST,
            http::Method::PUT => Self::PUT,
            http::Method::DELETE => Self::DELETE,
            http::Method::CONNECT => Self::CONNECT,
            http::Method::OPTIONS => Self::OPTIONS,
            http::Method::TRACE => Self::TRACE,
            http::Method::PATCH => Self::PATCH,
            _ => Self::_OTHER,
        }
    }
}

impl HttpVersion {
    pub(crate) fn of(version: Version) -> Self {
        match version {
            Version::HTTP_09 | Version::HTTP_10 => Self::Http10,
            Version::HTTP_11 => Self::Http11,
            _ => Self::Http2,
        }
    }

    /// As `network.protocol.version` has it.
    pub(crate) fn number(self) -> &'static str {
        match self {
            Self::Http10 => "1.0",
            Self::Http11 => "1.1",
            Self::Http2 => "2",
        }
    }
}

impl ErrorType {
    /// Of a request that was served: what a client has done wrong is no error of the server.
    pub(crate) fn of_served(error: Option<&'static str>, status: Option<u16>) -> Option<Self> {
        Self::from(error, status, 500)
    }

    /// Of a call of an upstream.
    pub(crate) fn of_called(error: Option<&'static str>, status: Option<u16>) -> Option<Self> {
        Self::from(error, status, 400)
    }

    fn from(error: Option<&'static str>, status: Option<u16>, lowest: u16) -> Option<Self> {
        let status = status.filter(|status| *status >= lowest).map(Self::Status);
        error.map(Self::Label).or(status)
    }
}

impl fmt::Display for ErrorType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label) => formatter.write_str(label),
            Self::Status(status) => status.fmt(formatter),
        }
    }
}

impl EncodeLabelValue for ErrorType {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        fmt::Write::write_fmt(encoder, format_args!("{self}"))
    }
}

impl EncodeLabelSet for ServerLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Served {
            method,
            scheme,
            version,
            verdict,
            status,
            error,
        } = &self.served;
        put(encoder, "listener", Some(&*self.listener))?;
        put(encoder, "route", self.route.as_deref())?;
        put(encoder, "verdict", Some(*verdict))?;
        put(encoder, "http_request_method", Some(*method))?;
        put(encoder, "http_response_status_code", *status)?;
        put(encoder, "url_scheme", Some(*scheme))?;
        put(encoder, "network_protocol_version", Some(version.number()))?;
        put(encoder, "error_type", *error)
    }
}

impl EncodeLabelSet for ClientLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let Called {
            method,
            status,
            error,
        } = &self.called;
        let Destination {
            address,
            port,
            version,
            ..
        } = &self.destination;
        let version = version.map(HttpVersion::number);
        put(encoder, "listener", Some(&*self.listener))?;
        put(encoder, "route", self.route.as_deref())?;
        put(encoder, "server_address", Some(&**address))?;
        put(encoder, "server_port", *port)?;
        put(encoder, "http_request_method", Some(*method))?;
        put(encoder, "http_response_status_code", *status)?;
        put(encoder, "network_protocol_version", version)?;
        put(encoder, "error_type", *error)
    }
}

/// Writes a label that has a value.
fn put(
    encoder: &mut LabelSetEncoder<'_>,
    name: &str,
    value: Option<impl EncodeLabelValue>,
) -> fmt::Result {
    match value {
        Some(value) => (name, value).encode(encoder.encode_label()),
        None => Ok(()),
    }
}
