//! What can end a request here, and what each is called on the wire, in metrics and in logs.

use http::StatusCode;
use sidegate_identity::tls::ClientTlsError;
use sidegate_policy::Denial;

use crate::head::HeadProblem;
use crate::metrics::Limit;
use crate::upstream::UpstreamError;

/// Why a request was answered here instead of by the upstream.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProxyError {
    #[error("the request's head is refused")]
    BadHead(#[from] HeadProblem),
    #[error("no route of the listener is for the request")]
    NoRoute,
    #[error("the request's target is too long")]
    UriTooLong,
    #[error("the request has too many headers")]
    TooManyHeaders,
    #[error("the request's headers are too large")]
    HeadersTooLarge,
    #[error("the peer's identity asks too often")]
    RateLimited,
    #[error("the body is longer than the {limit} bytes that the policy may see")]
    BodyTooLarge { limit: usize },
    #[error("the connection has too many bodies that wait for their decision")]
    TooManyBodies,
    #[error("the body did not arrive in time to be decided on")]
    BodyTimeout,
    #[error("more of the request's body did not arrive in time")]
    BodyStalled,
    #[error("the policy denies the request")]
    Denied(Box<Denial>),
    #[error("the policy has changed, and denies the request now")]
    DeniedNow(Box<Denial>),
    #[error("the peer's SVID has expired since its handshake")]
    PeerExpired,
    #[error("this worker has no policy to decide with")]
    NoPolicy,
    #[error("the upstream did not answer in time")]
    RequestTimeout,
    #[error("the route's upstream cannot switch protocols")]
    NoUpgrade,
    #[error("the upstream failed")]
    Upstream(#[from] UpstreamError),
}

/// How an error is told.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Telling {
    /// To the caller.
    pub(crate) status: StatusCode,
    /// To a gRPC caller, in trailers: <https://grpc.github.io/grpc/core/md_doc_statuscodes.html>.
    pub(crate) grpc_status: &'static str,
    /// In metrics and in the access log.
    pub(crate) label: &'static str,
    /// The stable diagnostic code, where there is something to look up.
    pub(crate) code: Option<&'static str>,
}

/// What a request's end is called that the policy decided on.
pub(crate) const DENIED: &str = "policy";

/// What a request's end is called that came from a change of the policy.
pub(crate) const DENIED_NOW: &str = "policy_changed";

const PERMISSION_DENIED: &str = "7";
const UNIMPLEMENTED: &str = "12";
const INTERNAL: &str = "13";
const UNAVAILABLE: &str = "14";
const UNAUTHENTICATED: &str = "16";
const DEADLINE_EXCEEDED: &str = "4";
const RESOURCE_EXHAUSTED: &str = "8";

impl ProxyError {
    pub(crate) fn telling(&self) -> Telling {
        match self {
            Self::BadHead(problem) => Telling {
                status: problem.status(),
                grpc_status: INTERNAL,
                label: "bad_request",
                code: Some(problem.code()),
            },
            Self::NoRoute => Telling {
                status: StatusCode::NOT_FOUND,
                grpc_status: UNIMPLEMENTED,
                label: "no_route",
                code: Some("SG0313"),
            },
            Self::UriTooLong => Telling {
                status: StatusCode::URI_TOO_LONG,
                grpc_status: RESOURCE_EXHAUSTED,
                label: "uri_too_long",
                code: Some("SG0355"),
            },
            Self::TooManyHeaders => Telling {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                grpc_status: RESOURCE_EXHAUSTED,
                label: "too_many_headers",
                code: Some("SG0356"),
            },
            Self::HeadersTooLarge => Telling {
                status: StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                grpc_status: RESOURCE_EXHAUSTED,
                label: "headers_too_large",
                code: Some("SG0356"),
            },
            Self::RateLimited => Telling {
                status: StatusCode::TOO_MANY_REQUESTS,
                grpc_status: RESOURCE_EXHAUSTED,
                label: "rate_limited",
                code: Some("SG0357"),
            },
            Self::BodyTooLarge { .. } => Telling {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                grpc_status: RESOURCE_EXHAUSTED,
                label: "body_too_large",
                code: Some("SG0270"),
            },
            Self::TooManyBodies => Telling {
                status: StatusCode::SERVICE_UNAVAILABLE,
                grpc_status: UNAVAILABLE,
                label: "too_many_bodies",
                code: Some("SG0272"),
            },
            Self::BodyTimeout => Telling {
                status: StatusCode::REQUEST_TIMEOUT,
                grpc_status: DEADLINE_EXCEEDED,
                label: "body_timeout",
                code: Some("SG0271"),
            },
            Self::BodyStalled => Telling {
                status: StatusCode::REQUEST_TIMEOUT,
                grpc_status: DEADLINE_EXCEEDED,
                label: "body_stalled",
                code: Some("SG0360"),
            },
            Self::Denied(denial) => Telling {
                status: denial.status,
                grpc_status: PERMISSION_DENIED,
                label: denial.reason.label(),
                code: Some(denial.reason.code()),
            },
            Self::DeniedNow(denial) => Telling {
                status: denial.status,
                grpc_status: PERMISSION_DENIED,
                label: DENIED_NOW,
                code: Some("SG0340"),
            },
            Self::PeerExpired => Telling {
                status: StatusCode::FORBIDDEN,
                grpc_status: UNAUTHENTICATED,
                label: "peer_expired",
                code: Some("SG0309"),
            },
            Self::NoPolicy => Telling {
                status: StatusCode::SERVICE_UNAVAILABLE,
                grpc_status: UNAVAILABLE,
                label: "no_policy",
                code: Some("SG0311"),
            },
            Self::RequestTimeout => Telling {
                status: StatusCode::GATEWAY_TIMEOUT,
                grpc_status: DEADLINE_EXCEEDED,
                label: "request_timeout",
                code: Some("SG0312"),
            },
            Self::NoUpgrade => Telling {
                status: StatusCode::NOT_IMPLEMENTED,
                grpc_status: UNIMPLEMENTED,
                label: "no_upgrade",
                code: Some("SG0314"),
            },
            Self::Upstream(UpstreamError::BadUpgrade) => Telling {
                status: StatusCode::BAD_GATEWAY,
                grpc_status: UNAVAILABLE,
                label: "bad_upgrade",
                code: Some("SG0315"),
            },
            Self::Upstream(UpstreamError::ConnectTimeout) => Telling {
                status: StatusCode::BAD_GATEWAY,
                grpc_status: UNAVAILABLE,
                label: "connect_timeout",
                code: Some("SG0320"),
            },
            Self::Upstream(UpstreamError::Connect(_)) => Telling {
                status: StatusCode::BAD_GATEWAY,
                grpc_status: UNAVAILABLE,
                label: "connect_failed",
                code: Some("SG0321"),
            },
            Self::Upstream(UpstreamError::Resolve(_)) => Telling {
                status: StatusCode::BAD_GATEWAY,
                grpc_status: UNAVAILABLE,
                label: "resolve_failed",
                code: Some("SG0394"),
            },
            Self::Upstream(UpstreamError::AddressRefused { .. }) => Telling {
                status: StatusCode::BAD_GATEWAY,
                grpc_status: UNAVAILABLE,
                label: "address_refused",
                code: Some("SG0393"),
            },
            Self::Upstream(UpstreamError::Tls(error)) => Telling {
                status: match error {
                    ClientTlsError::NoSvid(_) => StatusCode::SERVICE_UNAVAILABLE,
                    ClientTlsError::Unexpected { .. }
                    | ClientTlsError::Untrusted { .. }
                    | ClientTlsError::Handshake(_) => StatusCode::BAD_GATEWAY,
                },
                grpc_status: UNAVAILABLE,
                label: error.label(),
                code: Some(error.code()),
            },
            Self::Upstream(UpstreamError::Reset(_)) => Telling {
                status: StatusCode::BAD_GATEWAY,
                grpc_status: UNAVAILABLE,
                label: "upstream_reset",
                code: Some("SG0322"),
            },
            Self::Upstream(UpstreamError::Downstream(_)) => Telling {
                status: StatusCode::BAD_REQUEST,
                grpc_status: UNAVAILABLE,
                label: "downstream_reset",
                code: Some("SG0323"),
            },
            Self::Upstream(UpstreamError::Service(failure)) => Telling {
                status: failure.status,
                grpc_status: if failure.status == StatusCode::GATEWAY_TIMEOUT {
                    DEADLINE_EXCEEDED
                } else {
                    UNAVAILABLE
                },
                label: failure.label,
                code: Some(failure.code),
            },
        }
    }

    /// The listener's limit that was exceeded, if it was one.
    pub(crate) fn limit(&self) -> Option<Limit> {
        match self {
            Self::UriTooLong => Some(Limit::max_uri_bytes),
            Self::TooManyHeaders => Some(Limit::max_headers),
            Self::HeadersTooLarge => Some(Limit::max_header_bytes),
            Self::RateLimited => Some(Limit::requests_per_second),
            Self::BodyStalled => Some(Limit::body_read),
            Self::BodyTimeout | Self::RequestTimeout => Some(Limit::request),
            Self::Upstream(UpstreamError::ConnectTimeout) => Some(Limit::connect),
            Self::BodyTooLarge { .. } => Some(Limit::max_request_bytes),
            Self::BadHead(_)
            | Self::NoRoute
            | Self::TooManyBodies
            | Self::Denied(_)
            | Self::DeniedNow(_)
            | Self::PeerExpired
            | Self::NoPolicy
            | Self::NoUpgrade
            | Self::Upstream(_) => None,
        }
    }

    /// The error with all its causes, for the operator.
    pub(crate) fn chain(&self) -> String {
        let mut text = match self {
            Self::Denied(denial) | Self::DeniedNow(denial) => denial.reason.to_string(),
            _ => self.to_string(),
        };
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}
