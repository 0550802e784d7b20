//! What is told of a request that is recorded: a span of the server, and one of the client where
//! the request was forwarded. Attributes have the names of OpenTelemetry's conventions for HTTP;
//! those of our own begin with `sidegate.`.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use http::Method;

use super::context::{SpanId, TraceId};
use super::{Recorded, Trace};
use crate::access_log::Line;
use crate::metrics::{Called, ErrorType, KnownMethod, Served};
use crate::upstream::{Destination, bare};

/// One span, ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace_id: TraceId,
    /// Its own id.
    pub span_id: SpanId,
    /// The span that it is a part of.
    pub parent: Option<SpanId>,
    /// Whether that one is another process's.
    pub has_remote_parent: bool,
    /// The flags of `traceparent`.
    pub flags: u8,
    /// What others have written into `tracestate`; empty for nothing.
    pub state: String,
    /// Which side of a call it tells of.
    pub kind: SpanKind,
    /// What it is called, of few different values.
    pub name: String,
    /// When it began.
    pub started: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What it tells.
    pub attributes: Vec<(&'static str, AttributeValue)>,
    /// Whether it failed.
    pub is_error: bool,
}

/// Which side of a call a span tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// The called one.
    Server,
    /// The calling one.
    Client,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// Text.
    Text(String),
    /// A number.
    Integer(i64),
}

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ended<'r> {
    pub(crate) line: &'r Line,
    pub(crate) served: Served,
    pub(crate) elapsed: Duration,
    pub(crate) call: Option<EndedCall<'r>>,
}

/// The call of an upstream, which ended with its request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EndedCall<'r> {
    pub(crate) called: Called,
    pub(crate) destination: Option<&'r Destination>,
    /// How long it took.
    pub(crate) elapsed: Duration,
}

/// Attributes in the making.
#[derive(Default)]
pub(super) struct Attributes(Vec<(&'static str, AttributeValue)>);

impl Trace {
    /// Tells of a request that has ended, if it is recorded.
    pub(crate) fn end(&self, ended: &Ended<'_>) {
        let Some(recorded) = &self.recorded else {
            return;
        };
        if let Some(call) = &ended.call {
            recorded.queue.push(self.client(recorded, ended, call));
        }
        recorded.queue.push(self.server(recorded, ended));
    }

    fn server(&self, recorded: &Recorded, ended: &Ended<'_>) -> Span {
        let Ended { line, served, .. } = ended;
        let mut attributes = Attributes::default();
        attributes.method(served.method, line.method.as_ref());
        attributes.text("url.path", &line.path);
        attributes.text("url.scheme", served.scheme);
        attributes.text("network.protocol.name", "http");
        attributes.text("network.protocol.version", served.version.number());
        if let Some(authority) = &line.authority {
            attributes.text("server.address", bare(authority));
            attributes.integer("server.port", authority.port_u16());
        }
        if let Ok(downstream) = line.downstream.parse::<SocketAddr>() {
            attributes.text("client.address", &downstream.ip().to_string());
            attributes.integer("client.port", Some(downstream.port()));
        }
        attributes.integer("http.response.status_code", served.status);
        attributes.error(served.error);
        attributes.text("sidegate.listener", &line.listener);
        if let Some(route) = &line.route {
            attributes.text("sidegate.route", route);
        }
        attributes.text("sidegate.peer", &line.peer);
        attributes.text("sidegate.verdict", served.verdict.name());
        if let Some(decision_id) = &line.decision_id {
            attributes.text("sidegate.decision_id", &decision_id.to_string());
        }
        attributes.text("sidegate.request_id", &line.request_id);
        let has_failed = served.status.is_none_or(|status| status >= 500);
        Span {
            parent: self.parent,
            has_remote_parent: self.parent.is_some(),
            kind: SpanKind::Server,
            name: name(served.method, line.route.as_deref()),
            // A local answer in gRPC has status 200, as has what broke off later.
            is_error: has_failed || served.error.is_some() && served.status == Some(200),
            ..self.span(
                self.context.span_id,
                recorded.begun,
                ended.elapsed,
                attributes,
            )
        }
    }

    fn client(&self, recorded: &Recorded, ended: &Ended<'_>, call: &EndedCall<'_>) -> Span {
        let line = ended.line;
        let mut attributes = Attributes::default();
        attributes.method(call.called.method, line.method.as_ref());
        if let Some(destination) = call.destination {
            attributes.text("server.address", &destination.address);
            attributes.integer("server.port", destination.port);
            if let Some(version) = destination.version {
                attributes.text("network.protocol.name", "http");
                attributes.text("network.protocol.version", version.number());
            }
        }
        attributes.text("url.path", &line.path);
        attributes.integer("http.response.status_code", call.called.status);
        attributes.error(call.called.error);
        let before = ended.elapsed.saturating_sub(call.elapsed);
        let started = recorded.begun.checked_add(before);
        Span {
            parent: Some(self.context.span_id),
            has_remote_parent: false,
            kind: SpanKind::Client,
            name: name(call.called.method, None),
            is_error: call.called.error.is_some(),
            ..self.span(
                recorded.call,
                started.unwrap_or(recorded.begun),
                call.elapsed,
                attributes,
            )
        }
    }

    /// What the two have in common.
    pub(super) fn span(
        &self,
        span_id: SpanId,
        started: SystemTime,
        elapsed: Duration,
        attributes: Attributes,
    ) -> Span {
        let state = self.state.as_ref().and_then(|state| state.to_str().ok());
        Span {
            trace_id: self.context.trace_id,
            span_id,
            parent: None,
            has_remote_parent: false,
            flags: self.context.flags.bits(),
            state: state.unwrap_or_default().to_owned(),
            kind: SpanKind::Server,
            name: String::new(),
            started,
            ended: started.checked_add(elapsed).unwrap_or(started),
            attributes: attributes.0,
            is_error: false,
        }
    }
}

impl Attributes {
    fn text(&mut self, name: &'static str, value: &str) {
        let value = AttributeValue::Text(value.to_owned());
        self.0.push((name, value));
    }

    fn integer(&mut self, name: &'static str, value: Option<u16>) {
        if let Some(value) = value {
            self.0.push((name, AttributeValue::Integer(value.into())));
        }
    }

    fn method(&mut self, method: KnownMethod, original: Option<&Method>) {
        self.text("http.request.method", method.name());
        if let (KnownMethod::_OTHER, Some(original)) = (method, original) {
            self.text("http.request.method_original", original.as_str());
        }
    }

    fn error(&mut self, error: Option<ErrorType>) {
        if let Some(error) = error {
            self.text("error.type", &error.to_string());
        }
    }
}

/// `GET orders`; a method that is not one of HTTP's is `HTTP`.
fn name(method: KnownMethod, route: Option<&str>) -> String {
    let method = match method {
        KnownMethod::_OTHER => "HTTP",
        known => known.name(),
    };
    match route {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    }
}
