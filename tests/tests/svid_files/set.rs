//! The four files of `[[svid_file]]`, read together.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::KeyPair;
use serde_json::Value;
use time::OffsetDateTime;

use crate::entries::stream::authority_key;
use crate::support::now;
use crate::workload_api::{belongs, serial, spiffe_id, validity};

const FILES: [&str; 4] = ["svid.pem", "key.pem", "bundle.pem", "bundle_map.json"];

/// Files of one moment, which belong together.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Set {
    /// Leaf first, DER.
    pub(crate) chain: Vec<Vec<u8>>,
    /// `bundle.pem`, DER.
    pub(crate) bundle: Vec<Vec<u8>>,
    /// `bundle_map.json`.
    pub(crate) map: Value,
}

impl Set {
    /// The set in a directory, unless it was just replaced or is not there yet.
    ///
    /// Panics where the files do not belong together.
    pub(crate) fn read(directory: &Path) -> Option<Self> {
        let resolved = fs::canonicalize(directory.join("svid.pem")).ok()?;
        Self::of(resolved.parent().expect("it is in a folder"))
    }

    /// The same of plain files.
    pub(crate) fn of(directory: &Path) -> Option<Self> {
        let mut texts = Vec::new();
        for name in FILES {
            match fs::read_to_string(directory.join(name)) {
                Ok(text) => texts.push(text),
                Err(error) if error.kind() == ErrorKind::NotFound => return None,
                Err(error) => panic!("{name}: {error}"),
            }
        }
        let [svid, key, bundle, map] = <[String; 4]>::try_from(texts).expect("four");
        let set = Self {
            chain: blocks(&svid),
            bundle: blocks(&bundle),
            map: serde_json::from_str(&map).expect("it is JSON"),
        };
        let key = KeyPair::from_pem(&key).expect("a key");
        assert!(belongs(&key, &set.chain[0]), "the key is of another SVID");
        let id = spiffe_id(&set.chain[0]);
        let own = id.split('/').nth(2).expect("a trust domain");
        assert_eq!(set.roots(own), set.bundle, "{:?}", set.map);
        let signer = authority_key(set.chain.last().expect("a certificate"));
        let roots = set.bundle.iter().map(|root| key_of(root));
        assert!(roots.collect::<BTreeSet<_>>().contains(&signer), "{signer}");
        Some(set)
    }

    /// The serial number of the SVID.
    pub(crate) fn serial(&self) -> String {
        serial(&self.chain[0])
    }

    /// The key identifiers of the roots in `bundle.pem`.
    pub(crate) fn root_keys(&self) -> BTreeSet<String> {
        self.bundle.iter().map(|root| key_of(root)).collect()
    }

    /// When the SVID ends.
    pub(crate) fn ends(&self) -> OffsetDateTime {
        validity(&self.chain[0])[1]
    }

    pub(crate) fn is_expired(&self) -> bool {
        self.ends() <= now()
    }

    /// The trust domains in the bundle map.
    pub(crate) fn trust_domains(&self) -> Vec<&str> {
        let domains = self.map["trust_domains"].as_object().expect("a map");
        domains.keys().map(String::as_str).collect()
    }

    /// The keys of a trust domain in the bundle map that are for this use.
    pub(crate) fn keys(&self, trust_domain: &str, usage: &str) -> Vec<&Value> {
        let keys = self.map["trust_domains"][trust_domain]["keys"].as_array();
        let keys = keys.into_iter().flatten();
        keys.filter(|key| key["use"] == usage).collect()
    }

    /// The roots of a trust domain in the bundle map, DER.
    pub(crate) fn roots(&self, trust_domain: &str) -> Vec<Vec<u8>> {
        let keys = self.keys(trust_domain, "x509-svid").into_iter();
        keys.map(|key| {
            let text = key["x5c"][0].as_str().expect("a certificate");
            STANDARD.decode(text).expect("it is base64")
        })
        .collect()
    }
}

fn blocks(text: &str) -> Vec<Vec<u8>> {
    let blocks = pem::parse_many(text).expect("it is PEM").into_iter();
    blocks.map(pem::Pem::into_contents).collect()
}

fn key_of(root: &[u8]) -> String {
    let keys = crate::entries::stream::roots(root);
    let [key] = <[_; 1]>::try_from(Vec::from_iter(keys)).expect("one root");
    key
}
