//! A running OPA with its Envoy plugin.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::{Running, until};

/// OPA that answers `envoy.service.auth.v3.Authorization` on a Unix socket of its own. It is killed
/// when this is dropped.
#[derive(Debug)]
pub struct OpaEnvoyPlugin {
    process: Running,
    folder: TempDir,
}

impl OpaEnvoyPlugin {
    /// Starts it with a policy and the path of the rule that decides, and waits until it listens.
    ///
    /// # Panics
    /// When it ends before, with what it wrote.
    pub fn start(binary: &Path, policy: &Path, entrypoint: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| format!("unix://{}", folder.path().join(name).display());
        let plugin = |key: &str, value: &str| {
            let key = format!("plugins.envoy_ext_authz_grpc.{key}");
            ["--set".to_owned(), format!("{key}={value}")]
        };
        let mut process = Running::start(
            Command::new(binary)
                .args(["run", "--server", "--disable-telemetry"])
                .args(["--addr", &at("opa.sock")])
                .args(plugin("addr", &at("plugin.sock")))
                .args(plugin("path", entrypoint))
                .args(["--set", "decision_logs.console=true"])
                .arg(policy),
        );
        until("OPA's Envoy plugin to listen", || {
            assert!(
                process.is_running(),
                "it ended: {}{}",
                process.stdout(),
                process.stderr()
            );
            UnixStream::connect(folder.path().join("plugin.sock")).ok()
        });
        Self { process, folder }
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("plugin.sock")
    }

    /// The events of its decision log so far.
    pub fn events(&self) -> Vec<Value> {
        let log = self.log();
        // The last line may be under way.
        let lines = log
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok());
        let kind = "openpolicyagent.org/decision_logs";
        lines
            .filter(|line: &Value| line.get("type").is_some_and(|it| it == kind))
            .collect()
    }

    /// What it logged.
    pub fn log(&self) -> String {
        self.process.stdout() + &self.process.stderr()
    }
}
