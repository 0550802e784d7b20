//! The server side of mutual TLS, and what went wrong with a handshake.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, PeerIncompatible, ServerConfig, ServerConnection};
use spiffe::SpiffeId;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::peer::{PeerError, PeerIdentity};
use super::verifier::{SpiffeVerifier, verify_chain};
use crate::selector::Selector;
use crate::svid::{Identities, Issued};

/// Accepts TLS with one identity, whose newest SVID each handshake shows.
#[derive(Clone)]
pub struct ServerTls {
    presented: Presented,
    mode: TlsMode,
    identities: watch::Receiver<Arc<Identities>>,
    acceptor: TlsAcceptor,
}

/// The identity that a server shows: a SPIFFE ID, by whichever entry gives it to what has these
/// selectors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presented {
    /// The ID, chosen once.
    pub spiffe_id: SpiffeId,
    /// What the server stands for.
    pub selectors: Arc<[Selector]>,
}

/// What a server demands of its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// TLS, and an X.509-SVID.
    #[default]
    Mutual,
    /// Nothing: plaintext and TLS come in on one port. An X.509-SVID that is shown is verified, and
    /// one that is not in order is refused.
    Permissive,
    /// TLS. Nobody is asked for an X.509-SVID.
    ServerOnly,
}

/// What a connection that was accepted before deserves now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// It would be accepted again.
    Held,
    /// What it is trusted by will be gone soon: it should end in good order.
    Ending,
    /// It would be refused.
    Gone,
}

/// Why TLS cannot be offered at all.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The source holds no such SVID.
    #[error("there is no SVID for `{0}` to terminate TLS with")]
    NoSvid(SpiffeId),
    /// The library refuses the configuration.
    #[error("TLS cannot be configured")]
    Config(#[from] rustls::Error),
}

/// What went wrong with a handshake, for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HandshakeProblem {
    /// The stable diagnostic code.
    pub code: &'static str,
    /// The label in metrics.
    pub label: &'static str,
    /// What to do about it, where that is known.
    pub hint: Option<&'static str>,
}

impl ServerTls {
    /// TLS 1.3 with these ALPN protocols, the preferred one first.
    ///
    /// # Errors
    /// When the source holds no such SVID.
    pub fn new(
        presented: Presented,
        identities: watch::Receiver<Arc<Identities>>,
        mode: TlsMode,
        protocols: &[&str],
    ) -> Result<Self, TlsError> {
        if presented.issued(&identities.borrow()).is_none() {
            return Err(TlsError::NoSvid(presented.spiffe_id));
        }
        Self::for_prepared(presented, identities, mode, protocols)
    }

    /// The same with an SVID that the source has prepared, and will hold once this is used.
    ///
    /// # Errors
    /// When the library refuses the configuration.
    pub fn for_prepared(
        presented: Presented,
        identities: watch::Receiver<Arc<Identities>>,
        mode: TlsMode,
        protocols: &[&str],
    ) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = SpiffeVerifier::new(
            presented.clone(),
            identities.clone(),
            mode == TlsMode::Mutual,
            Arc::clone(&provider),
        );
        let resolver = SvidResolver {
            presented: presented.clone(),
            identities: identities.clone(),
        };
        let builder = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let builder = match mode {
            TlsMode::Mutual | TlsMode::Permissive => {
                builder.with_client_cert_verifier(Arc::new(verifier))
            }
            TlsMode::ServerOnly => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(resolver));
        let protocols = protocols.iter().map(|name| name.as_bytes().to_vec());
        config.alpn_protocols = protocols.collect();
        // A resumed session skips the verifier, and with it expiry, revocation and bundle changes.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Self {
            presented,
            mode,
            identities,
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }

    /// The identity that it shows.
    pub fn spiffe_id(&self) -> &SpiffeId {
        &self.presented.spiffe_id
    }

    /// What it demands of its clients.
    pub fn mode(&self) -> TlsMode {
        self.mode
    }

    /// Whether there is an SVID to show: the entry may have been removed.
    pub fn has_svid(&self) -> bool {
        self.presented.issued(&self.identities.borrow()).is_some()
    }

    /// Performs handshakes.
    pub fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Who is at the other end of an accepted connection, if it was asked and told.
    ///
    /// # Errors
    /// When what the peer showed is no X.509-SVID, which the verifier does not let happen.
    pub fn peer(connection: &ServerConnection) -> Result<Option<PeerIdentity>, PeerError> {
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        leaf.map(PeerIdentity::from_leaf).transpose()
    }

    /// What a connection that was accepted before deserves now: it depends on whether the listener
    /// still has its identity, and on where the peer's chain, leaf first, leads. Without one, the
    /// peer is nobody in particular.
    pub fn trust(&self, peer: &[CertificateDer<'_>], now: SystemTime) -> Trust {
        let identities = Arc::clone(&self.identities.borrow());
        let Some(issued) = self.presented.issued(&identities) else {
            return Trust::Gone;
        };
        let identity = match peer.first().map(PeerIdentity::from_leaf) {
            None => return Trust::Held,
            Some(Err(_)) => return Trust::Gone,
            Some(Ok(identity)) => identity,
        };
        let trust_domain = identity.spiffe_id.trust_domain();
        let Some(bundle) = identities.bundle_for(&issued.entry, trust_domain) else {
            return Trust::Gone;
        };
        let leads_to = |bundle| verify_chain(peer, bundle, now).is_ok();
        if leads_to(bundle.lasting()) {
            Trust::Held
        } else if leads_to(bundle) {
            Trust::Ending
        } else {
            Trust::Gone
        }
    }
}

impl Presented {
    /// The first entry that gives the ID, with its SVID.
    pub fn issued<'a>(&'a self, identities: &'a Identities) -> Option<&'a Issued> {
        identities
            .entitled(&self.selectors)
            .find(|issued| *issued.entry.spiffe_id() == self.spiffe_id)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("ServerTls");
        shown
            .field("presented", &self.presented)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct SvidResolver {
    presented: Presented,
    identities: watch::Receiver<Arc<Identities>>,
}

impl ResolvesServerCert for SvidResolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let identities = self.identities.borrow();
        let issued = self.presented.issued(&identities)?;
        Some(Arc::clone(issued.svid.certified_key()))
    }
}

impl HandshakeProblem {
    /// Every label that there is.
    pub const LABELS: [&'static str; 11] = [
        "no_tls13",
        "no_certificate",
        "not_an_svid",
        "trust_domain",
        "expired",
        "unknown_issuer",
        "bad_certificate",
        "not_tls",
        "alert",
        "tls",
        "io",
    ];

    /// What went wrong, in words.
    pub fn describe(error: &io::Error) -> String {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
        match cause {
            Some(rustls::Error::InvalidCertificate(CertificateError::Other(other))) => {
                other.0.to_string()
            }
            _ => error.to_string(),
        }
    }

    /// Finds the reason in what the TLS stream returned.
    pub fn of(error: &io::Error) -> Self {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref());
        cause.map_or(Self::new("SG0170", "io"), Self::of_tls)
    }

    fn of_tls(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::PeerIncompatible(
                PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::Tls12NotOffered,
            ) => Self {
                hint: Some(
                    "the client offers no TLS 1.3; an Envoy cluster does with \
                     tls_params.tls_maximum_protocol_version: TLSv1_3",
                ),
                ..Self::new("SG0171", "no_tls13")
            },
            rustls::Error::NoCertificatesPresented => Self {
                hint: Some("the client must show an X.509-SVID"),
                ..Self::new("SG0172", "no_certificate")
            },
            rustls::Error::InvalidCertificate(error) => Self::of_certificate(error),
            rustls::Error::InvalidMessage(_) => Self {
                hint: Some("the client does not speak TLS; is it plain HTTP?"),
                ..Self::new("SG0176", "not_tls")
            },
            rustls::Error::AlertReceived(_) => Self {
                hint: Some("the client refused this server's SVID; does it have the bundle?"),
                ..Self::new("SG0177", "alert")
            },
            _ => Self::new("SG0178", "tls"),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Other(other) => match other.0.downcast_ref::<PeerError>() {
                Some(error @ PeerError::NoBundle(_)) => Self::new(error.code(), "trust_domain"),
                Some(error) => Self::new(error.code(), "not_an_svid"),
                None => Self::new("SG0178", "tls"),
            },
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Self::new("SG0173", "expired")
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Self {
                hint: Some("the client's SVID was not issued by its trust domain's authority"),
                ..Self::new("SG0174", "unknown_issuer")
            },
            _ => Self::new("SG0175", "bad_certificate"),
        }
    }

    fn new(code: &'static str, label: &'static str) -> Self {
        Self {
            code,
            label,
            hint: None,
        }
    }
}
