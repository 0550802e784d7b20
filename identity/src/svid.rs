//! X.509-SVIDs and the bundles that verify them, as immutable values.

mod bundle;
mod identities;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use spiffe::SpiffeId;
use zeroize::Zeroizing;

use crate::entry::Entry;
pub use bundle::{UnusableRoot, X509Bundle};
pub use identities::Identities;

/// An X.509-SVID with its private key (X509-SVID.md section 2).
pub struct X509Svid {
    id: SpiffeId,
    chain: Vec<CertificateDer<'static>>,
    key: Zeroizing<Vec<u8>>,
    certified_key: Arc<CertifiedKey>,
    validity: Validity,
}

/// The span of time in which a certificate counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// The first moment at which the certificate counts.
    pub not_before: SystemTime,
    /// The moment from which it no longer counts.
    pub not_after: SystemTime,
}

/// An entry with the SVID that is now in use for it.
#[derive(Debug, Clone)]
pub struct Issued {
    /// The registration entry.
    pub entry: Arc<Entry>,
    /// Its SVID.
    pub svid: Arc<X509Svid>,
}

/// A private key that TLS cannot use.
#[derive(Debug, thiserror::Error)]
#[error("the SVID's private key cannot be used for TLS")]
pub struct UnusableKey(#[source] rustls::Error);

impl X509Svid {
    /// Puts an SVID together.
    ///
    /// `chain` is DER, leaf first, without the root; `key` is unencrypted PKCS#8 DER.
    ///
    /// # Errors
    /// When the key is not one that TLS can sign with.
    pub fn new(
        id: SpiffeId,
        chain: Vec<CertificateDer<'static>>,
        key: Zeroizing<Vec<u8>>,
        validity: Validity,
    ) -> Result<Self, UnusableKey> {
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.as_slice()));
        let signing_key =
            rustls::crypto::aws_lc_rs::sign::any_supported_type(&der).map_err(UnusableKey)?;
        let certified_key = Arc::new(CertifiedKey::new(chain.clone(), signing_key));
        Ok(Self {
            id,
            chain,
            key,
            certified_key,
            validity,
        })
    }

    /// The SPIFFE ID.
    pub fn id(&self) -> &SpiffeId {
        &self.id
    }

    /// Certificates, DER, leaf first, without the root.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The private key, unencrypted PKCS#8 DER.
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// Chain and key as rustls wants them.
    pub fn certified_key(&self) -> &Arc<CertifiedKey> {
        &self.certified_key
    }

    /// When the leaf counts.
    pub fn validity(&self) -> Validity {
        self.validity
    }
}

impl Validity {
    /// The moment at which `tenths` tenths of the span have passed.
    pub fn tenth(&self, tenths: u32) -> SystemTime {
        let lifetime = self
            .not_after
            .duration_since(self.not_before)
            .unwrap_or(Duration::ZERO);
        self.not_before + lifetime * tenths.min(10) / 10
    }

    /// Whether `now` lies inside.
    pub fn contains(&self, now: SystemTime) -> bool {
        self.not_before <= now && now < self.not_after
    }
}

impl fmt::Debug for X509Svid {
    /// Never shows the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("X509Svid")
            .field("id", &self.id.to_string())
            .field("validity", &self.validity)
            .finish_non_exhaustive()
    }
}
