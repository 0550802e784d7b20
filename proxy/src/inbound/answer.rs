//! Answers that this proxy gives itself, and what it adds to every answer.

use http::header::{CONNECTION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, Version};
use http_body::Body;

use super::downstream::Downstream;
use crate::access_log::Record;
use crate::body::Source;
use crate::error::ProxyError;
use crate::head::REQUEST_ID;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What of a request decides how it is answered here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller {
    is_grpc: bool,
    is_head: bool,
    is_http10: bool,
}

impl Caller {
    pub(super) fn of(head: &Parts) -> Self {
        let content_type = head.headers.get(CONTENT_TYPE);
        Self {
            is_grpc: content_type.is_some_and(|value| is_grpc(value.as_bytes())),
            is_head: head.method == Method::HEAD,
            is_http10: head.version == Version::HTTP_10,
        }
    }

    fn takes_body(self, status: StatusCode) -> bool {
        let has_none = [
            StatusCode::NO_CONTENT,
            StatusCode::RESET_CONTENT,
            StatusCode::NOT_MODIFIED,
        ];
        !self.is_head && !self.is_grpc && !has_none.contains(&status)
    }
}

/// `application/grpc`, with a suffix for the encoding or with parameters; gRPC-Web is another.
fn is_grpc(content_type: &[u8]) -> bool {
    content_type
        .strip_prefix(b"application/grpc")
        .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
}

/// Tells an error: the caller its status and what the policy gives, the operator the rest.
///
/// A gRPC caller gets status 200 and the gRPC code, as a response of trailers only.
pub(super) fn local(error: ProxyError, caller: Caller, record: &mut Record) -> Response<Source> {
    let telling = error.telling();
    if let Some(limit) = error.limit() {
        record.metrics.limit_exceeded(limit);
    }
    record.line.error = Some(telling.label);
    record.line.code = telling.code;
    record.line.detail = Some(error.chain());
    let mut response = Response::new(Source::local(""));
    if let ProxyError::Denied(denial) | ProxyError::DeniedNow(denial) = error {
        *response.headers_mut() = denial.headers;
        if caller.takes_body(telling.status) {
            *response.body_mut() = Source::local(denial.body);
        }
    }
    if caller.is_grpc {
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(GRPC_STATUS, HeaderValue::from_static(telling.grpc_status));
        *response.status_mut() = StatusCode::OK;
    } else {
        *response.status_mut() = telling.status;
    }
    response
}

/// A request's id as a header's value. It never comes again, so that in HPACK's table it would only
/// take the place of others (RFC 7541 section 7.1.3).
pub(super) fn id(request_id: &str) -> HeaderValue {
    // A UUID is a header value, and so is what came in a header.
    let id = HeaderValue::from_str(request_id);
    let mut id = id.unwrap_or(HeaderValue::from_static(""));
    id.set_sensitive(true);
    id
}

/// Adds the request id, and on a connection that is to end, says so.
pub(super) fn finish(
    response: &mut Response<Source>,
    request_id: HeaderValue,
    downstream: &Downstream,
    caller: Caller,
) {
    response.headers_mut().insert(REQUEST_ID, request_id);
    *response.version_mut() = Version::HTTP_11;
    // To a client of HTTP/1.0 what has no length ends with the connection.
    let ends = caller.is_http10 && response.body().size_hint().exact().is_none();
    let ends = ends || downstream.is_closing();
    if ends && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
