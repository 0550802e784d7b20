//! The roots of one trust domain.

use std::sync::Arc;
use std::time::SystemTime;

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use spiffe::TrustDomain;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::clock::moment_of;
use crate::tls::{check_anchor, check_signer};

/// The roots that verify one trust domain's X.509-SVIDs.
#[derive(Debug, Clone)]
pub struct X509Bundle {
    roots: Arc<Vec<CertificateDer<'static>>>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// When the first of the roots ends. A path's verification does not look at the time of its root
    /// (RFC 5280 section 6.1), so one that has ended must leave the bundle.
    first_end: Option<SystemTime>,
    /// The bundle as it will be without its tainted roots, where there are any.
    lasting: Option<Arc<X509Bundle>>,
}

/// A bundle with a root that cannot be trusted as one.
#[derive(Debug, thiserror::Error)]
#[error("a certificate of the bundle cannot serve as a root")]
pub struct UnusableRoot(#[source] Box<dyn std::error::Error + Send + Sync>);

impl X509Bundle {
    /// A bundle of root certificates, DER. Without any, everything of the trust domain is revoked.
    ///
    /// # Errors
    /// When one of them is not a certificate.
    pub fn new(roots: Vec<CertificateDer<'static>>) -> Result<Self, UnusableRoot> {
        let unusable = |error: Box<dyn std::error::Error + Send + Sync>| UnusableRoot(error);
        let mut store = RootCertStore::empty();
        let mut first_end = None;
        for root in &roots {
            store
                .add(root.clone())
                .map_err(|error| unusable(error.into()))?;
            let end = end(root).map_err(unusable)?;
            first_end = first_end.into_iter().chain([end]).min();
        }
        let mut verifier = None;
        if !store.is_empty() {
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider);
            verifier = Some(builder.build().map_err(|error| unusable(error.into()))?);
        }
        Ok(Self {
            roots: Arc::new(roots),
            verifier,
            first_end,
            lasting: None,
        })
    }

    /// The same bundle, of which some roots are tainted.
    ///
    /// # Errors
    /// None that [`X509Bundle::new`] did not have.
    pub fn tainted(self, tainted: &[CertificateDer<'_>]) -> Result<Self, UnusableRoot> {
        if tainted.is_empty() {
            return Ok(self);
        }
        let lasting = self.roots.iter().filter(|root| !tainted.contains(root));
        let lasting = Self::new(lasting.cloned().collect())?;
        Ok(Self {
            lasting: Some(Arc::new(lasting)),
            ..self
        })
    }

    /// The bundle without roots that have ended; `None` where it would be the same.
    ///
    /// # Errors
    /// None that [`X509Bundle::new`] did not have.
    pub fn without_expired(&self, now: SystemTime) -> Result<Option<Self>, UnusableRoot> {
        if self.first_end.is_none_or(|first| now <= first) {
            return Ok(None);
        }
        let counts = |root: &&CertificateDer<'static>| end(root).is_ok_and(|end| now <= end);
        let lasting = self.lasting().roots();
        let is_tainted = |root: &&CertificateDer<'_>| !lasting.contains(root);
        let tainted: Vec<_> = self.roots.iter().filter(is_tainted).cloned().collect();
        let rest = Self::new(self.roots.iter().filter(counts).cloned().collect())?;
        rest.tainted(&tainted).map(Some)
    }

    /// Checks that every root may sign for the trust domain (X509-SVID.md sections 3 and 4).
    ///
    /// # Errors
    /// What is wrong with the first that may not.
    pub fn check(&self, trust_domain: &TrustDomain) -> Result<(), UnusableRoot> {
        let mut roots = self.roots.iter();
        roots.try_for_each(|root| {
            check_signer(root, trust_domain).map_err(|error| UnusableRoot(error.into()))
        })
    }

    /// Checks that every root may sign. Which trust domain's they are, its server says.
    ///
    /// # Errors
    /// What is wrong with the first that may not.
    pub(crate) fn check_anchors(&self) -> Result<(), UnusableRoot> {
        let mut roots = self.roots.iter();
        roots.try_for_each(|root| check_anchor(root).map_err(|error| UnusableRoot(error.into())))
    }

    /// Root certificates, DER.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Whether this bundle takes no trust away that the one before gave: every root is still there,
    /// and none is newly tainted.
    pub fn trusts_all_of(&self, before: &Self) -> bool {
        let keeps = |now: &Self, before: &Self| {
            let mut roots = before.roots().iter();
            roots.all(|root| now.roots().contains(root))
        };
        keeps(self, before) && keeps(self.lasting(), before.lasting())
    }

    /// The same roots are the same value: what was made of them need not be made again.
    pub(crate) fn shared_roots(&self) -> &Arc<Vec<CertificateDer<'static>>> {
        &self.roots
    }

    /// Shares the roots of the bundle before, where they are the same.
    pub(crate) fn after(self, before: &Self) -> Self {
        if self.roots != before.roots {
            return self;
        }
        Self {
            roots: Arc::clone(&before.roots),
            ..self
        }
    }

    /// The bundle without its tainted roots.
    pub(crate) fn lasting(&self) -> &Self {
        self.lasting.as_deref().unwrap_or(self)
    }

    /// Checks chains against these roots alone; `None` where there are none.
    pub(crate) fn verifier(&self) -> Option<&Arc<dyn ClientCertVerifier>> {
        self.verifier.as_ref()
    }
}

/// The last second in which a certificate counts.
fn end(
    certificate: &CertificateDer<'_>,
) -> Result<SystemTime, Box<dyn std::error::Error + Send + Sync>> {
    let (_, parsed) = X509Certificate::from_der(certificate)?;
    Ok(moment_of(parsed.validity().not_after))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};

    use super::*;

    fn at(minute: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + 60 * minute)
    }

    fn params(end: u64) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.not_before = at(0).into();
        params.not_after = at(end).into();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params
    }

    fn signed(params: &CertificateParams) -> CertificateDer<'static> {
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().into()
    }

    fn bundle(roots: &[&CertificateDer<'static>]) -> X509Bundle {
        X509Bundle::new(roots.iter().map(|&root| root.clone()).collect()).unwrap()
    }

    #[test]
    fn a_root_leaves_the_bundle_after_the_last_second_of_its_time() {
        let (early, late) = (signed(&params(10)), signed(&params(20)));
        let both = bundle(&[&early, &late]);
        assert!(both.without_expired(at(10)).unwrap().is_none());
        let rest = both.without_expired(at(11)).unwrap().unwrap();
        assert_eq!(rest.roots(), [late]);
        assert!(rest.without_expired(at(20)).unwrap().is_none());
        let none = rest.without_expired(at(21)).unwrap().unwrap();
        assert!(none.roots().is_empty() && none.verifier().is_none());
    }

    #[test]
    fn trust_is_taken_away_by_a_taint_and_by_a_revocation_and_by_nothing_else() {
        let [one, two] = [signed(&params(10)), signed(&params(10))];
        let both = || bundle(&[&one, &two]);
        let tainted = || both().tainted(std::slice::from_ref(&one)).unwrap();
        let revoked = || bundle(&[&two]);
        assert!(both().trusts_all_of(&revoked()), "a root more");
        assert!(both().trusts_all_of(&both()));
        assert!(both().trusts_all_of(&tainted()));
        assert!(!tainted().trusts_all_of(&both()));
        assert!(tainted().trusts_all_of(&tainted()));
        assert!(!revoked().trusts_all_of(&tainted()));
        assert_eq!(tainted().lasting().roots(), revoked().roots());
    }

    #[test]
    fn what_may_not_sign_for_the_trust_domain_is_no_root_of_it() {
        let trust_domain = TrustDomain::new("one.test").unwrap();
        let uri = |uri: &str| vec![SanType::URI(uri.try_into().unwrap())];
        type Change = fn(&mut CertificateParams);
        let cases: [(bool, &str, Change); 5] = [
            (true, "spiffe://one.test", |_| {}),
            (true, "spiffe://one.test", |params| {
                params.subject_alt_names.clear();
            }),
            (false, "spiffe://two.test", |_| {}),
            (false, "spiffe://one.test", |params| {
                params.key_usages = vec![KeyUsagePurpose::CrlSign];
            }),
            (false, "spiffe://one.test", |params| {
                params.is_ca = IsCa::ExplicitNoCa;
            }),
        ];
        for (index, (fits, id, change)) in cases.into_iter().enumerate() {
            let mut params = params(10);
            params.subject_alt_names = uri(id);
            change(&mut params);
            let checked = bundle(&[&signed(&params)]).check(&trust_domain);
            assert_eq!(checked.is_ok(), fits, "case {index}");
        }
    }

    #[test]
    fn a_root_that_a_server_vouches_for_may_be_an_organizations() {
        type Change = fn(&mut CertificateParams);
        let cases: [(bool, Change); 4] = [
            (true, |params| params.key_usages.clear()),
            (true, |params| {
                let other = "spiffe://local".try_into().unwrap();
                params.subject_alt_names = vec![SanType::URI(other)];
            }),
            (false, |params| {
                params.key_usages = vec![KeyUsagePurpose::CrlSign];
            }),
            (false, |params| params.is_ca = IsCa::ExplicitNoCa),
        ];
        for (index, (fits, change)) in cases.into_iter().enumerate() {
            let mut params = params(10);
            change(&mut params);
            let checked = bundle(&[&signed(&params)]).check_anchors();
            assert_eq!(checked.is_ok(), fits, "case {index}");
        }
    }
}
