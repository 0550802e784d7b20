//! An issuer that knows nothing of Sidegate, and the volumes in which its files are mounted.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, IsCa, Issuer as Signer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::support::{leaf, write};

/// A root that signs leaves.
pub(super) struct Issuer {
    root: Signer<'static, KeyPair>,
    /// PEM.
    pub(super) bundle: String,
}

/// The files of one SVID: leaf, key and roots, PEM.
#[derive(Debug, Clone)]
pub(super) struct Set {
    pub(super) svid: String,
    pub(super) key: String,
    pub(super) bundle: String,
}

/// A folder as Kubernetes mounts a secret: `..data` links to a folder with all the files, and each
/// name to its file in there.
pub(super) struct Volume {
    folder: PathBuf,
    versions: usize,
}

impl Issuer {
    pub(super) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = SanType::URI("spiffe://sidegate.local".try_into().unwrap());
        params.subject_alt_names = vec![root];
        let key = KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("it is signed");
        Self {
            bundle: root.pem(),
            root: Signer::new(params, key),
        }
    }

    /// A set for this ID, good for an hour.
    pub(super) fn set(&self, id: &str) -> Set {
        self.set_of(&good(id))
    }

    pub(super) fn set_of(&self, params: &CertificateParams) -> Set {
        let key = KeyPair::generate().expect("a key");
        let svid = params.signed_by(&key, &self.root).expect("it is signed");
        Set {
            svid: svid.pem(),
            key: key.serialize_pem(),
            bundle: self.bundle.clone(),
        }
    }
}

/// A leaf for this ID, which the tests' clients take for `localhost`.
pub(super) fn good(id: &str) -> CertificateParams {
    let mut params = leaf(&[id]);
    let name = SanType::DnsName("localhost".try_into().expect("a name"));
    params.subject_alt_names.push(name);
    params
}

impl Volume {
    /// Mounts it at a folder with the first set.
    pub(super) fn mount(folder: &Path, set: &Set) -> Self {
        let mut volume = Self {
            folder: folder.to_owned(),
            versions: 0,
        };
        fs::create_dir_all(folder).expect("a folder");
        volume.swap(set);
        for name in ["tls.crt", "tls.key", "ca.crt"] {
            symlink(Path::new("..data").join(name), folder.join(name)).expect("a link");
        }
        volume
    }

    /// Puts another set in its place, at once.
    pub(super) fn swap(&mut self, set: &Set) {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        for (name, text) in [
            ("tls.crt", &set.svid),
            ("tls.key", &set.key),
            ("ca.crt", &set.bundle),
        ] {
            write(&self.folder, &format!("{version}/{name}"), text);
        }
        let new = self.folder.join("..new");
        symlink(&version, &new).expect("a link");
        fs::rename(&new, self.folder.join("..data")).expect("it is swapped");
    }

    /// Writes over a file that is mounted now.
    pub(super) fn overwrite(&self, name: &str, text: &str) {
        write(&self.folder, &format!("..data/{name}"), text);
    }

    pub(super) fn remove(&self, name: &str) {
        fs::remove_file(self.folder.join("..data").join(name)).expect("it was there");
    }

    /// `[identity]` for its files.
    pub(super) fn section(&self) -> String {
        let path = |name: &str| self.folder.join(name).display().to_string();
        format!(
            "source = \"files\"\n[identity.files]\nsvid = {:?}\nkey = {:?}\nbundle = {:?}\n",
            path("tls.crt"),
            path("tls.key"),
            path("ca.crt"),
        )
    }
}
