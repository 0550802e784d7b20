//! Headers in a decision.

use http::{HeaderMap, HeaderName, HeaderValue};
use regorus::Value;

use super::{DecisionError, each, string};

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

/// A map of names to one value or several, or a list of such maps.
pub(super) fn header_map(key: &'static str, value: &Value) -> Result<HeaderMap, DecisionError> {
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

pub(super) fn header_names(
    key: &'static str,
    value: &Value,
) -> Result<Vec<HeaderName>, DecisionError> {
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
