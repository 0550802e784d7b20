//! accept → identify: the TLS handshake, or that there is none.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use sidegate_identity::tls::{HandshakeProblem, ServerTls, TlsMode};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::{debug, info};

use crate::activity::Reset;
use crate::worker::Listener;

/// A connection with TLS, or without where its listener takes that.
pub(super) type Stream = Either<TlsStream<TcpStream>, TcpStream>;

/// The first byte of a TLS connection: the content type of a handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// A connection whose handshake is done, or that has none.
pub(super) struct Identified {
    pub(super) stream: Stream,
    /// The identity that the peer met here, or would have.
    pub(super) tls: Arc<ServerTls>,
}

impl Reset for Stream {
    fn reset_when_closed(&self) {
        let stream = match self {
            Self::Left(tls) => tls.get_ref().0,
            Self::Right(stream) => stream,
        };
        if let Err(error) = stream.set_zero_linger() {
            debug!(%error, "a connection was gone before it was cut");
        }
    }
}

/// TLS handshake, in time, with a verified X.509-SVID where the listener demands one. Where it
/// demands nothing, what does not begin as TLS does is plaintext.
pub(super) async fn identify(
    listener: &Listener,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<Identified> {
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection was gone before its handshake");
        return None;
    }
    let identified = timeout(listener.timeouts.header_read, handshake(listener, stream)).await;
    match identified {
        Ok(Ok(identified)) => {
            let result = match &identified.stream {
                Stream::Left(_) => "success",
                Stream::Right(_) => "plaintext",
            };
            listener.metrics.handshake(result);
            Some(identified)
        }
        Ok(Err(error)) => {
            let problem = HandshakeProblem::of(&error);
            listener.metrics.handshake(problem.label);
            info!(
                code = problem.code,
                listener = %listener.name,
                downstream = %address,
                error = HandshakeProblem::describe(&error),
                hint = problem.hint,
                "a TLS handshake failed",
            );
            None
        }
        Err(_) => {
            listener.metrics.handshake("timeout");
            info!(
                code = "SG0303",
                listener = %listener.name,
                downstream = %address,
                "a TLS handshake took too long",
            );
            None
        }
    }
}

async fn handshake(listener: &Listener, stream: TcpStream) -> io::Result<Identified> {
    // A peer that says nothing takes nobody's turn.
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if listener.tls.mode() == TlsMode::Permissive && first != [TLS_HANDSHAKE] {
        return Ok(Identified {
            stream: Stream::Right(stream),
            tls: Arc::clone(listener.tls.own()),
        });
    }
    let _turn = listener.admission.handshake().await;
    let (stream, tls) = listener.tls.accept(stream).await?;
    Ok(Identified {
        stream: Stream::Left(stream),
        tls,
    })
}
