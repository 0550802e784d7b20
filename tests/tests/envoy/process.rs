//! A running Envoy.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Output, Running, until};
use tempfile::TempDir;

use super::bootstrap::Bootstrap;
use super::http::{Answer, get};
use crate::support::finish;

/// An Envoy that said that it is ready. It is killed when this is dropped.
#[derive(Debug)]
pub(crate) struct Envoy {
    process: Running,
    admin: String,
    application: String,
    _folder: TempDir,
}

impl Envoy {
    /// Starts it, and waits until it has its secrets and listens.
    pub(crate) fn start(binary: &Path, bootstrap: &Bootstrap) -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let config = folder.path().join("envoy.yaml");
        let address = folder.path().join("admin");
        fs::write(&config, bootstrap.text()).expect("the bootstrap is written");
        let mut process = Running::start(
            Command::new(binary)
                .arg("--config-path")
                .arg(&config)
                .arg("--admin-address-path")
                .arg(&address)
                .args(["--disable-hot-restart", "--concurrency", "1"])
                .args(["--log-level", "warning"]),
        );
        let admin = until("Envoy's admin address", || {
            assert!(process.is_running(), "it ended: {}", process.stderr());
            // The file is there before its content.
            fs::read_to_string(&address)
                .ok()
                .filter(|address| !address.is_empty())
        });
        until("Envoy to be ready", || {
            assert!(process.is_running(), "it ended: {}", process.stderr());
            get(&admin, "/ready")
                .ok()
                .filter(|ready| ready.status == 200)
        });
        Self {
            process,
            application: listener(&admin, "application"),
            admin,
            _folder: folder,
        }
    }

    /// What `envoy --mode validate` says of a bootstrap.
    pub(crate) fn validate(binary: &Path, bootstrap: &Bootstrap) -> Output {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let config = folder.path().join("envoy.yaml");
        fs::write(&config, bootstrap.text()).expect("the bootstrap is written");
        let mut command = Command::new(binary);
        command
            .args(["--mode", "validate", "--disable-hot-restart"])
            .arg("--config-path")
            .arg(&config);
        finish(&mut command)
    }

    /// `host:port` where the application sends its requests in plain text.
    pub(crate) fn application(&self) -> &str {
        &self.application
    }

    /// `host:port` of a listener.
    pub(crate) fn listener(&self, name: &str) -> String {
        listener(&self.admin, name)
    }

    /// The application asks for a path.
    pub(crate) fn get(&self, path: &str) -> Answer {
        get(&self.application, path).expect("Envoy answers")
    }

    /// A page of Envoy's admin server, as JSON.
    pub(crate) fn admin(&self, path: &str) -> Value {
        page(&self.admin, path)
    }

    /// The value of a counter or gauge.
    pub(crate) fn stat(&self, name: &str) -> u64 {
        let stats = self.admin(&format!("/stats?format=json&filter=^{name}$"));
        stats["stats"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|stat| stat["value"].as_u64())
            .unwrap_or_else(|| panic!("there is no {name}: {stats}"))
    }

    /// The serial numbers of the leaf certificates that it shows now.
    pub(crate) fn serials(&self) -> Vec<String> {
        let certificates = self.admin("/certs");
        certificates["certificates"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|context| context["cert_chain"][0]["serial_number"].as_str())
            .map(ToOwned::to_owned)
            .collect()
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        self.process.stderr()
    }
}

fn listener(admin: &str, name: &str) -> String {
    let listeners = page(admin, "/listeners?format=json");
    let port = listeners["listener_statuses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|listener| listener["name"] == name)
        .map(|listener| &listener["local_address"]["socket_address"]["port_value"])
        .unwrap_or_else(|| panic!("the listener is missing: {listeners}"));
    format!("127.0.0.1:{port}")
}

fn page(admin: &str, path: &str) -> Value {
    let answer = get(admin, path).expect("Envoy's admin server answers");
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    serde_json::from_str(&answer.body).expect("it is JSON")
}
