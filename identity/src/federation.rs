//! The bundles of foreign trust domains, kept in one file as a SPIFFE bundle map.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use spiffe::TrustDomain;

use crate::durable;
use crate::jwt::{JwtBundle, JwtBundleError};
use crate::spiffe_bundle::{SpiffeBundle, SpiffeBundleError, bundle_map_json, parse_bundle_map};
use crate::svid::{UnusableRoot, X509Bundle};

/// Foreign trust domains whose bundles are known.
#[derive(Debug)]
pub struct FederatedBundles {
    path: PathBuf,
    own: TrustDomain,
    bundles: BTreeMap<TrustDomain, SpiffeBundle>,
}

/// A bundle, ready to verify with.
#[derive(Debug, Clone)]
pub(crate) struct Verifying {
    pub(crate) x509: Arc<X509Bundle>,
    pub(crate) jwt: Arc<JwtBundle>,
}

/// Why foreign bundles are not taken or not given up.
#[derive(Debug, thiserror::Error)]
pub enum FederationError {
    /// The own bundle is the authority's to make.
    #[error("`{0}` is this instance's own trust domain")]
    OwnTrustDomain(TrustDomain),
    /// There is no bundle of it.
    #[error("there is no bundle of `{0}`")]
    Unknown(TrustDomain),
    /// It is no SPIFFE bundle.
    #[error("the bundle of `{trust_domain}` is refused")]
    Refused {
        /// Whose it should be.
        trust_domain: TrustDomain,
        /// Why.
        #[source]
        source: SpiffeBundleError,
    },
    /// A root of it cannot serve as one.
    #[error("the bundle of `{trust_domain}` is refused")]
    Root {
        /// Whose it should be.
        trust_domain: TrustDomain,
        /// Why.
        #[source]
        source: UnusableRoot,
    },
    /// A JWT key of it cannot serve as one.
    #[error(transparent)]
    Jwt(#[from] JwtBundleError),
    /// The file cannot be read or written.
    #[error("cannot {action} the foreign bundles in {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{} does not hold a bundle map", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: SpiffeBundleError,
    },
}

impl FederationError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::OwnTrustDomain(_) => "SG0143",
            Self::Unknown(_) => "SG0144",
            Self::Refused { source, .. } => source.code(),
            Self::Root { .. } | Self::Jwt(_) => "SG0145",
            Self::File { .. } => "SG0146",
            Self::Damaged { .. } => "SG0147",
        }
    }
}

impl FederatedBundles {
    /// Takes the bundles of the file, if there is one.
    ///
    /// # Errors
    /// A file with anything in it that cannot be used is refused and left as it is.
    pub fn open(path: PathBuf, own: TrustDomain) -> Result<Self, FederationError> {
        let read = durable::read(&path).map_err(|source| FederationError::File {
            action: "read",
            path: path.clone(),
            source,
        })?;
        let bundles = match read {
            Some(json) => parse_bundle_map(&json).map_err(|source| FederationError::Damaged {
                path: path.clone(),
                source,
            })?,
            None => BTreeMap::new(),
        };
        match bundles.contains_key(&own) {
            true => Err(FederationError::OwnTrustDomain(own)),
            false => Ok(Self { path, own, bundles }),
        }
    }

    /// All of them.
    pub fn all(&self) -> &BTreeMap<TrustDomain, SpiffeBundle> {
        &self.bundles
    }

    /// Takes a bundle in the place of the one before, and keeps it.
    pub(crate) fn set(
        &mut self,
        trust_domain: &TrustDomain,
        json: &[u8],
    ) -> Result<Verifying, FederationError> {
        if *trust_domain == self.own {
            return Err(FederationError::OwnTrustDomain(self.own.clone()));
        }
        let bundle = SpiffeBundle::parse(json);
        let bundle = bundle.map_err(|source| FederationError::Refused {
            trust_domain: trust_domain.clone(),
            source,
        })?;
        let verifying = verifying(trust_domain, &bundle)?;
        let mut next = self.bundles.clone();
        next.insert(trust_domain.clone(), bundle);
        self.keep(next)?;
        Ok(verifying)
    }

    /// Gives up a bundle.
    pub(crate) fn remove(&mut self, trust_domain: &TrustDomain) -> Result<(), FederationError> {
        let mut next = self.bundles.clone();
        match next.remove(trust_domain) {
            Some(_) => self.keep(next),
            None => Err(FederationError::Unknown(trust_domain.clone())),
        }
    }

    fn keep(
        &mut self,
        bundles: BTreeMap<TrustDomain, SpiffeBundle>,
    ) -> Result<(), FederationError> {
        let text = bundle_map_json(&bundles);
        durable::replace(&self.path, text.as_bytes()).map_err(|source| FederationError::File {
            action: "write",
            path: self.path.clone(),
            source,
        })?;
        self.bundles = bundles;
        Ok(())
    }
}

/// A bundle, ready to verify with.
pub(crate) fn verifying(
    trust_domain: &TrustDomain,
    bundle: &SpiffeBundle,
) -> Result<Verifying, FederationError> {
    let x509 = X509Bundle::new(bundle.x509_authorities.clone())
        .and_then(|x509| x509.check(trust_domain).map(|()| x509))
        .map_err(|source| FederationError::Root {
            trust_domain: trust_domain.clone(),
            source,
        })?;
    Ok(Verifying {
        x509: Arc::new(x509),
        jwt: Arc::new(JwtBundle::new(trust_domain, bundle.jwks())?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Entry, EntryRequest};

    fn trust_domain(name: &str) -> TrustDomain {
        TrustDomain::new(name).unwrap()
    }

    fn open(directory: &tempfile::TempDir) -> Result<FederatedBundles, FederationError> {
        let path = directory.path().join("bundles.json");
        FederatedBundles::open(path, trust_domain("one.test"))
    }

    #[test]
    fn bundles_survive_a_restart_until_they_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let mut bundles = open(&directory).unwrap();
        let two = trust_domain("two.test");
        bundles.set(&two, br#"{"keys": []}"#).unwrap();
        assert!(open(&directory).unwrap().all().contains_key(&two));
        bundles.remove(&two).unwrap();
        assert!(open(&directory).unwrap().all().is_empty());
        assert_eq!(bundles.remove(&two).unwrap_err().code(), "SG0144");
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let mut bundles = open(&directory).unwrap();
        let two = trust_domain("two.test");
        bundles.set(&two, br#"{"keys": []}"#).unwrap();
        let kept = bundles.all().clone();
        let not_a_root = r#"{"keys": [{"use": "x509-svid", "kty": "EC", "crv": "P-256",
            "x": "AA", "y": "AA", "x5c": ["AAAA"]}]}"#;
        for (name, json, code) in [
            ("one.test", r#"{"keys": []}"#, "SG0143"),
            ("two.test", "{", "SG0190"),
            ("two.test", "{}", "SG0191"),
            ("two.test", not_a_root, "SG0192"),
        ] {
            let refused = bundles.set(&trust_domain(name), json.as_bytes());
            assert_eq!(refused.unwrap_err().code(), code, "{json}");
        }
        assert_eq!(*bundles.all(), kept);
        let path = directory.path().join("bundles.json");
        for (content, code) in [
            ("{}", "SG0147"),
            (r#"{"trust_domains": {"one.test": {"keys": []}}}"#, "SG0143"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(open(&directory).unwrap_err().code(), code);
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }

    #[test]
    fn a_bundle_that_was_written_by_us_verifies() {
        use crate::authority::{EmbeddedAuthority, Lifetimes};
        use crate::clock::{Clock, SystemClock};
        use std::time::Duration;
        let directory = tempfile::tempdir().unwrap();
        let (two, now) = (trust_domain("two.test"), SystemClock.now());
        let lifetimes = Lifetimes {
            root: Duration::from_secs(3600),
            svid: Duration::from_secs(60),
        };
        let path = directory.path().join("authority.pem");
        let authority = EmbeddedAuthority::open(path, two.clone(), lifetimes, now).unwrap();
        let request = EntryRequest {
            spiffe_id: "spiffe://two.test/web".to_owned(),
            selectors: vec!["unix:uid:1".to_owned()],
            ..EntryRequest::default()
        };
        let svid = authority.mint(&Entry::new(request, &two).unwrap(), now);
        let bundle = SpiffeBundle {
            x509_authorities: authority.bundle().unwrap().roots().to_vec(),
            ..SpiffeBundle::default()
        };
        let mut bundles = open(&directory).unwrap();
        let verifying = bundles.set(&two, bundle.to_json().as_bytes()).unwrap();
        let chain = svid.unwrap().chain().to_vec();
        assert!(crate::tls::verify_chain(&chain, &verifying.x509, now).is_ok());
    }
}
