//! Telling whoever reads the files that there are new ones.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
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
    #[error("{} cannot be read: {problem}", path.display())]
    PidFile { path: PathBuf, problem: String },
    #[error("process {pid} cannot be signalled: {source}")]
    Signal { pid: Pid, source: nix::Error },
    #[error("`{program}` {problem}")]
    Command { program: String, problem: String },
}

impl Notify {
    pub(super) async fn run(&self, spiffe_id: &SpiffeId, stop: &CancellationToken) {
        if let Some((pid_file, signal)) = &self.signal {
            report(spiffe_id, send(pid_file, *signal));
        }
        if let Some((program, arguments)) = self.command.split_first() {
            tokio::select! {
                done = execute(program, arguments) => report(spiffe_id, done),
                () = stop.cancelled() => {}
            }
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
    let unreadable = |problem: String| NotifyError::PidFile {
        path: pid_file.to_owned(),
        problem,
    };
    let text = std::fs::read_to_string(pid_file).map_err(|error| unreadable(error.to_string()))?;
    // Zero and negative numbers would name groups of processes, or all.
    let pid = text.trim().parse().ok().filter(|pid: &i32| *pid > 0);
    let pid = Pid::from_raw(pid.ok_or_else(|| unreadable("it holds no process id".to_owned()))?);
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
    use super::*;

    #[test]
    fn only_one_process_is_ever_signalled() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pid");
        for content in ["", "0", "-1", "1 2", "nginx", "99999999999"] {
            std::fs::write(&file, content).unwrap();
            // Signal 0 would be harmless, but is no `Signal`: SIGCONT is to a running process.
            let refused = send(&file, Signal::SIGCONT);
            assert!(
                matches!(refused, Err(NotifyError::PidFile { .. })),
                "{content}"
            );
        }
        std::fs::write(&file, format!("{}\n", std::process::id())).unwrap();
        assert!(send(&file, Signal::SIGCONT).is_ok());
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
