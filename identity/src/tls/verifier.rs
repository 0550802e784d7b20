//! The strict verifier of peers.

use std::sync::Arc;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError,
    PeerIncompatible, SignatureScheme,
};
use tokio::sync::watch;

use super::peer::{PeerError, PeerIdentity, check_signer};
use crate::svid::Identities;

/// Verifies a client's X.509-SVID: the leaf by the rules of X509-SVID.md, the chain against the
/// newest bundle of the SVID's own trust domain and no other.
#[derive(Debug)]
pub struct SpiffeVerifier {
    identities: watch::Receiver<Arc<Identities>>,
    provider: Arc<CryptoProvider>,
}

impl SpiffeVerifier {
    /// Verifies against what `identities` holds at the time of each handshake.
    pub fn new(
        identities: watch::Receiver<Arc<Identities>>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            identities,
            provider,
        }
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let peer = PeerIdentity::from_leaf(leaf).map_err(refused)?;
        for signer in intermediates {
            check_signer(signer, &peer).map_err(refused)?;
        }
        let identities = Arc::clone(&self.identities.borrow());
        let verifier = identities
            .bundles
            .get(peer.spiffe_id.trust_domain())
            .and_then(|bundle| bundle.verifier())
            .ok_or_else(|| refused(PeerError::NoBundle(peer.spiffe_id)))?;
        verifier.verify_client_cert(leaf, intermediates, now)
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

fn refused(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

#[cfg(test)]
mod tests;
