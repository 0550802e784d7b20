//! spiffe-helper, as it was released, against the Workload API: it keeps files for programs that
//! know nothing of SPIFFE, and tells them when the files are new.

pub(crate) mod helper;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use nix::unistd::getuid;
use serde_json::Value;
use sidegate_tests::{Running, Sidegate, until};

use crate::jwt::token::Token;
use crate::support::{Client, Configuration, address, finish, folder, up, write};
use crate::workload_api::{serial, spiffe_id};
use helper::{Files, Helper, script};

#[tokio::test(flavor = "multi_thread")]
async fn its_command_runs_after_each_renewal_and_the_files_are_good_for_a_request() {
    let folder = folder();
    let gate = up(&folder, &["--svid-ttl", "10s"]);
    let Some(helper) = Helper::of(&gate, "its_command_runs_after_each_renewal") else {
        return;
    };
    let files = folder.path().join("files");
    let lines = command_lines(&script("keep_files.sh"), &files);
    let mut process = Running::start(&mut helper.command(&files, &lines));

    let mut kept = BTreeSet::new();
    let mut serials = BTreeSet::new();
    while serials.len() < 3 {
        let copy = until("other files", || {
            assert!(process.is_running(), "{}", process.stderr());
            let copies = entries(&files.join("kept"));
            copies.into_iter().find(|copy| !kept.contains(copy))
        });
        let set = Files::of(&copy);
        serials.insert(serial(&set.leaf()));
        let client = Client::new(address(&gate), &set.bundle, &set.svid, &set.key);
        assert_eq!(client.get("/status/200").await.status, 200);
        kept.insert(copy);
    }
    no_errors(&process);
}

#[test]
fn its_command_and_the_process_of_its_pid_file_are_signalled_at_each_renewal() {
    let folder = folder();
    let gate = up(&folder, &["--svid-ttl", "10s"]);
    let Some(helper) = Helper::of(&gate, "its_command_is_signalled_at_each_renewal") else {
        return;
    };
    let other = Running::start(Command::new("sh").arg(script("print_signals.sh")));
    until("the other process", || {
        (count(&other, "started") == 1).then_some(())
    });
    let pid_file = write(folder.path(), "pid", other.pid().to_string());

    let files = folder.path().join("files");
    let lines = command_lines(&script("print_signals.sh"), &files)
        + &format!("renew_signal = \"SIGUSR1\"\npid_file_name = {pid_file:?}\n");
    let mut process = Running::start(&mut helper.command(&files, &lines));
    until("two renewals", || {
        assert!(process.is_running(), "{}", process.stderr());
        let seen = [count(&process, "renewed"), count(&other, "renewed")];
        // The other process is told of the first SVID as well.
        (seen[0] >= 2 && seen[1] >= 3).then_some(())
    });
    assert_eq!(count(&process, "started"), 1, "it is the same process");
    no_errors(&process);
    process.signal(Signal::SIGTERM);
    let output = process.wait();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        spiffe_id(&Files::of(&files).leaf()),
        "spiffe://sidegate.local/demo"
    );
}

#[test]
fn it_fetches_the_svids_with_its_hint_and_the_bundles_once() {
    let folder = folder();
    let mut configuration = Configuration::new();
    let uid = getuid();
    for name in ["inside", "outside"] {
        let entry = format!(
            r#"
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/{name}"
selectors = ["unix:uid:{uid}"]
audiences = ["demo"]
hint = "{name}"
"#
        );
        configuration.entries.push_str(&entry);
    }
    let gate = Sidegate::run(&configuration.write(folder.path()));
    let Some(helper) = Helper::of(&gate, "it_fetches_the_svids_with_its_hint") else {
        return;
    };
    for hint in ["inside", "outside"] {
        let files = folder.path().join(hint);
        let lines = format!(
            r#"
hint = "{hint}"
jwt_bundle_file_name = "jwt_bundle.json"
jwt_svids = [{{jwt_audience = "demo", jwt_svid_file_name = "jwt_svid.token"}}]
"#
        );
        let mut command = helper.command(&files, &lines);
        let output = finish(command.arg("-daemon-mode=false"));
        assert!(output.status.success(), "{}", output.stderr);
        let id = format!("spiffe://sidegate.local/{hint}");
        assert_eq!(spiffe_id(&Files::of(&files).leaf()), id);
        let token = fs::read_to_string(files.join("jwt_svid.token")).expect("a token");
        let token = Token::new(&token);
        assert_eq!(token.claims["sub"], id);
        let jwks = jwks(&files.join("jwt_bundle.json"));
        let keys = jwks["keys"].as_array().expect("there are keys");
        assert!(keys.iter().any(|key| key["kid"] == token.header["kid"]));
    }
}

/// Configuration that runs a script with the folder of the files.
fn command_lines(script: &Path, folder: &Path) -> String {
    let arguments = format!("{script:?} {folder:?}");
    format!("cmd = \"/bin/sh\"\ncmd_args = {arguments:?}\n")
}

/// What is in a folder, if it is there.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries
        .map(|entry| entry.expect("the folder is read").path())
        .collect()
}

/// How often a line was printed.
fn count(process: &Running, line: &str) -> usize {
    let stdout = process.stdout();
    stdout.lines().filter(|&printed| printed == line).count()
}

fn no_errors(process: &Running) {
    let log = process.stderr();
    assert!(log.contains("level=info"), "its log is there: {log}");
    assert!(!log.contains("level=error"), "{log}");
    assert!(!log.contains("level=warning"), "{log}");
}

/// The JWKS of our trust domain, in a file of spiffe-helper.
fn jwks(file: &Path) -> Value {
    let text = fs::read(file).expect("the bundles are read");
    let bundles: Value = serde_json::from_slice(&text).expect("it is JSON");
    let bundle = bundles["sidegate.local"].as_str().expect("our bundle");
    let bundle = STANDARD.decode(bundle).expect("it is Base64");
    serde_json::from_slice(&bundle).expect("it is JSON")
}
