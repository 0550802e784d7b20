//! The strict verifier of peers.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

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
use super::server::Presented;
use crate::svid::{Identities, X509Bundle};

/// Verifies a client's X.509-SVID: the leaf by the rules of X509-SVID.md, the chain against the
/// newest bundle of the SVID's own trust domain and no other. Foreign trust domains count where the
/// entry of whom the client wants to talk to federates with them.
#[derive(Debug)]
pub struct SpiffeVerifier {
    presented: Presented,
    identities: watch::Receiver<Arc<Identities>>,
    is_mandatory: bool,
    provider: Arc<CryptoProvider>,
}

impl SpiffeVerifier {
    /// Verifies against what `identities` holds at the time of each handshake. Where it is not
    /// mandatory, a client may show nothing; what it shows is verified.
    pub fn new(
        presented: Presented,
        identities: watch::Receiver<Arc<Identities>>,
        is_mandatory: bool,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        Self {
            presented,
            identities,
            is_mandatory,
            provider,
        }
    }
}

impl ClientCertVerifier for SpiffeVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        self.is_mandatory
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let peer = examine(leaf, intermediates)?;
        let identities = Arc::clone(&self.identities.borrow());
        let trust_domain = peer.spiffe_id.trust_domain();
        let bundle = self
            .presented
            .issued(&identities)
            .and_then(|issued| identities.bundle_for(&issued.entry, trust_domain));
        let bundle = bundle.ok_or_else(|| refused(PeerError::NoBundle(peer.spiffe_id.clone())))?;
        verify(&peer, leaf, intermediates, bundle, now)
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

/// Verifies an X.509-SVID's chain, leaf first, against a bundle, as a peer does.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn verify_chain(
    chain: &[CertificateDer<'_>],
    bundle: &X509Bundle,
    now: SystemTime,
) -> Result<(), Error> {
    let (leaf, intermediates) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
    let peer = examine(leaf, intermediates)?;
    let since_epoch = now.duration_since(SystemTime::UNIX_EPOCH);
    let now = UnixTime::since_unix_epoch(since_epoch.unwrap_or(Duration::ZERO));
    verify(&peer, leaf, intermediates, bundle, now).map(|_| ())
}

/// Reads a chain by the rules of X509-SVID.md; that it leads to a trusted root is another matter.
fn examine(
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
) -> Result<PeerIdentity, Error> {
    let peer = PeerIdentity::from_leaf(leaf).map_err(refused)?;
    for signer in intermediates {
        check_signer(signer, peer.spiffe_id.trust_domain()).map_err(refused)?;
    }
    Ok(peer)
}

/// What is wrong with a certificate, in words.
pub(crate) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(CertificateError::Other(other)) => other.0.to_string(),
        _ => error.to_string(),
    }
}

fn verify(
    peer: &PeerIdentity,
    leaf: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    bundle: &X509Bundle,
    now: UnixTime,
) -> Result<ClientCertVerified, Error> {
    let verifier = bundle
        .verifier()
        .ok_or_else(|| refused(PeerError::NoBundle(peer.spiffe_id.clone())))?;
    verifier.verify_client_cert(leaf, intermediates, now)
}

fn refused(error: PeerError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

#[cfg(test)]
mod tests;
