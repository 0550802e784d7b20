//! The client on go-spiffe, `peers/go/spiffe-client`, as a process.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Output, Running, Sidegate, Tool, skip, tool};

use crate::support::finish;

/// The program, and the socket that it asks.
#[derive(Debug, Clone)]
pub(crate) struct GoClient {
    program: PathBuf,
    socket: String,
}

impl GoClient {
    /// A client of this `sidegate`; where there is none, the test is skipped.
    pub(crate) fn of(gate: &Sidegate, test: &str) -> Option<Self> {
        let program = tool(Tool::GoClient);
        if program.is_none() {
            skip(test, Tool::GoClient);
        }
        Some(Self {
            program: program?,
            socket: gate.ready.workload_socket.clone(),
        })
    }

    /// The same, as a copy that every user may run.
    pub(crate) fn copied_to(self, folder: &Path) -> Self {
        let program = folder.join("spiffe-client");
        std::fs::copy(&self.program, &program).expect("it is copied with its mode");
        Self { program, ..self }
    }

    /// What it prints; panics where it fails.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        documents(&output.stdout)
    }

    /// What it prints, and how it ends.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        finish(&mut self.command(arguments))
    }

    /// How it fails; panics where it does not.
    pub(crate) fn refusal(&self, arguments: &[&str]) -> Value {
        refusal(&mut self.command(arguments))
    }

    /// Starts what does not end by itself.
    pub(crate) fn start(&self, arguments: &[&str]) -> Running {
        Running::start(&mut self.command(arguments))
    }

    /// It as another user.
    pub(crate) fn as_user(&self, setpriv: &Path, uid: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new(setpriv);
        command
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .arg("--clear-groups")
            .arg(&self.program)
            .args(arguments)
            .env("SPIFFE_ENDPOINT_SOCKET", &self.socket);
        command
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .env("SPIFFE_ENDPOINT_SOCKET", &self.socket);
        command
    }
}

/// How a command of the client fails; panics where it does not.
pub(crate) fn refusal(command: &mut Command) -> Value {
    let output = finish(command);
    assert_eq!(output.status.code(), Some(1), "{command:?}: {output:?}");
    let mut documents = documents(&output.stdout);
    let last = documents.pop().expect("it says why");
    assert!(last["error"].is_string(), "{output:?}");
    assert!(documents.is_empty(), "nothing but the error: {output:?}");
    last
}

/// The documents in what was printed.
pub(crate) fn documents(printed: &str) -> Vec<Value> {
    printed
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect()
}
