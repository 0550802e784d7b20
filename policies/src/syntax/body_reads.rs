//! Whether a policy reads request bodies.

use http::header::CONTENT_TYPE;
use http::request::Parts;

use super::Step;
use crate::input::is_parsed;

/// Where OPA-Envoy's document shows what a body holds.
const PARSED: [&[&str]; 2] = [&["parsed_body"], &["truncated_body"]];

/// Where it shows a body as text or bytes.
const WHOLE: [&[&str]; 2] = [
    &["attributes", "request", "http", "body"],
    &["attributes", "request", "http", "rawBody"],
];

/// What a policy may read of request bodies: more than it does, but never less.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct BodyReads {
    /// What is in them, where they can be parsed.
    parsed: bool,
    /// Their text or bytes.
    whole: bool,
}

impl BodyReads {
    /// Looks at the paths below `input` that are read. One that stops short of the places of
    /// bodies may reach them.
    pub(crate) fn of<'a>(paths: impl IntoIterator<Item = &'a [Step]>) -> Self {
        let mut reads = Self::default();
        for path in paths {
            let meets = |place: &&[&str]| {
                let mut both = path.iter().zip(place.iter());
                both.all(|(step, name)| matches!(step, Step::Member(member) if member == name))
            };
            reads.parsed |= PARSED.iter().any(meets);
            reads.whole |= WHOLE.iter().any(meets);
        }
        reads
    }

    /// Whether the body of a request is read before it is decided. That of a
    /// gRPC call never is: it may be a stream whose caller waits for an answer
    /// to its first message.
    pub(crate) fn apply_to(self, head: &Parts) -> bool {
        if !self.parsed && !self.whole {
            return false;
        }
        let content_type = head.headers.get(CONTENT_TYPE);
        let content_type = content_type
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        // What is parsed is read, whatever else its type says: otherwise a caller could choose that
        // nobody looks.
        if content_type.contains("application/grpc") && !is_parsed(content_type) {
            return false;
        }
        self.whole || is_parsed(content_type)
    }
}
