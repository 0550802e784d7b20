//! What a supervisor does to `sidegate run`: limits, signals, rotated logs.

mod access_log;
mod changes;
mod descriptors;
mod reload;
mod sockets;
mod systemd;

use std::path::Path;
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Sidegate, sidegate};

use crate::support::{Configuration, finish, folder, logged};

/// The rows of `sidegate check` that are not well: id, result, code, and all that they say.
fn unwell(arguments: &[&str]) -> Vec<(String, String, String, String)> {
    let mut command = Sidegate::command("check");
    command.args(["-o", "json"]).args(arguments);
    let output = finish(command.env_remove("SIDEGATE_STATE"));
    let document: Value = serde_json::from_str(&output.stdout).expect("it is JSON");
    let categories = document["categories"].as_array().unwrap().iter();
    let rows = categories.flat_map(|it| it["checks"].as_array().unwrap());
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    rows.filter(|row| row["result"] != "ok")
        .map(|row| {
            let [id, result, code] = ["id", "result", "code"].map(|key| text(row, key));
            let said = ["detail", "reason", "hint"].map(|key| text(row, key));
            (id, result, code, said.join("\n"))
        })
        .collect()
}

/// The same of the instance that uses the state directory.
fn unwell_running(sidegate: &Sidegate) -> Vec<(String, String, String, String)> {
    unwell(&["--state", sidegate.ready.state.to_str().unwrap()])
}

/// `sidegate` with other limits of file descriptors.
fn limited(soft: u64, hard: u64) -> Command {
    let mut command = Command::new("sh");
    let script = format!("ulimit -S -n {soft} && ulimit -H -n {hard} && exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(sidegate());
    command
}

fn run_limited(config: &Path) -> Sidegate {
    let mut command = limited(300, 4000);
    command.args(["run", "-o", "json", "--config"]).arg(config);
    Sidegate::start(&mut command)
}

#[test]
fn the_soft_limit_of_descriptors_is_raised_and_an_unset_cap_fits_into_the_hard_one() {
    let folder = folder();
    let sidegate = run_limited(&Configuration::new().write(folder.path()));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", sidegate.process.pid()));
    let limits = limits.unwrap();
    let open_files = limits.lines().find(|line| line.starts_with("Max open"));
    let numbers = open_files.unwrap().split_whitespace().skip(3).take(2);
    assert_eq!(numbers.collect::<Vec<_>>(), ["4000", "4000"]);
    logged(&sidegate, &["file descriptors", "limit=4000", "before=300"]);
    assert!(!sidegate.process.stderr().contains("SG0070"));
    assert_eq!(unwell_running(&sidegate), []);
}

#[test]
fn caps_that_the_descriptors_do_not_suffice_for_are_told_with_numbers() {
    let folder = folder();
    let mut configuration = Configuration::new();
    configuration.listener += "[listener.limits]\nmax_connections = 5000\n";
    let config = configuration.write(folder.path());

    let mut command = limited(300, 4000);
    command
        .args(["check", "-o", "json", "--config"])
        .arg(&config);
    let output = finish(&mut command);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.contains("SG0070"), "{}", output.stdout);
    assert!(output.stdout.contains("4000 file"), "{}", output.stdout);

    let sidegate = run_limited(&config);
    let line = logged(&sidegate, &["SG0070"]);
    let rows = unwell_running(&sidegate);
    let [(id, result, code, said)] = rows.as_slice() else {
        panic!("one row: {rows:?}");
    };
    assert_eq!(
        [id, result, code],
        ["file-descriptors", "warning", "SG0070"]
    );
    for text in ["4000 file", "need 11024", "LimitNOFILE"] {
        assert!(line.contains(text), "{line}");
        assert!(said.contains(text), "{said}");
    }
}
