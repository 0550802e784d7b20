//! Certificates of a CA, as a user makes them with openssl.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, SanType};
use sidegate_tests::{Output, Tool, skip, tool};
use time::Duration;

use crate::support::{finish, now, write};

/// The extensions of a CA of the trust domain.
pub(super) const CA: &str = "basicConstraints=critical,CA:TRUE\n\
     keyUsage=critical,keyCertSign,cRLSign\n\
     subjectKeyIdentifier=hash\n\
     subjectAltName=URI:spiffe://sidegate.local\n";

/// openssl, and the folder that it works in.
#[derive(Debug)]
pub(crate) struct Openssl {
    program: PathBuf,
    pub(super) folder: PathBuf,
}

impl Openssl {
    /// It, where it is installed; the test is skipped otherwise.
    pub(crate) fn new(folder: &Path, test: &str) -> Option<Self> {
        let program = tool(Tool::Openssl);
        if program.is_none() {
            skip(test, Tool::Openssl);
        }
        Some(Self {
            program: program?,
            folder: folder.to_owned(),
        })
    }

    /// `NAME.key`, for its owner only, of an algorithm with options.
    pub(crate) fn key(&self, name: &str, algorithm: &str) {
        self.run(&format!("genpkey -out {name}.key -algorithm {algorithm}"));
        let key = self.folder.join(name).with_extension("key");
        fs::set_permissions(key, Permissions::from_mode(0o600)).expect("it is ours");
    }

    /// `NAME.pem`, signed by its own key.
    pub(super) fn root(&self, name: &str, extensions: &str) {
        self.sign(name, &format!("-signkey {name}.key"), extensions);
    }

    /// `NAME.pem`, signed by another's.
    pub(crate) fn signed(&self, name: &str, signer: &str, extensions: &str) {
        let signer = format!("-CA {signer}.pem -CAkey {signer}.key -CAcreateserial");
        let extensions = format!("{extensions}\nauthorityKeyIdentifier=keyid\n");
        self.sign(name, &signer, &extensions);
    }

    /// A root, an intermediate below it that allows none below itself, and another two below each
    /// other: `chain.pem` has these two, the lower one first.
    pub(crate) fn family(&self) {
        for name in ["root", "intermediate", "upper", "lower"] {
            self.key(name, "EC -pkeyopt ec_paramgen_curve:P-256");
        }
        self.root("root", CA);
        let last = CA.replace("CA:TRUE", "CA:TRUE,pathlen:0");
        self.signed("intermediate", "root", &last);
        self.signed("upper", "root", CA);
        self.signed("lower", "upper", &last);
        self.join("chain", &["lower", "upper"]);
        self.join("turned", &["upper", "lower"]);
    }

    /// `NAME.pem` of several.
    pub(crate) fn join(&self, name: &str, parts: &[&str]) {
        let part = |part: &&str| {
            let part = self.folder.join(part).with_extension("pem");
            fs::read_to_string(part).expect("it was made")
        };
        let joined: String = parts.iter().map(part).collect();
        write(&self.folder, &format!("{name}.pem"), joined);
    }

    /// Verifies a chain in PEM with a root.
    pub(super) fn verify(&self, root: &str, chain: &str, purpose: &str) -> Output {
        let chain = write(&self.folder, "verified.pem", chain);
        let mut command = self.command(&format!(
            "verify -x509_strict -purpose {purpose} -CAfile {root}.pem -untrusted verified.pem"
        ));
        finish(command.arg(chain))
    }

    fn sign(&self, name: &str, signer: &str, extensions: &str) {
        write(&self.folder, "extensions", extensions);
        self.run(&format!(
            "req -new -key {name}.key -subj /CN={name} -out request"
        ));
        self.run(&format!(
            "x509 -req -in request {signer} -days 30 -extfile extensions -out {name}.pem"
        ));
    }

    /// Runs it; panics where it fails.
    pub(crate) fn run(&self, arguments: &str) {
        let output = finish(&mut self.command(arguments));
        assert!(output.status.success(), "{arguments}: {output:?}");
    }

    fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments.split(' ')).current_dir(&self.folder);
        command
    }
}

/// A root that expired a minute ago: openssl counts in days.
pub(super) fn expired(folder: &Path, name: &str) {
    lasting(folder, name, -Duration::minutes(1));
}

/// A root for another half hour, which is less than an SVID's hour.
pub(super) fn ending_soon(folder: &Path, name: &str) {
    lasting(folder, name, Duration::minutes(30));
}

fn lasting(folder: &Path, name: &str, rest: Duration) {
    let mut params = CertificateParams::default();
    let uri = "spiffe://sidegate.local".try_into().expect("it is ASCII");
    params.subject_alt_names = vec![SanType::URI(uri)];
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = now() - Duration::hours(1);
    params.not_after = now() + rest;
    let key = KeyPair::generate().expect("a key");
    let certificate = params.self_signed(&key).expect("it is signed");
    write(folder, &format!("{name}.pem"), certificate.pem());
    let key = write(folder, &format!("{name}.key"), key.serialize_pem());
    fs::set_permissions(key, Permissions::from_mode(0o600)).expect("it is ours");
}
