//! Rego values as our builtins take and give them.

use std::collections::{BTreeMap, BTreeSet};

use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use base64::{Engine, alphabet};
use regorus::Value;

/// Go's decoder takes whatever the last, unused bits are; OPA adds the padding
/// that is missing to base64url, but not to base64.
const STANDARD_DECODER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);
const PADDED_URL_DECODER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);
const URL_DECODER: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new()
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A string's text.
pub(super) fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// The members of an array or a set.
pub(super) fn members(collection: &Value) -> Option<Vec<&Value>> {
    match collection {
        Value::Array(array) => Some(array.iter().collect()),
        Value::Set(set) => Some(set.iter_sorted().collect()),
        _ => None,
    }
}

/// A member of an object by its name.
pub(super) fn member<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    match object {
        Value::Object(object) => object.get(&Value::from(name)),
        _ => None,
    }
}

/// An object of named members.
pub(super) fn object<const N: usize>(members: [(&str, Value); N]) -> Value {
    let members = members
        .into_iter()
        .map(|(name, value)| (name.into(), value));
    Value::from(members.collect::<BTreeMap<Value, Value>>())
}

/// An array, or null where Go has no slice: it does not tell "none" from "empty".
pub(super) fn array_or_null(items: impl IntoIterator<Item = Value>) -> Value {
    let items: Vec<Value> = items.into_iter().collect();
    if items.is_empty() {
        Value::Null
    } else {
        Value::from(items)
    }
}

/// A set.
pub(super) fn set(items: impl IntoIterator<Item = Value>) -> Value {
    Value::from(items.into_iter().collect::<BTreeSet<Value>>())
}

/// Bytes as lower-case hexadecimal digits.
pub(super) fn hexadecimal(bytes: &[u8]) -> Value {
    let mut text = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.extend(char::from_digit(digit.into(), 16));
        }
    }
    Value::from(text)
}

/// Bytes as Go's JSON has them.
pub(super) fn base64(bytes: &[u8]) -> Value {
    Value::from(STANDARD.encode(bytes))
}

/// Base64 with padding. Line breaks do not count.
pub(super) fn from_base64(text: &str) -> Option<Vec<u8>> {
    decode(&STANDARD_DECODER, text)
}

/// Base64url with or without padding. Line breaks do not count.
pub(super) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    decode(&URL_DECODER, text)
}

/// Base64url with padding. Line breaks do not count.
pub(super) fn from_padded_base64url(text: &str) -> Option<Vec<u8>> {
    decode(&PADDED_URL_DECODER, text)
}

fn decode(decoder: &GeneralPurpose, text: &str) -> Option<Vec<u8>> {
    if text.contains(['\r', '\n']) {
        return decoder.decode(text.replace(['\r', '\n'], "")).ok();
    }
    decoder.decode(text).ok()
}
