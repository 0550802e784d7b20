//! A server that apps ask for in plaintext, where there are no identities: each of its addresses is
//! decided on its own.
//!
//! Connections are kept for one address: what was asked about is what is dialled.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::uri::Authority;
use http::{Request, Response};

use super::address::{Address, Stream};
use super::http1::{self, Http1Upstream};
use super::http2::Http2Upstream;
use super::network::AddressCheck;
use super::resolver::Resolver;
use super::{UpstreamError, tcp::TcpUpstream};
use crate::body::Source;
use crate::metrics::HttpVersion;
use crate::request_body::RequestBody;

/// Addresses whose connections are kept, for each worker: names that lead to ever others must not
/// fill the memory.
const MAX_SERVERS: usize = 64;

/// One server, spoken to in plaintext.
#[derive(Clone)]
pub struct DirectUpstream {
    shared: Arc<Shared>,
}

/// What the server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DirectProtocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
    /// Anything: bytes are passed on as they are.
    Tcp,
}

/// A connection on which a request can be sent.
pub(crate) enum Way {
    Http1(Http1Upstream, http1::Way),
    /// It has one connection, which is there.
    Http2(Http2Upstream),
}

struct Shared {
    protocol: DirectProtocol,
    resolver: Resolver,
    connect_timeout: Duration,
    /// By address, the one found last at the end.
    servers: Mutex<Vec<(SocketAddr, Server)>>,
}

#[derive(Clone)]
enum Server {
    Http1(Http1Upstream),
    Http2(Http2Upstream),
}

impl DirectUpstream {
    /// A server at a host and port. Nothing is connected yet.
    pub fn new(
        protocol: DirectProtocol,
        authority: Authority,
        check: AddressCheck,
        connect_timeout: Duration,
    ) -> Self {
        Self::with(protocol, Resolver::new(authority, check), connect_timeout)
    }

    fn with(protocol: DirectProtocol, resolver: Resolver, connect_timeout: Duration) -> Self {
        Self {
            shared: Arc::new(Shared {
                protocol,
                resolver,
                connect_timeout,
                servers: Mutex::default(),
            }),
        }
    }

    pub(crate) fn for_worker(&self) -> Self {
        let Shared {
            protocol,
            resolver,
            connect_timeout,
            ..
        } = &*self.shared;
        Self::with(*protocol, resolver.anew(), *connect_timeout)
    }

    /// Host and port, as configured.
    pub(crate) fn authority(&self) -> &Authority {
        self.shared.resolver.authority()
    }

    /// The version of HTTP that the server speaks, if it is HTTP.
    pub(crate) fn version(&self) -> Option<HttpVersion> {
        match self.shared.protocol {
            DirectProtocol::Http1 => Some(HttpVersion::Http11),
            DirectProtocol::Http2 => Some(HttpVersion::Http2),
            DirectProtocol::Tcp => None,
        }
    }

    /// Where the server may be dialled.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, UpstreamError> {
        Ok(self.shared.resolver.addresses().await?.to_vec())
    }

    /// A connection for a request, to an address of the server.
    pub(crate) async fn way(&self, address: SocketAddr) -> Result<Way, UpstreamError> {
        Ok(match self.server(address)? {
            Server::Http1(upstream) => {
                let way = upstream.way().await?;
                Way::Http1(upstream, way)
            }
            Server::Http2(upstream) => {
                upstream.connected().await?;
                Way::Http2(upstream)
            }
        })
    }

    /// A connection to an address of the server that carries anything but HTTP.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Stream, UpstreamError> {
        let upstream = TcpUpstream::new(exactly(address)?, self.shared.connect_timeout);
        upstream.connect().await
    }

    /// Sends a request on a connection, or on one that [`DirectUpstream::way`] finds.
    pub(crate) async fn send(
        &self,
        request: Request<RequestBody>,
        way: Option<Way>,
    ) -> Result<Response<Source>, UpstreamError> {
        let way = match way {
            Some(way) => way,
            None => self.any_way().await?,
        };
        Ok(match way {
            Way::Http1(upstream, way) => {
                let response = upstream.send_on(Some(way), request).await?;
                response.map(|body| Source::Http1 { body })
            }
            Way::Http2(upstream) => {
                let response = upstream.send(request).await?;
                response.map(|body| Source::Http2 { body })
            }
        })
    }

    /// A connection to whichever of the server's addresses takes one.
    async fn any_way(&self) -> Result<Way, UpstreamError> {
        let mut failed = None;
        for address in self.addresses().await? {
            match self.way(address).await {
                Ok(way) => return Ok(way),
                Err(error) => failed = Some(error),
            }
        }
        // There is one address at least.
        Err(failed.unwrap_or_else(|| UpstreamError::Resolve(io::ErrorKind::NotFound.into())))
    }

    /// What has the connections to an address.
    fn server(&self, address: SocketAddr) -> Result<Server, UpstreamError> {
        let Shared {
            protocol,
            connect_timeout,
            servers,
            ..
        } = &*self.shared;
        let mut servers = servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, server)) = servers.iter().find(|(known, _)| *known == address) {
            return Ok(server.clone());
        }
        let exactly = exactly(address)?;
        let server = match protocol {
            DirectProtocol::Http1 => Server::Http1(Http1Upstream::new(exactly, *connect_timeout)),
            DirectProtocol::Http2 => Server::Http2(Http2Upstream::new(exactly, *connect_timeout)),
            // The configuration sends it no requests.
            DirectProtocol::Tcp => {
                return Err(UpstreamError::Connect(io::ErrorKind::Unsupported.into()));
            }
        };
        if servers.len() >= MAX_SERVERS {
            // What is under way there goes on.
            servers.remove(0);
        }
        servers.push((address, server.clone()));
        Ok(server)
    }
}

/// An address that leads nowhere else.
fn exactly(address: SocketAddr) -> Result<Address, UpstreamError> {
    let authority = Authority::try_from(address.to_string());
    let authority = authority.map_err(|error| UpstreamError::Connect(io::Error::other(error)))?;
    Ok(Address::Tcp(authority))
}

impl fmt::Debug for DirectUpstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DirectUpstream({})", self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upstream(protocol: DirectProtocol) -> DirectUpstream {
        let authority = Authority::from_static("peer.example:80");
        DirectUpstream::new(
            protocol,
            authority,
            AddressCheck::Any,
            Duration::from_secs(1),
        )
    }

    #[test]
    fn each_address_has_connections_of_its_own_and_old_addresses_are_let_go() {
        for protocol in [DirectProtocol::Http1, DirectProtocol::Http2] {
            let upstream = upstream(protocol);
            let count = u16::try_from(MAX_SERVERS).unwrap() * 2;
            for port in 1..=count {
                for text in [format!("127.0.0.1:{port}"), format!("[::1]:{port}")] {
                    let address: SocketAddr = text.parse().unwrap();
                    let server = upstream.server(address).unwrap();
                    let leads_to = match server {
                        Server::Http1(upstream) => upstream.address().to_string(),
                        Server::Http2(upstream) => upstream.address().to_string(),
                    };
                    assert_eq!(leads_to, text, "it leads nowhere else");
                }
                let servers = upstream.shared.servers.lock().unwrap();
                let place = servers.iter().position(|(it, _)| it.port() == port);
                assert!(place.is_some(), "the newest is kept");
                assert!(servers.len() <= MAX_SERVERS);
            }
        }
    }

    #[test]
    fn what_speaks_no_http_is_sent_no_requests() {
        let upstream = upstream(DirectProtocol::Tcp);
        assert_eq!(upstream.version(), None);
        let address = "127.0.0.1:1".parse().unwrap();
        assert!(upstream.server(address).is_err());
    }
}
