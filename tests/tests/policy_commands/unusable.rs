//! What cannot be used: told as a document too, and read no further than it may be.

use serde_json::Value;
use sidegate_tests::Output;

use super::{policy, sound};
use crate::support::write;

/// The one document of a command that could not; standard error names its code, too.
fn error(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stdout.lines().count(), 1, "{output:?}");
    let document: Value = serde_json::from_str(&output.stdout).expect(&output.stderr);
    assert_eq!(document["schema"], 1, "{document}");
    let error = document["error"].clone();
    let code = error["code"].as_str().expect("a code");
    assert!(output.stderr.contains(&format!("[{code}]")), "{output:?}");
    assert!(!error["message"].as_str().unwrap().is_empty(), "{document}");
    error
}

#[test]
fn what_could_not_be_done_is_one_document_too() {
    let folder = sound();
    let clash = "package envoy.authz\n\nallow := x if some x in [1, 2]\n";
    write(folder.path(), "clash/p.rego", clash);
    write(folder.path(), "broken.json", "{\"a\": 1,\n  b}");
    write(folder.path(), "broken.log.gz", [0x1f, 0x8b, 8, 0, 1]);
    let cases: &[(&[&str], &str)] = &[
        (&["test", "missing"], "SG0201"),
        (&["check", "missing"], "SG0201"),
        (&["eval", "p", "--input", "broken.json"], "SG0286"),
        (&["bench", "clash"], "SG0223"),
        (
            &[
                "explain",
                "p",
                "--read-set",
                "--entrypoint",
                "envoy/authz/alow",
            ],
            "SG0210",
        ),
        (&["replay", "missing", "--bundle", "p"], "SG0288"),
        (&["replay", "broken.log.gz", "--bundle", "p"], "SG0288"),
        (&["status", "--state", "none"], "SG0054"),
        (&["rollback", "--state", "none"], "SG0054"),
        (&["promote", "--state", "none"], "SG0054"),
    ];
    for (arguments, code) in cases {
        let output = policy(folder.path(), &[arguments, &["-o", "json"][..]].concat());
        let error = error(&output);
        assert_eq!(error["code"], *code, "{arguments:?}: {error}");
        if *code == "SG0210" {
            assert_eq!(error["help"], "did you mean `envoy/authz/allow`?");
        }
    }
    // What is wrong with a policy has its places.
    let unsound = "package envoy.authz\n\nallow if x\n\ny if f(1, 2)\n";
    write(folder.path(), "unsound/p.rego", unsound);
    for command in ["test", "eval", "bench"] {
        let output = policy(folder.path(), &[command, "unsound", "-o", "json"]);
        let error = error(&output);
        let findings = error["findings"].as_array().unwrap().iter();
        let places: Vec<_> = findings
            .map(|it| (it["file"].as_str(), it["line"].as_u64()))
            .collect();
        let file = Some("unsound/p.rego");
        assert_eq!(places, [(file, Some(3)), (file, Some(5))], "{error}");
    }
}

#[test]
fn of_a_log_with_lines_that_are_no_events_the_counts_stay_the_last_document() {
    let folder = sound();
    write(folder.path(), "log", "{}\n[\n");
    let arguments = ["replay", "log", "--bundle", "p", "-o", "json"];
    let output = policy(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let documents: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let last = documents.last().expect("a document");
    assert_eq!(last["kind"], "summary", "{output:?}");
    assert!(last["errors"].as_u64() > Some(0), "{output:?}");
    assert!(output.stderr.contains("[SG0289]"), "{output:?}");
}

#[test]
fn an_input_has_an_end_and_each_key_once() {
    let folder = sound();
    write(
        folder.path(),
        "twice.json",
        "{\"user\": \"eve\",\n \"user\": \"root\"}",
    );
    for (command, file, expected) in [
        ("eval", "/dev/zero", "longer than 256 MiB"),
        (
            "eval",
            "twice.json",
            "twice.json:2:7: an object has the key \"user\" twice",
        ),
        ("bench", "twice.json", "the key \"user\" twice"),
        ("explain", "twice.json", "the key \"user\" twice"),
    ] {
        let output = policy(folder.path(), &[command, "p", "--input", file]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(output.stdout, "");
        assert!(output.stderr.contains("error[SG0286]"), "{output:?}");
        assert!(output.stderr.contains(expected), "{expected}: {output:?}");
    }
}

#[test]
fn a_module_with_a_nul_byte_is_refused() {
    let folder = sound();
    let cut = "package envoy.authz\n\nallow := true\n\0\nallow := false\n";
    write(folder.path(), "cut/p.rego", cut);
    for command in ["check", "test", "eval"] {
        let output = policy(folder.path(), &[command, "cut"]);
        let code = if command == "check" { 1 } else { 2 };
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        let told = output.stdout + &output.stderr;
        assert!(told.contains("SG0207"), "{told}");
        assert!(told.contains("cut/p.rego:4:1"), "{told}");
    }
}

#[test]
fn an_answer_about_a_connection_is_told_in_its_words() {
    let folder = sound();
    let denies = "package sidegate.connect\n\nallow := {\"allowed\": false, \"reason\": \"not from here\"}\n";
    write(folder.path(), "c/connect.rego", denies);
    let undefined = "package sidegate.connect\n\nallow if input.never\n";
    write(folder.path(), "u/connect.rego", undefined);
    for (policy_folder, expected) in [
        (
            "c",
            "connect: deny: the policy denies the connection: not from here [SG0220]\n",
        ),
        (
            "u",
            "connect: deny: the policy's connect rule is undefined for the connection [SG0221]\n",
        ),
    ] {
        let output = policy(
            folder.path(),
            &["eval", policy_folder, "--point", "connect"],
        );
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert!(output.stderr.ends_with(expected), "{output:?}");
    }
    // The event of a connection, and a policy that leaves connections to their requests.
    let event =
        r#"{"decision_id": "d1", "path": "sidegate/connect/allow", "input": {}, "result": true}"#;
    write(folder.path(), "log", event);
    let explain = ["explain", "p", "--decision", "d1", "--log", "log"];
    let output = policy(folder.path(), &explain);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("error[SG0210]"), "{output:?}");
    assert!(
        output.stderr.contains("connections are left to ingress"),
        "{output:?}"
    );
}
