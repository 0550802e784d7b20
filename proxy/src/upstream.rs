//! Where permitted requests go.

mod address;
mod decided;
mod direct;
pub mod http1;
pub mod http2;
mod mtls;
mod network;
mod resolver;
pub mod tcp;

use std::sync::Arc;

use http::header::{CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Request, Response, StatusCode, Uri};
use sidegate_identity::tls::ClientTlsError;
use sidegate_policy::Permit;
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use crate::body::{BoxBody, Source};
use crate::head::strip_hop_by_hop;
use crate::headers::X_FORWARDED_PROTO;
use crate::metrics::{HttpVersion, ListenerMetrics};
use crate::request_body::RequestBody;
use crate::trace::CallTrace;
use crate::upgrade;
pub use address::Address;
pub(crate) use address::Stream;
pub(crate) use decided::{Decided, DecidedStream, Way};
pub use direct::{DirectProtocol, DirectUpstream};
use http1::Http1Upstream;
use http2::Http2Upstream;
pub use mtls::MtlsUpstream;
pub use network::{AddressCheck, BadNetwork, Network};
use tcp::TcpUpstream;

/// A request handler in this process, such as a component.
pub type UpstreamService =
    BoxCloneSyncService<Request<RequestBody>, Response<BoxBody>, ServiceFailure>;

/// Where a listener's permitted requests go. Each worker has a clone with connections of its own.
#[derive(Debug, Clone)]
pub enum Upstream {
    /// A handler in this process.
    Service {
        /// What it is called.
        name: Arc<str>,
        /// What handles requests.
        service: UpstreamService,
    },
    /// An HTTP/1.1 server, over plaintext.
    Http1(Http1Upstream),
    /// An HTTP/2 server, over plaintext.
    Http2(Http2Upstream),
    /// A server that is sent bytes as they are: a TCP listener's, or of a route for `CONNECT`.
    Tcp(TcpUpstream),
    /// A peer in the mesh, over mutual TLS.
    Mtls(MtlsUpstream),
    /// A server that apps ask for where there are no identities, over plaintext.
    Direct(DirectUpstream),
}

/// Where an upstream is, as logs, metrics and traces tell it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Destination {
    /// As in the configuration.
    pub(crate) name: Arc<str>,
    /// A host, the path of a socket, or a component.
    pub(crate) address: Arc<str>,
    pub(crate) port: Option<u16>,
    pub(crate) version: Option<HttpVersion>,
}

/// Why a handler in this process gave no response.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ServiceFailure {
    /// What the caller may know.
    pub status: StatusCode,
    /// The label in metrics and access log.
    pub label: &'static str,
    /// The stable diagnostic code.
    pub code: &'static str,
    /// What the operator needs.
    pub message: String,
}

/// Why an upstream gave no response.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    #[error("the upstream did not accept a connection in time")]
    ConnectTimeout,
    #[error("the upstream cannot be connected to")]
    Connect(#[source] std::io::Error),
    #[error("the upstream's name cannot be resolved")]
    Resolve(#[source] std::io::Error),
    #[error("`{host}` resolves to {address}, which it may not lead to")]
    AddressRefused {
        host: String,
        address: std::net::IpAddr,
    },
    #[error("the upstream is not connected to")]
    Tls(#[from] ClientTlsError),
    #[error("the upstream broke off")]
    Reset(#[source] hyper::Error),
    #[error("the upstream switched to a protocol that it was not asked for")]
    BadUpgrade,
    #[error("the client broke off while it sent the request")]
    Downstream(#[source] hyper::Error),
    #[error(transparent)]
    Service(#[from] ServiceFailure),
}

impl Upstream {
    /// An upstream for another worker, which shares no connections with this one.
    pub(crate) fn for_worker(&self, metrics: &Arc<ListenerMetrics>) -> Self {
        match self {
            Self::Service { name, service } => Self::Service {
                name: Arc::clone(name),
                service: service.clone(),
            },
            Self::Http1(upstream) => Self::Http1(upstream.for_worker()),
            Self::Http2(upstream) => Self::Http2(upstream.for_worker()),
            Self::Tcp(upstream) => Self::Tcp(upstream.clone()),
            Self::Mtls(upstream) => Self::Mtls(upstream.for_worker(metrics)),
            Self::Direct(upstream) => Self::Direct(upstream.for_worker()),
        }
    }

    /// Where it is.
    pub(crate) fn destination(&self) -> Destination {
        let server = |address: &Address, version| Destination {
            name: address.to_string().into(),
            address: match address {
                Address::Tcp(authority) => bare(authority).into(),
                Address::Unix(path) => path.to_string_lossy().into(),
            },
            port: match address {
                Address::Tcp(authority) => authority.port_u16(),
                Address::Unix(_) => None,
            },
            version: Some(version),
        };
        match self {
            Self::Service { name, .. } => Destination {
                name: Arc::from(&**name),
                address: Arc::from(&**name),
                port: None,
                version: None,
            },
            Self::Http1(upstream) => server(upstream.address(), HttpVersion::Http11),
            Self::Http2(upstream) => server(upstream.address(), HttpVersion::Http2),
            Self::Tcp(upstream) => Destination {
                version: None,
                ..server(upstream.address(), HttpVersion::Http11)
            },
            Self::Mtls(upstream) => {
                let authority = upstream.authority();
                Destination {
                    name: authority.as_str().into(),
                    address: bare(authority).into(),
                    port: authority.port_u16(),
                    // What the server offers decides.
                    version: None,
                }
            }
            Self::Direct(upstream) => {
                let authority = upstream.authority();
                Destination {
                    name: authority.as_str().into(),
                    address: bare(authority).into(),
                    port: authority.port_u16(),
                    version: upstream.version(),
                }
            }
        }
    }

    /// Whether it can be asked to switch to another protocol, or speaks none.
    pub(crate) fn can_upgrade(&self) -> bool {
        match self {
            Self::Http1(_) | Self::Tcp(_) | Self::Mtls(_) => true,
            Self::Direct(upstream) => upstream.version() != Some(HttpVersion::Http2),
            Self::Service { .. } | Self::Http2(_) => false,
        }
    }

    /// Where each address is decided before it is dialled: what apps ask for.
    pub(crate) fn decided(&self) -> Option<Decided<'_>> {
        match self {
            Self::Mtls(upstream) => Some(Decided::Mtls(upstream)),
            Self::Direct(upstream) => Some(Decided::Direct(upstream)),
            Self::Service { .. } | Self::Http1(_) | Self::Http2(_) | Self::Tcp(_) => None,
        }
    }

    /// Whether it is sent bytes, and no requests.
    pub(crate) fn is_tcp(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }

    /// Forwards what the policy permitted, and nothing else can be: this uses the permit up. A `way`
    /// is a connection that was made for it.
    pub(crate) async fn send(
        &self,
        permit: Permit,
        body: RequestBody,
        way: Option<Way>,
        call: Option<CallTrace>,
    ) -> Result<Response<Source>, UpstreamError> {
        let mut forwardable = permit.into_forwardable();
        if let Some(call) = call {
            call.put(&mut forwardable.head.headers);
        }
        let asked = forwardable.head.headers.get(UPGRADE).cloned();
        let request = Request::from_parts(forwardable.head, body);
        let mut response = match self {
            Self::Service { service, .. } => {
                let request = with_absolute_target(request);
                let response = service.clone().oneshot(request).await?;
                response.map(|body| Source::Service { body })
            }
            Self::Http1(upstream) => {
                let response = upstream.send(request).await?;
                response.map(|body| Source::Http1 { body })
            }
            Self::Http2(upstream) => {
                let response = upstream.send(request).await?;
                response.map(|body| Source::Http2 { body })
            }
            // It takes `CONNECT`, of which nothing is forwarded (RFC 9110 section 9.3.6).
            Self::Tcp(upstream) => Response::new(Source::Tunnel {
                stream: Some(upstream.connect().await?),
            }),
            Self::Mtls(upstream) => {
                let way = match way {
                    Some(Way::Mtls(way)) => Some(way),
                    Some(Way::Direct(_)) | None => None,
                };
                upstream.send(request, way).await?
            }
            Self::Direct(upstream) => {
                let way = match way {
                    Some(Way::Direct(way)) => Some(way),
                    Some(Way::Mtls(_)) | None => None,
                };
                upstream.send(request, way).await?
            }
        };
        strip_lengths(&mut response);
        let switched = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = switched.then(|| upgrade::accepted(asked.as_ref(), response.headers()));
        strip_hop_by_hop(response.headers_mut());
        let headers = response.headers_mut();
        if let Some(protocol) = protocol {
            upgrade::put(headers, protocol.ok_or(UpstreamError::BadUpgrade)?);
        }
        for (name, value) in &forwardable.response_headers_to_add {
            headers.append(name, value.clone());
        }
        Ok(response)
    }
}

/// A host as others than URLs write it: IPv6 without brackets.
pub(crate) fn bare(authority: &Authority) -> &str {
    let host = authority.host();
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Removes a length that does not count: beside a transfer coding (RFC 9112 section 6.3), and of a
/// response that has no content (RFC 9110 section 8.6). One that is told several times, which is the
/// same each time, is told anew from the body.
fn strip_lengths<B>(response: &mut Response<B>) {
    let is_empty = response.status() == StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |length: &HeaderValue| length.as_bytes().iter().all(u8::is_ascii_digit);
    let is_one = lengths.next().is_none_or(is_number) && lengths.next().is_none();
    if is_empty || !is_one || headers.contains_key(TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
}

/// Whose fault it is that a request was not sent to its end.
fn broken(error: hyper::Error) -> UpstreamError {
    if error.is_user() {
        UpstreamError::Downstream(error)
    } else {
        UpstreamError::Reset(error)
    }
}

/// A handler in this process sees the target as the client meant it: at the authority, over TLS or
/// not.
fn with_absolute_target(mut request: Request<RequestBody>) -> Request<RequestBody> {
    let authority = request.headers().get(HOST);
    let authority = authority.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let mut target = request.uri().clone().into_parts();
    let proto = request.headers().get(X_FORWARDED_PROTO);
    target.scheme = Some(match proto {
        Some(proto) if proto == "http" => Scheme::HTTP,
        _ => Scheme::HTTPS,
    });
    target.authority = authority;
    if let Ok(target) = Uri::from_parts(target) {
        *request.uri_mut() = target;
    }
    request
}
