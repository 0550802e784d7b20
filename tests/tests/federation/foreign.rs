//! An instance of another trust domain.

use std::path::{Path, PathBuf};

use serde_json::Value;
use sidegate_tests::Sidegate;
use tempfile::TempDir;

use crate::support::{Authority, Client, Identity, Operator, finish, folder, own_uid, write};
use crate::svid_files::Set;

/// It gives the user who runs the tests one identity, `/peer`, and writes that to files.
#[derive(Debug)]
pub(crate) struct Foreign {
    pub(crate) gate: Sidegate,
    name: String,
    folder: TempDir,
}

impl Foreign {
    /// Starts one that federates with `sidegate.local`.
    pub(crate) fn start(name: &str) -> Self {
        let folder = folder();
        let text = format!(
            r#"
[identity]
trust_domain = "{name}"
state = "state"

[[identity.entry]]
spiffe_id = "spiffe://{name}/peer"
selectors = ["{uid}"]
dns_names = ["localhost"]
audiences = ["demo"]
federates_with = ["sidegate.local"]

[[svid_file]]
spiffe_id = "spiffe://{name}/peer"
directory = "peer"

[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"
"#,
            uid = own_uid()
        );
        let config = write(folder.path(), "sidegate.toml", text);
        Self {
            gate: Sidegate::run(&config),
            name: name.to_owned(),
            folder,
        }
    }

    /// The SPIFFE ID that it gives out.
    pub(crate) fn id(&self) -> String {
        format!("spiffe://{}/peer", self.name)
    }

    pub(crate) fn operator(&self) -> Operator {
        Operator::of(&self.gate)
    }

    /// Its CA.
    pub(crate) fn authority(&self) -> Authority {
        Authority::of(&self.gate.ready.state)
    }

    /// Its bundle as it is now.
    pub(crate) fn bundle(&self) -> Value {
        bundle(&self.operator(), None)
    }

    /// The file in which its bundle is handed over, as it is now.
    pub(crate) fn bundle_file(&self) -> PathBuf {
        let text = self.bundle().to_string();
        write(self.folder.path(), "bundle.json", text)
    }

    /// Gives its bundle to another trust domain.
    pub(crate) fn is_known_to(&self, operator: &Operator) {
        set(operator, &self.name, &self.bundle_file());
    }

    /// Has its bundle taken away again.
    pub(crate) fn is_forgotten_by(&self, operator: &Operator) {
        operator.ask(&["bundle", "delete", &self.name]);
    }

    /// A client with its identity, of a server whose roots are in a file.
    pub(crate) fn client(&self, address: &str, roots: &Path) -> Client {
        let file = |name: &str| self.folder.path().join("peer").join(name);
        Client::new(address, roots, &file("svid.pem"), &file("key.pem"))
    }

    /// The identity in its files now.
    pub(crate) fn identity(&self) -> Identity {
        let file = |name: &str| self.folder.path().join("peer").join(name);
        Identity::read(&file("svid.pem"), &file("key.pem"))
    }

    /// The roots of a trust domain in its bundle map, DER; `None` without any.
    pub(crate) fn known_roots(&self, trust_domain: &str) -> Option<Vec<Vec<u8>>> {
        let set = Set::read(&self.folder.path().join("peer"))?;
        let roots = set.roots(trust_domain);
        (!roots.is_empty()).then_some(roots)
    }
}

/// What `bundle show` prints: of the own trust domain, or of another.
pub(crate) fn bundle(operator: &Operator, trust_domain: Option<&str>) -> Value {
    let arguments = ["bundle", "show"].into_iter().chain(trust_domain);
    let output = finish(&mut operator.command(&Vec::from_iter(arguments)));
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(&output.stdout).expect("it is JSON")
}

/// Sets a bundle from a file.
pub(crate) fn set(operator: &Operator, trust_domain: &str, file: &Path) {
    let file = file.to_str().expect("the path is text");
    operator.ask(&["bundle", "set", trust_domain, file]);
}
