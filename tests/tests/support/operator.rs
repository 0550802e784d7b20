//! `sidegate identity`, as the operator of a running instance uses it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Output, Sidegate};

use super::{finish, write};

/// Whoever may change entries and authorities.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    state: PathBuf,
}

impl Operator {
    pub(crate) fn of(gate: &Sidegate) -> Self {
        Self {
            state: gate.ready.state.clone(),
        }
    }

    /// `sidegate identity …`, to be started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Sidegate::command("identity");
        command.args(arguments).arg("--state").arg(&self.state);
        command
    }

    /// What it prints as text, and how it ends.
    pub(crate) fn run(&self, arguments: &[&str]) -> Output {
        finish(&mut self.command(arguments))
    }

    /// What it prints as JSON; panics where it fails.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["-o", "json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        serde_json::from_str(&output.stdout).expect("it is JSON")
    }

    /// Panics where it does not fail with this code, saying nothing else.
    pub(crate) fn is_refused(&self, arguments: &[&str], code: &str) {
        for format in ["text", "json"] {
            let output = self.run(&[arguments, &["-o", format]].concat());
            let what = format!("{arguments:?} {code}: {output:?}");
            assert_eq!(output.status.code(), Some(2), "{what}");
            assert_eq!(output.stdout, "", "{what}");
            assert!(output.stderr.contains(&format!("error[{code}]")), "{what}");
        }
    }

    /// Makes an entry for `spiffe://sidegate.local` and this path, and gives its id.
    pub(crate) fn create(&self, path: &str, selector: &str, more: &[&str]) -> String {
        let id = spiffe_id(path);
        let arguments = [
            "entry",
            "create",
            "--spiffe-id",
            &id,
            "--selector",
            selector,
        ];
        let made = self.ask(&[&arguments, more].concat());
        assert_eq!(made["entry"]["spiffe_id"], id, "{made}");
        made["id"].as_str().expect("it has an id").to_owned()
    }

    /// Deletes an entry.
    pub(crate) fn delete(&self, entry: &str) {
        let removed = self.ask(&["entry", "delete", entry]);
        assert_eq!(removed["removed"]["id"], entry, "{removed}");
    }

    /// All entries.
    pub(crate) fn entries(&self) -> Vec<Value> {
        let list = self.ask(&["entry", "list"]);
        list["entries"].as_array().expect("a list").clone()
    }

    /// The phase and id of each authority of a kind, in order.
    pub(crate) fn authorities(&self, kind: &str) -> Vec<(String, String)> {
        phases(&self.ask(&["authorities"]), kind)
    }

    /// The phases of a kind, in order.
    pub(crate) fn phases(&self, kind: &str) -> Vec<String> {
        let authorities = self.authorities(kind).into_iter();
        authorities.map(|(phase, _)| phase).collect()
    }

    /// The id of the only authority of a kind in a phase.
    pub(crate) fn authority(&self, kind: &str, phase: &str) -> String {
        let mut authorities = self.authorities(kind);
        authorities.retain(|(found, _)| found == phase);
        let [(_, id)] = <[_; 1]>::try_from(authorities).expect("there is one");
        id
    }
}

/// A SPIFFE ID of `sidegate.local`.
pub(crate) fn spiffe_id(path: &str) -> String {
    format!("spiffe://sidegate.local{path}")
}

/// The phase and id of each authority of a kind, in a document that shows them.
pub(crate) fn phases(document: &Value, kind: &str) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    document[kind]
        .as_array()
        .expect("a list")
        .iter()
        .map(|authority| (text(&authority["phase"]), text(&authority["id"])))
        .collect()
}

/// A configuration without listeners: identities only, from these lines and sections within
/// `[identity]`.
pub(crate) fn identity_only(folder: &Path, identity: &str) -> PathBuf {
    let text = format!(
        r#"
[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[identity]
trust_domain = "sidegate.local"
state = "state"
{identity}
"#
    );
    write(folder, "sidegate.toml", text)
}

/// An `[[identity.entry]]` of the user who runs the tests.
pub(crate) fn own_entry(path: &str) -> String {
    format!(
        "\n[[identity.entry]]\nspiffe_id = \"{}\"\nselectors = [\"{}\"]\n",
        spiffe_id(path),
        own_uid()
    )
}

/// The selector of the user who runs the tests.
pub(crate) fn own_uid() -> String {
    format!("unix:uid:{}", nix::unistd::geteuid())
}

/// The selector of a program's file.
pub(crate) fn program(path: &Path) -> String {
    let path = path.canonicalize().expect("the program is there");
    format!("unix:path:{}", path.display())
}
