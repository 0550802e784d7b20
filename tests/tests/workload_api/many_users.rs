//! A `sidegate` under `run` whose socket several users reach, and processes of other users.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Output, Sidegate, guest};
use tempfile::TempDir;

use crate::support::{digest, finish};

/// A registration entry: a SPIFFE ID's path and the selectors.
pub(crate) struct Entry {
    pub(crate) path: &'static str,
    pub(crate) selectors: Vec<String>,
}

/// It, and a folder that every user reaches: the socket is there.
pub(crate) struct ManyUsers {
    pub(crate) gate: Sidegate,
    folder: TempDir,
}

impl ManyUsers {
    /// Starts it in a folder, with entries beside the one of its own component.
    pub(crate) fn start(folder: TempDir, entries: &[Entry]) -> Self {
        let hello = guest("hello");
        let digest = digest(&hello);
        let mut config = format!(
            r#"
            [identity]
            trust_domain = "sidegate.local"
            state = "state"

            [[identity.entry]]
            spiffe_id = "spiffe://sidegate.local/hello"
            selectors = ["component:digest:sha256:{digest}", "component:namespace:default"]

            [workload_api]
            socket = "workload.sock"

            [admin]
            listen = "127.0.0.1:0"

            [[component]]
            name = "hello"
            path = {hello:?}

            [[listener]]
            name = "main"
            listen = "127.0.0.1:0"
            component = "hello"
            "#
        );
        for Entry { path, selectors } in entries {
            let entry = format!(
                r#"
                [[identity.entry]]
                spiffe_id = "spiffe://sidegate.local{path}"
                selectors = {selectors:?}
                "#
            );
            config.push_str(&entry);
        }
        let file = folder.path().join("sidegate.toml");
        fs::write(&file, config).expect("the configuration is written");
        Self {
            gate: Sidegate::run(&file),
            folder,
        }
    }

    /// A process of another user fetches its SVIDs.
    pub(crate) fn fetch(&self, setpriv: &Path, uid: u32, binary: &Path, output: &str) -> Output {
        let mut command = Command::new(setpriv);
        command
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .arg("--clear-groups")
            .arg(binary)
            .args(["svid", "fetch", "x509", "-o", output, "--socket"])
            .arg(self.folder.path().join("workload.sock"));
        finish(&mut command)
    }
}

/// A folder that every user reaches.
pub(crate) fn open_folder() -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary directory");
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
    folder
}

/// A copy of the binary that every user may run.
pub(crate) fn copy_of_sidegate(folder: &Path, name: &str) -> PathBuf {
    let copy = folder.join(name);
    fs::copy(sidegate_tests::sidegate(), &copy).expect("the binary is copied");
    fs::set_permissions(&copy, Permissions::from_mode(0o755)).expect("it is ours");
    copy
}

/// The SPIFFE IDs in what `svid fetch x509 -o json` printed.
pub(crate) fn spiffe_ids(output: &Output) -> BTreeSet<String> {
    let document: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {} {}", output.stdout, output.stderr));
    let svids = document["svids"].as_array().expect("there are SVIDs");
    let ids: BTreeSet<_> = svids
        .iter()
        .map(|svid| svid["spiffe_id"].as_str().expect("a SPIFFE ID").to_owned())
        .collect();
    assert_eq!(ids.len(), svids.len(), "each is there once: {document}");
    ids
}
