//! Keys, the requests that carry them to the server, and what must come back.

use rcgen::{
    CertificateParams, DistinguishedName, DnType, DnValue, KeyPair, PKCS_ECDSA_P256_SHA256,
};
use rustls::pki_types::CertificateDer;
use spiffe::{SpiffeId, TrustDomain};
use std::time::SystemTime;
use x509_parser::prelude::{FromDer, X509Certificate};
use zeroize::Zeroizing;

use super::messages;
use super::proto::types;
use crate::svid::{X509Bundle, X509Svid};
use crate::tls::{PeerIdentity, describe, verify_chain};

/// A new key for which the server is asked to sign an SVID.
pub(super) struct NewKey {
    pair: KeyPair,
    /// PKCS#10, DER.
    pub(super) request: Vec<u8>,
}

/// Whose SVID is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) enum Awaited<'a> {
    /// A workload's.
    Workload(&'a SpiffeId),
    /// The agent's: the server says its ID.
    Agent(&'a TrustDomain),
}

impl NewKey {
    /// ECDSA on P-256. The request says neither who asks nor what for: the server decides.
    pub(super) fn generate() -> Result<Self, rcgen::Error> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::default();
        let mut subject = DistinguishedName::new();
        let country = DnValue::PrintableString("US".try_into()?);
        subject.push(DnType::CountryName, country);
        subject.push(DnType::OrganizationName, "SPIRE");
        params.distinguished_name = subject;
        let request = params.serialize_request(&pair)?.der().to_vec();
        Ok(Self { pair, request })
    }

    /// Takes the SVID that came for this key, if it is that: for the awaited ID, of this key, and
    /// leading to the bundle now.
    pub(super) fn receive(
        &self,
        svid: Option<types::X509svid>,
        awaited: Awaited<'_>,
        bundle: &X509Bundle,
        now: SystemTime,
    ) -> Result<X509Svid, String> {
        let svid = svid.ok_or("there is no SVID in it")?;
        let told = messages::spiffe_id(svid.id.as_ref())?;
        let chain: Vec<CertificateDer<'static>> =
            svid.cert_chain.into_iter().map(Into::into).collect();
        let leaf = chain.first().ok_or("the SVID has no certificate")?;
        let peer = PeerIdentity::from_leaf(leaf).map_err(|error| error.to_string())?;
        if told != peer.spiffe_id || !awaited.is(&told) {
            return Err(format!(
                "the SVID is of `{}`, not {awaited}",
                peer.spiffe_id
            ));
        }
        if !is_of_key(leaf, &self.pair) {
            return Err("the SVID is of another key".to_owned());
        }
        verify_chain(&chain, bundle, now)
            .map_err(|error| format!("the SVID does not verify: {}", describe(&error)))?;
        let key = Zeroizing::new(self.pair.serialize_der());
        X509Svid::new(peer.spiffe_id, chain, key, peer.validity)
            .map_err(|error| crate::chain(&error))
    }
}

/// Whether a leaf certifies this key.
pub(super) fn is_of_key(leaf: &CertificateDer<'_>, pair: &KeyPair) -> bool {
    let Ok((_, leaf)) = X509Certificate::from_der(leaf) else {
        return false;
    };
    let certified = leaf.public_key().subject_public_key.data.as_ref();
    certified == pair.public_key_raw()
}

/// Whether this can be the ID of an agent.
pub(super) fn is_agent(id: &SpiffeId, trust_domain: &TrustDomain) -> bool {
    id.is_member_of(trust_domain) && id.path().starts_with("/spire/agent/")
}

impl Awaited<'_> {
    fn is(self, found: &SpiffeId) -> bool {
        match self {
            Self::Workload(id) => id == found,
            Self::Agent(trust_domain) => is_agent(found, trust_domain),
        }
    }
}

impl std::fmt::Display for Awaited<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Workload(id) => write!(formatter, "of `{id}`"),
            Self::Agent(trust_domain) => write!(formatter, "of an agent of `{trust_domain}`"),
        }
    }
}
