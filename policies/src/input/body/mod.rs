//! What the policy sees of a request's body: `parsed_body`, `truncated_body`
//! and the body itself, as OPA's Envoy plugin shows them.

mod json;
mod media_type;
mod multipart;

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use regorus::Value;

use super::request::header_value;
use super::{InputError, Members, url};
use media_type::MediaType;

/// Envoy's header that says whether the policy sees a part of the body only.
pub(super) const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

/// A request's body, as far as it was read before the decision. The default is
/// one that was not read, or that is empty.
#[derive(Clone, Default)]
pub struct RequestBody {
    /// What was read.
    pub bytes: Bytes,
    /// Whether there is more that was not read.
    pub is_partial: bool,
    /// Whether the policy sees it as `rawBody`, in base64, and not as the text
    /// `body`: Envoy's `pack_as_bytes`.
    pub pack_as_bytes: bool,
}

/// Why a body cannot be put before the policy. Names what is wrong, never what
/// is in the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BodyProblem {
    /// A `content-length` that is no number.
    #[error("the content-length is not a number")]
    ContentLength,
    /// It is not JSON in UTF-8.
    #[error("the body is not valid JSON")]
    Json,
    /// JSON in which arrays and objects are nested too deep.
    #[error("the JSON body is nested more than {} levels deep", json::DEPTH)]
    JsonDepth,
    /// JSON in which an object has the same key twice: which of the two counts
    /// is not the same to everybody who reads it.
    #[error("the JSON body has an object with the same key twice")]
    JsonDuplicateKey,
    /// A form with a semicolon or an invalid percent-encoding.
    #[error("the form in the body has a semicolon or an invalid percent-encoding")]
    Form,
    /// A `content-type` of a multipart body that does not parse.
    #[error("the content-type of the multipart body does not parse")]
    MediaType,
    /// A multipart body that does not parse, or that is not the same to
    /// everybody who reads it.
    #[error("the multipart body does not parse")]
    Multipart,
}

/// How a body is parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Form,
    Multipart,
}

impl Format {
    /// The plugin looks for these anywhere in the header, in lower case only.
    fn of(content_type: &str) -> Option<Self> {
        if content_type.contains("application/json") {
            Some(Self::Json)
        } else if content_type.contains("application/grpc") {
            // Parsed only with a descriptor of its messages, and there is none.
            None
        } else if content_type.contains("application/x-www-form-urlencoded") {
            Some(Self::Form)
        } else if content_type.contains("multipart/form-data") {
            Some(Self::Multipart)
        } else {
            None
        }
    }
}

/// Whether bodies with this `content-type` are parsed.
pub(crate) fn is_parsed(content_type: &str) -> bool {
    Format::of(content_type).is_some()
}

/// `parsed_body` and `truncated_body`.
pub(super) fn parse(headers: &HeaderMap, body: &RequestBody) -> Result<(Value, bool), InputError> {
    let header = |name: HeaderName| match header_value(headers, name.as_str()) {
        Value::String(text) => Ok(Some(text)),
        _ if headers.contains_key(&name) => Err(InputError::HeaderValue { name }),
        _ => Ok(None),
    };
    // The header counts where the body was read by an Envoy that then asks us.
    if body.is_partial || header(PARTIAL_BODY)?.as_deref() == Some("true") {
        return Ok((Value::Null, true));
    }
    let content_type = header(CONTENT_TYPE)?.unwrap_or_else(|| "".into());
    let Some(format) = Format::of(&content_type) else {
        return Ok((Value::Null, false));
    };
    if body.bytes.is_empty() {
        return Ok((Value::Null, false));
    }
    if let Some(length) = header(CONTENT_LENGTH)? {
        let length: i64 = length.parse().map_err(|_| BodyProblem::ContentLength)?;
        if u64::try_from(length).is_ok_and(|length| length > length_of(&body.bytes)) {
            return Ok((Value::Null, true));
        }
    }
    let parsed = match format {
        Format::Json => json::parse(&body.bytes)?,
        Format::Form => {
            let text = std::str::from_utf8(&body.bytes).map_err(|_| BodyProblem::Form)?;
            let pairs = url::query_pairs(text).map_err(|_| BodyProblem::Form)?;
            lists(pairs)
        }
        Format::Multipart => {
            let media_type = MediaType::parse(&content_type).ok_or(BodyProblem::MediaType)?;
            match media_type.parameter("boundary") {
                Some(Ok(boundary)) => lists(multipart::parse(&body.bytes, boundary)?),
                Some(Err(_)) => return Err(BodyProblem::MediaType.into()),
                None => Value::Null,
            }
        }
    };
    Ok((parsed, false))
}

pub(super) fn length_of(bytes: &Bytes) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}

/// The body as text. Envoy puts `!` for every byte that is not UTF-8.
pub(super) fn text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    while !rest.is_empty() {
        let valid = match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                break;
            }
            Err(error) => error.valid_up_to(),
        };
        let (before, after) = rest.split_at(valid);
        text.push_str(&String::from_utf8_lossy(before));
        text.push('!');
        rest = after.get(1..).unwrap_or_default();
    }
    text
}

/// An object of every key with the list of its values.
pub(crate) fn lists<V: Into<Value>>(pairs: impl IntoIterator<Item = (String, V)>) -> Value {
    let mut lists: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, value) in pairs {
        lists.entry(key).or_default().push(value.into());
    }
    lists
        .into_iter()
        .map(|(key, values)| (Value::from(key), Value::from(values)))
        .collect::<Members>()
        .into()
}

impl fmt::Debug for RequestBody {
    /// Bodies may hold secrets.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            bytes,
            is_partial,
            pack_as_bytes,
        } = self;
        formatter
            .debug_struct("RequestBody")
            .field("length", &bytes.len())
            .field("is_partial", is_partial)
            .field("pack_as_bytes", pack_as_bytes)
            .finish()
    }
}

#[cfg(test)]
mod tests;
