//! What a worker notes of a decision: enough to tell all of it later, and
//! nothing that takes long.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, Version};
use regorus::Value;
use uuid::Uuid;

use crate::denial::DenialReason;
use crate::input::{ConnectionParameters, RequestFacts};
use crate::points::egress::AskedEgress;
use crate::policy::Policy;

/// One decision. The log and the shadow share it.
#[derive(Clone)]
pub(crate) struct Record {
    /// The worker's own reference, so that workers do not count on one another's.
    pub(crate) policy: Arc<Policy>,
    /// Plain text and not the values of the live input: those are counted by the
    /// connection's worker only.
    pub(crate) connection: Arc<ConnectionParameters>,
    pub(crate) asked: Asked,
    /// When the request's head was received, or the connection asked about.
    pub(crate) time: SystemTime,
    pub(crate) decision_id: Uuid,
    pub(crate) answer: Answer,
    /// Why it was denied.
    pub(crate) denied: Option<DenialReason>,
    /// How long the whole decision took.
    pub(crate) elapsed: Duration,
}

/// What the policy was asked about.
#[derive(Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "most records are of requests, and a box would be one more allocation for each"
)]
pub(crate) enum Asked {
    /// The connection itself.
    Connection,
    /// A request on it.
    Request(AskedRequest),
    /// A request that a workload wants to send.
    Egress(Box<AskedEgress>),
}

/// A request that the policy was asked about.
#[derive(Clone)]
pub(crate) struct AskedRequest {
    /// All but its head.
    pub(crate) facts: RequestFacts,
    pub(crate) head: HeadCopy,
}

/// What the policy answered.
#[derive(Clone)]
pub(crate) struct Answer {
    /// [`Value::Undefined`] also where it was not asked, or gave up.
    pub(crate) value: Value,
    /// How long it took to evaluate; `None` if it was not evaluated.
    pub(crate) evaluation: Option<Duration>,
}

/// A request's head in memory of its own: what the server parsed shares its read
/// buffer, which the next request on the connection needs.
#[derive(Clone, Default)]
pub(crate) struct HeadCopy {
    method: Method,
    version: Version,
    /// The target, then each header's name and value, each after its length.
    text: Vec<u8>,
}

/// Bytes of a header, lengths included: a guess that saves most heads a second
/// allocation.
const USUAL_HEADER: usize = 64;

impl Record {
    /// About how many bytes it takes up.
    pub(crate) fn size(&self) -> usize {
        let asked = match &self.asked {
            Asked::Connection => 0,
            Asked::Request(request) => request.size(),
            Asked::Egress(request) => request.size(),
        };
        size_of::<Self>().saturating_add(asked)
    }
}

impl AskedRequest {
    /// The request as it was, without the extensions of its head.
    pub(crate) fn into_facts(self) -> Option<RequestFacts> {
        let head = self.head.into_head()?;
        Some(RequestFacts { head, ..self.facts })
    }

    fn size(&self) -> usize {
        let RequestFacts {
            host,
            request_id,
            body,
            ..
        } = &self.facts;
        let strings = [host, request_id];
        let strings = strings.iter().map(|text| text.len()).sum::<usize>();
        strings
            .saturating_add(self.head.size())
            .saturating_add(body.bytes.len())
    }
}

impl HeadCopy {
    pub(crate) fn of(head: &Parts) -> Self {
        let target = head.uri.path_and_query().map_or("", PathAndQuery::as_str);
        let guess = head.headers.len().saturating_mul(USUAL_HEADER);
        let mut text = Vec::with_capacity(target.len().saturating_add(guess));
        let mut add = |part: &[u8]| {
            // Heads are far smaller; one that is not has no copy.
            let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
            text.extend_from_slice(&length.to_le_bytes());
            text.extend_from_slice(part);
        };
        add(target.as_bytes());
        for (name, value) in &head.headers {
            add(name.as_str().as_bytes());
            add(value.as_bytes());
        }
        Self {
            method: head.method.clone(),
            version: head.version,
            text,
        }
    }

    /// About how many bytes it takes up.
    pub(crate) fn size(&self) -> usize {
        self.text.len()
    }

    /// The head as it was, without its extensions.
    pub(crate) fn into_head(self) -> Option<Parts> {
        let mut rest = self.text.as_slice();
        let target = next_part(&mut rest)?;
        let mut headers = HeaderMap::new();
        while !rest.is_empty() {
            let name = HeaderName::from_bytes(next_part(&mut rest)?).ok()?;
            let value = HeaderValue::from_bytes(next_part(&mut rest)?).ok()?;
            headers.append(name, value);
        }
        let mut head = empty_head();
        head.method = self.method;
        head.version = self.version;
        head.uri = match target {
            // The form of an authority has no path.
            b"" => Uri::from_static("none"),
            _ => Uri::from(PathAndQuery::try_from(target).ok()?),
        };
        head.headers = headers;
        Some(head)
    }
}

fn next_part<'t>(rest: &mut &'t [u8]) -> Option<&'t [u8]> {
    let (length, after) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let (part, after) = after.split_at_checked(length)?;
    *rest = after;
    Some(part)
}

/// What stands in a request's place of a head while the head is elsewhere.
pub(crate) fn empty_head() -> Parts {
    Request::new(()).into_parts().0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_head_is_the_head() {
        let targets = ["/", "/a%20b/c?q=1&q=x+y", "*"];
        for target in targets {
            let request = Request::builder()
                .method("PROPFIND")
                .uri(target)
                .version(Version::HTTP_2)
                .header("x-two", "one")
                .header("accept", "*/*")
                .header("x-two", "two")
                .header("x-empty", "")
                .header("x-bytes", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
            let (head, ()) = request.body(()).unwrap().into_parts();
            let copy = HeadCopy::of(&head).into_head().unwrap();
            assert_eq!(copy.method, head.method);
            assert_eq!(copy.version, head.version);
            assert_eq!(copy.uri.path_and_query(), head.uri.path_and_query());
            assert_eq!(copy.headers, head.headers);
        }
    }

    #[test]
    fn a_head_without_a_target_stays_without_one() {
        let (mut head, ()) = Request::new(()).into_parts();
        head.uri = Uri::from_static("orders.example:443");
        let copy = HeadCopy::of(&head).into_head().unwrap();
        assert_eq!(copy.uri.path_and_query(), None);
        assert!(copy.headers.is_empty());
    }
}
