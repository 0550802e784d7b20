//! A server that an app asks for: each address is decided before it is dialled.

use std::net::SocketAddr;

use http::uri::Authority;
use tokio_util::either::Either;

use super::{DirectUpstream, MtlsUpstream, UpstreamError, address, direct, mtls};

/// A server that an app asks for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Decided<'a> {
    /// A peer in the mesh.
    Mtls(&'a MtlsUpstream),
    /// Whoever answers in plaintext.
    Direct(&'a DirectUpstream),
}

/// A connection on which a request can be sent.
pub(crate) enum Way {
    Mtls(mtls::Way),
    Direct(direct::Way),
}

/// A connection that carries anything.
pub(crate) type DecidedStream = Either<mtls::Stream, address::Stream>;

impl Decided<'_> {
    /// Host and port, as configured.
    pub(crate) fn authority(&self) -> &Authority {
        match self {
            Self::Mtls(upstream) => upstream.authority(),
            Self::Direct(upstream) => upstream.authority(),
        }
    }

    /// What can be said beforehand of who the server is.
    pub(crate) fn principal(&self) -> Option<String> {
        match self {
            Self::Mtls(upstream) => upstream.expected().principal(),
            Self::Direct(_) => None,
        }
    }

    /// Where the server may be dialled.
    pub(crate) async fn addresses(&self) -> Result<Vec<SocketAddr>, UpstreamError> {
        match self {
            Self::Mtls(upstream) => upstream.addresses().await,
            Self::Direct(upstream) => upstream.addresses().await,
        }
    }

    /// A connection for a request, to an address of the server. One for a request that asks to
    /// switch protocols speaks HTTP/1.1 where the server does.
    pub(crate) async fn way(
        &self,
        address: SocketAddr,
        switches: bool,
    ) -> Result<Way, UpstreamError> {
        Ok(match self {
            Self::Mtls(upstream) => Way::Mtls(upstream.way(address, switches).await?),
            Self::Direct(upstream) => Way::Direct(upstream.way(address).await?),
        })
    }

    /// A connection to an address of the server that carries anything but HTTP.
    pub(crate) async fn connect(
        &self,
        address: SocketAddr,
    ) -> Result<DecidedStream, UpstreamError> {
        Ok(match self {
            Self::Mtls(upstream) => Either::Left(upstream.connect(address).await?),
            Self::Direct(upstream) => Either::Right(upstream.connect(address).await?),
        })
    }
}
