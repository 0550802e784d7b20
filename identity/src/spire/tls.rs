//! TLS to the server: it must be the trust domain's server, whatever its host is called.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::SingleCertAndKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, PeerIncompatible,
    SignatureScheme,
};
use spiffe::{SpiffeId, TrustDomain};

use crate::clock::Clock;
use crate::svid::{X509Bundle, X509Svid};
use crate::tls::{PeerError, PeerIdentity, verify_chain};

/// What the server is verified by.
#[derive(Debug, Clone)]
pub(super) enum Trust {
    /// The trust domain's bundle.
    Bundle(Arc<X509Bundle>),
    /// Nothing: whoever answers under the right name is taken for the server. Only for the first
    /// bundle, and only where that is asked for by name.
    OnFirstUse,
}

/// Verifies that the peer is the server of a trust domain.
#[derive(Debug)]
struct ServerVerifier {
    server: ServerId,
    trust: Trust,
    clock: Arc<dyn Clock>,
    provider: Arc<CryptoProvider>,
}

/// `spiffe://<trust domain>/spire/server`.
#[derive(Debug)]
struct ServerId(TrustDomain);

/// The peer is in order, and somebody else.
#[derive(Debug, thiserror::Error)]
#[error("the server is `{0}`, not the trust domain's SPIRE server")]
struct NotTheServer(SpiffeId);

/// TLS 1.3 with HTTP/2, without resumption: a resumed session would skip the verifier. The agent
/// shows its SVID if it has one.
pub(super) fn client_config(
    trust_domain: &TrustDomain,
    trust: Trust,
    shown: Option<&X509Svid>,
    clock: Arc<dyn Clock>,
) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = ServerVerifier {
        server: ServerId(trust_domain.clone()),
        trust,
        clock,
        provider: Arc::clone(&provider),
    };
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    if let Some(svid) = shown {
        let shown = SingleCertAndKey::from(Arc::clone(svid.certified_key()));
        config.client_auth_cert_resolver = Arc::new(shown);
    }
    config.alpn_protocols = vec![b"h2".to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

impl ServerId {
    fn is(&self, found: &SpiffeId) -> bool {
        found.is_member_of(&self.0) && found.path() == "/spire/server"
    }
}

impl ServerVerifier {
    fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime) -> Result<(), Error> {
        let refused = |error| Error::InvalidCertificate(CertificateError::Other(error));
        let leaf = chain.first().ok_or(PeerError::Unparsable);
        let server = leaf.and_then(PeerIdentity::from_leaf);
        let server = server.map_err(|error| refused(OtherError(Arc::new(error))))?;
        if !self.server.is(&server.spiffe_id) {
            let error = NotTheServer(server.spiffe_id);
            return Err(refused(OtherError(Arc::new(error))));
        }
        match &self.trust {
            Trust::Bundle(bundle) => verify_chain(chain, bundle, now),
            Trust::OnFirstUse => Ok(()),
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let chain: Vec<_> = [leaf].into_iter().chain(intermediates).cloned().collect();
        self.verify(&chain, self.clock.now())?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
