//! Decisions about connections.

use std::fs;
use std::path::Path;

use serde_json::Value;
use sidegate_tests::{Output, Sidegate, until};
use tokio::io::AsyncReadExt;

use super::{Logged, events};
use crate::support::{counter, finish, folder, logged, patiently, write};

const FILE: &str = "output = \"file\"\npath = \"decisions.log\"\n";

const ALLOWS: &str = r#"
package sidegate.connect

allow if input.source_principal == "spiffe://sidegate.local/demo"
"#;

const DENIES: &str = r#"
package sidegate.connect

allow := {"allowed": false, "reason": "not from here"} if {
    input.source_principal == "spiffe://sidegate.local/demo"
}
"#;

/// `sidegate policy …` in a folder, to its end.
fn policy(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Sidegate::command("policy");
    finish(command.current_dir(folder).args(arguments))
}

/// The id that a log line names.
fn decision_id(line: &str) -> &str {
    let (_, rest) = line.split_once("decision_id=").expect("it names one");
    rest.split(' ').next().unwrap_or(rest)
}

/// The event of a decision, once it is there.
fn event(log: &Path, id: &str) -> Value {
    until("the event of a decision", || {
        let mut events = events(log).into_iter();
        events.find(|event| event["decision_id"] == id)
    })
}

/// Puts a module in the place of another, and waits until it decides.
fn change(logged: &Logged, name: &str, rego: &str) {
    let generation = || counter(&logged.sidegate, "sidegate_policy_generation", &[]) as u64;
    let before = generation();
    let new = write(&logged.folder, "policy/.new", rego);
    fs::rename(new, logged.folder.join("policy").join(name)).unwrap();
    until("another generation", || {
        (generation() > before).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn every_connection_that_is_denied_has_an_id_that_leads_to_its_event() {
    let folder = folder();
    write(folder.path(), "policy/connect.rego", ALLOWS);
    let mask = "mask contains \"/input/attributes/source/certificate\"\n";
    let instance = Logged::start(folder.path(), FILE, mask).await;
    let log = folder.path().join("decisions.log");
    let mut live = instance.client.raw().await;
    let allowed = until("the event of a connection", || {
        let mut events = events(&log).into_iter();
        events.find(|event| event["path"] == "sidegate/connect/allow")
    });
    assert_eq!(allowed["result"], true);
    let input = &allowed["input"];
    assert_eq!(input["source_principal"], "spiffe://sidegate.local/demo");
    assert_eq!(input["attributes"]["contextExtensions"]["listener"], "main");
    assert_eq!(input["attributes"].get("request"), None);
    let address = &input["attributes"]["source"]["address"]["socketAddress"];
    let port = address["portValue"].as_u64().unwrap();
    assert_eq!(allowed["requested_by"], format!("127.0.0.1:{port}"));
    let erased = &allowed["erased"];
    assert_eq!(erased[0], "/input/attributes/source/certificate");

    change(&instance, "connect.rego", DENIES);
    let mut rest = Vec::new();
    let _ = patiently(live.read_to_end(&mut rest)).await;
    let mut refused = instance.client.raw().await;
    let _ = patiently(refused.read_to_end(&mut rest)).await;
    for code in ["SG0341", "SG0342"] {
        let line = logged(&instance.sidegate, &[code, "not from here"]);
        let id = decision_id(&line);
        let event = event(&log, id);
        assert_eq!(event["path"], "sidegate/connect/allow");
        assert_eq!(event["result"]["reason"], "not from here");
        assert_eq!(event["labels"], allowed["labels"]);
        assert_eq!(event.get("error"), None);
        // It was the live connection that was cut.
        let is_live = event["requested_by"] == allowed["requested_by"];
        assert_eq!(is_live, code == "SG0342");

        let arguments = [
            "explain",
            "policy",
            "--decision",
            id,
            "--log",
            "decisions.log",
        ];
        let output = policy(folder.path(), &[&arguments[..], &["-o", "json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let document: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(document["decision_id"], id);
        assert_eq!(document["decision"]["point"], "connect");
        assert_eq!(document["decision"]["verdict"], "deny");
        let output = policy(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.contains("connect.rego"), "{}", output.stdout);
    }
    assert_eq!(instance.sidegate.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_a_log_are_replayed_by_their_own_rule() {
    let folder = folder();
    write(folder.path(), "policy/connect.rego", ALLOWS);
    let instance = Logged::start(folder.path(), FILE, "").await;
    assert_eq!(instance.get("/open").await.0, 200);
    assert_eq!(instance.sidegate.stop().status.code(), Some(0));
    let points = events(&folder.path().join("decisions.log"));
    let points: Vec<_> = points.iter().map(|event| &event["path"]).collect();
    assert_eq!(points, ["sidegate/connect/allow", "envoy/authz/allow"]);

    let replay = |bundle: &str, more: &[&str]| {
        let arguments = ["replay", "decisions.log", "--bundle", bundle, "-o", "json"];
        let output = policy(folder.path(), &[&arguments[..], more].concat());
        let summary = output.stdout.lines().last().unwrap_or_default();
        let summary: Value = serde_json::from_str(summary).expect(&output.stderr);
        let counted = |what: &str| summary[what].as_u64().unwrap();
        let code = output.status.code().unwrap();
        (code, ["same", "changed", "not_replayable"].map(counted))
    };
    assert_eq!(replay("policy", &[]), (0, [2, 0, 0]));
    // Without the package connections are left to their requests.
    let rules = fs::read(folder.path().join("policy/policy.rego")).unwrap();
    write(folder.path(), "without/policy.rego", &rules);
    assert_eq!(replay("without", &[]), (0, [2, 0, 0]));
    write(folder.path(), "denies/policy.rego", &rules);
    write(folder.path(), "denies/connect.rego", DENIES);
    assert_eq!(replay("denies", &[]), (1, [1, 1, 0]));
    let other = ["--entrypoint", "envoy/authz/allow"];
    assert_eq!(replay("denies", &other), (1, [1, 1, 0]));
    let connect = ["--entrypoint", "sidegate/connect/allow"];
    assert_eq!(replay("denies", &connect), (1, [0, 1, 1]));
}
