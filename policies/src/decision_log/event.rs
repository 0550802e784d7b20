//! A decision as OPA's decision log tells it (its `EventV1`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use regorus::Value;
use serde::Serialize;
use serde_json::Value as Json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::record::{Asked, Record};
use crate::denial::DenialReason;
use crate::input::{ConnectionFacts, InputKeys, ReadSet};
use crate::points::{connect, egress};

/// One event. Fields are left out as OPA leaves them out.
#[derive(Debug, Serialize)]
pub(super) struct Event<'l> {
    pub(super) labels: &'l BTreeMap<String, String>,
    pub(super) decision_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) span_id: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) bundles: BTreeMap<String, BundleInfo>,
    pub(super) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) input: Option<Json>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) result: Option<Json>,
    /// What mask rules removed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) erased: Vec<String>,
    /// What mask rules replaced.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) masked: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<EventError>,
    pub(super) requested_by: String,
    /// RFC 3339 in UTC.
    pub(super) timestamp: String,
    pub(super) metrics: BTreeMap<&'static str, u64>,
    pub(super) req_id: u64,
}

/// What an event says of a bundle.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct BundleInfo {
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) revision: String,
}

/// Why there is no decision, or no whole event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct EventError {
    /// The stable diagnostic code.
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// Makes events of records.
pub(super) struct EventBuilder {
    keys: InputKeys,
    /// Whatever the policy reads, an event has the whole input.
    whole: ReadSet,
    labels: BTreeMap<String, String>,
    requests: u64,
}

impl EventBuilder {
    pub(super) fn new(labels: BTreeMap<String, String>) -> Self {
        Self {
            keys: InputKeys::new(),
            whole: ReadSet::everything(),
            labels,
            requests: 0,
        }
    }

    /// Tells a decision. The input document is made as it was made for the
    /// policy, but whole.
    pub(super) fn build(&mut self, record: Record) -> Event<'_> {
        self.requests = self.requests.saturating_add(1);
        let Record {
            policy,
            connection,
            asked,
            time,
            decision_id,
            answer,
            denied,
            elapsed,
        } = record;
        let facts = ConnectionFacts::new(Arc::clone(&connection));
        let mut trace = None;
        let (path, input, error);
        match asked {
            Asked::Request(request) => {
                path = policy.status().entrypoint.clone();
                error = denied.as_ref().and_then(EventError::of_request);
                input = request.into_facts().map(|request| {
                    trace = traceparent(&request.head.headers);
                    self.keys.document(&self.whole, &facts, &request)
                });
            }
            Asked::Egress(request) => {
                path = egress::ENTRYPOINT.to_owned();
                error = denied.as_ref().and_then(EventError::of_request);
                input = request.into_document(&facts, &mut |headers| {
                    trace = traceparent(headers);
                });
            }
            Asked::Connection => {
                path = connect::ENTRYPOINT.to_owned();
                error = denied.as_ref().and_then(EventError::of_connection);
                input = Some(facts.document());
            }
        }
        let input = input.and_then(|document| serde_json::to_value(document).ok());
        let result = match &answer.value {
            Value::Undefined => None,
            value => serde_json::to_value(value).ok(),
        };
        let mut metrics = BTreeMap::from([("timer_server_handler_ns", nanoseconds(elapsed))]);
        if let Some(evaluation) = answer.evaluation {
            metrics.insert("timer_rego_query_eval_ns", nanoseconds(evaluation));
        }
        let (trace_id, span_id) = trace.unzip();
        Event {
            labels: &self.labels,
            decision_id: decision_id.to_string(),
            trace_id,
            span_id,
            bundles: policy
                .sources()
                .bundles()
                .iter()
                .map(|bundle| {
                    let revision = bundle.revision.clone();
                    (bundle.name.clone(), BundleInfo { revision })
                })
                .collect(),
            path,
            input,
            result,
            erased: Vec::new(),
            masked: Vec::new(),
            error,
            requested_by: connection.downstream_address.to_string(),
            timestamp: OffsetDateTime::from(time)
                .format(&Rfc3339)
                .unwrap_or_default(),
            metrics,
            req_id: self.requests,
        }
    }
}

impl EventError {
    /// A policy that says no has decided: that is no error.
    fn of_request(reason: &DenialReason) -> Option<Self> {
        (*reason != DenialReason::Policy).then(|| Self {
            code: reason.code(),
            message: reason.to_string(),
        })
    }

    fn of_connection(reason: &DenialReason) -> Option<Self> {
        let mut error = Self::of_request(reason)?;
        if *reason == DenialReason::Undefined {
            connect::UNDEFINED.clone_into(&mut error.message);
        }
        Some(error)
    }
}

impl Event<'_> {
    /// Leaves out what a mask should have been laid over.
    pub(super) fn withhold(&mut self, why: &str) {
        for (path, part) in [("/input", &mut self.input), ("/result", &mut self.result)] {
            if part.take().is_some() {
                self.erased.push(path.to_owned());
            }
        }
        let decision = match self.error.take() {
            Some(error) => format!("; the decision itself: {} {}", error.code, error.message),
            None => String::new(),
        };
        self.error = Some(EventError {
            code: "SG0261",
            message: format!(
                "input and result are withheld: `data.system.log.mask` fails: {why}{decision}"
            ),
        });
    }
}

#[cfg(test)]
impl Event<'static> {
    /// An event with nothing else in it.
    pub(super) fn for_test(input: Option<Json>, result: Option<Json>) -> Self {
        static LABELS: BTreeMap<String, String> = BTreeMap::new();
        Self {
            labels: &LABELS,
            decision_id: "d".to_owned(),
            trace_id: None,
            span_id: None,
            bundles: BTreeMap::new(),
            path: "envoy/authz/allow".to_owned(),
            input,
            result,
            erased: Vec::new(),
            masked: Vec::new(),
            error: None,
            requested_by: "192.0.2.7:40001".to_owned(),
            timestamp: "2026-11-02T09:00:00Z".to_owned(),
            metrics: BTreeMap::new(),
            req_id: 1,
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Trace and span of a request that is part of a trace:
/// <https://www.w3.org/TR/trace-context/#traceparent-header>.
fn traceparent(headers: &HeaderMap) -> Option<(String, String)> {
    let mut values = headers.get_all("traceparent").iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let mut fields = value.to_str().ok()?.split('-');
    let version = fields.next().filter(|version| is_hex(version, 2))?;
    let trace = fields.next().filter(|trace| is_hex(trace, 32))?;
    let span = fields.next().filter(|span| is_hex(span, 16))?;
    fields.next().filter(|flags| is_hex(flags, 2))?;
    let is_zero = |id: &str| id.bytes().all(|digit| digit == b'0');
    // Later versions may have more fields, this one has not; ff is none.
    let is_other = version == "ff" || (version == "00" && fields.next().is_some());
    (!is_other && !is_zero(trace) && !is_zero(span)).then(|| (trace.to_owned(), span.to_owned()))
}

fn is_hex(text: &str, length: usize) -> bool {
    let is_digit = |digit: u8| matches!(digit, b'0'..=b'9' | b'a'..=b'f');
    text.len() == length && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_valid_traceparent_names_a_trace() {
        const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
        const SPAN: &str = "b7ad6b7169203331";
        let named = |value: String| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("traceparent"),
                value.parse().unwrap(),
            )]);
            traceparent(&headers)
        };
        let expected = Some((TRACE.to_owned(), SPAN.to_owned()));
        assert_eq!(named(format!("00-{TRACE}-{SPAN}-01")), expected);
        assert_eq!(named(format!("01-{TRACE}-{SPAN}-01-more")), expected);
        for wrong in [
            String::new(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{SPAN}-{TRACE}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(named(wrong.clone()), None, "{wrong}");
        }
        let twice = format!("00-{TRACE}-{SPAN}-01");
        let mut headers = HeaderMap::new();
        headers.append("traceparent", twice.parse().unwrap());
        headers.append("traceparent", twice.parse().unwrap());
        assert_eq!(traceparent(&headers), None);
    }
}
