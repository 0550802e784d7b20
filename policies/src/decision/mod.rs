//! Reads the policy's answer: a boolean, or OPA-Envoy's object.

mod error;
mod headers;
mod query;

use std::sync::Arc;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use regorus::Value;

pub use error::DecisionError;
use headers::{header_map, header_names};
pub(crate) use query::QueryEdits;

use crate::permit::Edits;

/// The policy's `dynamic_metadata`: what it tells whoever comes after it.
pub type DynamicMetadata = serde_json::Map<String, serde_json::Value>;

/// Final statuses of Envoy's `StatusCode`, which OPA-Envoy is limited to.
const STATUSES: [u16; 55] = [
    200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400,
    401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422,
    423, 424, 426, 428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// An answer that can be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow(Arc<Edits>),
    Deny(Response),
}

/// What the caller of a denied request gets, and what else the policy tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) dynamic_metadata: Option<DynamicMetadata>,
}

/// The members of the object, each checked, whatever the verdict.
#[derive(Default)]
struct Members {
    allowed: Option<bool>,
    headers: HeaderMap,
    response_headers: HeaderMap,
    remove: Vec<HeaderName>,
    query: QueryEdits,
    body: Bytes,
    status: Option<StatusCode>,
    dynamic_metadata: Option<DynamicMetadata>,
}

impl Decision {
    /// Reads an answer that is not undefined.
    ///
    /// Every key that OPA-Envoy knows is checked under either verdict; as in
    /// OPA-Envoy those for the other one (a status or body when allowed, edits
    /// of the request or of the upstream's response when denied) are then left
    /// out, and so are keys that it does not know: policies put there what
    /// they tell others.
    pub(crate) fn parse(value: &Value) -> Result<Self, DecisionError> {
        let object = match value {
            Value::Bool(true) => return Ok(Self::Allow(Arc::default())),
            Value::Bool(false) => {
                return Ok(Self::Deny(Response::empty(StatusCode::FORBIDDEN)));
            }
            Value::Object(object) => object,
            other => {
                return Err(DecisionError::Type {
                    found: type_name(other),
                });
            }
        };
        let mut members = Members::default();
        for (key, value) in object.iter() {
            let Value::String(key) = key else {
                continue;
            };
            match key.as_ref() {
                "allowed" => members.allowed = Some(boolean("allowed", value)?),
                "headers" => members.headers = header_map("headers", value)?,
                "response_headers_to_add" => {
                    members.response_headers = header_map("response_headers_to_add", value)?;
                }
                "request_headers_to_remove" => {
                    members.remove = header_names("request_headers_to_remove", value)?
                }
                "body" => members.body = Bytes::from(string("body", value)?.to_owned()),
                "http_status" => members.status = Some(status(value)?),
                "query_parameters_to_set" => members.query.set(value)?,
                "query_parameters_to_remove" => members.query.remove(value)?,
                "dynamic_metadata" => members.dynamic_metadata = Some(metadata(value)?),
                _ => {}
            }
        }
        let Members {
            allowed,
            mut headers,
            response_headers,
            remove,
            query,
            body,
            status,
            dynamic_metadata,
        } = members;
        if allowed.ok_or(DecisionError::AllowedMissing)? {
            return Ok(Self::Allow(Arc::new(Edits {
                set: headers,
                remove,
                response: response_headers,
                query,
                dynamic_metadata,
            })));
        }
        if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        Ok(Self::Deny(Response {
            status: status.unwrap_or(StatusCode::FORBIDDEN),
            headers,
            body,
            dynamic_metadata,
        }))
    }
}

impl Response {
    /// A status and nothing else.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            dynamic_metadata: None,
        }
    }
}

fn boolean(key: &'static str, value: &Value) -> Result<bool, DecisionError> {
    match value {
        Value::Bool(boolean) => Ok(*boolean),
        _ => Err(DecisionError::ValueType {
            key,
            expected: "a boolean",
        }),
    }
}

fn string<'a>(key: &'static str, value: &'a Value) -> Result<&'a str, DecisionError> {
    match value {
        Value::String(string) => Ok(string),
        _ => Err(DecisionError::ValueType {
            key,
            expected: "a string",
        }),
    }
}

fn status(value: &Value) -> Result<StatusCode, DecisionError> {
    let key = "http_status";
    let status = value.as_i64().map_err(|_| DecisionError::ValueType {
        key,
        expected: "a whole number",
    })?;
    let known = u16::try_from(status)
        .ok()
        .filter(|status| STATUSES.contains(status));
    known
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or(DecisionError::Status { status })
}

/// An object, in which sets are arrays, and keys that are no strings are their
/// JSON text, as OPA shows them.
fn metadata(value: &Value) -> Result<DynamicMetadata, DecisionError> {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::Object(metadata)) => Ok(metadata),
        _ => Err(DecisionError::ValueType {
            key: "dynamic_metadata",
            expected: "an object",
        }),
    }
}

/// Does something with every member of an array or set, or with a value that
/// is neither. Sets are arrays to OPA-Envoy.
fn each(
    value: &Value,
    action: &mut dyn FnMut(&Value) -> Result<(), DecisionError>,
) -> Result<(), DecisionError> {
    match value {
        Value::Array(values) => values.iter().try_for_each(action),
        Value::Set(values) => values.iter().try_for_each(action),
        single => action(single),
    }
}

pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Set(_) => "a set",
        Value::Object(_) => "an object",
        Value::Undefined => "undefined",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_schemas::schema;

    /// Those in which the schema can say what is wrong; others are about what
    /// strings hold.
    #[test]
    fn what_can_be_carried_out_is_what_the_schema_allows() {
        let carried_out = [
            "true",
            "false",
            r#"{"allowed": true}"#,
            r#"{"allowed": false, "http_status": 404, "body": "", "headers": {"a": "b"}}"#,
            r#"{"allowed": true, "headers": [{"a": ["b"]}, {}], "response_headers_to_add": []}"#,
            r#"{"allowed": true, "query_parameters_to_set": [{"a": ["b"]}]}"#,
            r#"{"allowed": true, "query_parameters_to_remove": ["a"]}"#,
            r#"{"allowed": true, "request_headers_to_remove": [], "dynamic_metadata": {"a": [1]}}"#,
            r#"{"allowed": true, "another": [null]}"#,
        ];
        let refused = [
            "null",
            "1",
            "\"true\"",
            "[]",
            "{}",
            r#"{"allowed": "true"}"#,
            r#"{"allowed": false, "http_status": "404"}"#,
            r#"{"allowed": false, "http_status": 404.5}"#,
            r#"{"allowed": false, "http_status": 100}"#,
            r#"{"allowed": false, "http_status": 600}"#,
            r#"{"allowed": true, "body": 1}"#,
            r#"{"allowed": true, "headers": "a"}"#,
            r#"{"allowed": true, "headers": {"a": 1}}"#,
            r#"{"allowed": true, "headers": {"a": [[]]}}"#,
            r#"{"allowed": true, "response_headers_to_add": ["a"]}"#,
            r#"{"allowed": true, "request_headers_to_remove": {"a": "b"}}"#,
            r#"{"allowed": true, "query_parameters_to_set": {"a": null}}"#,
            r#"{"allowed": true, "query_parameters_to_remove": [1]}"#,
            r#"{"allowed": true, "dynamic_metadata": []}"#,
        ];
        for name in ["ingress.result", "egress.result"] {
            for text in carried_out {
                let value = Value::from_json_str(text).unwrap();
                assert!(Decision::parse(&value).is_ok(), "{text}");
                schema(name).check(&serde_json::from_str(text).unwrap());
            }
            for text in refused {
                let value = Value::from_json_str(text).unwrap();
                assert!(Decision::parse(&value).is_err(), "{text}");
                schema(name).refuse(&serde_json::from_str(text).unwrap());
            }
        }
    }
}
