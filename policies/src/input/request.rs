//! What the policy may know of a request, and the whole document.

use std::borrow::Cow;
use std::time::SystemTime;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, Uri, Version};
use regorus::Value;

use super::body::{self, RequestBody};
use super::connection::ConnectionFacts;
use super::read_set::{Field, ReadSet};
use super::{
    InputError, Members, constant_attributes, set, set_number, set_string, string, url, version,
};

/// A request as the proxy knows it when it asks.
#[derive(Debug, Clone)]
pub struct RequestFacts {
    /// The head, normalized: what is decided is what is forwarded.
    pub head: Parts,
    /// `http` or `https`, as the caller meant it.
    pub scheme: Cow<'static, str>,
    /// The authority that the request is for: `:authority` or `Host`.
    pub host: String,
    /// The proxy's own id of the request.
    pub request_id: String,
    /// When the head was received.
    pub time: SystemTime,
    /// The size of the body in bytes, if the head declares it.
    pub declared_body_bytes: Option<u64>,
    /// What was read of the body.
    pub body: RequestBody,
}

/// The keys of the document and the parts that never change, made once for
/// each evaluator so that a request only counts references up.
pub(crate) struct InputKeys {
    pub(super) attributes: Value,
    authority: Value,
    body: Value,
    context_extensions: Value,
    destination: Value,
    pub(super) headers: Value,
    host: Value,
    pub(super) http: Value,
    https: Value,
    id: Value,
    method: Value,
    methods: Vec<(Method, Value)>,
    nanos: Value,
    parsed_body: Value,
    parsed_path: Value,
    parsed_query: Value,
    partial_body: Value,
    path: Value,
    protocol: Value,
    pseudo_method: Value,
    pseudo_path: Value,
    pseudo_scheme: Value,
    raw_body: Value,
    pub(super) request: Value,
    scheme: Value,
    seconds: Value,
    size: Value,
    source: Value,
    source_principal: Value,
    pub(super) time: Value,
    tls_session: Value,
    pub(super) truncated_body: Value,
    pub(super) version: Value,
    pub(super) version_value: Value,
}

/// A part of `attributes` that stays the same for a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionPart {
    Source,
    Destination,
    TlsSession,
    ContextExtensions,
}

/// Methods whose values are made once.
const METHODS: [Method; 6] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::PATCH,
    Method::HEAD,
];

impl InputKeys {
    pub(crate) fn new() -> Self {
        Self {
            attributes: "attributes".into(),
            authority: ":authority".into(),
            body: "body".into(),
            context_extensions: "contextExtensions".into(),
            destination: "destination".into(),
            headers: "headers".into(),
            host: "host".into(),
            http: "http".into(),
            https: "https".into(),
            id: "id".into(),
            method: "method".into(),
            methods: METHODS
                .map(|method| (method.clone(), method.as_str().into()))
                .into(),
            nanos: "nanos".into(),
            parsed_body: "parsed_body".into(),
            parsed_path: "parsed_path".into(),
            parsed_query: "parsed_query".into(),
            partial_body: body::PARTIAL_BODY.as_str().into(),
            path: "path".into(),
            protocol: "protocol".into(),
            pseudo_method: ":method".into(),
            pseudo_path: ":path".into(),
            pseudo_scheme: ":scheme".into(),
            raw_body: "rawBody".into(),
            request: "request".into(),
            scheme: "scheme".into(),
            seconds: "seconds".into(),
            size: "size".into(),
            source: "source".into(),
            source_principal: "source_principal".into(),
            time: "time".into(),
            tls_session: "tlsSession".into(),
            truncated_body: "truncated_body".into(),
            version: "version".into(),
            version_value: version(),
        }
    }

    /// The parts of the input document that are read. What a request that [`check`] refuses cannot
    /// show is left out.
    pub(crate) fn document(
        &self,
        reads: &ReadSet,
        connection: &ConnectionFacts,
        request: &RequestFacts,
    ) -> Value {
        let value = |field: &Field| self.value(field, connection, request);
        let read = |field: &Field| match reads.contains(field) {
            true => value(field),
            false => Value::Undefined,
        };
        let mut http = Members::new();
        for (key, field) in self.http_fields() {
            set(&mut http, key, read(&field));
        }
        if !reads.headers().is_empty() {
            let headers = reads.headers().iter();
            let mut members = Members::new();
            for (field, key) in headers {
                set(&mut members, key, value(field));
            }
            http.insert(self.headers.clone(), Value::from(members));
        }
        let bytes = &request.body.bytes;
        if reads.contains(&Field::Body) && !bytes.is_empty() {
            let (key, text) = match request.body.pack_as_bytes {
                true => (&self.raw_body, BASE64_STANDARD.encode(bytes)),
                false => (&self.body, body::text(bytes)),
            };
            http.insert(key.clone(), Value::from(text));
        }
        let mut request_attributes = Members::from([(self.http.clone(), Value::from(http))]);
        set(&mut request_attributes, &self.time, read(&Field::Time));

        let mut attributes = constant_attributes();
        attributes.insert(self.request.clone(), Value::from(request_attributes));
        for (key, part) in self.connection_parts() {
            if reads.any(|field| field.is_of(part)) {
                set(&mut attributes, key, part.value(connection));
            }
        }
        let mut document = Members::from([
            (self.attributes.clone(), Value::from(attributes)),
            (self.version.clone(), self.version_value.clone()),
        ]);
        for (key, part) in self.parsed_fields() {
            if reads.any(|field| field.is_part_of(&part)) {
                set(&mut document, key, value(&part));
            }
        }
        if reads.contains(&Field::Body) {
            let parsed = body::parse(&request.head.headers, &request.body);
            let truncated = parsed.is_ok_and(|(_, truncated)| truncated);
            document.insert(self.truncated_body.clone(), Value::Bool(truncated));
        }
        Value::from(document)
    }

    /// Members of `attributes.request.http`.
    pub(super) fn http_fields(&self) -> [(&Value, Field); 8] {
        [
            (&self.id, Field::RequestId),
            (&self.method, Field::Method),
            (&self.path, Field::Path),
            (&self.host, Field::Host),
            (&self.scheme, Field::Scheme),
            (&self.protocol, Field::Protocol),
            (&self.size, Field::Size),
            (&self.headers, Field::Headers),
        ]
    }

    /// Members of `attributes` that a connection has.
    pub(super) fn connection_parts(&self) -> [(&Value, ConnectionPart); 4] {
        [
            (&self.source, ConnectionPart::Source),
            (&self.destination, ConnectionPart::Destination),
            (&self.tls_session, ConnectionPart::TlsSession),
            (&self.context_extensions, ConnectionPart::ContextExtensions),
        ]
    }

    /// Members of the document itself.
    pub(super) fn parsed_fields(&self) -> [(&Value, Field); 4] {
        [
            (&self.parsed_path, Field::Segments),
            (&self.parsed_query, Field::Query),
            (&self.parsed_body, Field::Body),
            (&self.source_principal, Field::SourcePrincipal),
        ]
    }

    /// What a member has; undefined if a request has none.
    pub(super) fn value(
        &self,
        field: &Field,
        connection: &ConnectionFacts,
        request: &RequestFacts,
    ) -> Value {
        let uri = &request.head.uri;
        match field {
            Field::Time => self.timestamp(request.time),
            Field::RequestId => string(&request.request_id),
            Field::Method => self.method_value(&request.head.method),
            Field::Path => string(target(uri)),
            Field::Host => string(&request.host),
            Field::Scheme => self.scheme_value(&request.scheme),
            Field::Protocol => string(protocol(request.head.version)),
            Field::Size => match size(request) {
                0 => Value::Undefined,
                size => Value::from(size),
            },
            Field::Headers => self.all_headers(request),
            Field::Header(name) => match name.as_str() {
                ":authority" => string(&request.host),
                ":method" => self.method_value(&request.head.method),
                ":path" => string(target(uri)),
                ":scheme" => self.scheme_value(&request.scheme),
                name => header_value(&request.head.headers, name),
            },
            Field::Segments | Field::Segment(_) => match url::path_segments(uri.path()) {
                Ok(segments) => segments
                    .into_iter()
                    .map(Value::from)
                    .collect::<Vec<_>>()
                    .into(),
                Err(url::Malformed) => Value::Undefined,
            },
            Field::Query | Field::QueryKey(_) => {
                match url::query_pairs(uri.query().unwrap_or_default()) {
                    Ok(pairs) => body::lists(pairs),
                    Err(url::Malformed) => Value::Undefined,
                }
            }
            Field::Body => {
                let parsed = body::parse(&request.head.headers, &request.body);
                parsed.map_or(Value::Undefined, |(parsed, _)| parsed)
            }
            Field::SourcePrincipal => connection.source_principal().clone(),
            Field::SourceAddress | Field::SourceCertificate => connection.source().clone(),
            Field::DestinationAddress | Field::DestinationPrincipal => {
                connection.destination().clone()
            }
            Field::ServerName => connection.tls_session().clone(),
            Field::ContextExtensions => connection.context_extensions().clone(),
        }
    }

    /// A `google.protobuf.Timestamp`, which OPA-Envoy shows by its fields.
    fn timestamp(&self, time: SystemTime) -> Value {
        let (seconds, nanos) = match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => (
                i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                since.subsec_nanos(),
            ),
            // Before 1970, by a clock that was never set: nanoseconds count up.
            Err(error) => {
                let before = error.duration();
                let seconds = i64::try_from(before.as_secs()).unwrap_or(i64::MAX);
                match before.subsec_nanos() {
                    0 => (seconds.saturating_neg(), 0),
                    nanos => (
                        seconds.saturating_neg().saturating_sub(1),
                        1_000_000_000_u32.saturating_sub(nanos),
                    ),
                }
            }
        };
        let mut timestamp = Members::new();
        set_number(&mut timestamp, &self.seconds, seconds);
        set_number(&mut timestamp, &self.nanos, nanos.into());
        Value::from(timestamp)
    }

    /// All headers but `host`, which Envoy shows as `:authority` only.
    fn all_headers(&self, request: &RequestFacts) -> Value {
        let map = &request.head.headers;
        let mut headers = Members::new();
        for name in map.keys() {
            set(
                &mut headers,
                &name.as_str().into(),
                header_value(map, name.as_str()),
            );
        }
        set(
            &mut headers,
            &self.pseudo_method,
            self.method_value(&request.head.method),
        );
        if !request.body.bytes.is_empty() {
            let partial = if request.body.is_partial {
                "true"
            } else {
                "false"
            };
            set_string(&mut headers, &self.partial_body, partial);
        }
        set_string(&mut headers, &self.authority, &request.host);
        set_string(&mut headers, &self.pseudo_path, target(&request.head.uri));
        set(
            &mut headers,
            &self.pseudo_scheme,
            self.scheme_value(&request.scheme),
        );
        Value::from(headers)
    }

    /// The common methods are made once.
    fn method_value(&self, method: &Method) -> Value {
        let known = self.methods.iter().find(|(known, _)| known == method);
        known.map_or_else(|| string(method.as_str()), |(_, value)| value.clone())
    }

    fn scheme_value(&self, scheme: &str) -> Value {
        match scheme {
            "https" => self.https.clone(),
            other => string(other),
        }
    }
}

impl ConnectionPart {
    pub(super) fn value(self, connection: &ConnectionFacts) -> Value {
        let value = match self {
            Self::Source => connection.source(),
            Self::Destination => connection.destination(),
            Self::TlsSession => connection.tls_session(),
            Self::ContextExtensions => connection.context_extensions(),
        };
        value.clone()
    }
}

/// The request's target, query included.
fn target(uri: &Uri) -> &str {
    uri.path_and_query().map_or("", |target| target.as_str())
}

/// The body's size in bytes. Unknown is -1, as in Envoy; a size beyond what its field holds is too.
pub(super) fn size(request: &RequestFacts) -> i64 {
    let RequestBody {
        bytes, is_partial, ..
    } = &request.body;
    let is_read = !bytes.is_empty() && !is_partial;
    let read = is_read.then(|| body::length_of(bytes));
    let size = read.or(request.declared_body_bytes);
    size.and_then(|size| i64::try_from(size).ok()).unwrap_or(-1)
}

/// Refuses what OPA-Envoy could not parse, and what is no text, whether the policy reads it or not.
pub(crate) fn check(request: &RequestFacts) -> Result<(), InputError> {
    let uri = &request.head.uri;
    // Only an escape or a semicolon can be wrong.
    if uri.path().contains('%') {
        url::path_segments(uri.path()).map_err(|_| InputError::Path)?;
    }
    if let Some(query) = uri.query()
        && query.contains(['%', ';'])
    {
        url::query_pairs(query).map_err(|_| InputError::Query)?;
    }
    if !request.body.bytes.is_empty() {
        body::parse(&request.head.headers, &request.body)?;
    }
    let headers = request.head.headers.iter();
    let mut unreadable = headers.filter(|(_, value)| {
        !value.as_bytes().is_ascii() && std::str::from_utf8(value.as_bytes()).is_err()
    });
    match unreadable.next() {
        Some((name, _)) => Err(InputError::HeaderValue { name: name.clone() }),
        None => Ok(()),
    }
}

/// The name that Envoy gives to a version of HTTP.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_11 => "HTTP/1.1",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        // HTTP/0.9 is never accepted, and the type may grow.
        _ => "",
    }
}

/// All headers but `host`, which Envoy shows as `:authority` only.
///
/// # Errors
/// A value that is no text.
pub(crate) fn headers(map: &HeaderMap) -> Result<Members, InputError> {
    let names = map.keys().filter(|name| *name != HOST);
    names
        .map(|name| match header_value(map, name.as_str()) {
            Value::Undefined => Err(InputError::HeaderValue { name: name.clone() }),
            value => Ok((Value::from(name.as_str()), value)),
        })
        .collect()
}

/// A header's value; several are joined as Envoy joins them. `host` is never shown.
pub(super) fn header_value(map: &HeaderMap, name: &str) -> Value {
    let text = |value: &HeaderValue| str::from_utf8(value.as_bytes()).map(str::to_owned);
    let mut values = map.get_all(name).iter();
    let Some(first) = values.next().filter(|_| name != HOST) else {
        return Value::Undefined;
    };
    let Ok(mut joined) = text(first) else {
        return Value::Undefined;
    };
    // HTTP/2 splits cookies; RFC 9113 section 8.2.3 says how to join them.
    let separator = if name == COOKIE { "; " } else { "," };
    for value in values {
        joined.push_str(separator);
        joined.push_str(&text(value).unwrap_or_default());
    }
    Value::from(joined)
}
