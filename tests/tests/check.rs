//! `sidegate check`: of an instance that runs, that is gone, that is not well, that cannot be asked.

mod configuration;
mod renewal;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use nix::unistd::geteuid;
use serde_json::Value;
use sidegate_tests::{Output, Sidegate, Tool, root, skip, tool};

use crate::support::{Configuration, admin, finish, folder, logged, up};
use crate::workload_api::many_users::{copy_of_sidegate, open_folder};

/// A row: the check's id, its result, and its code.
type Row = (String, String, Option<String>);

/// `sidegate check …` to its end, without the variable that the machine may have set.
fn check(arguments: &[&str]) -> Output {
    let mut command = Sidegate::command("check");
    finish(command.args(arguments).env_remove("SIDEGATE_STATE"))
}

/// The same of a running instance as JSON, with its exit code.
fn check_state(state: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let state = state.to_str().unwrap();
    json(&check(
        &[&["--state", state, "-o", "json"], arguments].concat(),
    ))
}

/// What was printed as JSON, whose rows are all documented.
fn json(output: &Output) -> (Option<i32>, Value) {
    assert_eq!(output.stderr, "");
    let document: Value = serde_json::from_str(&output.stdout).expect("it is JSON");
    assert_eq!(document["schema"], 1);
    let success = output.status.success();
    assert_eq!(document["success"], success, "{document}");
    let page = fs::read_to_string(root().join("docs/check.md")).unwrap();
    for (id, ..) in rows(&document) {
        assert!(page.contains(&format!("| `{id}` |")), "{id} is documented");
    }
    (output.status.code(), document)
}

fn rows(document: &Value) -> Vec<Row> {
    let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
    let categories = document["categories"].as_array().unwrap();
    let checks = categories
        .iter()
        .flat_map(|it| it["checks"].as_array().unwrap());
    checks
        .map(|check| {
            let [id, result] = ["id", "result"].map(|key| text(&check[key]).unwrap());
            (id, result, text(&check["code"]))
        })
        .collect()
}

/// The ids and codes of the rows that are not well.
fn problems(document: &Value) -> Vec<(String, String)> {
    let rows = rows(document).into_iter();
    rows.filter(|(_, result, _)| result != "ok")
        .map(|(id, _, code)| (id, code.expect("it has a code")))
        .collect()
}

fn problem(id: &str, code: &str) -> Vec<(String, String)> {
    vec![(id.to_owned(), code.to_owned())]
}

fn identity(state: &Path, arguments: &[&str]) {
    let mut command = Sidegate::command("identity");
    let output = finish(command.args(arguments).arg("--state").arg(state));
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn all_is_well_under_up_and_under_run() {
    let (one, two) = (folder(), folder());
    let by_up = up(&one, &[]);
    let by_run = Configuration::new().start(two.path()).0;
    for gate in [by_up, by_run] {
        let state = gate.ready.state.to_str().unwrap();
        let (code, document) = check_state(&gate.ready.state, &["--strict"]);
        assert_eq!(code, Some(0), "{document}");
        let found: Vec<_> = rows(&document).into_iter().map(|(id, ..)| id).collect();
        assert_eq!(
            found,
            [
                "state-directory",
                "instance",
                "readiness",
                "entries",
                "x509-svids",
                "x509-authority",
                "jwt-authority",
                "workload-api",
                "policy",
                "listener-identity",
                "component",
            ]
        );
        assert_eq!(problems(&document), []);

        let output = check(&["--state", state]);
        assert_eq!(output.status.code(), Some(0));
        assert!(output.stdout.starts_with("state\n-----\n√ "), "{output:?}");
        let last = "\nStatus check results are √    (11 ok, 0 warnings, 0 failed)\n";
        assert!(output.stdout.ends_with(last), "{output:?}");
        assert!(output.stdout.contains(&gate.ready.workload_socket));
        assert!(output.stdout.contains(&gate.ready.listeners[0].spiffe_id));
        assert!(
            !output.stdout.contains('\x1b'),
            "no colors but on a terminal"
        );

        let mut command = Sidegate::command("check");
        let by_variable = finish(command.env("SIDEGATE_STATE", state));
        assert_eq!(by_variable.status.code(), Some(0), "{by_variable:?}");
    }
}

#[test]
fn an_instance_that_is_gone_is_the_answer_no() {
    let folder = folder();
    let gone = |state: &Path| {
        let (code, document) = check_state(state, &[]);
        assert_eq!(code, Some(1));
        assert_eq!(problems(&document), problem("instance", "SG0054"));
    };
    gone(&folder.path().join("state"));

    let gate = up(&folder, &[]);
    let state = gate.ready.state.clone();
    assert_eq!(check_state(&state, &[]).0, Some(0));
    gate.process.signal(Signal::SIGKILL);
    gate.process.wait();
    assert!(state.join("admin.sock").exists());
    gone(&state);

    assert!(up(&folder, &[]).stop().status.success());
    gone(&state);
}

#[test]
fn what_is_not_well_at_a_running_instance_has_its_row() {
    let folder = folder();
    let gate = up(&folder, &[]);
    let state = &gate.ready.state;
    fs::set_permissions(state, Permissions::from_mode(0o755)).unwrap();
    let (code, document) = check_state(state, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(problems(&document), problem("state-directory", "SG0005"));
    fs::set_permissions(state, Permissions::from_mode(0o700)).unwrap();

    fs::remove_file(state.join("workload.sock")).unwrap();
    let (code, document) = check_state(state, &[]);
    assert_eq!(code, Some(1));
    assert_eq!(problems(&document), problem("workload-api", "SG0050"));
}

#[test]
fn a_tainted_authority_is_warned_of_until_it_is_revoked() {
    let folder = folder();
    let gate = up(&folder, &[]);
    let state = &gate.ready.state;
    for kind in ["x509", "jwt"] {
        identity(state, &["rotate", kind]);
        assert_eq!(problems(&check_state(state, &[]).1), []);
        identity(state, &["taint", kind]);
        for (arguments, expected) in [(&[][..], 0), (&["--strict"], 1)] {
            let (code, document) = check_state(state, arguments);
            assert_eq!(code, Some(expected));
            let id = format!("{kind}-tainted");
            assert_eq!(problems(&document), problem(&id, "SG0183"));
        }
        identity(state, &["revoke", kind]);
        assert_eq!(problems(&check_state(state, &["--strict"]).1), []);
    }
}

#[test]
fn a_listener_whose_entry_is_removed_has_no_identity() {
    let folder = folder();
    let state = folder.path().join("state");
    let first = Configuration::new();
    drop(first.start(folder.path()));
    let late = r#"
[[listener]]
name = "late"
listen = "127.0.0.1:0"
upstream = "http://127.0.0.1:9"
"#;
    let gate = first.start(folder.path()).0;
    identity(
        &state,
        &[
            "entry",
            "create",
            "--entry-id",
            "late",
            "--spiffe-id",
            "spiffe://sidegate.local/late",
            "--selector",
            "listener:name:late",
        ],
    );
    gate.stop();

    let second = Configuration::new().listener(late);
    let gate = second.start(folder.path()).0;
    assert_eq!(problems(&check_state(&state, &[]).1), []);
    identity(&state, &["entry", "delete", "late"]);
    let (code, document) = check_state(&state, &[]);
    assert_eq!(code, Some(1));
    let expected = [
        problem("readiness", "SG0060"),
        problem("listener-identity", "SG0042"),
    ];
    assert_eq!(problems(&document), expected.concat());
    let (status, missing) = admin(&gate, "/readyz").unwrap();
    assert_eq!(status, 503);
    assert_eq!(missing, "listeners: `late` has no identity\n");
}

/// A command that another user runs.
fn as_nobody(setpriv: &Path, binary: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(setpriv);
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(binary)
        .arg(subcommand);
    command
}

#[test]
fn an_instance_of_another_user_cannot_be_asked() {
    let name = "an_instance_of_another_user_cannot_be_asked";
    let Some(setpriv) = tool(Tool::Setpriv).filter(|_| geteuid().is_root()) else {
        return skip(name, Tool::Setpriv);
    };
    let open = open_folder();
    let binary = copy_of_sidegate(open.path(), "sidegate");
    let gate = up(&open, &[]);
    let state = &gate.ready.state;
    let attempt = || {
        let mut command = as_nobody(&setpriv, &binary, "check");
        let output = finish(command.args(["-o", "json", "--state"]).arg(state));
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("error[SG0054]"), "{output:?}");
    };
    attempt();
    // Who opens the doors does not open the admin API: it asks the kernel who calls.
    fs::set_permissions(state, Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(state.join("admin.sock"), Permissions::from_mode(0o666)).unwrap();
    attempt();
    logged(&gate, &["SG0048", "65534"]);
}

#[test]
fn root_may_ask_an_instance_of_another_user() {
    let name = "root_may_ask_an_instance_of_another_user";
    let Some(setpriv) = tool(Tool::Setpriv).filter(|_| geteuid().is_root()) else {
        return skip(name, Tool::Setpriv);
    };
    let open = open_folder();
    let binary = copy_of_sidegate(open.path(), "sidegate");
    let home = open.path().join("home");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(65534), Some(65534)).unwrap();
    let mut command = as_nobody(&setpriv, &binary, "up");
    command.args(["-o", "json", "--listen", "127.0.0.1:0"]);
    command.args(["--admin", "127.0.0.1:0", "--state"]);
    let gate = Sidegate::start(command.arg(home.join("state")));
    let (code, document) = check_state(&gate.ready.state, &["--strict"]);
    assert_eq!((code, problems(&document)), (Some(0), Vec::new()));
}
