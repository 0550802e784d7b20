//! A peer in the mesh: HTTP/2, or HTTP/1.1 where the server offers no more, over mutual TLS.
//!
//! Connections are kept for one identity, one expectation of the server and one of its addresses:
//! they belong to the upstream of one listener or route, and no other finds them.

mod line;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::UPGRADE;
use http::uri::{Authority, Scheme};
use http::{Request, Response};
use hyper_util::rt::TokioIo;
use sidegate_identity::clock::Clock;
use sidegate_identity::tls::{ClientTls, Expected, Secured};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::http1;
use super::network::AddressCheck;
use super::resolver::Resolver;
use super::{UpstreamError, broken, http2};
use crate::body::Source;
use crate::metrics::ListenerMetrics;
use crate::request_body::RequestBody;
use line::Watch;
pub(crate) use line::{Cuttable, Line};

/// Idle HTTP/1.1 connections that are kept, for each worker.
const MAX_IDLE: usize = 256;

const HTTP2: &str = "h2";
const HTTP1: &str = "http/1.1";

/// One server, spoken to over mutual TLS.
#[derive(Clone)]
pub struct MtlsUpstream {
    shared: Arc<Shared>,
}

/// A connection to a server that has shown who it is.
pub(crate) type Stream = Cuttable<TlsStream<TcpStream>>;

/// A connection on which a request can be sent.
pub(crate) struct Way {
    connection: Connection,
    /// Whether it was there before.
    is_reused: bool,
}

struct Connection {
    address: SocketAddr,
    line: Arc<Line>,
    sender: Sender,
}

enum Sender {
    Http1(http1::Sender),
    Http2(http2::Sender),
}

/// Where an HTTP/1.1 connection goes once its response has been read.
pub(super) struct Home {
    shared: Arc<Shared>,
    address: SocketAddr,
    line: Arc<Line>,
}

struct Shared {
    resolver: Resolver,
    tls: ClientTls,
    clock: Arc<dyn Clock>,
    connect_timeout: Duration,
    /// Of the listener; until a worker has it, there is none.
    metrics: Option<Arc<ListenerMetrics>>,
    /// HTTP/2 connections, and HTTP/1.1 ones that are idle.
    kept: Mutex<Vec<Connection>>,
    /// Who finds no connection makes one; the others wait for that one's.
    dialling: tokio::sync::Mutex<()>,
    /// Whether the server took HTTP/1.1 when it was offered both: then nobody waits.
    is_http1: AtomicBool,
}

impl MtlsUpstream {
    /// A server at a host and port, which must be who `tls` expects. Nothing is connected yet.
    pub fn new(
        authority: Authority,
        check: AddressCheck,
        tls: ClientTls,
        clock: Arc<dyn Clock>,
        connect_timeout: Duration,
    ) -> Self {
        let resolver = Resolver::new(authority, check);
        Self::with(resolver, tls, clock, connect_timeout, None)
    }

    fn with(
        resolver: Resolver,
        tls: ClientTls,
        clock: Arc<dyn Clock>,
        connect_timeout: Duration,
        metrics: Option<Arc<ListenerMetrics>>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                resolver,
                tls,
                clock,
                connect_timeout,
                metrics,
                kept: Mutex::default(),
                dialling: tokio::sync::Mutex::default(),
                is_http1: AtomicBool::new(false),
            }),
        }
    }

    pub(crate) fn for_worker(&self, metrics: &Arc<ListenerMetrics>) -> Self {
        let shared = &self.shared;
        Self::with(
            shared.resolver.anew(),
            shared.tls.clone(),
            Arc::clone(&shared.clock),
            shared.connect_timeout,
            Some(Arc::clone(metrics)),
        )
    }

    /// Host and port, as configured.
    pub(crate) fn authority(&self) -> &Authority {
        self.shared.resolver.authority()
    }

    /// Who the server must be.
    pub(crate) fn expected(&self) -> &Expected {
        self.shared.tls.expected()
    }

    /// Where the server may be dialled, what is connected already first.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, UpstreamError> {
        let mut addresses = self.shared.resolver.addresses().await?.to_vec();
        if addresses.len() > 1 {
            let kept = self.shared.kept();
            addresses.sort_by_key(|address| !kept.iter().any(|it| it.address == *address));
        }
        Ok(addresses)
    }

    /// A connection for a request, to an address of the server. One for a request that asks to
    /// switch protocols speaks HTTP/1.1.
    pub(crate) async fn way(
        &self,
        address: SocketAddr,
        switches: bool,
    ) -> Result<Way, UpstreamError> {
        let shared = &self.shared;
        if let Some(way) = shared.take(address, switches) {
            return Ok(way);
        }
        let waits = !switches && !shared.is_http1.load(Relaxed);
        let _turn = match waits {
            true => Some(shared.dialling.lock().await),
            false => None,
        };
        if waits && let Some(way) = shared.take(address, switches) {
            return Ok(way);
        }
        let protocols: &[&str] = if switches { &[HTTP1] } else { &[HTTP2, HTTP1] };
        let (stream, line) = shared.dial(address, protocols).await?;
        let is_http2 = stream.alpn_protocol() == Some(HTTP2.as_bytes());
        if !switches {
            shared.is_http1.store(!is_http2, Relaxed);
        }
        let io = TokioIo::new(stream);
        let sender = match is_http2 {
            true => {
                let sender = http2::handshake(io).await?;
                shared.keep(Connection {
                    address,
                    line: Arc::clone(&line),
                    sender: Sender::Http2(sender.clone()),
                });
                Sender::Http2(sender)
            }
            false => Sender::Http1(http1::handshake(io).await?),
        };
        Ok(Way {
            connection: Connection {
                address,
                line,
                sender,
            },
            is_reused: false,
        })
    }

    /// A connection to an address of the server that carries anything but HTTP.
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Stream, UpstreamError> {
        let (stream, _) = self.shared.dial(address, &[]).await?;
        Ok(stream)
    }

    /// Sends a request on a connection, or on one that [`MtlsUpstream::way`] finds. A request that a
    /// dying connection did not take goes on to the next, to the same address.
    pub(crate) async fn send(
        &self,
        mut request: Request<RequestBody>,
        way: Option<Way>,
    ) -> Result<Response<Source>, UpstreamError> {
        let switches = request.headers().contains_key(UPGRADE);
        let mut way = match way {
            Some(way) => way,
            None => self.any_way(switches).await?,
        };
        loop {
            let Way {
                connection,
                is_reused,
            } = way;
            let Connection {
                address,
                line,
                sender,
            } = connection;
            let sent = match sender {
                Sender::Http1(sender) => {
                    let home = http1::Home::Mtls(Home {
                        shared: Arc::clone(&self.shared),
                        address,
                        line,
                    });
                    let request = http1::prepared(request);
                    let sent = http1::send_on(sender, home, request, is_reused).await?;
                    sent.map(|response| response.map(|body| Source::Http1 { body }))
                }
                Sender::Http2(mut sender) => {
                    let request = http2::with_pseudo_headers(request, Scheme::HTTPS);
                    match sender.try_send_request(request).await {
                        Ok(response) => Ok(response.map(|body| Source::Http2 { body })),
                        Err(mut error) => {
                            line.retire();
                            match error.take_message() {
                                Some(unsent) if is_reused => Err(unsent),
                                _ => return Err(broken(error.into_error())),
                            }
                        }
                    }
                }
            };
            match sent {
                Ok(response) => return Ok(response),
                Err(unsent) => request = unsent,
            }
            way = self.way(address, switches).await?;
        }
    }

    /// A connection to whichever of the server's addresses takes one.
    async fn any_way(&self, switches: bool) -> Result<Way, UpstreamError> {
        let mut failed = None;
        for address in self.addresses().await? {
            match self.way(address, switches).await {
                Ok(way) => return Ok(way),
                Err(error) => failed = Some(error),
            }
        }
        // There is one address at least.
        Err(failed.unwrap_or_else(|| UpstreamError::Resolve(io::ErrorKind::NotFound.into())))
    }
}

impl Stream {
    fn alpn_protocol(&self) -> Option<&[u8]> {
        self.stream().get_ref().1.alpn_protocol()
    }
}

impl Shared {
    /// Connects, within the time for that, and has the connection watched.
    async fn dial(
        self: &Arc<Self>,
        address: SocketAddr,
        protocols: &[&str],
    ) -> Result<(Stream, Arc<Line>), UpstreamError> {
        let connecting = async {
            let stream = TcpStream::connect(address).await;
            let stream = stream.map_err(UpstreamError::Connect)?;
            stream.set_nodelay(true).map_err(UpstreamError::Connect)?;
            let host = self.resolver.authority().host();
            let now = self.clock.now();
            let secured = self.tls.connect(host, protocols, stream, now).await;
            secured.map_err(UpstreamError::Tls)
        };
        let connected = tokio::time::timeout(self.connect_timeout, connecting).await;
        let Secured { stream, grounds } =
            connected.map_err(|_| UpstreamError::ConnectTimeout)??;
        let line = Arc::<Line>::default();
        let stream = line.bind(stream);
        let watch = Watch {
            line: Arc::clone(&line),
            tls: self.tls.clone(),
            grounds,
            clock: Arc::clone(&self.clock),
            metrics: self.metrics.clone(),
            authority: self.resolver.authority().to_string(),
        };
        let shared = Arc::downgrade(self);
        tokio::spawn(watch.run(move || {
            if let Some(shared) = shared.upgrade() {
                shared.sweep();
            }
        }));
        Ok((stream, line))
    }

    /// A kept connection that can take a request now, the one used last.
    fn take(&self, address: SocketAddr, switches: bool) -> Option<Way> {
        self.sweep();
        let mut kept = self.kept();
        let place = kept.iter().rposition(|it| {
            it.address == address
                && match &it.sender {
                    Sender::Http1(sender) => sender.is_ready(),
                    Sender::Http2(_) => !switches,
                }
        })?;
        let connection = match kept.get(place)? {
            Connection {
                sender: Sender::Http2(sender),
                line,
                ..
            } => Connection {
                address,
                line: Arc::clone(line),
                sender: Sender::Http2(sender.clone()),
            },
            _ => kept.remove(place),
        };
        Some(Way {
            connection,
            is_reused: true,
        })
    }

    fn keep(&self, connection: Connection) {
        let mut kept = self.kept();
        if connection.is_usable() && kept.len() < MAX_IDLE {
            kept.push(connection);
        }
    }

    /// Lets go of what takes no more requests: an HTTP/2 connection then ends with the last of its
    /// streams, an idle one at once.
    fn sweep(&self) {
        self.kept().retain(Connection::is_usable);
    }

    fn kept(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    fn is_usable(&self) -> bool {
        let is_closed = match &self.sender {
            Sender::Http1(sender) => sender.is_closed(),
            Sender::Http2(sender) => sender.is_closed(),
        };
        !is_closed && !self.line.is_retired()
    }
}

impl Home {
    /// Takes a connection back.
    pub(super) fn give_back(self, sender: http1::Sender) {
        self.shared.keep(Connection {
            address: self.address,
            line: self.line,
            sender: Sender::Http1(sender),
        });
    }
}

impl fmt::Debug for MtlsUpstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "MtlsUpstream({})", self.authority())
    }
}
