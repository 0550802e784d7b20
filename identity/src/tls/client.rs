//! The client side of mutual TLS: what this side shows, and which server it talks to.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, SignatureScheme,
};
use spiffe::{SpiffeId, TrustDomain};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::peer::{PeerError, PeerIdentity};
use super::server::{Presented, TlsError, Trust};
use super::verifier::{SpiffeVerifier, describe, verify_chain};
use crate::svid::{Identities, X509Bundle, X509Svid};

/// Connects by mutual TLS 1.3 as one identity, to servers of which it is known who they must be.
#[derive(Clone)]
pub struct ClientTls {
    presented: Presented,
    expected: Arc<Expected>,
    identities: watch::Receiver<Arc<Identities>>,
    /// All but what it shows and which protocols it offers.
    config: Arc<ClientConfig>,
}

/// Who a server must be. All that is named must hold; something is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    spiffe_ids: Vec<SpiffeId>,
    trust_domain: Option<TrustDomain>,
}

/// A connection after its handshake.
#[derive(Debug)]
pub struct Secured<S> {
    /// The connection.
    pub stream: TlsStream<S>,
    /// What it was made under.
    pub grounds: Grounds,
}

/// What a connection was made under: for as long as that holds, it may be used.
#[derive(Debug)]
pub struct Grounds {
    /// The server, as its SVID says.
    pub server: PeerIdentity,
    /// The SVID that was shown to it.
    pub shown: Arc<X509Svid>,
    /// The server's certificates, leaf first.
    chain: Vec<CertificateDer<'static>>,
    /// What the chain was verified by, if it was there right after the handshake.
    bundle: Option<Arc<X509Bundle>>,
}

/// Why there is no connection. `Display` names SPIFFE IDs: it is for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ClientTlsError {
    /// The source holds no SVID to show.
    #[error("there is no valid SVID for `{0}` to show to the server")]
    NoSvid(SpiffeId),
    /// The server is in order, and somebody else.
    #[error("the server is `{found}`, and {expected} is expected")]
    Unexpected {
        /// Who it must be.
        expected: Expected,
        /// Who it is.
        found: SpiffeId,
    },
    /// What the server shows is no X.509-SVID that leads to a trusted root.
    #[error("the server's certificate is refused: {reason}")]
    Untrusted {
        /// In words.
        reason: String,
    },
    /// There is no TLS at the other end, or it refuses this side.
    #[error("the TLS handshake with the server failed")]
    Handshake(#[source] io::Error),
}

/// Somebody else than who was expected.
#[derive(Debug, thiserror::Error)]
#[error("the server is not who was expected")]
struct Unexpected(SpiffeId);

impl Expected {
    /// One of these IDs, and a member of this trust domain, as far as they are named; `None` where
    /// neither is.
    pub fn new(spiffe_ids: Vec<SpiffeId>, trust_domain: Option<TrustDomain>) -> Option<Self> {
        (!spiffe_ids.is_empty() || trust_domain.is_some()).then_some(Self {
            spiffe_ids,
            trust_domain,
        })
    }

    /// Whether a server may be this one.
    pub fn allows(&self, found: &SpiffeId) -> bool {
        let is_member = |trust_domain| found.is_member_of(trust_domain);
        (self.spiffe_ids.is_empty() || self.spiffe_ids.contains(found))
            && self.trust_domain.as_ref().is_none_or(is_member)
    }

    /// What can be said of the server before it is connected to: its SPIFFE ID where there is only
    /// one, else the ID of the trust domain that all have; `None` where they have several.
    pub fn principal(&self) -> Option<String> {
        match (self.spiffe_ids.as_slice(), &self.trust_domain) {
            ([id], _) => Some(id.to_string()),
            (_, Some(trust_domain)) => Some(trust_domain.id_string()),
            ([first, others @ ..], None) => {
                let trust_domain = first.trust_domain();
                let same = others.iter().all(|id| id.is_member_of(trust_domain));
                same.then(|| trust_domain.id_string())
            }
            ([], None) => None,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        for id in &self.spiffe_ids {
            write!(formatter, "{separator}`{id}`")?;
            separator = " or ";
        }
        match (&self.trust_domain, separator) {
            (Some(trust_domain), "") => {
                write!(formatter, "a member of `{}`", trust_domain.id_string())
            }
            _ => Ok(()),
        }
    }
}

impl ClientTls {
    /// A client that shows this identity, the newest SVID at the time of each handshake.
    ///
    /// # Errors
    /// When the source holds no such SVID.
    pub fn new(
        presented: Presented,
        expected: Expected,
        identities: watch::Receiver<Arc<Identities>>,
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let expected = Arc::new(expected);
        let verifier = ServerVerifier {
            spiffe: SpiffeVerifier::new(
                presented.clone(),
                identities.clone(),
                true,
                Arc::clone(&provider),
            ),
            expected: Arc::clone(&expected),
        };
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // A resumed session skips the verifier, and with it expiry, revocation and bundle changes.
        config.resumption = Resumption::disabled();
        Ok(Self {
            presented,
            expected,
            identities,
            config: Arc::new(config),
        })
    }

    /// The identity that it shows.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.presented.spiffe_id
    }

    /// Who the server must be.
    pub fn expected(&self) -> &Expected {
        &self.expected
    }

    /// Tells of each generation of identities from now on.
    pub fn identities(&self) -> watch::Receiver<Arc<Identities>> {
        self.identities.clone()
    }

    /// Performs a handshake. `host` is what the server is asked for by SNI where it is a DNS name;
    /// who the server is follows from its SVID alone. `protocols` are offered by ALPN, the preferred
    /// one first; none if there are none.
    ///
    /// # Errors
    /// When this side has nothing to show, or the server is not who it must be.
    pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        host: &str,
        protocols: &[&str],
        stream: S,
        now: SystemTime,
    ) -> Result<Secured<S>, ClientTlsError> {
        let shown = {
            let identities = self.identities.borrow();
            let issued = self.presented.issued(&identities);
            issued.map(|issued| Arc::clone(&issued.svid))
        };
        let shown = shown.filter(|svid| svid.validity().contains(now));
        let shown = shown.ok_or_else(|| ClientTlsError::NoSvid(self.spiffe_id().clone()))?;
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
        let name = name.map_err(|error| ClientTlsError::Handshake(io::Error::other(error)))?;

        let mut config = ClientConfig::clone(&self.config);
        config.client_auth_cert_resolver = Arc::new(Shown(Arc::clone(shown.certified_key())));
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await;
        let stream = stream.map_err(|error| self.failed(error))?;

        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
        let leaf = chain.first().ok_or(PeerError::Unparsable);
        let server = leaf.and_then(PeerIdentity::from_leaf);
        let server = server.map_err(|error| ClientTlsError::Untrusted {
            reason: error.to_string(),
        })?;
        let bundle = self.bundle(&server);
        Ok(Secured {
            stream,
            grounds: Grounds {
                server,
                shown,
                chain,
                bundle,
            },
        })
    }

    /// What a connection that was made before deserves now: it depends on whether this side still
    /// has its identity, and on where the server's chain leads. It should end in good order once
    /// there is a newer SVID to show.
    pub fn trust(&self, grounds: &Grounds, now: SystemTime) -> Trust {
        let identities = Arc::clone(&self.identities.borrow());
        let Some(issued) = self.presented.issued(&identities) else {
            return Trust::Gone;
        };
        let trust_domain = grounds.server.spiffe_id.trust_domain();
        let Some(bundle) = identities.bundle_for(&issued.entry, trust_domain) else {
            return Trust::Gone;
        };
        let is_same = |known: &Arc<X509Bundle>| Arc::ptr_eq(known, bundle);
        let leads_to = |bundle| verify_chain(&grounds.chain, bundle, now).is_ok();
        let is_held = grounds.bundle.as_ref().is_some_and(is_same) || leads_to(bundle.lasting());
        if !is_held && !leads_to(bundle) {
            return Trust::Gone;
        }
        match is_held && Arc::ptr_eq(&issued.svid, &grounds.shown) {
            true => Trust::Held,
            false => Trust::Ending,
        }
    }

    fn bundle(&self, server: &PeerIdentity) -> Option<Arc<X509Bundle>> {
        let identities = self.identities.borrow();
        let issued = self.presented.issued(&identities)?;
        let bundle = identities.bundle_for(&issued.entry, server.spiffe_id.trust_domain());
        bundle.cloned()
    }

    /// Finds the reason in what the TLS stream returned.
    fn failed(&self, error: io::Error) -> ClientTlsError {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
        match cause {
            Some(Error::InvalidCertificate(CertificateError::Other(OtherError(other))))
                if other.is::<Unexpected>() =>
            {
                let found = other.downcast_ref::<Unexpected>().map(|it| it.0.clone());
                ClientTlsError::Unexpected {
                    expected: Expected::clone(&self.expected),
                    // It is one.
                    found: found.unwrap_or_else(|| self.spiffe_id().clone()),
                }
            }
            Some(cause @ (Error::InvalidCertificate(_) | Error::NoCertificatesPresented)) => {
                ClientTlsError::Untrusted {
                    reason: describe(cause),
                }
            }
            _ => ClientTlsError::Handshake(error),
        }
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("ClientTls");
        shown
            .field("presented", &self.presented)
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

impl ClientTlsError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSvid(_) => "SG0185",
            Self::Unexpected { .. } => "SG0186",
            Self::Untrusted { .. } => "SG0187",
            Self::Handshake(_) => "SG0188",
        }
    }

    /// The label in metrics and access log.
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoSvid(_) => "no_svid",
            Self::Unexpected { .. } => "unexpected_server",
            Self::Untrusted { .. } => "untrusted_server",
            Self::Handshake(_) => "tls_failed",
        }
    }
}

/// The one SVID that a connection shows.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// Verifies a server by the rules for all peers, and that it is who it must be. The name by which it
/// was reached says nothing.
#[derive(Debug)]
struct ServerVerifier {
    spiffe: SpiffeVerifier,
    expected: Arc<Expected>,
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let refused = |error| Error::InvalidCertificate(CertificateError::Other(error));
        self.spiffe.verify_client_cert(leaf, intermediates, now)?;
        let server = PeerIdentity::from_leaf(leaf);
        let server = server.map_err(|error| refused(OtherError(Arc::new(error))))?;
        match self.expected.allows(&server.spiffe_id) {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(refused(OtherError(Arc::new(Unexpected(server.spiffe_id))))),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.spiffe
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.spiffe
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.spiffe.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests;
