//! State as an instance leaves it that was started some time ago.

use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use serde_json::Value;
use time::Duration;

use crate::support::now;

/// How long ago something was made, and how long it still counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Age {
    pub(crate) since: Duration,
    pub(crate) left: Duration,
}

/// The content of `authority.pem`: a root with its intermediate for each, of which the first signs.
pub(crate) fn authorities(ages: &[(Age, Age)]) -> String {
    let blocks = ages
        .iter()
        .enumerate()
        .map(|(number, (root, intermediate))| {
            let phase = if number == 0 { "active" } else { "old" };
            let begin = "-----BEGIN CERTIFICATE-----\n";
            let phase = format!("{begin}Phase: {phase}\n\n");
            let root_key = KeyPair::generate().expect("a key pair");
            let root_params = signing(&format!("Old root {number}"), 1, *root);
            let root = root_params.self_signed(&root_key).expect("it is signed");
            let root_key_pem = root_key.serialize_pem();
            let issuer = Issuer::new(root_params, root_key);
            let key = KeyPair::generate().expect("a key pair");
            let params = signing("Old intermediate", 0, *intermediate);
            let intermediate = params.signed_by(&key, &issuer).expect("it is signed");
            [
                root.pem().replace(begin, &phase),
                root_key_pem,
                intermediate.pem(),
                key.serialize_pem(),
            ]
            .concat()
        });
    blocks.collect()
}

/// Makes the keys in `jwt_keys.json` older.
pub(crate) fn age_jwt_keys(path: &Path, by: Duration) {
    let text = fs::read(path).expect("there are keys");
    let mut document: Value = serde_json::from_slice(&text).expect("it is JSON");
    for key in document["keys"].as_array_mut().expect("there are keys") {
        for moment in ["not_before", "not_after"] {
            let seconds = key[moment].as_i64().expect("seconds");
            key[moment] = (seconds - by.whole_seconds()).into();
        }
    }
    fs::write(path, document.to_string()).expect("it is written");
}

fn signing(name: &str, path_length: u8, age: Age) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let id = "spiffe://sidegate.local".try_into().expect("it is ASCII");
    params.subject_alt_names = vec![SanType::URI(id)];
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_length));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    params.not_before = now() - age.since;
    params.not_after = now() + age.left;
    params
}
