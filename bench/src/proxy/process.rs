//! A proxy as a process: its start, its end, and what it spends.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::clock;

/// A process, killed with its children when this is dropped.
pub(super) struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with standard output and error in these files.
    pub(super) fn start(command: &mut Command, output: &Path, log: &Path) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(File::create(output)?)
            .stderr(File::create(log)?)
            .spawn()
            .with_context(|| format!("{} does not start", command.get_program().display()))?;
        let log = log.to_owned();
        Ok(Self { child, log })
    }

    /// An error with what it said, where it has ended.
    pub(super) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            let said = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("it ended with {status}: {}", said.trim());
        }
        Ok(())
    }

    /// What it and its children have spent of the processors so far.
    pub(super) fn cpu(&self) -> Result<Duration> {
        self.pids().into_iter().map(clock::process).sum()
    }

    /// What it and its children hold in memory, in bytes. Pages that it shares count by what falls
    /// to it.
    pub(super) fn memory(&self) -> Result<f64> {
        let memory = |pid: u32| {
            let path = format!("/proc/{pid}/smaps_rollup");
            let text = fs::read_to_string(path).context("its memory cannot be read")?;
            proportional(&text)
        };
        self.pids().into_iter().map(memory).sum()
    }

    /// Itself, and its workers where they are processes.
    fn pids(&self) -> Vec<u32> {
        let id = self.child.id();
        // Gone, or a kernel that does not tell.
        let text = fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        let children = children(&text.unwrap_or_default());
        std::iter::once(id).chain(children).collect()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The first of them is a child of ours and no other process until it is waited for; its own
        // children end after it.
        for pid in self.pids() {
            if let Ok(pid) = i32::try_from(pid) {
                // It may have ended already.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        let _ = self.child.wait();
    }
}

/// Process ids as `/proc/PID/task/TID/children` has them.
fn children(text: &str) -> Vec<u32> {
    let ids = text.split_whitespace();
    ids.filter_map(|id| id.parse().ok()).collect()
}

/// The proportional set size in `/proc/PID/smaps_rollup`, in bytes.
fn proportional(text: &str) -> Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let amount = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: f64 = amount.context("smaps_rollup has no Pss in kB")?.parse()?;
    Ok(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn children_are_the_numbers_of_one_line() {
        assert_eq!(children(""), Vec::<u32>::new());
        assert_eq!(children("41 1042 "), [41, 1042]);
    }

    #[test]
    fn memory_is_the_whole_processes_proportional_set() {
        let text = "\
55d0f6c00000-7ffd0a5f2000 ---p 00000000 00:00 0                          [rollup]
Rss:               90128 kB
Pss:               43210 kB
Pss_Dirty:         40000 kB
Pss_Anon:          39992 kB
";
        assert_eq!(proportional(text).unwrap(), 43_210.0 * 1024.0);
        assert!(proportional("Rss: 1 kB\n").is_err());
        assert!(proportional("Pss: 1 MB\n").is_err());
    }

    #[test]
    fn a_process_spends_time_and_is_gone_once_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let mut command = Command::new("sleep");
        command.arg("60");
        let process = Process::start(&mut command, &file("out"), &file("log")).unwrap();
        let id = process.child.id();
        assert!(process.memory().unwrap() > 0.0);
        process.cpu().unwrap();
        drop(process);
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn what_an_ended_process_said_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(name);
        let mut command = Command::new("sh");
        command.args(["-c", "echo no port >&2; exit 2"]);
        let mut process = Process::start(&mut command, &file("out"), &file("log")).unwrap();
        process.child.wait().unwrap();
        let error = process.check().unwrap_err().to_string();
        assert!(error.contains("exit status: 2"), "{error}");
        assert!(error.contains("no port"), "{error}");
    }
}
