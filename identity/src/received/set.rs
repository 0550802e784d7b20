//! Everything that a source holds at one moment, checked as a peer would check it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;
use spiffe::TrustDomain;
use zeroize::Zeroizing;

use super::error::{ReceivedError, Unusable};
use crate::svid::{UnusableRoot, X509Bundle, X509Svid};
use crate::tls::{PeerIdentity, describe, verify_chain};

/// SVIDs, and the bundles that belong to them.
#[derive(Debug, Default)]
pub(super) struct ReceivedSet {
    pub(super) svids: Vec<Arc<X509Svid>>,
    pub(super) bundles: BTreeMap<TrustDomain, Arc<X509Bundle>>,
}

/// An SVID as it comes.
pub(super) struct Raw {
    /// What to call it.
    pub(super) what: String,
    /// DER, leaf first.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// PKCS#8 DER.
    pub(super) key: Zeroizing<Vec<u8>>,
}

/// Checks the own trust domain's roots; those that have expired are left out, and one must be left.
pub(super) fn bundle(
    what: &str,
    trust_domain: &TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    now: SystemTime,
) -> Result<X509Bundle, ReceivedError> {
    let refused = |source| ReceivedError::Refused {
        what: what.to_owned(),
        source,
    };
    if roots.is_empty() {
        return Err(refused(Unusable::Empty));
    }
    let bundle = foreign_bundle(what, trust_domain, roots, now)?;
    match bundle.roots() {
        [] => Err(refused(Unusable::ExpiredRoots)),
        _ => Ok(bundle),
    }
}

/// Checks a trust domain's roots, which may be none: everything of it is revoked then.
pub(super) fn foreign_bundle(
    what: &str,
    trust_domain: &TrustDomain,
    roots: Vec<CertificateDer<'static>>,
    now: SystemTime,
) -> Result<X509Bundle, ReceivedError> {
    let checked = || {
        let bundle = X509Bundle::new(roots)?;
        bundle.check(trust_domain)?;
        Ok(bundle.without_expired(now)?.unwrap_or(bundle))
    };
    checked().map_err(|source: UnusableRoot| ReceivedError::Refused {
        what: what.to_owned(),
        source: source.into(),
    })
}

impl Raw {
    /// Checks it as a peer that has these bundles would, and that it counts now.
    pub(super) fn svid(
        self,
        trust_domain: &TrustDomain,
        bundles: &BTreeMap<TrustDomain, Arc<X509Bundle>>,
        now: SystemTime,
    ) -> Result<X509Svid, ReceivedError> {
        let what = self.what.clone();
        self.checked(trust_domain, bundles, now)
            .map_err(|source| ReceivedError::Refused { what, source })
    }

    fn checked(
        mut self,
        trust_domain: &TrustDomain,
        bundles: &BTreeMap<TrustDomain, Arc<X509Bundle>>,
        now: SystemTime,
    ) -> Result<X509Svid, Unusable> {
        let leaf = self.chain.first().ok_or(Unusable::Empty)?;
        let peer =
            PeerIdentity::from_leaf(leaf).map_err(|error| Unusable::Peers(crate::chain(&error)))?;
        if peer.spiffe_id.trust_domain() != trust_domain {
            return Err(Unusable::ForeignTrustDomain {
                found: peer.spiffe_id,
                wanted: trust_domain.clone(),
            });
        }
        if !peer.validity.contains(now) {
            return Err(Unusable::NotNow {
                not_before: peer.validity.not_before,
                not_after: peer.validity.not_after,
            });
        }
        let bundle = bundles.get(trust_domain);
        let bundle = bundle.ok_or_else(|| Unusable::NoBundle(trust_domain.clone()))?;
        // Some issuers add the root, which peers have.
        while self.chain.len() > 1
            && let Some(last) = self.chain.last()
            && bundle.roots().contains(last)
        {
            self.chain.pop();
        }
        let svid = X509Svid::new(peer.spiffe_id, self.chain, self.key, peer.validity)
            .map_err(|error| Unusable::Key(crate::chain(&error)))?;
        let matching = svid.certified_key().keys_match();
        matching.map_err(|error| Unusable::Key(error.to_string()))?;
        verify_chain(svid.chain(), bundle, now)
            .map_err(|error| Unusable::Peers(describe(&error)))?;
        Ok(svid)
    }
}
