//! Entries that are made while something fails.

use std::fs;

use nix::unistd::getuid;
use sidegate_tests::{Ready, Sidegate, Tool, skip, tool, until};

use super::frames::{Answer, call};
use super::setup::Setup;
use super::traced::traced;
use crate::support::{finish, folder};

/// The identity of the user who runs the tests, by the configuration.
const CONFIGURED: &str = "spiffe://sidegate.local/demo";
const KEPT: &str = "spiffe://sidegate.local/kept";
const MADE: &str = "spiffe://sidegate.local/made";

#[test]
fn a_kill_while_an_entry_is_made_loses_no_other_and_makes_no_half_one() {
    let Some(strace) = tool(Tool::Strace) else {
        return skip("a_kill_while_an_entry_is_made", Tool::Strace);
    };
    for calls in ["openat", "write", "fsync", "?rename,?renameat,?renameat2"] {
        let folder = folder();
        let config = Setup::without_component().write(folder.path());
        let gate = Sidegate::run(&config);
        assert!(create(&gate.ready, KEPT));
        drop(gate);

        let file = folder.path().join("state/entries.json.new");
        let kill = "signal=SIGKILL";
        let gate = Sidegate::start(&mut traced(&strace, calls, kill, [file.clone()], &config));
        assert!(!create(&gate.ready, MADE), "{calls}");
        assert_eq!(file.exists(), calls != "openat", "{calls}: killed there");
        gate.process.wait();

        let gate = Sidegate::run(&config);
        assert_eq!(identities(&gate), [CONFIGURED, KEPT], "{calls}");
        assert!(create(&gate.ready, MADE), "{calls}");
        assert_eq!(identities(&gate), [CONFIGURED, KEPT, MADE], "{calls}");
        assert!(!file.exists(), "{calls}");
    }
}

#[test]
fn an_entry_is_there_after_a_restart_exactly_if_its_creation_was_said_to_have_succeeded() {
    let Some(strace) = tool(Tool::Strace) else {
        return skip("an_entry_is_there_after_a_restart", Tool::Strace);
    };
    let folder = folder();
    let config = Setup::without_component().write(folder.path());
    // With a state that is new nothing is written at the next start.
    drop(Sidegate::run(&config));
    // The directory cannot be synchronized after a file in it has been replaced.
    let state = folder.path().join("state");
    let mut failing = traced(&strace, "fsync", "error=EIO", [state], &config);
    let gate = Sidegate::start(&mut failing);
    let said = create(&gate.ready, MADE);
    until("the failure", || {
        let seen = fs::read_to_string(config.with_extension("strace"));
        seen.ok().filter(|seen| seen.contains("INJECTED"))
    });
    drop(gate);
    let gate = Sidegate::run(&config);
    let found = identities(&gate);
    assert_eq!(found.iter().any(|id| id == MADE), said, "{found:?}");
}

/// Makes an entry for ourselves; says whether that succeeded.
fn create(ready: &Ready, spiffe_id: &str) -> bool {
    let mut command = Sidegate::command("identity");
    command
        .args(["entry", "create", "--spiffe-id", spiffe_id, "--selector"])
        .arg(format!("unix:uid:{}", getuid()))
        .arg("--state")
        .arg(&ready.state);
    finish(&mut command).status.success()
}

/// What we are given, in order.
fn identities(gate: &Sidegate) -> Vec<String> {
    match call(gate) {
        Answer::Identities(mut identities) => {
            identities.sort();
            identities
        }
        refused => panic!("we are served: {refused:?}"),
    }
}
