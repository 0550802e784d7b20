//! The input document of the `ingress` decision point: OPA-Envoy's.
//!
//! It is built as Rego values, never through JSON text. What stays the same
//! for a whole connection is built once, in [`ConnectionFacts`].

mod body;
mod connection;
mod read_set;
mod request;
mod template;
#[cfg(test)]
mod tests;
pub(crate) mod url;

use std::collections::BTreeMap;

use regorus::Value;

pub(crate) use body::is_parsed;
pub(crate) use body::lists;
pub use body::{BodyProblem, RequestBody};
pub(crate) use connection::socket_address;
pub use connection::{ConnectionFacts, ConnectionParameters};
pub(crate) use read_set::{ReadSet, presence};
pub use request::RequestFacts;
pub(crate) use request::{InputKeys, check, headers};
pub(crate) use template::Template;

/// Why a request cannot be put before the policy. Names what is wrong, never
/// the value itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The path has an escape that is none, or does not unescape to UTF-8.
    #[error("the path has an invalid percent-encoding")]
    Path,
    /// The query has a semicolon, an escape that is none, or does not unescape
    /// to UTF-8.
    #[error("the query has a semicolon or an invalid percent-encoding")]
    Query,
    /// The body does not parse as what its `content-type` says that it is.
    #[error(transparent)]
    Body(#[from] BodyProblem),
    /// A header's value is not UTF-8. Policies see strings only, and to show
    /// them something else than what is forwarded would be worse.
    #[error("the value of the header {name} is not UTF-8")]
    HeaderValue {
        /// The header's name.
        name: http::HeaderName,
    },
}

/// An object in the making.
pub(crate) type Members = BTreeMap<Value, Value>;

/// `version`: the forms that the document and the question have.
fn version() -> Value {
    let version = [("encoding", "protojson"), ("ext_authz", "v3")];
    let members: Members = version
        .map(|(key, value)| (key.into(), value.into()))
        .into_iter()
        .collect();
    members.into()
}

/// Members of `attributes` that Envoy sends even if there is nothing in them.
fn constant_attributes() -> Members {
    ["metadataContext", "routeMetadataContext"]
        .map(|name| (name.into(), Value::new_object()))
        .into()
}

/// A string; undefined if it is empty: OPA-Envoy shows only fields that are set, and to Protocol
/// Buffers an empty string is one that is not.
fn string(text: &str) -> Value {
    if text.is_empty() {
        Value::Undefined
    } else {
        Value::from(text)
    }
}

/// Adds a member, unless it is undefined.
pub(crate) fn set(members: &mut Members, key: &Value, value: Value) {
    if value != Value::Undefined {
        members.insert(key.clone(), value);
    }
}

/// Adds a string unless it is empty.
pub(crate) fn set_string(members: &mut Members, key: &Value, value: &str) {
    set(members, key, string(value));
}

/// Adds a number unless it is zero, for the same reason.
fn set_number(members: &mut Members, key: &Value, value: i64) {
    if value != 0 {
        members.insert(key.clone(), Value::from(value));
    }
}
