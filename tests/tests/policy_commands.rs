//! `sidegate policy test`, `check`, `eval` and `bench`: on files, beside OPA, and on bad input.

mod bundles;
mod opa;
mod service;
mod unusable;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use sidegate_tests::{Output, Sidegate};

use crate::support::{finish, folder, write};

const POLICY: &str = r#"
package envoy.authz

import data.roles

default allow := false

allow if input.user in roles.admins

reason := "too young" if input.age < 18

reason := "too old" if input.age > 80

size := to_number(input.size)

noisy if {
    print("the user is", input.user)
}
"#;

const TESTS: &str = r#"
package envoy.authz_test

import data.envoy.authz

test_root_may if authz.allow with input as {"user": "root"}

test_eve_may_not if not authz.allow with input as {"user": "eve"}
"#;

/// `sidegate policy …` in a folder, to its end.
fn policy(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Sidegate::command("policy");
    finish(command.current_dir(folder).args(arguments))
}

/// The same with `-o json`: its exit code and what it printed.
fn policy_json(folder: &Path, arguments: &[&str]) -> (Option<i32>, Value) {
    let output = policy(folder, &[arguments, &["-o", "json"]].concat());
    let document: Value = serde_json::from_str(&output.stdout)
        .unwrap_or_else(|error| panic!("{arguments:?}: {error}: {output:?}"));
    assert_eq!(document["schema"], 1);
    (output.status.code(), document)
}

/// A folder with a policy that passes its tests.
fn sound() -> tempfile::TempDir {
    let folder = folder();
    write(folder.path(), "p/policy.rego", POLICY);
    write(folder.path(), "p/policy_test.rego", TESTS);
    write(
        folder.path(),
        "p/roles/data.json",
        r#"{"admins": ["root"]}"#,
    );
    write(folder.path(), "input.json", r#"{"user": "root"}"#);
    folder
}

#[test]
fn without_a_path_the_stock_policy_is_meant_and_is_sound() {
    let folder = folder();
    for command in ["test", "check"] {
        let output = policy(folder.path(), &[command]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert_eq!(output.stderr, "");
        assert!(
            !output.stdout.contains('\x1b'),
            "no colors but on a terminal"
        );
    }
    let (code, document) = policy_json(folder.path(), &["test"]);
    assert_eq!(code, Some(0));
    assert_eq!(document["failed"], 0);
    assert!(document["passed"].as_u64().unwrap() > 5, "{document}");
    let (code, document) = policy_json(folder.path(), &["eval"]);
    assert_eq!((code, &document["value"]), (Some(0), &json!(false)));
}

#[test]
fn tests_that_fail_are_the_answer_no_and_what_they_print_is_shown() {
    let folder = sound();
    let output = policy(folder.path(), &["test", "p"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.ends_with("PASS: 2/2\n"), "{output:?}");

    let failing =
        "package t\n\ntest_no if { print(\"said\"); 1 > 2 }\n\ntodo_test_later if 1 > 2\n";
    write(folder.path(), "p/more_test.rego", failing);
    let output = policy(folder.path(), &["test", "p"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    for line in [
        "data.envoy.authz_test.test_root_may: PASS (",
        "data.t.test_no: FAIL (",
        "  p/more_test.rego:3: said\n",
        "data.t.todo_test_later: SKIPPED\n",
        "PASS: 2/4\nFAIL: 1/4\nSKIPPED: 1/4\n",
    ] {
        assert!(output.stdout.contains(line), "{line}: {output:?}");
    }
    let output = policy(folder.path(), &["test", "p", "--run", "authz_test"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let output = policy(folder.path(), &["test", "p", "--run", "^nothing$"]);
    assert_eq!(
        (output.status.code(), output.stdout.as_str()),
        (Some(0), "")
    );
    assert_eq!(output.stderr, "there is no test to run\n");
}

#[test]
fn too_little_coverage_is_the_answer_no() {
    let folder = sound();
    let run = |threshold: &str| policy(folder.path(), &["test", "p", "--threshold", threshold]);
    assert_eq!(run("50").status.code(), Some(0));
    let output = run("95");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(
        output.stderr.contains("below the threshold of 95 %"),
        "{output:?}"
    );
    assert!(
        output
            .stdout
            .contains("p/policy.rego  not covered: 10, 12, 14, 17\n"),
        "{output:?}"
    );
    let (_, document) = policy_json(folder.path(), &["test", "p", "--coverage"]);
    let files = document["coverage"]["files"].as_array().unwrap();
    let files: Vec<_> = files
        .iter()
        .map(|it| (&it["file"], &it["not_covered"]))
        .collect();
    assert_eq!(
        files,
        [
            (&json!("p/policy.rego"), &json!([10, 12, 14, 17])),
            (&json!("p/policy_test.rego"), &json!([])),
        ]
    );
}

#[test]
fn a_policy_is_checked_whole_and_warnings_count_under_strict() {
    let folder = sound();
    let check =
        |arguments: &[&str]| policy_json(folder.path(), &[&["check", "p"], arguments].concat());
    let (code, document) = check(&[]);
    assert_eq!(
        (code, &document["errors"]),
        (Some(0), &json!(0)),
        "{document}"
    );
    let codes: Vec<_> = codes(&document);
    assert_eq!(codes, ["SG0283"; 3], "{document}");
    assert_eq!(check(&["--strict"]).0, Some(1));

    write(folder.path(), "p/a.rego", "package a\n\nx {\n\ttrue\n}\n");
    write(
        folder.path(),
        "p/b.rego",
        "package b\n\nx if http.send({})\n",
    );
    write(folder.path(), "p/other/data.json", "[1, }");
    let (code, document) = check(&[]);
    assert_eq!((code, &document["success"]), (Some(1), &json!(false)));
    let found: Vec<_> = self::codes(&document);
    assert_eq!(found, ["SG0207", "SG0211", "SG0206"], "{document}");
    let places = document["findings"].as_array().unwrap().iter();
    let places: Vec<_> = places
        .map(|it| (&it["file"], &it["line"], &it["column"]))
        .collect();
    assert_eq!(
        places,
        [
            (&json!("p/a.rego"), &json!(3), &json!(3)),
            (&json!("p/b.rego"), &json!(3), &json!(6)),
            (&json!("p/other/data.json"), &json!(1), &json!(5)),
        ]
    );
    let output = policy(folder.path(), &["check", "p"]);
    assert!(output.stdout.contains(" --> p/b.rego:3:6\n"), "{output:?}");
    assert!(output.stdout.contains("^^^^^^^^^"), "{output:?}");
    assert!(
        output.stdout.contains("are ×    (3 errors, 0 warnings"),
        "{output:?}"
    );
}

fn codes(document: &Value) -> Vec<String> {
    let findings = document["findings"].as_array().unwrap().iter();
    findings
        .map(|it| it["code"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_value_is_data_and_everything_else_is_talk() {
    let folder = sound();
    let eval = |arguments: &[&str]| {
        policy(
            folder.path(),
            &[&["eval", "p", "--input", "input.json"], arguments].concat(),
        )
    };
    let output = eval(&[]);
    assert_eq!(
        (output.status.code(), output.stdout.as_str()),
        (Some(0), "true\n")
    );
    let output = eval(&["--entrypoint", "data.envoy.authz.reason"]);
    assert_eq!(
        (output.status.code(), output.stdout.as_str()),
        (Some(1), "")
    );
    assert_eq!(output.stderr, "data.envoy.authz.reason is undefined\n");
    let output = eval(&["--entrypoint", "envoy/authz/noisy"]);
    assert_eq!(
        (output.status.code(), output.stdout.as_str()),
        (Some(0), "true\n")
    );
    assert_eq!(output.stderr, "p/policy.rego:17: the user is root\n");
    let output = eval(&["--entrypoint", "data.roles"]);
    let value: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(value, json!({"admins": ["root"]}));

    let output = eval(&["--point", "ingress"]);
    assert_eq!(
        (output.status.code(), output.stdout.as_str()),
        (Some(0), "true\n")
    );
    assert_eq!(output.stderr, "ingress: allow\n");
    let output = eval(&["--point", "ingress", "--entrypoint", "data.roles"]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stderr.starts_with("ingress: deny: "), "{output:?}");
    assert!(output.stderr.ends_with(" [SG0224]\n"), "{output:?}");
    let arguments = ["eval", "p", "--point", "ingress"];
    let (code, document) = policy_json(folder.path(), &arguments);
    assert_eq!((code, &document["value"]), (Some(1), &json!(false)));
    assert_eq!(document["decision"]["verdict"], "deny");
    assert_eq!(document["decision"]["code"], "SG0220");
}

#[test]
fn input_may_come_from_standard_input() {
    let folder = sound();
    let mut command = Command::new(sidegate_tests::sidegate());
    command.current_dir(folder.path());
    command.args(["policy", "eval", "p", "--input", "-"]);
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = pipes.spawn().unwrap();
    let mut stdin = process.stdin.take().unwrap();
    stdin.write_all(br#"{"user": "root"}"#).unwrap();
    drop(stdin);
    let output = process.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.as_slice()),
        (Some(0), &b"true\n"[..])
    );
}

#[test]
fn a_bench_tells_times_and_counts() {
    let folder = sound();
    let arguments = ["bench", "p", "--input", "input.json", "--count", "50"];
    let (code, document) = policy_json(folder.path(), &arguments);
    assert_eq!((code, &document["evaluations"]), (Some(0), &json!(50)));
    for key in [
        "mean_ns",
        "p50_ns",
        "p90_ns",
        "p99_ns",
        "max_ns",
        "per_second",
    ] {
        assert!(document[key].as_f64().unwrap() > 0.0, "{key}: {document}");
    }
    assert!(document["cpu_ns"].is_u64(), "{document}");
    let output = policy(folder.path(), &["bench", "p", "--time", "20ms"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        output.stdout.starts_with("data.envoy.authz.allow\n"),
        "{output:?}"
    );
}

#[test]
fn what_cannot_be_done_is_said_with_code_and_place() {
    let folder = sound();
    write(folder.path(), "broken.json", "{\"a\": 1,\n  b}");
    write(folder.path(), "binary.json", [0xff, 0xfe]);
    write(folder.path(), "notes.txt", "");
    write(folder.path(), "empty/readme.md", "");
    write(
        folder.path(),
        "unsound/p.rego",
        "package envoy.authz\n\nallow if x\n\ny if f(1, 2)\n",
    );
    let recursive = "package envoy.authz\n\nallow if f(1)\n\nf(x) := f(x)\n";
    write(folder.path(), "recursive/p.rego", recursive);
    let clash = "package envoy.authz\n\nallow := x if some x in [1, 2]\n";
    write(folder.path(), "clash/p.rego", clash);
    let cases: &[(&[&str], &str)] = &[
        (
            &["test", "missing.rego"],
            "error[SG0201]: cannot read missing.rego",
        ),
        (&["check", "missing"], "error[SG0201]"),
        (&["check", "empty"], "error[SG0204]"),
        (&["check", "notes.txt"], "error[SG0287]"),
        (&["test", "unsound"], " --> unsound/p.rego:3:10\n"),
        (&["test", "unsound"], " --> unsound/p.rego:5:6\n"),
        (
            &["eval", "unsound"],
            "the policy cannot be used: it has 2 errors",
        ),
        (&["eval", "recursive"], "error[SG0285]"),
        (&["test", "recursive"], "error[SG0285]"),
        (&["bench", "clash"], "error[SG0223]"),
        (&["eval", "clash"], "error[SG0223]"),
        (&["eval", "p", "--input", "missing.json"], "error[SG0286]"),
        (
            &["eval", "p", "--input", "broken.json"],
            "broken.json:2:3: ",
        ),
        (&["bench", "p", "--input", "broken.json"], "error[SG0286]"),
        (&["eval", "p", "--input", "binary.json"], "is not UTF-8"),
        (
            &["eval", "p", "--entrypoint", "envoy/authz/alow"],
            "did you mean `envoy/authz/allow`?",
        ),
        (
            &["eval", "p", "--entrypoint", "data.envoy.authz.sise"],
            "`data.envoy.authz.size`?",
        ),
        (&["eval", "p", "--entrypoint", "data..x"], "error[SG0209]"),
        (&["eval", "p", "--point", "connect"], "left to ingress"),
        (
            &["eval", "p", "--point", "nowhere"],
            "invalid value 'nowhere'",
        ),
        (&["test", "p", "--run", "("], "invalid value '('"),
        (
            &["test", "p", "--threshold", "101"],
            "a number from 0 to 100",
        ),
        (&["bench", "p", "--count", "0"], "invalid value '0'"),
        (&["bench", "p", "--time", "0s"], "invalid value '0s'"),
    ];
    let mut wrong = Vec::new();
    for (arguments, expected) in cases {
        let output = policy(folder.path(), arguments);
        let refused = output.status.code() == Some(2) && output.stdout.is_empty();
        if !refused || !output.stderr.contains(expected) {
            wrong.push(format!(
                "{arguments:?} is not refused with {expected}: {output:?}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_builtin_that_fails_is_an_error_only_if_that_is_asked_for() {
    let folder = sound();
    write(folder.path(), "input.json", r#"{"size": "large"}"#);
    let arguments = [
        "eval",
        "p",
        "--input",
        "input.json",
        "--entrypoint",
        "envoy/authz/size",
    ];
    let output = policy(folder.path(), &arguments);
    assert_eq!(
        (output.status.code(), output.stdout.as_str()),
        (Some(1), "")
    );
    let output = policy(
        folder.path(),
        &[&arguments[..], &["--strict-builtin-errors"]].concat(),
    );
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("error[SG0223]"), "{output:?}");
    assert!(output.stderr.contains("p/policy.rego:14:"), "{output:?}");
}
