//! Policies that are refused.

use std::path::PathBuf;

use sidegate_tests::Output;
use tempfile::TempDir;

use super::{assert_refused, unlike_a_refusal, up};
use crate::support::{folder, write};

const HEAD: &str = "package envoy.authz\nimport rego.v1\ndefault allow := false\n";

/// `sidegate up` with a policy of one file.
fn up_with(folder: &TempDir, rego: &str) -> Output {
    let policy = write(folder.path(), "policy/rules.rego", rego);
    let state = folder.path().join("state");
    let policy: PathBuf = policy.parent().unwrap().to_owned();
    let output = up(&state, ["--policy".as_ref(), policy.as_os_str()]);
    assert!(!state.join("workload.sock").exists());
    output
}

#[test]
fn rego_that_does_not_parse_is_refused_by_file_and_line() {
    let folder = folder();
    let output = up_with(&folder, &format!("{HEAD}\nallow if {{\n  1 +\n}}\n"));
    assert_refused(&output, &["rules.rego:"]);
    let place = output.stderr.split_once("rules.rego:").unwrap().1;
    let line: u32 = place.split(':').next().unwrap().trim().parse().unwrap();
    assert!((6..=7).contains(&line), "{}", output.stderr);
}

#[test]
fn calls_that_the_engine_cannot_evaluate_are_refused_by_name_and_place() {
    let calls = [
        (
            "http.send",
            "http.send({\"method\": \"get\", \"url\": \"http://127.0.0.1\"}).status_code == 200",
        ),
        (
            "io.jwt.encode_sign",
            "io.jwt.encode_sign({}, {}, {}) != \"\"",
        ),
        ("graphql.is_valid", "graphql.is_valid(\"\", \"\")"),
        ("json.match_schema", "json.match_schema({}, {})[0]"),
        ("no.such.builtin", "no.such.builtin(1)"),
    ];
    let mut wrong = Vec::new();
    for (name, call) in calls {
        let folder = folder();
        let output = up_with(&folder, &format!("{HEAD}allow if {call}\n"));
        wrong.extend(unlike_a_refusal(&output, &[name, "rules.rego:4"]));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_call_in_a_rule_that_is_never_reached_is_refused_too() {
    let folder = folder();
    let rego = format!("{HEAD}helper(x) := y if {{ false; y := graphql.parse(x, x) }}\n");
    assert_refused(&up_with(&folder, &rego), &["graphql.parse"]);
}

#[test]
fn a_policy_whose_own_test_fails_is_refused_with_the_tests_name() {
    let folder = folder();
    let rego = format!("{HEAD}test_everyone_is_allowed if allow\ntest_nobody_is if not allow\n");
    let output = up_with(&folder, &rego);
    assert_refused(&output, &["test_everyone_is_allowed"]);
    assert!(!output.stderr.contains("test_nobody_is"));
}

#[test]
fn a_policy_without_the_rule_that_decides_is_refused() {
    let folder = folder();
    let output = up_with(&folder, "package somewhere.else\nallow := true\n");
    assert_refused(&output, &["envoy/authz/allow"]);
}

#[test]
fn a_policy_that_is_not_there_or_empty_is_refused() {
    let folder = folder();
    let state = folder.path().join("state");
    let policy = folder.path().join("policy");
    let arguments = ["--policy".as_ref(), policy.as_os_str()];
    assert_refused(&up(&state, arguments), &["policy"]);
    std::fs::create_dir(&policy).unwrap();
    assert_refused(&up(&state, arguments), &["policy"]);
    write(&policy, "notes.md", "no Rego");
    assert_refused(&up(&state, arguments), &["policy"]);
    write(&policy, "empty.rego", "");
    assert_refused(&up(&state, arguments), &["empty.rego"]);
}
