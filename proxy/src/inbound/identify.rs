//! accept → identify: the TLS handshake, or that there is none.
//!
//! A listener without TLS has no handshake and nobody's identity. Who speaks TLS to it is told so in
//! TLS; where it is for TCP, nothing is looked at, and TLS is bytes as all others.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use sidegate_identity::tls::{HandshakeProblem, ServerTls, TlsMode, TlsServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;
use tokio_util::either::Either;
use tracing::{debug, info};

use super::watch::GOODBYE;
use crate::activity::Reset;
use crate::protocol::Protocol;
use crate::worker::Listener;

/// A connection with TLS, or without where its listener takes that.
pub(super) type Stream = Either<TlsStream<TcpStream>, TcpStream>;

/// The first byte of a TLS connection: the content type of a handshake record (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// The fatal alert `handshake_failure`, as every version of TLS reads it (RFC 8446 section 6).
const NO_TLS: [u8; 7] = [21, 3, 3, 0, 2, 2, 40];

/// What is read at most of a client that is turned away.
const LAST_BYTES: u64 = 64 * 1024;

/// A connection whose handshake is done, or that has none.
pub(super) struct Identified {
    pub(super) stream: Stream,
    /// The identity that the peer met here, or would have; none where there is no TLS.
    pub(super) tls: Option<Arc<ServerTls>>,
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
    let Some(tls) = &listener.tls else {
        return plaintext(listener, stream, address).await;
    };
    let handshake = handshake(listener, tls, stream);
    let identified = timeout(listener.timeouts.header_read, handshake).await;
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

async fn handshake(
    listener: &Listener,
    tls: &TlsServer,
    stream: TcpStream,
) -> io::Result<Identified> {
    // A peer that says nothing takes nobody's turn.
    let mut first = [0];
    if stream.peek(&mut first).await? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    if tls.mode() == TlsMode::Permissive && first != [TLS_HANDSHAKE] {
        return Ok(Identified {
            stream: Stream::Right(stream),
            tls: Some(Arc::clone(tls.own())),
        });
    }
    let _turn = listener.admission.handshake().await;
    let (stream, tls) = tls.accept(stream).await?;
    Ok(Identified {
        stream: Stream::Left(stream),
        tls: Some(tls),
    })
}

/// A connection without TLS, once it is known that the client speaks none either.
async fn plaintext(
    listener: &Listener,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<Identified> {
    if listener.protocol != Protocol::Tcp {
        let mut first = [0];
        match timeout(listener.timeouts.header_read, stream.peek(&mut first)).await {
            Ok(Ok(1..)) => {}
            // It has sent nothing, and would not get an answer.
            Ok(_) | Err(_) => return None,
        }
        if first == [TLS_HANDSHAKE] {
            listener.metrics.handshake("tls");
            info!(
                code = "SG0178",
                listener = %listener.name,
                downstream = %address,
                hint = "ask by http://, or see `listener.tls`",
                "a client speaks TLS to a listener without TLS",
            );
            refuse(stream).await;
            return None;
        }
    }
    Some(Identified {
        stream: Stream::Right(stream),
        tls: None,
    })
}

/// Tells a client in TLS that there is none.
async fn refuse(mut stream: TcpStream) {
    let telling = async {
        stream.write_all(&NO_TLS).await?;
        stream.shutdown().await?;
        // The kernel takes back what was sent to a client whose bytes nobody reads.
        let mut rest = stream.take(LAST_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // Whether the client hears of it is not our concern.
    let _ = timeout(GOODBYE, telling).await;
}
