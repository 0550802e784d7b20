//! Base64, hexadecimal digits and queries, as Go decodes and encodes them.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use regorus::Value;

use super::values::{from_base64, from_padded_base64url, members, text};

/// What a query escapes.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~');

/// How many parameters Go reads from a query.
const PARAMETERS: usize = 10_000;

/// `base64.decode(text)`.
pub(super) fn base64_decode(arguments: &[Value]) -> Option<Value> {
    let [encoded] = arguments else { return None };
    Some(decoded(&from_base64(text(encoded)?)?))
}

/// `base64.is_valid(text)`: false of what is no string.
pub(super) fn base64_is_valid(arguments: &[Value]) -> Option<Value> {
    let [encoded] = arguments else { return None };
    Some(text(encoded).and_then(from_base64).is_some().into())
}

/// `base64url.decode(text)`: without padding, whatever is as long as it can be
/// gets some.
pub(super) fn base64url_decode(arguments: &[Value]) -> Option<Value> {
    let [encoded] = arguments else { return None };
    let encoded = text(encoded)?;
    let padding = match encoded.len() % 4 {
        _ if encoded.ends_with('=') => "",
        0 => "",
        2 => "==",
        3 => "=",
        _ => return None,
    };
    let bytes = from_padded_base64url(&format!("{encoded}{padding}"))?;
    Some(decoded(&bytes))
}

/// `hex.decode(text)`.
pub(super) fn hex_decode(arguments: &[Value]) -> Option<Value> {
    let [encoded] = arguments else { return None };
    let digits = text(encoded)?.as_bytes();
    let (pairs, []) = digits.as_chunks::<2>() else {
        return None;
    };
    let bytes = pairs.iter().map(|[high, low]| byte(*high, *low));
    Some(decoded(&bytes.collect::<Option<Vec<u8>>>()?))
}

/// `urlquery.encode(text)`.
pub(super) fn query_encode(arguments: &[Value]) -> Option<Value> {
    let [plain] = arguments else { return None };
    Some(escaped(text(plain)?).into())
}

/// `urlquery.decode(text)`.
pub(super) fn query_decode(arguments: &[Value]) -> Option<Value> {
    let [escaped] = arguments else { return None };
    Some(decoded(&unescaped(text(escaped)?)?))
}

/// `urlquery.encode_object(object)` of strings and of arrays or sets of them.
pub(super) fn query_encode_object(arguments: &[Value]) -> Option<Value> {
    let [Value::Object(parameters)] = arguments else {
        return None;
    };
    let mut pairs = Vec::new();
    for (name, value) in parameters.iter_sorted() {
        let name = escaped(text(name)?);
        let values = match value {
            Value::String(_) => vec![value],
            several => members(several)?,
        };
        for value in values {
            pairs.push(format!("{name}={}", escaped(text(value)?)));
        }
    }
    Some(pairs.join("&").into())
}

/// `urlquery.decode_object(text)`: each name with its values.
pub(super) fn query_decode_object(arguments: &[Value]) -> Option<Value> {
    let [query] = arguments else { return None };
    let query = text(query)?;
    if query.matches('&').count() >= PARAMETERS {
        return None;
    }
    let mut parameters: BTreeMap<Value, Vec<Value>> = BTreeMap::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        if pair.contains(';') {
            return None;
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (decoded(&unescaped(name)?), decoded(&unescaped(value)?));
        parameters.entry(name).or_default().push(value);
    }
    let parameters = parameters.into_iter();
    let parameters = parameters.map(|(name, values)| (name, Value::from(values)));
    Some(Value::from(parameters.collect::<BTreeMap<Value, Value>>()))
}

/// Bytes as a text; each that belongs to no character is U+FFFD.
fn decoded(bytes: &[u8]) -> Value {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        let invalid = chunk.invalid().len();
        text.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, invalid));
    }
    text.into()
}

fn escaped(plain: &str) -> String {
    utf8_percent_encode(plain, ESCAPED)
        .to_string()
        .replace("%20", "+")
}

/// `None` where a `%` is not followed by two digits.
fn unescaped(escaped: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut rest = escaped.bytes();
    while let Some(next) = rest.next() {
        bytes.push(match next {
            b'+' => b' ',
            b'%' => byte(rest.next()?, rest.next()?)?,
            plain => plain,
        });
    }
    Some(bytes)
}

fn byte(high: u8, low: u8) -> Option<u8> {
    let high = char::from(high).to_digit(16)?;
    let low = char::from(low).to_digit(16)?;
    u8::try_from(high.checked_mul(16)?.checked_add(low)?).ok()
}
