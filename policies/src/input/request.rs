//! What the policy may know of a request, and the whole document.

use std::time::SystemTime;

use http::header::{COOKIE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Version};
use regorus::Value;

use super::connection::ConnectionFacts;
use super::{InputError, Members, set_number, set_string, url};

/// A request as the proxy knows it before it reads a body.
#[derive(Debug)]
pub struct RequestFacts {
    /// The head, normalized: what is decided is what is forwarded.
    pub head: Parts,
    /// `http` or `https`, as the caller meant it.
    pub scheme: String,
    /// The authority that the request is for: `:authority` or `Host`.
    pub host: String,
    /// The proxy's own id of the request.
    pub request_id: String,
    /// When the head was received.
    pub time: SystemTime,
    /// The size of the body in bytes, if the head declares it.
    pub declared_body_bytes: Option<u64>,
}

/// The keys of the document and the parts that never change, made once for
/// each evaluator so that a request only counts references up.
pub(crate) struct InputKeys {
    attributes: Value,
    authority: Value,
    headers: Value,
    host: Value,
    http: Value,
    id: Value,
    method: Value,
    nanos: Value,
    parsed_body: Value,
    parsed_path: Value,
    parsed_query: Value,
    path: Value,
    protocol: Value,
    pseudo_method: Value,
    pseudo_path: Value,
    pseudo_scheme: Value,
    request: Value,
    scheme: Value,
    seconds: Value,
    size: Value,
    source_principal: Value,
    time: Value,
    truncated_body: Value,
    version: Value,
    version_value: Value,
}

impl InputKeys {
    pub(crate) fn new() -> Self {
        let version = [("encoding", "protojson"), ("ext_authz", "v3")];
        Self {
            attributes: "attributes".into(),
            authority: ":authority".into(),
            headers: "headers".into(),
            host: "host".into(),
            http: "http".into(),
            id: "id".into(),
            method: "method".into(),
            nanos: "nanos".into(),
            parsed_body: "parsed_body".into(),
            parsed_path: "parsed_path".into(),
            parsed_query: "parsed_query".into(),
            path: "path".into(),
            protocol: "protocol".into(),
            pseudo_method: ":method".into(),
            pseudo_path: ":path".into(),
            pseudo_scheme: ":scheme".into(),
            request: "request".into(),
            scheme: "scheme".into(),
            seconds: "seconds".into(),
            size: "size".into(),
            source_principal: "source_principal".into(),
            time: "time".into(),
            truncated_body: "truncated_body".into(),
            version: "version".into(),
            version_value: version
                .map(|(key, value)| (key.into(), value.into()))
                .into_iter()
                .collect::<Members>()
                .into(),
        }
    }

    /// The input document.
    pub(crate) fn document(
        &self,
        connection: &ConnectionFacts,
        request: &RequestFacts,
    ) -> Result<Value, InputError> {
        let target = request
            .head
            .uri
            .path_and_query()
            .map_or("", |target| target.as_str());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let segments = url::path_segments(path).map_err(|_| InputError::Path)?;
        let pairs = url::query_pairs(query).map_err(|_| InputError::Query)?;

        let request_attributes = Members::from([
            (self.time.clone(), self.timestamp(request.time)),
            (self.http.clone(), self.http_request(request, target)?),
        ]);
        let mut attributes: Members = connection.attributes.iter().cloned().collect();
        attributes.insert(self.request.clone(), Value::from(request_attributes));

        let mut document = Members::from([
            (self.attributes.clone(), Value::from(attributes)),
            (self.parsed_body.clone(), Value::Null),
            (
                self.parsed_path.clone(),
                segments
                    .into_iter()
                    .map(Value::from)
                    .collect::<Vec<_>>()
                    .into(),
            ),
            (self.parsed_query.clone(), query_object(pairs)),
            (self.truncated_body.clone(), Value::Bool(false)),
            (self.version.clone(), self.version_value.clone()),
        ]);
        if let Some(principal) = &connection.source_principal {
            document.insert(self.source_principal.clone(), principal.clone());
        }
        Ok(Value::from(document))
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

    fn http_request(&self, request: &RequestFacts, target: &str) -> Result<Value, InputError> {
        let method = Value::from(request.head.method.as_str());
        // Unknown is -1, as in Envoy; a size beyond what its field holds is too.
        let size = request
            .declared_body_bytes
            .and_then(|size| i64::try_from(size).ok())
            .unwrap_or(-1);
        let mut http = Members::from([(self.method.clone(), method.clone())]);
        set_string(&mut http, &self.id, &request.request_id);
        set_string(&mut http, &self.path, target);
        set_string(&mut http, &self.host, &request.host);
        set_string(&mut http, &self.scheme, &request.scheme);
        set_string(&mut http, &self.protocol, protocol(request.head.version));
        set_number(&mut http, &self.size, size);

        let mut headers = headers(&request.head.headers)?;
        headers.insert(self.pseudo_method.clone(), method);
        for (pseudo, key) in [
            (&self.authority, &self.host),
            (&self.pseudo_path, &self.path),
            (&self.pseudo_scheme, &self.scheme),
        ] {
            if let Some(value) = http.get(key) {
                headers.insert(pseudo.clone(), value.clone());
            }
        }
        http.insert(self.headers.clone(), Value::from(headers));
        Ok(Value::from(http))
    }
}

/// The name that Envoy gives to a version of HTTP.
fn protocol(version: Version) -> &'static str {
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
fn headers(map: &HeaderMap) -> Result<Members, InputError> {
    let names = map.keys().filter(|name| *name != HOST);
    names
        .map(|name| Ok((Value::from(name.as_str()), header_value(map, name)?)))
        .collect()
}

/// A header's value; several are joined as Envoy joins them.
fn header_value(map: &HeaderMap, name: &HeaderName) -> Result<Value, InputError> {
    // HTTP/2 splits cookies; RFC 9113 section 8.2.3 says how to join them.
    let separator = if name == COOKIE { "; " } else { "," };
    let text = |value: &HeaderValue| match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(InputError::HeaderValue { name: name.clone() }),
    };
    let mut values = map.get_all(name).iter();
    let mut joined = values.next().map(text).transpose()?.unwrap_or_default();
    for value in values {
        joined.push_str(separator);
        joined.push_str(&text(value)?);
    }
    Ok(Value::from(joined))
}

/// `parsed_query`: every key with the list of its values.
fn query_object(pairs: Vec<(String, String)>) -> Value {
    let mut lists: std::collections::BTreeMap<String, Vec<Value>> =
        std::collections::BTreeMap::new();
    for (key, value) in pairs {
        lists.entry(key).or_default().push(Value::from(value));
    }
    lists
        .into_iter()
        .map(|(key, values)| (Value::from(key), Value::from(values)))
        .collect::<Members>()
        .into()
}
