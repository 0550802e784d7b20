//! Telling whoever reads the files that there are new ones.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use spiffe::SpiffeId;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

/// A command that takes longer is ended.
const LONGEST: Duration = Duration::from_secs(30);

/// What is done after the files have changed. Each fails by itself, and is not tried again: the next
/// renewal tells anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notify {
    /// A file with the id of a process, and the signal that it gets.
    pub signal: Option<(PathBuf, Signal)>,
    /// A program with its arguments, run without a shell.
    pub command: Vec<String>,
}

/// Why nobody was told.
#[derive(Debug, thiserror::Error)]
enum NotifyError {
    #[error("the pid file {} is of no use: {problem}", path.display())]
    PidFile { path: PathBuf, problem: String },
    #[error("process {pid} cannot be signalled: {source}")]
    Signal { pid: Pid, source: nix::Error },
    #[error("`{program}` {problem}")]
    Command { program: String, problem: String },
}

impl Notify {
    /// Tells of new files whenever there are `fresh` ones; of several at once it tells once.
    pub(super) async fn run(
        &self,
        spiffe_id: &SpiffeId,
        fresh: &tokio::sync::Notify,
        stop: &CancellationToken,
    ) {
        let telling = async {
            loop {
                fresh.notified().await;
                self.tell(spiffe_id).await;
            }
        };
        tokio::select! {
            () = telling => {}
            () = stop.cancelled() => {}
        }
    }

    async fn tell(&self, spiffe_id: &SpiffeId) {
        if let Some((pid_file, signal)) = self.signal.clone() {
            let sent = tokio::task::spawn_blocking(move || send(&pid_file, signal));
            report(spiffe_id, sent.await.unwrap_or(Ok(())));
        }
        if let Some((program, arguments)) = self.command.split_first() {
            report(spiffe_id, execute(program, arguments).await);
        }
    }
}

fn report(spiffe_id: &SpiffeId, done: Result<(), NotifyError>) {
    match done {
        Ok(()) => debug!(%spiffe_id, "the reader of SVID files is told"),
        Err(error) => {
            error!(code = "SG0148", %spiffe_id, %error, "the reader of SVID files is not told");
        }
    }
}

fn send(pid_file: &Path, signal: Signal) -> Result<(), NotifyError> {
    let unusable = |problem: String| NotifyError::PidFile {
        path: pid_file.to_owned(),
        problem,
    };
    let metadata = fs::metadata(pid_file).map_err(|error| unusable(error.to_string()))?;
    if !metadata.is_file() {
        return Err(unusable("it is no file".to_owned()));
    }
    let text = fs::read_to_string(pid_file).map_err(|error| unusable(error.to_string()))?;
    // Zero and negative numbers would name groups of processes, or all.
    let pid = text.trim().parse().ok().filter(|pid: &i32| *pid > 0);
    let pid = pid.ok_or_else(|| unusable("it holds no process id".to_owned()))?;
    // Who may write the file must not aim our signals at processes that are not its own.
    let owner =
        fs::metadata(format!("/proc/{pid}")).map_err(|error| unusable(error.to_string()))?;
    let trusted = [0, geteuid().as_raw(), owner.uid()];
    if !trusted.contains(&metadata.uid()) || metadata.mode() & 0o022 != 0 {
        return Err(unusable(
            "others than the process's owner may write to it".to_owned(),
        ));
    }
    let pid = Pid::from_raw(pid);
    kill(pid, signal).map_err(|source| NotifyError::Signal { pid, source })
}

async fn execute(program: &str, arguments: &[String]) -> Result<(), NotifyError> {
    let failed = |problem: String| NotifyError::Command {
        program: program.to_owned(),
        problem,
    };
    // Standard output is ours alone. Dropping the child ends it.
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("does not start: {error}")))?;
    match tokio::time::timeout(LONGEST, child.wait()).await {
        Ok(Ok(status)) if status.success() => Ok(()),
        Ok(Ok(status)) => Err(failed(format!("failed: {status}"))),
        Ok(Err(error)) => Err(failed(format!("cannot be waited for: {error}"))),
        Err(_) => Err(failed(format!("took longer than {}s", LONGEST.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn only_one_process_is_ever_signalled() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        for content in ["", "0", "-1", "1 2", "nginx", "99999999999"] {
            fs::write(&file, content).unwrap();
            // Signal 0 would be harmless, but is no `Signal`: SIGCONT is to a running process.
            let refused = send(&file, Signal::SIGCONT);
            assert!(
                matches!(refused, Err(NotifyError::PidFile { .. })),
                "{content}"
            );
        }
        assert!(send(directory.path(), Signal::SIGCONT).is_err());
        fs::write(&file, format!("{}\n", std::process::id())).unwrap();
        assert!(send(&file, Signal::SIGCONT).is_ok());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(send(&file, Signal::SIGCONT).is_err());
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why() {
        let run = |program: &'static str, arguments: &'static [&'static str]| async move {
            let arguments: Vec<_> = arguments.iter().map(|&text| text.to_owned()).collect();
            execute(program, &arguments)
                .await
                .map_err(|error| error.to_string())
        };
        assert_eq!(run("true", &[]).await, Ok(()));
        let failed = run("false", &[]).await.unwrap_err();
        assert_eq!(failed, "`false` failed: exit status: 1");
        let absent = run("/nowhere/reload", &[]).await.unwrap_err();
        assert!(
            absent.starts_with("`/nowhere/reload` does not start"),
            "{absent}"
        );
    }
}
