//! A `sidegate` to whose system calls something happens.

use std::path::{Path, PathBuf};
use std::process::Command;

use sidegate_tests::sidegate;

/// `sidegate run` under strace. What `tampering` says (such as `error=EIO`, see strace's `--inject`)
/// happens to these calls; with paths, only to those that concern them. What it saw stands in
/// `sidegate.strace` beside the configuration.
pub(crate) fn traced(
    strace: &Path,
    calls: &str,
    tampering: &str,
    paths: impl IntoIterator<Item = PathBuf>,
    config: &Path,
) -> Command {
    let mut command = Command::new(strace);
    command
        // As its grandchild, so that the process that we see is the one under test.
        .args(["-D", "-f", "-qq", "-o"])
        .arg(config.with_extension("strace"))
        .arg("-e")
        .arg(format!("trace={calls}"))
        .arg("-e")
        .arg(format!("inject={calls}:{tampering}"));
    for path in paths {
        command.arg("-P").arg(path);
    }
    command
        .arg(sidegate())
        .args(["run", "-o", "json", "--config"])
        .arg(config);
    command
}
