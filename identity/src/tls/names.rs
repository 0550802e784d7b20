//! A server with several identities: the name that a client asks for tells which one it meets.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;

use super::server::{ServerTls, TlsMode};

/// Accepts TLS with an identity of its own, or with another for some server names (SNI, RFC 6066
/// section 3).
#[derive(Debug, Clone)]
pub struct TlsServer {
    own: Arc<ServerTls>,
    /// By names in lower case: `a.example`, or `.a.example` for all names below it.
    named: Arc<HashMap<String, Arc<ServerTls>>>,
}

impl TlsServer {
    /// With one identity, whatever name is asked for.
    pub fn new(own: ServerTls) -> Self {
        Self {
            own: Arc::new(own),
            named: Arc::default(),
        }
    }

    /// The same with another identity for these names: `a.example`, or `*.a.example` for all names
    /// below it. A name counts before a wildcard, and a longer wildcard before a shorter one.
    #[must_use]
    pub fn with_names(self, names: impl IntoIterator<Item = String>, tls: ServerTls) -> Self {
        let tls = Arc::new(tls);
        let mut named = HashMap::clone(&self.named);
        for name in names {
            let name = name.trim_start_matches('*').to_ascii_lowercase();
            named.insert(name, Arc::clone(&tls));
        }
        Self {
            named: Arc::new(named),
            ..self
        }
    }

    /// The identity of those who ask for no name, or for one that has none of its own.
    pub fn own(&self) -> &Arc<ServerTls> {
        &self.own
    }

    /// All identities, its own first. One that several names have is there once.
    pub fn all(&self) -> impl Iterator<Item = &Arc<ServerTls>> {
        let mut all = vec![&self.own];
        let mut names: Vec<_> = self.named.iter().collect();
        names.sort_by_key(|(name, _)| *name);
        for (_, tls) in names {
            if !all.iter().any(|found| Arc::ptr_eq(found, tls)) {
                all.push(tls);
            }
        }
        all.into_iter()
    }

    /// What it demands of its clients.
    pub fn mode(&self) -> TlsMode {
        self.own.mode()
    }

    /// Performs a handshake, and tells with which identity.
    ///
    /// # Errors
    /// What the handshake failed with; [`HandshakeProblem`](super::HandshakeProblem) knows more.
    pub async fn accept<S>(&self, stream: S) -> io::Result<(TlsStream<S>, Arc<ServerTls>)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        if self.named.is_empty() {
            let stream = self.own.acceptor().accept(stream).await?;
            return Ok((stream, Arc::clone(&self.own)));
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let tls = Arc::clone(self.by_name(hello.client_hello().server_name()));
        let config = Arc::clone(tls.acceptor().config());
        Ok((hello.into_stream(config).await?, tls))
    }

    fn by_name(&self, name: Option<&str>) -> &Arc<ServerTls> {
        let name = name.map(str::to_ascii_lowercase).unwrap_or_default();
        let dots = name.match_indices('.');
        let wildcards = dots.filter_map(|(dot, _)| name.get(dot..));
        let mut found = [name.as_str()].into_iter().chain(wildcards);
        found
            .find_map(|name| self.named.get(name))
            .unwrap_or(&self.own)
    }
}
