//! One generation of everything that a source holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, OnceLock};

use spiffe::{SpiffeId, TrustDomain};

use super::{Issued, X509Bundle, X509Svid};
use crate::entry::Entry;
use crate::federation::FederationError;
use crate::jwt::JwtBundle;
use crate::selector::Selector;
use crate::spiffe_bundle::SpiffeBundle;

/// One immutable generation of everything that a source holds.
#[derive(Debug)]
pub struct Identities {
    /// Grows by one with each change.
    pub generation: u64,
    /// The source's own trust domain.
    pub trust_domain: TrustDomain,
    /// X.509 bundles by trust domain, the own one among them.
    pub bundles: BTreeMap<TrustDomain, Arc<X509Bundle>>,
    /// JWT bundles by trust domain, the own one among them.
    pub jwt_bundles: BTreeMap<TrustDomain, Arc<JwtBundle>>,
    issued: Vec<Issued>,
    /// Where the entries are by the first of their selectors: a workload without it matches none of
    /// them. Made when it is first asked for.
    by_selector: OnceLock<HashMap<Selector, Vec<usize>>>,
}

impl Identities {
    /// Puts a generation together. `issued` has the SVID of each entry, in the order of the entries.
    pub fn new(
        generation: u64,
        trust_domain: TrustDomain,
        issued: Vec<Issued>,
        bundles: BTreeMap<TrustDomain, Arc<X509Bundle>>,
        jwt_bundles: BTreeMap<TrustDomain, Arc<JwtBundle>>,
    ) -> Self {
        Self {
            generation,
            trust_domain,
            bundles,
            jwt_bundles,
            issued,
            by_selector: OnceLock::new(),
        }
    }

    /// The SVID of each entry, in the order of the entries.
    pub fn issued(&self) -> &[Issued] {
        &self.issued
    }

    /// The SVIDs to which a workload with these selectors is entitled, in the order of the entries.
    pub fn entitled<'a>(
        &'a self,
        selectors: &'a [Selector],
    ) -> impl Iterator<Item = &'a Issued> + 'a {
        let indices = selectors.iter().flat_map(|selector| self.led_by(selector));
        // A selector that stands twice is no second reason.
        let indices: BTreeSet<_> = indices.copied().collect();
        indices
            .into_iter()
            .filter_map(|index| self.issued.get(index))
            .filter(move |issued| issued.entry.matches(selectors))
    }

    /// The trust domains whose bundles belong to a workload with these entries: the own one, and
    /// those that an entry federates with.
    pub fn trusted_by<'a>(
        &'a self,
        entitled: impl IntoIterator<Item = &'a Issued>,
    ) -> BTreeSet<&'a TrustDomain> {
        let federated = entitled
            .into_iter()
            .flat_map(|issued| issued.entry.federates_with());
        federated.chain([&self.trust_domain]).collect()
    }

    /// The SVID of a SPIFFE ID; of several entries for it, the first one's.
    pub fn svid(&self, id: &SpiffeId) -> Option<&Arc<X509Svid>> {
        self.issued
            .iter()
            .find(|issued| issued.svid.id() == id)
            .map(|issued| &issued.svid)
    }

    /// The bundle by which the workload of an entry verifies a trust domain's SVIDs: the own one, or
    /// one that the entry federates with.
    pub fn bundle_for(
        &self,
        entry: &Entry,
        trust_domain: &TrustDomain,
    ) -> Option<&Arc<X509Bundle>> {
        let counts =
            *trust_domain == self.trust_domain || entry.federates_with().contains(trust_domain);
        let bundle = self.bundles.get(trust_domain);
        bundle.filter(|_| counts)
    }

    /// The bundle of the source's own trust domain.
    pub fn own_bundle(&self) -> Option<&Arc<X509Bundle>> {
        self.bundles.get(&self.trust_domain)
    }

    /// The bundles of all trust domains, the own one among them, with X.509 and JWT authorities.
    ///
    /// # Errors
    /// One of them cannot be told in SPIFFE's format.
    pub fn spiffe_bundles(&self) -> Result<BTreeMap<TrustDomain, SpiffeBundle>, FederationError> {
        let bundles = self.bundles.iter().map(|(trust_domain, x509)| {
            let jwt = self.jwt_bundles.get(trust_domain);
            let jwt = jwt.map(|jwt| SpiffeBundle::parse(jwt.jwks().as_bytes()));
            let jwt = jwt.transpose().map_err(|source| FederationError::Refused {
                trust_domain: trust_domain.clone(),
                source,
            });
            let mut bundle = jwt?.unwrap_or_default();
            bundle.x509_authorities = x509.roots().to_vec();
            Ok((trust_domain.clone(), bundle))
        });
        bundles.collect()
    }

    /// The entries whose first selector this is.
    fn led_by(&self, selector: &Selector) -> &[usize] {
        let by_selector = self.by_selector.get_or_init(|| {
            let mut by_selector: HashMap<_, Vec<_>> = HashMap::new();
            for (index, issued) in self.issued.iter().enumerate() {
                // There always is one.
                if let Some(selector) = issued.entry.selectors().first() {
                    by_selector.entry(selector.clone()).or_default().push(index);
                }
            }
            by_selector
        });
        by_selector.get(selector).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::authority::{EmbeddedAuthority, Lifetimes};
    use crate::entry::EntryRequest;

    fn identities(entries: &[(&str, &[&str])]) -> Identities {
        let folder = tempfile::tempdir().unwrap();
        let trust_domain = TrustDomain::new("sidegate.local").unwrap();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let lifetimes = Lifetimes {
            root: Duration::from_secs(24 * 3600),
            svid: Duration::from_secs(3600),
        };
        let path = folder.path().join("authority.pem");
        let authority = EmbeddedAuthority::open(path, trust_domain.clone(), lifetimes, now);
        let authority = authority.unwrap();
        let issued = entries.iter().map(|(name, selectors)| {
            let request = EntryRequest {
                spiffe_id: format!("spiffe://sidegate.local/{name}"),
                selectors: selectors.iter().map(ToString::to_string).collect(),
                ..EntryRequest::default()
            };
            let entry = Arc::new(Entry::new(request, &trust_domain).unwrap());
            let svid = Arc::new(authority.mint(&entry, now).unwrap());
            Issued { entry, svid }
        });
        let issued = issued.collect();
        Identities::new(1, trust_domain, issued, [].into(), [].into())
    }

    #[test]
    fn a_workload_gets_all_entries_that_match_in_their_order() {
        let identities = identities(&[
            ("group", &["unix:gid:7"]),
            ("user", &["unix:uid:1"]),
            ("both", &["unix:uid:1", "unix:gid:7"]),
            ("program", &["unix:uid:1", "unix:path:/bin/true"]),
            ("other", &["unix:uid:2"]),
            ("user-again", &["unix:uid:1"]),
        ]);
        for (selectors, expected) in [
            (vec![], vec![]),
            (vec!["unix:path:/bin/true"], vec![]),
            (vec!["unix:uid:2"], vec!["/other"]),
            (vec!["unix:gid:7"], vec!["/group"]),
            (
                vec!["unix:uid:1", "unix:gid:7", "unix:uid:1"],
                vec!["/group", "/user", "/both", "/user-again"],
            ),
        ] {
            let selectors: Vec<_> = selectors.iter().map(|text| text.parse().unwrap()).collect();
            let entitled = identities.entitled(&selectors);
            let paths: Vec<_> = entitled.map(|issued| issued.svid.id().path()).collect();
            assert_eq!(paths, expected);
        }
    }
}
