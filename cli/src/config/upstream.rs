//! Servers behind listeners, as URLs: `http://` for HTTP/1.1, `h2c://` for HTTP/2 without TLS, `tcp://`
//! for bytes as they are, and all of them over a Unix socket; `https://` for HTTP by mutual TLS,
//! `tls://` for anything by mutual TLS.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http::uri::Authority;
use sidegate_identity::clock::Clock;
use sidegate_identity::svid::Identities;
use sidegate_identity::tls::{ClientTls, Expected, Presented, TlsError};
use sidegate_proxy::upstream::http1::Http1Upstream;
use sidegate_proxy::upstream::http2::Http2Upstream;
use sidegate_proxy::upstream::tcp::TcpUpstream;
use sidegate_proxy::upstream::{
    Address, AddressCheck, DirectProtocol, DirectUpstream, MtlsUpstream, Upstream,
};
use tokio::sync::watch;

use super::codes;
use super::model::WorkloadApi;
use super::values::{Problem, is_host};

/// A server behind a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamServer {
    protocol: Protocol,
    address: Address,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    Tcp,
    /// Mutual TLS: HTTP, or else anything.
    Mtls {
        expected: Expected,
        is_http: bool,
    },
}

/// A server as its URL says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    Plain(UpstreamServer),
    InMesh(InMesh),
}

/// A server by mutual TLS, of which it is not said yet who it must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InMesh {
    authority: Authority,
    pub(super) is_http: bool,
}

/// As whom servers in the mesh are connected to, and how.
#[derive(Clone)]
pub(crate) struct Mesh {
    /// None where there is no identity.
    pub(crate) presented: Option<Presented>,
    pub(crate) identities: watch::Receiver<Arc<Identities>>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where names may lead.
    pub(crate) addresses: AddressCheck,
    /// Whether each address is decided before it is dialled: what apps ask for.
    pub(crate) is_outbound: bool,
}

/// Why there is no way to a server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoWay {
    #[error("there is no identity to show to {0}")]
    NoIdentity(Authority),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl UpstreamServer {
    /// Whether it is sent bytes, and no requests.
    pub(crate) fn is_tcp(&self) -> bool {
        self.protocol == Protocol::Tcp
    }

    /// Whether it is at a host and port.
    pub(super) fn has_host(&self) -> bool {
        matches!(self.address, Address::Tcp(_))
    }

    /// What it speaks without TLS.
    fn direct(&self) -> Option<DirectProtocol> {
        match self.protocol {
            Protocol::Http1 => Some(DirectProtocol::Http1),
            Protocol::Http2 => Some(DirectProtocol::Http2),
            Protocol::Tcp => Some(DirectProtocol::Tcp),
            Protocol::Mtls { .. } => None,
        }
    }

    /// The data plane's end of it. Nothing is connected yet.
    ///
    /// # Errors
    /// There is nothing to show to a server in the mesh.
    pub(crate) fn upstream(
        &self,
        connect_timeout: Duration,
        mesh: &Mesh,
    ) -> Result<Upstream, NoWay> {
        let address = self.address.clone();
        if let (true, Some(protocol), Address::Tcp(authority)) =
            (mesh.is_outbound, self.direct(), &address)
        {
            let (authority, check) = (authority.clone(), mesh.addresses.clone());
            let upstream = DirectUpstream::new(protocol, authority, check, connect_timeout);
            return Ok(Upstream::Direct(upstream));
        }
        Ok(match (&self.protocol, address) {
            (Protocol::Http1, address) => {
                Upstream::Http1(Http1Upstream::new(address, connect_timeout))
            }
            (Protocol::Tcp, address) => Upstream::Tcp(TcpUpstream::new(address, connect_timeout)),
            (Protocol::Mtls { expected, .. }, Address::Tcp(authority)) => {
                let Some(presented) = mesh.presented.clone() else {
                    return Err(NoWay::NoIdentity(authority));
                };
                let tls = ClientTls::new(presented, expected.clone(), mesh.identities.clone())?;
                let clock = Arc::clone(&mesh.clock);
                let check = mesh.addresses.clone();
                let upstream = MtlsUpstream::new(authority, check, tls, clock, connect_timeout);
                Upstream::Mtls(upstream)
            }
            (Protocol::Http2 | Protocol::Mtls { .. }, address) => {
                Upstream::Http2(Http2Upstream::new(address, connect_timeout))
            }
        })
    }
}

impl InMesh {
    /// It must be this one.
    pub(super) fn expecting(self, expected: Expected) -> UpstreamServer {
        let Self { authority, is_http } = self;
        UpstreamServer {
            protocol: Protocol::Mtls { expected, is_http },
            address: Address::Tcp(authority),
        }
    }
}

impl fmt::Display for UpstreamServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (&self.protocol, &self.address) {
            (Protocol::Mtls { is_http: true, .. }, _) => "https",
            (Protocol::Mtls { is_http: false, .. }, _) => "tls",
            (Protocol::Http1, Address::Tcp(_)) => "http",
            (Protocol::Http2, Address::Tcp(_)) => "h2c",
            (Protocol::Tcp, Address::Tcp(_)) => "tcp",
            (Protocol::Http1, Address::Unix(_)) => "unix",
            (Protocol::Http2, Address::Unix(_)) => "unix+h2c",
            (Protocol::Tcp, Address::Unix(_)) => "unix+tcp",
        };
        write!(formatter, "{scheme}://{}", self.address)
    }
}

/// An upstream on the command line, by the same rule as in a file.
pub(crate) fn upstream_server(text: &str) -> Result<UpstreamServer, String> {
    match upstream(text).map_err(Problem::in_a_line)? {
        Written::Plain(server) if server.is_tcp() => {
            Err("takes no requests, and there is a listener for HTTP only here".to_owned())
        }
        Written::Plain(server) => Ok(server),
        Written::InMesh(_) => {
            let problem = "by mutual TLS it must be said who the server is: that takes a file";
            Err(problem.to_owned())
        }
    }
}

pub(super) fn upstream(text: &str) -> Result<Written, Problem> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (protocol, address) = match scheme {
        "http" => (Protocol::Http1, tcp(rest)?),
        "h2c" => (Protocol::Http2, tcp(rest)?),
        "unix" => (Protocol::Http1, unix(rest)?),
        "unix+h2c" => (Protocol::Http2, unix(rest)?),
        "tcp" => (Protocol::Tcp, tcp(rest)?),
        "unix+tcp" => (Protocol::Tcp, unix(rest)?),
        "https" | "tls" => {
            return Ok(Written::InMesh(InMesh {
                authority: host_and_port(rest)?,
                is_http: scheme == "https",
            }));
        }
        _ => {
            let schemes = "must begin with `http://`, `h2c://`, `https://`, `tcp://`, `unix://`, \
                           `unix+h2c://` or `unix+tcp://`";
            return Err(refused(schemes));
        }
    };
    Ok(Written::Plain(UpstreamServer { protocol, address }))
}

fn refused(label: &str) -> Problem {
    Problem::new(codes::BAD_UPSTREAM, "is not an upstream", label).help(
        "an upstream is written like \"http://127.0.0.1:9000\", host and port and no more, or \
         \"unix:///run/app.sock\"",
    )
}

/// The path of a Unix socket.
fn unix(path: &str) -> Result<Address, Problem> {
    if !path.starts_with('/') {
        return Err(refused("the path must begin with `/`"));
    }
    if path.ends_with('/') {
        return Err(refused("is not the path of a socket"));
    }
    if path.len() > WorkloadApi::SOCKET_PATH_MAX {
        return Err(refused("the path of a socket has 107 bytes at most"));
    }
    Ok(Address::Unix(PathBuf::from(path)))
}

fn tcp(rest: &str) -> Result<Address, Problem> {
    host_and_port(rest).map(Address::Tcp)
}

fn host_and_port(rest: &str) -> Result<Authority, Problem> {
    if rest.contains(['/', '?', '#']) {
        return Err(refused("must end after the port"));
    }
    if rest.contains('@') {
        return Err(refused("must not hold a user"));
    }
    let authority: Authority = rest
        .parse()
        .map_err(|_| refused("is not a host and port"))?;
    let digits = rest
        .strip_prefix(authority.host())
        .and_then(|port| port.strip_prefix(':'))
        .unwrap_or("");
    let port = digits
        .parse::<u16>()
        .ok()
        .filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()));
    if port.is_none_or(|port| port == 0) {
        return Err(refused("must name a port from 1 to 65535"));
    }
    if is_host(authority.host()) {
        Ok(authority)
    } else {
        Err(refused("the host is neither an IP address nor a name"))
    }
}
