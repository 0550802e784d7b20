//! A running `sidegate`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{Output, Running, sidegate};

/// A `sidegate` that said that it is ready.
#[derive(Debug)]
pub struct Sidegate {
    /// The process.
    pub process: Running,
    /// What it said.
    pub ready: Ready,
}

/// The line that `-o json` prints when ready.
#[derive(Debug, Clone)]
pub struct Ready {
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// `http://host:port` of the admin server.
    pub admin: String,
    /// `unix:///…` of the Workload API; empty without identities.
    pub workload_socket: String,
    /// The state directory.
    pub state: PathBuf,
    /// The demo client, under `up`.
    pub demo: Option<Demo>,
}

/// One listener.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// The identity that it shows; empty where it speaks no TLS.
    pub spiffe_id: String,
}

/// The demo client's files and addresses.
#[derive(Debug, Clone)]
pub struct Demo {
    /// Its SPIFFE ID.
    pub spiffe_id: String,
    /// Leaf, then intermediate, PEM.
    pub svid: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Roots, PEM.
    pub bundle: PathBuf,
    /// What the stock policy allows.
    pub url_allowed: String,
    /// What the stock policy denies.
    pub url_denied: String,
}

impl Sidegate {
    /// `sidegate up` on free ports, with its state in `state`, and further arguments.
    pub fn up<I, S>(state: &Path, arguments: I) -> Self
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = Self::command("up");
        command
            .args([
                "--listen",
                "127.0.0.1:0",
                "--admin",
                "127.0.0.1:0",
                "-o",
                "json",
            ])
            .arg("--state")
            .arg(state)
            .args(arguments);
        Self::start(&mut command)
    }

    /// `sidegate run` with a configuration file.
    pub fn run(config: &Path) -> Self {
        let mut command = Self::command("run");
        command.args(["-o", "json"]).arg("--config").arg(config);
        Self::start(&mut command)
    }

    /// The binary with a subcommand, to be started otherwise.
    pub fn command(subcommand: &str) -> Command {
        let mut command = Command::new(sidegate());
        command.arg(subcommand);
        command
    }

    /// Starts a command that prints the ready line, and waits for it.
    ///
    /// # Panics
    /// When it ends before, with what it wrote to standard error.
    pub fn start(command: &mut Command) -> Self {
        let mut process = Running::start(command);
        let ready = Ready::new(&process.json_line());
        Self { process, ready }
    }

    /// The demo client; panics under `run`.
    pub fn demo(&self) -> &Demo {
        self.ready.demo.as_ref().expect("`up` has a demo client")
    }

    /// Stops it with SIGTERM and waits for its end.
    pub fn stop(self) -> Output {
        self.process.signal(nix::sys::signal::Signal::SIGTERM);
        self.process.wait()
    }
}

impl Ready {
    fn new(line: &Value) -> Self {
        assert_eq!(line.get("ready"), Some(&Value::Bool(true)), "{line}");
        let listeners = line.get("listeners").and_then(Value::as_array);
        Self {
            listeners: listeners
                .expect("there are listeners")
                .iter()
                .map(|listener| Listener {
                    name: text(listener, "name"),
                    address: text(listener, "address"),
                    spiffe_id: optional(listener, "spiffe_id"),
                })
                .collect(),
            admin: text(line, "admin"),
            workload_socket: optional(line, "workload_socket"),
            state: text(line, "state").into(),
            demo: line.get("demo").map(|demo| Demo {
                spiffe_id: text(demo, "spiffe_id"),
                svid: text(demo, "svid").into(),
                key: text(demo, "key").into(),
                bundle: text(demo, "bundle").into(),
                url_allowed: text(demo, "url_allowed"),
                url_denied: text(demo, "url_denied"),
            }),
        }
    }
}

fn optional(object: &Value, key: &str) -> String {
    match object.get(key) {
        Some(_) => text(object, key),
        None => String::new(),
    }
}

fn text(object: &Value, key: &str) -> String {
    match object.get(key).and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => panic!("`{key}` is missing in {object}"),
    }
}
