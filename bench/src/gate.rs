//! A running `sidegate run` with many entries, in a directory of its own.

use std::fmt::Write as _;
use std::fs::{self, File, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::geteuid;
use tempfile::TempDir;

use crate::clock;

/// The audience for which every entry allows JWT-SVIDs.
pub(crate) const AUDIENCE: &str = "bench";

/// The uid of the first workload; the others follow.
pub(crate) const FIRST_UID: u32 = 100_000;

/// The process, killed when this is dropped.
pub(crate) struct Gate {
    binary: PathBuf,
    folder: TempDir,
    child: Child,
}

/// What a process holds in memory, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    /// Resident, shared pages counted whole.
    pub(crate) rss: f64,
    /// Resident, shared pages counted by what falls to the process.
    pub(crate) pss: f64,
}

impl Gate {
    /// Starts it with an entry for this process's own user, and for each of so many other users,
    /// and waits until it is ready.
    pub(crate) fn start(binary: &Path, workloads: u32) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        // Other users connect to the socket inside.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let config = folder.path().join("sidegate.toml");
        fs::write(&config, configuration(workloads)?)?;
        let log = folder.path().join("log");
        let mut child = Command::new(binary)
            .args(["run", "-o", "json", "--config"])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?)
            .spawn()
            .with_context(|| format!("{} does not start", binary.display()))?;
        let stdout = child.stdout.take();
        let binary = binary.to_owned();
        let gate = Self {
            binary,
            folder,
            child,
        };
        let mut ready = String::new();
        BufReader::new(stdout.context("its output is piped")?).read_line(&mut ready)?;
        if !ready.starts_with('{') {
            bail!("sidegate is not ready: {}", fs::read_to_string(&log)?);
        }
        Ok(gate)
    }

    /// Has the successor of the root published.
    pub(crate) fn publish_successor(&self) -> Result<Child> {
        let mut command = Command::new(&self.binary);
        command
            .args(["identity", "rotate", "x509", "--prepare-only", "--state"])
            .arg(self.folder.path().join("state"))
            .stdout(Stdio::null());
        Ok(command.spawn()?)
    }

    /// The Workload API's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("workload.sock")
    }

    /// What it has spent of the processors so far.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        clock::process(self.child.id())
    }

    /// What it holds in memory now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(path).context("its memory cannot be read")?;
        let bytes = |name: &str| -> Result<f64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name));
            let amount = line.and_then(|line| line.split_whitespace().next());
            let kibibytes: f64 = amount.context("a line is missing")?.parse()?;
            Ok(kibibytes * 1024.0)
        };
        Ok(Memory {
            rss: bytes("Rss:")?,
            pss: bytes("Pss:")?,
        })
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn configuration(workloads: u32) -> Result<String> {
    let mut text = r#"
[identity]
trust_domain = "bench.local"
state = "state"

[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[log]
level = "error"
"#
    .to_owned();
    let others = (FIRST_UID..).take(workloads.try_into()?);
    for uid in others.chain([geteuid().as_raw()]) {
        write!(
            text,
            r#"
[[identity.entry]]
spiffe_id = "spiffe://bench.local/workload/{uid}"
selectors = ["unix:uid:{uid}"]
audiences = ["{AUDIENCE}"]
"#
        )?;
    }
    Ok(text)
}
