//! Listeners: where downstreams connect, as what, and what stands behind.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::num::NonZeroUsize;
use std::time::Duration;

use sidegate_identity::tls::TlsServer;
use socket2::{Domain, SockRef, Socket, Type};

use crate::headers::Forwarding;
use crate::limits::Limits;
use crate::outbound::Outbound;
use crate::path::PathRules;
use crate::protocol::Protocol;
use crate::route::Route;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;

/// What a listener is to do, wherever it listens.
pub struct ListenerConfig {
    /// Its name, for logs, metrics and policy; unique.
    pub name: String,
    /// The identities that it shows, and how it verifies peers. Without it there is no TLS, and nobody
    /// has an identity: neither the peers nor the listener.
    pub tls: Option<TlsServer>,
    /// What its clients speak. Behind one for TCP there is one route, to such an upstream.
    pub protocol: Protocol,
    /// Where permitted requests go.
    pub routes: Vec<Route>,
    /// How long each phase may take.
    pub timeouts: Timeouts,
    /// How much of request bodies the policy sees.
    pub body_limits: BodyLimits,
    /// How much it bears.
    pub limits: Limits,
    /// What becomes of what can be read in two ways in a path.
    pub paths: PathRules,
    /// What upstreams are told of peers.
    pub forwarding: Forwarding,
    /// What the policy is told of the listener, besides its name.
    pub context_extensions: BTreeMap<String, String>,
    /// Where it is for a local app's own requests: `tls` is then the app's identity, if it has one, and
    /// nothing is shown to the app.
    pub outbound: Option<Outbound>,
}

/// How long each phase may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// The TLS handshake, and a request's head from its first byte to its last.
    pub header_read: Duration,
    /// A connection on which nothing moves in either direction.
    pub idle: Duration,
    /// An HTTP/2 stream on which nothing moves in either direction.
    pub stream_idle: Duration,
    /// A pause in a request's body, until its response's head is there.
    pub body_read: Duration,
    /// From a request's head to its response's head.
    pub request: Duration,
    /// Connecting to the upstream.
    pub connect: Duration,
}

/// How much of a request's body is read before the decision, where the policy has to see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BodyLimits {
    /// Bytes that are read at most.
    pub max_request_bytes: usize,
    /// Whether the policy decides on the beginning of a body that is longer. Without this the
    /// request is refused.
    pub allow_partial_message: bool,
    /// Whether the policy sees bodies as bytes in base64, and not as text.
    pub pack_as_bytes: bool,
}

/// One listening socket a worker, all on the same port, or one that all of them share.
#[derive(Debug)]
pub struct BoundListener {
    address: SocketAddr,
    sockets: Vec<TcpListener>,
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else listens there.
    #[error("{address} is already in use")]
    Taken {
        /// The address.
        address: SocketAddr,
    },
    /// The kernel refuses.
    #[error("cannot listen on {address}")]
    Refused {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A socket from another process that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum InheritError {
    /// Nobody can connect to it.
    #[error("it is not a TCP socket that listens")]
    NotListening,
    /// The kernel refuses.
    #[error("the kernel refuses it")]
    Refused(#[from] io::Error),
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header_read: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            stream_idle: Duration::from_secs(5 * 60),
            body_read: Duration::from_secs(30),
            request: Duration::from_secs(30),
            connect: Duration::from_secs(2),
        }
    }
}

impl Default for BodyLimits {
    fn default() -> Self {
        Self {
            max_request_bytes: 8 * 1024,
            allow_partial_message: false,
            pack_as_bytes: false,
        }
    }
}

impl BoundListener {
    /// Binds one socket a worker; the kernel spreads connections over them. Port 0 is replaced by
    /// a free one.
    ///
    /// # Errors
    /// When the address is taken or refused.
    pub fn bind(address: SocketAddr, workers: NonZeroUsize) -> Result<Self, BindError> {
        let failed = |source| BindError::new(address, source);
        // Sockets with SO_REUSEPORT would quietly share the port with another instance of the same
        // user: one without it finds out.
        let probe = listening(address, false).map_err(failed)?;
        let address = probe.local_addr().map_err(failed)?;
        drop(probe);
        let sockets = (0..workers.get())
            .map(|_| listening(address, true))
            .collect::<io::Result<_>>()
            .map_err(failed)?;
        Ok(Self { address, sockets })
    }

    /// Takes a socket that another process has bound and listens on, such as a service manager. All
    /// workers accept from it.
    ///
    /// # Errors
    /// When it does not listen, or the kernel refuses.
    pub fn inherited(socket: &TcpListener, workers: NonZeroUsize) -> Result<Self, InheritError> {
        if !SockRef::from(socket).is_listener()? {
            return Err(InheritError::NotListening);
        }
        let address = socket.local_addr()?;
        // Of all its copies.
        socket.set_nonblocking(true)?;
        let sockets = (0..workers.get()).map(|_| socket.try_clone());
        Ok(Self {
            address,
            sockets: sockets.collect::<io::Result<_>>()?,
        })
    }

    /// Finds out whether [`BoundListener::bind`] would succeed. Nothing is listened on.
    ///
    /// # Errors
    /// When the address is taken or refused.
    pub fn examine(address: SocketAddr) -> Result<(), BindError> {
        let bound = socket(address, false);
        bound
            .map(drop)
            .map_err(|source| BindError::new(address, source))
    }

    /// The address, with its real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn into_sockets(self) -> Vec<TcpListener> {
        self.sockets
    }
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::Taken { address },
            _ => Self::Refused { address, source },
        }
    }

    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Taken { .. } => "SG0301",
            Self::Refused { .. } => "SG0302",
        }
    }
}

fn listening(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = socket(address, shared)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_found_even_if_its_owner_would_share_it() {
        let two = NonZeroUsize::new(2).unwrap();
        let any = "127.0.0.1:0".parse().unwrap();
        let first = BoundListener::bind(any, two).unwrap();
        assert_ne!(first.address().port(), 0);
        let second = BoundListener::bind(first.address(), two);
        assert_eq!(second.unwrap_err().code(), "SG0301");
        let examined = BoundListener::examine(first.address());
        assert_eq!(examined.unwrap_err().code(), "SG0301");
        let address = first.address();
        drop(first);
        BoundListener::examine(address).unwrap();
    }
}
