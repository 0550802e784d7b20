//! Which parts of the document a policy reads: only those are built, and they are what a decision
//! is remembered by.

use std::collections::BTreeSet;

use regorus::Value;

use super::connection::ConnectionFacts;
use super::request::{ConnectionPart, RequestFacts};
use super::url;
use crate::syntax::Step;

/// A part of the document that comes from one place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Field {
    SourceAddress,
    SourcePrincipal,
    SourceCertificate,
    DestinationAddress,
    DestinationPrincipal,
    ServerName,
    ContextExtensions,
    Time,
    RequestId,
    Method,
    Path,
    Host,
    Scheme,
    Protocol,
    Size,
    /// All headers.
    Headers,
    /// One header, by its name in lower case, or a pseudo-header's.
    Header(String),
    /// All segments of the path.
    Segments,
    /// One segment, counted from 0.
    Segment(u64),
    /// The whole query.
    Query,
    /// The values of one key of the query.
    QueryKey(String),
    /// The request's body, parsed or not.
    Body,
}

/// What a policy reads of `input`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReadSet {
    fields: BTreeSet<Field>,
    /// The headers that are read by name, with their names as values.
    headers: Vec<(Field, Value)>,
    /// Whether an object is read as a whole, in which members that are absent would show.
    whole: bool,
}

/// Everything below a part of `input`.
const REQUEST: [Field; 10] = [
    Field::Time,
    Field::RequestId,
    Field::Method,
    Field::Path,
    Field::Host,
    Field::Scheme,
    Field::Protocol,
    Field::Size,
    Field::Headers,
    Field::Body,
];
const SOURCE: [Field; 3] = [
    Field::SourceAddress,
    Field::SourcePrincipal,
    Field::SourceCertificate,
];
const DESTINATION: [Field; 2] = [Field::DestinationAddress, Field::DestinationPrincipal];
const CONNECTION: [Field; 2] = [Field::ServerName, Field::ContextExtensions];
const PARSED: [Field; 3] = [Field::Segments, Field::Query, Field::Body];

impl ReadSet {
    /// The whole document.
    pub(crate) fn everything() -> Self {
        Self::new([&[][..]])
    }

    /// What lies at these paths below `input`.
    pub(crate) fn new<'a>(paths: impl IntoIterator<Item = &'a [Step]>) -> Self {
        let mut fields = BTreeSet::new();
        let mut whole = false;
        for path in paths {
            fields.extend(at(path));
            whole |= is_object(path);
        }
        let all = |fields: &BTreeSet<Field>, field| fields.contains(&field);
        if all(&fields, Field::Headers) {
            fields.retain(|field| !matches!(field, Field::Header(_)));
        }
        if all(&fields, Field::Segments) {
            fields.retain(|field| !matches!(field, Field::Segment(_)));
        }
        if all(&fields, Field::Query) {
            fields.retain(|field| !matches!(field, Field::QueryKey(_)));
        }
        let headers = fields.iter().filter_map(|field| match field {
            Field::Header(name) => Some((field.clone(), Value::from(name.as_str()))),
            _ => None,
        });
        Self {
            headers: headers.collect(),
            fields,
            whole,
        }
    }

    pub(crate) fn contains(&self, field: &Field) -> bool {
        self.fields.contains(field)
    }

    /// Whether an object is read as a whole.
    pub(super) fn whole(&self) -> bool {
        self.whole
    }

    /// Whether any such part is read.
    pub(super) fn any(&self, wanted: impl Fn(&Field) -> bool) -> bool {
        self.fields.iter().any(wanted)
    }

    /// The headers that are read by name.
    pub(super) fn headers(&self) -> &[(Field, Value)] {
        &self.headers
    }

    /// Writes what is read of a request: equal for two requests only if every part that is read is.
    pub(crate) fn write_key(
        &self,
        connection: &ConnectionFacts,
        request: &RequestFacts,
        key: &mut Vec<u8>,
    ) {
        let parameters = &connection.parameters;
        let uri = &request.head.uri;
        for field in &self.fields {
            match field {
                Field::SourceAddress => text(key, &parameters.downstream_address.to_string()),
                Field::SourcePrincipal => optional(key, parameters.source_principal.as_deref()),
                Field::SourceCertificate => optional(key, parameters.source_certificate.as_deref()),
                Field::DestinationAddress => text(key, &parameters.local_address.to_string()),
                Field::DestinationPrincipal => {
                    optional(key, parameters.destination_principal.as_deref());
                }
                Field::ServerName => optional(key, parameters.server_name.as_deref()),
                Field::ContextExtensions => {
                    text(key, &parameters.listener);
                    for (name, value) in &parameters.context_extensions {
                        text(key, name);
                        text(key, value);
                    }
                    optional(key, None);
                }
                Field::Method => text(key, request.head.method.as_str()),
                Field::Path => text(
                    key,
                    uri.path_and_query().map_or("", |target| target.as_str()),
                ),
                Field::Host => text(key, &request.host),
                Field::Scheme => text(key, &request.scheme),
                Field::Protocol => text(key, super::request::protocol(request.head.version)),
                Field::Size => text(key, &super::request::size(request).to_string()),
                Field::Header(name) => header(key, request, name),
                Field::Segments => text(key, uri.path()),
                Field::Segment(index) => segment(key, uri.path(), *index),
                Field::Query => text(key, uri.query().unwrap_or_default()),
                Field::QueryKey(name) => query_values(key, uri.query().unwrap_or_default(), name),
                // A policy that reads these has no key: see `Field::unrepeatable`.
                Field::Time | Field::RequestId | Field::Headers | Field::Body => {}
            }
        }
    }

    /// The parts that a decision is remembered by, where it may be.
    pub(crate) fn key(&self) -> Vec<String> {
        self.fields.iter().map(Field::path).collect()
    }

    /// A part that is read and that no two requests share, and why.
    pub(crate) fn unrepeatable(&self) -> Option<(&Field, &'static str)> {
        self.fields
            .iter()
            .find_map(|field| Some((field, field.unrepeatable()?)))
    }
}

impl Field {
    fn unrepeatable(&self) -> Option<&'static str> {
        match self {
            Self::Time => Some("the time differs for each request"),
            Self::RequestId => Some("the request id differs for each request"),
            Self::Headers => Some("x-request-id, one of the headers, differs for each request"),
            Self::Header(name) if name == "x-request-id" => {
                Some("the request id differs for each request")
            }
            Self::Body => Some("bodies are not remembered"),
            _ => None,
        }
    }

    /// Whether it is below a part of the connection's attributes.
    pub(super) fn is_of(&self, part: ConnectionPart) -> bool {
        match part {
            ConnectionPart::Source => SOURCE.contains(self),
            ConnectionPart::Destination => DESTINATION.contains(self),
            ConnectionPart::TlsSession => *self == Self::ServerName,
            ConnectionPart::ContextExtensions => *self == Self::ContextExtensions,
        }
    }

    /// Whether it is the field or a part of it.
    pub(super) fn is_part_of(&self, whole: &Self) -> bool {
        match self {
            Self::Segment(_) => *whole == Self::Segments,
            Self::QueryKey(_) => *whole == Self::Query,
            field => field == whole,
        }
    }

    /// Where the part is in the document.
    pub(crate) fn path(&self) -> String {
        let fixed = match self {
            Self::SourceAddress => "input.attributes.source.address",
            Self::SourcePrincipal => "input.attributes.source.principal",
            Self::SourceCertificate => "input.attributes.source.certificate",
            Self::DestinationAddress => "input.attributes.destination.address",
            Self::DestinationPrincipal => "input.attributes.destination.principal",
            Self::ServerName => "input.attributes.tlsSession.sni",
            Self::ContextExtensions => "input.attributes.contextExtensions",
            Self::Time => "input.attributes.request.time",
            Self::RequestId => "input.attributes.request.http.id",
            Self::Method => "input.attributes.request.http.method",
            Self::Path => "input.attributes.request.http.path",
            Self::Host => "input.attributes.request.http.host",
            Self::Scheme => "input.attributes.request.http.scheme",
            Self::Protocol => "input.attributes.request.http.protocol",
            Self::Size => "input.attributes.request.http.size",
            Self::Headers => "input.attributes.request.http.headers",
            Self::Header(name) => {
                let name = serde_json::Value::from(name.as_str());
                return format!("input.attributes.request.http.headers[{name}]");
            }
            Self::Segments => "input.parsed_path",
            Self::Segment(index) => return format!("input.parsed_path[{index}]"),
            Self::Query => "input.parsed_query",
            Self::QueryKey(name) => {
                let name = serde_json::Value::from(name.as_str());
                return format!("input.parsed_query[{name}]");
            }
            Self::Body => "input.parsed_body",
        };
        fixed.to_owned()
    }
}

/// Whether a path leads to an object that is put together for each request.
fn is_object(path: &[Step]) -> bool {
    let names: Vec<&str> = path.iter().map(name).collect();
    matches!(
        names.as_slice(),
        [] | ["attributes"] | ["attributes", "request"] | ["attributes", "request", "http"]
    )
}

/// What to read to see that a part of the document is there which always is: nothing more for an
/// object that is put together for each request. `None` for a part that may be absent.
pub(crate) fn presence(path: &[Step]) -> Option<Vec<Vec<Step>>> {
    if is_object(path) {
        return Some(Vec::new());
    }
    let names: Vec<&str> = path.iter().map(name).collect();
    let is_headers = names == ["attributes", "request", "http", "headers"];
    // A member that no request lacks.
    let method = Step::Member(":method".to_owned());
    is_headers.then(|| vec![[path, &[method]].concat()])
}

/// The parts at a path below `input`; none where there never is anything, and where what is there
/// never changes.
fn at(path: &[Step]) -> Vec<Field> {
    let Some((first, rest)) = path.split_first() else {
        return [&REQUEST[..], &SOURCE, &DESTINATION, &CONNECTION, &PARSED].concat();
    };
    match (name(first), rest) {
        ("attributes", rest) => attributes(rest),
        ("source_principal", _) => vec![Field::SourcePrincipal],
        ("parsed_path", []) => vec![Field::Segments],
        ("parsed_path", [Step::Element(index), ..]) => vec![Field::Segment(*index)],
        ("parsed_query", []) => vec![Field::Query],
        ("parsed_query", [Step::Member(key), ..]) => vec![Field::QueryKey(key.clone())],
        ("parsed_body" | "truncated_body", _) => vec![Field::Body],
        _ => Vec::new(),
    }
}

fn attributes(path: &[Step]) -> Vec<Field> {
    let Some((first, rest)) = path.split_first() else {
        return [&REQUEST[..], &SOURCE, &DESTINATION, &CONNECTION].concat();
    };
    match (name(first), rest.first().map(name)) {
        ("source", None) => SOURCE.to_vec(),
        ("source", Some("address")) => vec![Field::SourceAddress],
        ("source", Some("principal")) => vec![Field::SourcePrincipal],
        ("source", Some("certificate")) => vec![Field::SourceCertificate],
        ("destination", None) => DESTINATION.to_vec(),
        ("destination", Some("address")) => vec![Field::DestinationAddress],
        ("destination", Some("principal")) => vec![Field::DestinationPrincipal],
        ("tlsSession", _) => vec![Field::ServerName],
        ("contextExtensions", _) => vec![Field::ContextExtensions],
        ("request", None) => REQUEST.to_vec(),
        ("request", Some("time")) => vec![Field::Time],
        ("request", Some("http")) => request(rest.get(1..).unwrap_or_default()),
        _ => Vec::new(),
    }
}

fn request(path: &[Step]) -> Vec<Field> {
    let Some((first, rest)) = path.split_first() else {
        let time = |field: &&Field| **field != Field::Time;
        return REQUEST.iter().filter(time).cloned().collect();
    };
    match (name(first), rest.first().map(name)) {
        ("id", _) => vec![Field::RequestId],
        ("method", _) => vec![Field::Method],
        ("path", _) => vec![Field::Path],
        ("host", _) => vec![Field::Host],
        ("scheme", _) => vec![Field::Scheme],
        ("protocol", _) => vec![Field::Protocol],
        ("size", _) => vec![Field::Size],
        ("body" | "rawBody", _) => vec![Field::Body],
        ("headers", None) => vec![Field::Headers],
        ("headers", Some("x-envoy-auth-partial-body")) => vec![Field::Headers, Field::Body],
        // Names are in lower case in the document: there is nothing under any other.
        ("headers", Some(name)) if name.chars().any(|it| it.is_ascii_uppercase()) => Vec::new(),
        ("headers", Some(name)) => vec![Field::Header(name.to_owned())],
        _ => Vec::new(),
    }
}

/// A member's name; an element of something that is no array is nothing.
fn name(step: &Step) -> &str {
    match step {
        Step::Member(name) => name,
        Step::Element(_) => "",
    }
}

/// Lengths go before texts, so that two keys are equal only if all their parts are.
fn text(key: &mut Vec<u8>, text: &str) {
    key.extend_from_slice(&text.len().to_le_bytes());
    key.extend_from_slice(text.as_bytes());
}

fn optional(key: &mut Vec<u8>, value: Option<&str>) {
    match value {
        Some(value) => text(key, value),
        None => key.extend_from_slice(&usize::MAX.to_le_bytes()),
    }
}

fn header(key: &mut Vec<u8>, request: &RequestFacts, name: &str) {
    match name {
        ":method" => text(key, request.head.method.as_str()),
        ":authority" => text(key, &request.host),
        ":scheme" => text(key, &request.scheme),
        ":path" => {
            let target = request.head.uri.path_and_query();
            text(key, target.map_or("", |target| target.as_str()));
        }
        name => {
            // `host` is not shown, and a name that HTTP cannot carry is never there.
            let values = request.head.headers.get_all(name);
            let values = values.iter().filter(|_| name != "host");
            for value in values {
                key.extend_from_slice(&value.len().to_le_bytes());
                key.extend_from_slice(value.as_bytes());
            }
            optional(key, None);
        }
    }
}

fn segment(key: &mut Vec<u8>, path: &str, index: u64) {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    if path.contains('%') {
        let segments = url::path_segments(path).unwrap_or_default();
        optional(key, segments.get(index).map(String::as_str));
    } else {
        optional(key, path.trim_start_matches('/').split('/').nth(index));
    }
}

fn query_values(key: &mut Vec<u8>, query: &str, name: &str) {
    if !query.is_empty() {
        let pairs = url::query_pairs(query).unwrap_or_default();
        for (_, value) in pairs.iter().filter(|(found, _)| found == name) {
            text(key, value);
        }
    }
    optional(key, None);
}
