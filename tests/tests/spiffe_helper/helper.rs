//! spiffe-helper as a process, and the files that it writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rcgen::KeyPair;
use sidegate_tests::{Sidegate, Tool, root, skip, tool};

use crate::workload_api::belongs;

/// The files of an SVID, as spiffe-helper names them by our configuration.
const FILES: [&str; 3] = ["svid.pem", "key.pem", "bundle.pem"];

/// spiffe-helper, where it is, and the socket that it asks.
#[derive(Debug)]
pub(crate) struct Helper {
    program: PathBuf,
    socket: String,
}

/// The files of one SVID.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    pub(crate) svid: PathBuf,
    pub(crate) key: PathBuf,
    pub(crate) bundle: PathBuf,
}

impl Helper {
    /// A helper for this `sidegate`; where there is none, the test is skipped.
    pub(crate) fn of(gate: &Sidegate, test: &str) -> Option<Self> {
        let program = tool(Tool::SpiffeHelper);
        if program.is_none() {
            skip(test, Tool::SpiffeHelper);
        }
        let socket = gate.ready.workload_socket.strip_prefix("unix://");
        Some(Self {
            program: program?,
            socket: socket.expect("a socket's address").to_owned(),
        })
    }

    /// A command that writes the files to a folder, with further lines of configuration.
    pub(crate) fn command(&self, folder: &Path, lines: &str) -> Command {
        fs::create_dir_all(folder).expect("a folder");
        let [svid, key, bundle] = FILES;
        let config = format!(
            r#"
agent_address = "{socket}"
cert_dir = "{folder}"
svid_file_name = "{svid}"
svid_key_file_name = "{key}"
svid_bundle_file_name = "{bundle}"
{lines}
"#,
            socket = self.socket,
            folder = folder.display(),
        );
        let file = folder.join("helper.conf");
        fs::write(&file, config).expect("the configuration is written");
        let mut command = Command::new(&self.program);
        command
            .arg("-config")
            .arg(file)
            .env_remove("SPIFFE_ENDPOINT_SOCKET")
            .env_remove("SPIRE_AGENT_ADDRESS");
        command
    }
}

impl Files {
    /// The files in a folder.
    pub(crate) fn of(folder: &Path) -> Self {
        let [svid, key, bundle] = FILES.map(|name| folder.join(name));
        Self { svid, key, bundle }
    }

    /// The leaf, DER; panics unless the files are whole and the key is the leaf's.
    pub(crate) fn leaf(&self) -> Vec<u8> {
        let chain = certificates(&self.svid);
        let [leaf, _intermediate] = chain.as_slice() else {
            panic!("leaf and intermediate, not {}", chain.len());
        };
        assert_eq!(certificates(&self.bundle).len(), 1, "the root");
        let key = fs::read_to_string(&self.key).expect("the key is read");
        let key = KeyPair::from_pem(&key).expect("a private key");
        assert!(belongs(&key, leaf), "the key is of another leaf");
        leaf.clone()
    }
}

/// A shell script of `peers`.
pub(crate) fn script(name: &str) -> PathBuf {
    root().join("tests/peers").join(name)
}

/// The certificates in a PEM file, DER.
fn certificates(file: &Path) -> Vec<Vec<u8>> {
    let text = fs::read(file).expect("the file is read");
    let blocks = pem::parse_many(text).expect("it is PEM");
    let certificates = blocks.into_iter().map(|block| {
        assert_eq!(block.tag(), "CERTIFICATE", "{}", file.display());
        block.into_contents()
    });
    certificates.collect()
}
