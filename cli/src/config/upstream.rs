//! Servers behind listeners, as URLs: `http://` for HTTP/1.1, `h2c://` for HTTP/2 without TLS,
//! `tcp://` for bytes as they are, and all of them over a Unix socket.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use http::uri::Authority;
use sidegate_proxy::upstream::http1::Http1Upstream;
use sidegate_proxy::upstream::http2::Http2Upstream;
use sidegate_proxy::upstream::tcp::TcpUpstream;
use sidegate_proxy::upstream::{Address, Upstream};

use super::codes;
use super::model::WorkloadApi;
use super::values::{Problem, is_host};

/// A server behind a listener, reached in plain text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UpstreamServer {
    protocol: Protocol,
    address: Address,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
    Tcp,
}

impl UpstreamServer {
    /// Whether it is sent bytes, and no requests.
    pub(crate) fn is_tcp(&self) -> bool {
        self.protocol == Protocol::Tcp
    }

    /// The data plane's end of it. Nothing is connected yet.
    pub(crate) fn upstream(&self, connect_timeout: Duration) -> Upstream {
        let address = self.address.clone();
        match self.protocol {
            Protocol::Http1 => Upstream::Http1(Http1Upstream::new(address, connect_timeout)),
            Protocol::Http2 => Upstream::Http2(Http2Upstream::new(address, connect_timeout)),
            Protocol::Tcp => Upstream::Tcp(TcpUpstream::new(address, connect_timeout)),
        }
    }
}

impl fmt::Display for UpstreamServer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match (self.protocol, &self.address) {
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
    let server = upstream(text).map_err(Problem::in_a_line)?;
    match server.is_tcp() {
        true => Err("takes no requests, and there is a listener for HTTP only here".to_owned()),
        false => Ok(server),
    }
}

pub(super) fn upstream(text: &str) -> Result<UpstreamServer, Problem> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    let (protocol, address) = match scheme {
        "http" => (Protocol::Http1, tcp(rest)?),
        "h2c" => (Protocol::Http2, tcp(rest)?),
        "unix" => (Protocol::Http1, unix(rest)?),
        "unix+h2c" => (Protocol::Http2, unix(rest)?),
        "tcp" => (Protocol::Tcp, tcp(rest)?),
        "unix+tcp" => (Protocol::Tcp, unix(rest)?),
        _ => {
            let schemes = "must begin with `http://`, `h2c://`, `tcp://`, `unix://`, \
                           `unix+h2c://` or `unix+tcp://`";
            return Err(refused(schemes));
        }
    };
    Ok(UpstreamServer { protocol, address })
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

/// A host and a port.
fn tcp(rest: &str) -> Result<Address, Problem> {
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
        Ok(Address::Tcp(authority))
    } else {
        Err(refused("the host is neither an IP address nor a name"))
    }
}
