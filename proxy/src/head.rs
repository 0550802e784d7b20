//! A request's head as it is decided on and forwarded: unambiguous, without what belonged to the
//! connection that it came on, and with identity headers that only this proxy writes.

use std::borrow::Cow;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery};
use http::{Method, StatusCode, Uri};

use crate::headers::{self, HopProblem, IdentityHeaders};
use crate::path::{PathProblem, PathRules};

/// Envoy's header that tells the upstream who called.
pub(crate) const XFCC: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// The id under which a request is found in logs.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Headers that mean one connection only (RFC 9110 section 7.6.1).
const HOP_BY_HOP: [HeaderName; 8] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// A head that is not forwarded, whatever the policy would say.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeadProblem {
    #[error(transparent)]
    Path(#[from] PathProblem),
    #[error("CONNECT is not offered")]
    Connect,
    #[error("OPTIONS of the server as a whole (`*`) is not offered")]
    OptionsOfAll,
    #[error("the target of CONNECT is not a host and port, or it has a body")]
    BadConnect,
    #[error("the body has a transfer coding that is not, or not only, `chunked`")]
    TransferCoding,
    #[error("there is no Host")]
    NoHost,
    #[error("there is more than one Host")]
    SeveralHosts,
    #[error("the Host is not an authority")]
    BadHost,
    #[error("the Host differs from the request target's authority")]
    OtherHost,
    #[error(transparent)]
    Hop(#[from] HopProblem),
}

impl HeadProblem {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Connect => StatusCode::METHOD_NOT_ALLOWED,
            Self::OptionsOfAll | Self::TransferCoding => StatusCode::NOT_IMPLEMENTED,
            Self::Path(_)
            | Self::BadConnect
            | Self::NoHost
            | Self::SeveralHosts
            | Self::BadHost
            | Self::OtherHost
            | Self::Hop(_) => StatusCode::BAD_REQUEST,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Hop(_) => "SG0362",
            Self::Path(_)
            | Self::Connect
            | Self::BadConnect
            | Self::OptionsOfAll
            | Self::TransferCoding
            | Self::NoHost
            | Self::SeveralHosts
            | Self::BadHost
            | Self::OtherHost => "SG0310",
        }
    }
}

/// Checks a head and makes it the one to decide on and to forward: origin-form target, one `Host`,
/// nothing hop-by-hop, our own identity headers. Of a `CONNECT` the target stays an authority.
/// Returns the authority.
pub(crate) fn normalize(
    head: &mut Parts,
    paths: &PathRules,
    identity: &IdentityHeaders,
    request_id: &HeaderValue,
) -> Result<Authority, HeadProblem> {
    if head.method == Method::OPTIONS && head.uri.path() == "*" {
        return Err(HeadProblem::OptionsOfAll);
    }
    if !is_plainly_chunked(&head.headers) {
        return Err(HeadProblem::TransferCoding);
    }
    let authority = match head.method == Method::CONNECT {
        true => connect_authority(head)?,
        false => {
            let target = target(&head.uri, paths)?;
            let authority = authority(head)?;
            head.uri = Uri::from(target);
            authority
        }
    };
    let headers = &mut head.headers;
    let takes_trailers = takes_trailers(headers);
    strip_hop_by_hop(headers);
    if takes_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    join_cookies(headers);
    tell_length_once(headers);
    if headers
        .get(HOST)
        .is_none_or(|host| host != authority.as_str())
    {
        let host = HeaderValue::from_str(authority.as_str()).map_err(|_| HeadProblem::BadHost)?;
        headers.insert(HOST, host);
    }
    identity.write(headers, request_id)?;
    Ok(authority)
}

/// Removes what belonged to the connection, and what its `Connection` header names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // Naming these would let a client remove what the proxy relies on.
            .filter(|name: &HeaderName| name != HOST && !headers::tells_of_callers(name.as_str()))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    // Most heads have none: to look at each name costs less than to look each of these up.
    if headers.keys().any(|name| HOP_BY_HOP.contains(name)) {
        for name in &HOP_BY_HOP {
            headers.remove(name);
        }
    }
}

/// Removes what a trailer must not say (RFC 9110 section 6.5.1), and who the client claims to be:
/// there are servers that take trailers for headers.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    strip_hop_by_hop(trailers);
    headers::strip(trailers, headers::tells_of_callers);
    for name in [CONTENT_LENGTH, HOST] {
        trailers.remove(name);
    }
}

/// Whether the body, if it has a transfer coding, is just in chunks (RFC 9112 section 6.1). Any other
/// would have to be undone here, or else the upstream takes what is coded for the content.
fn is_plainly_chunked(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| {
        let coding = coding.as_bytes().trim_ascii();
        coding.eq_ignore_ascii_case(b"chunked")
    };
    codings.next().is_none_or(is_chunked) && codings.next().is_none()
}

/// Whether the client takes trailers (RFC 9110 section 10.1.4). They pass through us, so the upstream
/// is told.
fn takes_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| coding.trim().eq_ignore_ascii_case("trailers"))
}

/// The target in origin form, with its path normalized. A target without a path means the root
/// (RFC 9112 section 3.2.1), and is written so: the policy decides on the bytes that the upstream
/// gets.
fn target(uri: &Uri, paths: &PathRules) -> Result<PathAndQuery, HeadProblem> {
    let path = paths.normalize(uri.path())?;
    let target = uri.path_and_query();
    match target.filter(|target| target.as_str().starts_with('/')) {
        Some(target) if matches!(path, Cow::Borrowed(_)) => Ok(target.clone()),
        _ => {
            let target = match uri.query() {
                Some(query) => format!("{path}?{query}"),
                None => path.into_owned(),
            };
            PathAndQuery::try_from(target).map_err(|_| PathProblem::NotAbsolute.into())
        }
    }
}

/// HTTP/2 may split cookies over several headers; HTTP/1.1 may not (RFC 9113 section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let mut crumbs = headers.get_all(COOKIE).iter();
    if let (Some(_), Some(_)) = (crumbs.next(), crumbs.next()) {
        let crumbs: Vec<_> = headers
            .get_all(COOKIE)
            .iter()
            .map(HeaderValue::as_bytes)
            .collect();
        // Values joined by a separator are a value.
        if let Ok(joined) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
            headers.insert(COOKIE, joined);
        }
    }
}

/// HTTP/2 may say the same length twice, and many HTTP/1.1 servers refuse that (RFC 9110 section 8.6).
fn tell_length_once(headers: &mut HeaderMap) {
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    if let (Some(length), Some(_)) = (lengths.next(), lengths.next()) {
        let length = length.clone();
        headers.insert(CONTENT_LENGTH, length);
    }
}

/// The authority that the client means: the request target's, or else the one `Host`.
fn authority(head: &Parts) -> Result<Authority, HeadProblem> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(HeadProblem::SeveralHosts),
        (Some(host), None) => Some(parse_host(host)?),
        (None, None) => None,
    };
    match (head.uri.authority(), host) {
        (Some(target), Some(host)) if *target != host => Err(HeadProblem::OtherHost),
        (Some(target), _) if target.as_str().contains('@') => Err(HeadProblem::BadHost),
        (Some(target), _) => Ok(target.clone()),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(HeadProblem::NoHost),
    }
}

/// That of a `CONNECT`: its target is a host and port, and nothing else (RFC 9110 section 9.3.6).
fn connect_authority(head: &Parts) -> Result<Authority, HeadProblem> {
    let authority = authority(head)?;
    let is_alone = head.uri.authority().is_some() && head.uri.path_and_query().is_none();
    match authority.port_u16() {
        Some(port) if is_alone && port != 0 => Ok(authority),
        _ => Err(HeadProblem::BadConnect),
    }
}

fn parse_host(value: &HeaderValue) -> Result<Authority, HeadProblem> {
    let authority = Authority::try_from(value.as_bytes()).map_err(|_| HeadProblem::BadHost)?;
    if authority.as_str().contains('@') {
        return Err(HeadProblem::BadHost);
    }
    Ok(authority)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::DotSegments;

    fn head(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn normalized(uri: &str, headers: &[(&str, &str)]) -> Result<Parts, HeadProblem> {
        let mut head = head(uri, headers);
        let paths = PathRules::default();
        let identity = IdentityHeaders::for_test();
        let id = HeaderValue::from_static("id");
        normalize(&mut head, &paths, &identity, &id)?;
        Ok(head)
    }

    #[test]
    fn a_client_cannot_write_the_headers_that_only_the_proxy_writes() {
        let head = normalized(
            "/",
            &[
                ("host", "a"),
                ("x-forwarded-client-cert", "URI=spiffe://one.test/admin"),
                ("X-Forwarded-Client-Cert", "URI=spiffe://one.test/root"),
                ("x_forwarded_client_cert", "URI=spiffe://one.test/admin"),
                ("x-forwarded_client-cert", "URI=spiffe://one.test/admin"),
                ("forwarded", "for=192.0.2.9"),
                ("x-forwarded-for", "192.0.2.9"),
                ("x-forwarded-host", "other"),
                ("x-envoy-internal", "true"),
                ("x-envoy-original-path", "/other"),
                ("x-request-id", "mine"),
                ("x_request_id", "mine"),
                ("x-envoy-auth-partial-body", "true"),
                ("connection", "x-forwarded-client-cert, x-request-id, host"),
            ],
        )
        .unwrap();
        let all = |name| head.headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all(XFCC), ["URI=spiffe://one.test/a"]);
        assert_eq!(all(REQUEST_ID), ["id"]);
        assert_eq!(all(HOST), ["a"]);
        assert_eq!(
            all(HeaderName::from_static("x-forwarded-for")),
            ["192.0.2.1"]
        );
        assert_eq!(head.headers.len(), 5, "{:?}", head.headers);
    }

    #[test]
    fn what_belongs_to_the_connection_is_not_forwarded() {
        let head = normalized(
            "/",
            &[
                ("host", "a"),
                ("connection", "close, X-Private"),
                ("x-private", "1"),
                ("keep-alive", "timeout=5"),
                ("te", "gzip"),
                ("transfer-encoding", " Chunked "),
                ("upgrade", "websocket"),
                ("proxy-authorization", "Basic eA=="),
                ("x-public", "2"),
            ],
        )
        .unwrap();
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "host",
                "x-forwarded-client-cert",
                "x-forwarded-for",
                "x-forwarded-proto",
                "x-public",
                "x-request-id"
            ]
        );
    }

    #[test]
    fn a_body_that_is_coded_otherwise_than_in_chunks_is_refused() {
        for codings in [
            &["gzip, chunked"][..],
            &["gzip", "chunked"],
            &["chunked", "chunked"],
            &["chunked, chunked"],
            &["identity, chunked"],
            &[", chunked"],
            &[""],
        ] {
            let mut headers = vec![("host", "a")];
            headers.extend(codings.iter().map(|coding| ("transfer-encoding", *coding)));
            let refused = normalized("/", &headers).unwrap_err();
            assert_eq!(refused, HeadProblem::TransferCoding, "{codings:?}");
            assert_eq!(refused.status(), StatusCode::NOT_IMPLEMENTED);
        }
    }

    #[test]
    fn a_length_that_is_told_twice_is_forwarded_once() {
        let twice = [
            ("host", "a"),
            ("content-length", "5"),
            ("content-length", "5"),
        ];
        let head = normalized("/", &twice).unwrap();
        let lengths: Vec<_> = head.headers.get_all(CONTENT_LENGTH).iter().collect();
        assert_eq!(lengths, ["5"]);
    }

    #[test]
    fn the_upstream_is_told_that_trailers_pass() {
        let head = normalized("/", &[("host", "a"), ("te", "deflate;q=0.5, Trailers")]).unwrap();
        let values: Vec<_> = head.headers.get_all(TE).iter().collect();
        assert_eq!(values, ["trailers"]);
    }

    #[test]
    fn the_host_is_one_and_the_same_everywhere() {
        for (uri, hosts, expected) in [
            ("/", &["a:1"][..], Ok("a:1")),
            ("https://a/x", &[], Ok("a")),
            ("https://a/x", &["a"], Ok("a")),
            ("https://a/x", &["b"], Err(HeadProblem::OtherHost)),
            ("/", &[], Err(HeadProblem::NoHost)),
            ("/", &["a", "a"], Err(HeadProblem::SeveralHosts)),
            ("/", &["a b"], Err(HeadProblem::BadHost)),
            ("/", &["user@a"], Err(HeadProblem::BadHost)),
            ("https://user@a/", &[], Err(HeadProblem::BadHost)),
            (
                "/a/../b",
                &["a"],
                Err(HeadProblem::Path(PathProblem::DotSegment)),
            ),
        ] {
            let headers: Vec<_> = hosts.iter().map(|&host| ("host", host)).collect();
            let found = normalized(uri, &headers)
                .map(|head| head.headers.get(HOST).unwrap().to_str().unwrap().to_owned());
            assert_eq!(found, expected.map(ToOwned::to_owned), "{uri} {hosts:?}");
        }
    }

    #[test]
    fn the_target_of_connect_is_a_host_and_port_and_stays_one() {
        for (uri, hosts, expected) in [
            ("db:5432", &["db:5432"][..], Ok("db:5432")),
            ("db:5432", &[], Ok("db:5432")),
            ("[::1]:5432", &[], Ok("[::1]:5432")),
            ("db", &[], Err(HeadProblem::BadConnect)),
            ("db:0", &[], Err(HeadProblem::BadConnect)),
            ("db:5432", &["other:5432"], Err(HeadProblem::OtherHost)),
            ("/", &["db:5432"], Err(HeadProblem::BadConnect)),
            ("https://db:5432/", &[], Err(HeadProblem::BadConnect)),
        ] {
            let headers: Vec<_> = hosts.iter().map(|&host| ("host", host)).collect();
            let mut head = head(uri, &headers);
            head.method = Method::CONNECT;
            let identity = IdentityHeaders::for_test();
            let paths = PathRules::default();
            let id = HeaderValue::from_static("id");
            let found = normalize(&mut head, &paths, &identity, &id);
            let expected = expected.map(|authority: &str| authority.parse().unwrap());
            assert_eq!(found, expected, "{uri} {hosts:?}");
            if found.is_ok() {
                assert_eq!(head.uri, uri);
                assert!(head.uri.path_and_query().is_none());
            }
        }
    }

    #[test]
    fn the_target_is_forwarded_in_origin_form_with_its_query() {
        for (target, forwarded) in [
            ("https://a/x?y=%2F", "/x?y=%2F"),
            ("https://a", "/"),
            ("https://a?x=1", "/?x=1"),
        ] {
            let head = normalized(target, &[]).unwrap();
            assert_eq!(head.uri.path_and_query().unwrap().as_str(), forwarded);
        }
    }

    #[test]
    fn a_rewritten_target_keeps_its_query_byte_by_byte() {
        let paths = PathRules {
            dot_segments: DotSegments::Resolve,
            ..PathRules::default()
        };
        for (target_of_request, forwarded) in [
            ("/a/../b?x=/../%2e", "/b?x=/../%2e"),
            ("https://a/./?", "/?"),
            ("/%61", "/a"),
            ("https://a?x=1", "/?x=1"),
        ] {
            let uri = target_of_request.parse().unwrap();
            let found = target(&uri, &paths).unwrap();
            assert_eq!(found.as_str(), forwarded, "{target_of_request}");
        }
    }

    #[test]
    fn what_asks_about_the_server_as_a_whole_is_refused_as_such() {
        let mut head = head("*", &[("host", "a")]);
        head.method = Method::OPTIONS;
        let identity = IdentityHeaders::for_test();
        let id = HeaderValue::from_static("id");
        let problem = normalize(&mut head, &PathRules::default(), &identity, &id).unwrap_err();
        assert_eq!(problem, HeadProblem::OptionsOfAll);
        assert_eq!(problem.status(), StatusCode::NOT_IMPLEMENTED);
        let problem = normalized("*", &[("host", "a")]).unwrap_err();
        assert_eq!(problem, HeadProblem::Path(PathProblem::NotAbsolute));
    }

    #[test]
    fn cookies_are_decided_and_forwarded_as_one() {
        let head = normalized("/", &[("host", "a"), ("cookie", "a=1"), ("cookie", "b=2")]);
        let head = head.unwrap();
        let cookies: Vec<_> = head.headers.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
    }
}
