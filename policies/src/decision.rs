//! Reads the policy's answer: a boolean, or OPA-Envoy's object.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use regorus::Value;

use crate::permit::HeaderEdits;

/// Headers that the policy may not touch: those that frame messages or belong
/// to one connection, the authority, which has been decided, and the caller's
/// certificate, which the proxy vouches for.
const PROTECTED: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-client-cert",
];

/// Final statuses of Envoy's `StatusCode`, which OPA-Envoy is limited to.
const STATUSES: [u16; 55] = [
    200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304, 305, 307, 308, 400,
    401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 421, 422,
    423, 424, 426, 428, 429, 431, 500, 501, 502, 503, 504, 505, 506, 507, 508, 510, 511,
];

/// Why an answer cannot be carried out. Names keys, never values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecisionError {
    /// Neither a boolean nor an object.
    #[error("it is {found}, not a boolean or an object")]
    Type {
        /// What it is instead.
        found: &'static str,
    },
    /// The object does not say whether the request is allowed.
    #[error("it has no `allowed`")]
    AllowedMissing,
    /// A key that is unknown, or not supported yet.
    #[error("the key `{key}` is not supported")]
    Key {
        /// The key.
        key: String,
    },
    /// A key's value has another type.
    #[error("`{key}` must be {expected}")]
    ValueType {
        /// The key.
        key: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A status that a denial cannot have.
    #[error("`http_status` {status} is not a final status that Envoy knows")]
    Status {
        /// The status.
        status: i64,
    },
    /// A header's name or value that HTTP cannot carry.
    #[error("`{key}` has a header that is not valid HTTP: {header}")]
    Header {
        /// The key.
        key: &'static str,
        /// The header's name as the policy gave it, escaped.
        header: String,
    },
    /// A header that policies may not touch.
    #[error("`{key}` may not touch the header {header}")]
    ProtectedHeader {
        /// The key.
        key: &'static str,
        /// The header's name.
        header: String,
    },
}

/// An answer that can be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decision {
    Allow(HeaderEdits),
    Deny {
        status: StatusCode,
        headers: HeaderMap,
        body: Bytes,
    },
}

/// The members of the object, each checked, whatever the verdict.
#[derive(Default)]
struct Members {
    allowed: Option<bool>,
    headers: HeaderMap,
    response_headers: HeaderMap,
    remove: Vec<HeaderName>,
    body: Bytes,
    status: Option<StatusCode>,
}

impl Decision {
    /// Reads an answer that is not undefined.
    ///
    /// Every key is checked under either verdict; as in OPA-Envoy those for
    /// the other one (a status or body when allowed, edits of the request or
    /// of the upstream's response when denied) are then left out.
    pub(crate) fn parse(value: &Value) -> Result<Self, DecisionError> {
        let object = match value {
            Value::Bool(true) => return Ok(Self::Allow(HeaderEdits::default())),
            Value::Bool(false) => {
                let (status, headers, body) =
                    (StatusCode::FORBIDDEN, HeaderMap::new(), Bytes::new());
                return Ok(Self::Deny {
                    status,
                    headers,
                    body,
                });
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
                return Err(DecisionError::Key {
                    key: type_name(key).to_owned(),
                });
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
                other => {
                    return Err(DecisionError::Key {
                        key: other.escape_debug().to_string(),
                    });
                }
            }
        }
        let Members {
            allowed,
            mut headers,
            response_headers,
            remove,
            body,
            status,
        } = members;
        if allowed.ok_or(DecisionError::AllowedMissing)? {
            return Ok(Self::Allow(HeaderEdits {
                set: headers,
                remove,
                response: response_headers,
            }));
        }
        if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        Ok(Self::Deny {
            status: status.unwrap_or(StatusCode::FORBIDDEN),
            headers,
            body,
        })
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

/// A map of names to one value or several, or a list of such maps.
fn header_map(key: &'static str, value: &Value) -> Result<HeaderMap, DecisionError> {
    let mut headers = HeaderMap::new();
    match value {
        Value::Object(_) => add_headers(key, value, &mut headers)?,
        Value::Array(maps) => maps
            .iter()
            .try_for_each(|map| add_headers(key, map, &mut headers))?,
        Value::Set(maps) => maps
            .iter()
            .try_for_each(|map| add_headers(key, map, &mut headers))?,
        _ => {
            return Err(DecisionError::ValueType {
                key,
                expected: "an object or a list of objects",
            });
        }
    }
    Ok(headers)
}

fn add_headers(
    key: &'static str,
    map: &Value,
    headers: &mut HeaderMap,
) -> Result<(), DecisionError> {
    let Value::Object(map) = map else {
        return Err(DecisionError::ValueType {
            key,
            expected: "an object or a list of objects",
        });
    };
    for (name, values) in map.iter_sorted() {
        let name = header_name(key, string(key, name)?)?;
        let mut add = |value: &Value| {
            let text = string(key, value)?;
            let value = HeaderValue::from_bytes(text.as_bytes());
            let value = value.map_err(|_| DecisionError::Header {
                key,
                header: name.to_string(),
            })?;
            headers.append(name.clone(), value);
            Ok(())
        };
        each(values, &mut add)?;
    }
    Ok(())
}

fn header_names(key: &'static str, value: &Value) -> Result<Vec<HeaderName>, DecisionError> {
    if !matches!(value, Value::Array(_) | Value::Set(_)) {
        return Err(DecisionError::ValueType {
            key,
            expected: "a list of strings",
        });
    }
    let mut names = Vec::new();
    each(value, &mut |name| {
        names.push(header_name(key, string(key, name)?)?);
        Ok(())
    })?;
    Ok(names)
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

fn header_name(key: &'static str, name: &str) -> Result<HeaderName, DecisionError> {
    if name.starts_with(':') {
        return Err(DecisionError::ProtectedHeader {
            key,
            header: name.escape_debug().to_string(),
        });
    }
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let parsed = parsed.map_err(|_| DecisionError::Header {
        key,
        header: name.escape_debug().to_string(),
    })?;
    if PROTECTED.contains(&parsed.as_str()) {
        return Err(DecisionError::ProtectedHeader {
            key,
            header: parsed.to_string(),
        });
    }
    Ok(parsed)
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
