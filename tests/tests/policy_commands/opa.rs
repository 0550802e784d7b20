//! The same files through OPA: the same verdicts, values and refusals.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sidegate_tests::{Output, Tool, skip, tool};

use super::{policy, policy_json};
use crate::support::{finish, folder, write};

/// `opa …` in a folder, to its end.
pub(super) fn opa(opa: &Path, folder: &Path, arguments: &[&str]) -> Output {
    finish(Command::new(opa).current_dir(folder).args(arguments))
}

fn opa_or_skip(test: &str) -> Option<PathBuf> {
    let found = tool(Tool::Opa);
    if found.is_none() {
        skip(test, Tool::Opa);
    }
    found
}

/// Tests of every kind whose verdicts OPA and we give in the same way.
const TESTS: &str = r#"
package kinds_test

import data.kinds
import data.kinds.helper as help

test_true if 1 < 2

test_false if 1 > 2

test_true if 2 > 3

test_value := true

test_number := 1

test_set contains "x"

test_print if {
    print("said", 1)
    kinds.allow with input as {"user": "root"}
}

test_mock if help(1) == 5 with data.kinds.helper as mock

mock(_) := 5

test_data if kinds.limit == 3 with data.limits.small as 3

test_cases[case.note] if {
    some case in [
        {"note": "holds", "user": "root"},
        {"note": "does not hold", "user": "eve"},
    ]
    input_document := {"user": case.user}
    kinds.allow with input as input_document
}

test_all_cases[name] if {
    some number in [1, 2]
    name := sprintf("number %d", [number])
    number > 0
}

test_nested[outer][inner] if {
    some outer in ["a", "b"]
    some inner in [1, 2]
    outer == "a"
}

test_verdicts[name] := verdict if {
    some name, verdict in {"good": true, "bad": false}
}

test_no_cases[name] if {
    some name in []
}

test_conflict if kinds.conflict with input as {"x": true}

test_every if {
    every user in ["root", "admin"] {
        kinds.allow with input as {"user": user}
    }
}

todo_test_later if 1 > 2

deeper.test_inside if 1 < 2
"#;

const KINDS: &str = r#"
package kinds

default allow := false

allow if input.user in {"root", "admin"}

limit := data.limits.small

helper(x) := x + 1

conflict := 1 if input.x

conflict := 2 if input.x
"#;

#[test]
fn tests_have_the_verdicts_that_opa_gives() {
    let Some(tool) = opa_or_skip("tests_have_the_verdicts_that_opa_gives") else {
        return;
    };
    let folder = folder();
    write(folder.path(), "p/kinds.rego", KINDS);
    write(folder.path(), "p/kinds_test.rego", TESTS);
    write(folder.path(), "p/limits/data.json", r#"{"small": 1}"#);

    let output = opa(&tool, folder.path(), &["test", "-b", "p", "-f", "json"]);
    let theirs: Value = serde_json::from_str(&output.stdout).expect("OPA prints JSON");
    let (code, ours) = policy_json(folder.path(), &["test", "p"]);
    assert_eq!(code, Some(1));

    let ours = ours["results"].as_array().unwrap().iter();
    let ours: BTreeMap<_, _> = ours
        .map(|test| {
            let verdict = match (test["skipped"] == true, test["passed"] == true) {
                (true, _) => "skipped",
                (_, true) => "passed",
                _ => "failed",
            };
            (
                test["name"].as_str().unwrap().to_owned(),
                (verdict, our_cases(&test["cases"])),
            )
        })
        .collect();
    let theirs = theirs.as_array().unwrap().iter();
    let theirs: BTreeMap<_, _> = theirs
        .map(|test| {
            let verdict = match test {
                _ if test["skip"] == true => "skipped",
                _ if test["fail"] == true || !test["error"].is_null() => "failed",
                _ => "passed",
            };
            let [package, name] = ["package", "name"].map(|key| test[key].as_str().unwrap());
            (
                format!("{package}.{name}"),
                (verdict, their_cases(&test["sub_results"])),
            )
        })
        .collect();
    assert_eq!(ours, theirs);
    assert!(ours.len() > 15, "{ours:?}");
}

fn our_cases(cases: &Value) -> Value {
    let cases = cases.as_array().into_iter().flatten();
    let cases = cases.map(|case| {
        let name = case["name"].as_str().unwrap().to_owned();
        (name, json!([case["passed"], our_cases(&case["cases"])]))
    });
    Value::Object(cases.collect())
}

fn their_cases(cases: &Value) -> Value {
    let cases = cases.as_object().into_iter().flatten();
    let cases = cases.map(|(name, case)| {
        let passed = case["fail"] != true;
        (
            name.clone(),
            json!([passed, their_cases(&case["sub_results"])]),
        )
    });
    Value::Object(cases.collect())
}

#[test]
fn values_are_those_that_opa_gives() {
    let Some(tool) = opa_or_skip("values_are_those_that_opa_gives") else {
        return;
    };
    let folder = folder();
    let rules = r#"
package values

import data.limits

default allow := false

allow := {"allowed": true, "headers": {"x-user": input.user}} if input.user == "root"

set contains name if some name, _ in input.sizes

by_size[size] := name if some name, size in input.sizes

nested.fixed := limits.small

nested[name].size := size if some name, size in input.sizes

numbers := [1, 1.5, -0.25, 123456789012345678901234567890]

texts := ["é", "\u0000", "\"", `raw\n`]

undefined if input.absent

failing := to_number("x")

sum := total if {
    sizes := [size | some size in input.sizes]
    total := sum_of(sizes)
}

sum_of(numbers) := sum(numbers)

graph := graph.reachable({"a": ["b"], "b": ["c"], "c": []}, ["a"])
"#
    .replace("graph :=", "reached :=")
    .replace("sum :=", "total :=");
    write(folder.path(), "p/values.rego", rules);
    write(folder.path(), "p/limits/data.json", r#"{"small": 1}"#);
    let inputs = [
        r#"{"user": "root", "sizes": {"big": 2, "small": 1}}"#,
        r#"{"user": "eve", "sizes": {}}"#,
        r#"[1, "text", null]"#,
    ];
    let asked = [
        "data.values.allow",
        "data.values.set",
        "data.values.by_size",
        "data.values.nested",
        "data.values.nested.fixed",
        "data.values.numbers",
        "data.values.texts",
        "data.values.undefined",
        "data.values.failing",
        "data.values.total",
        "data.values.reached",
        "data.values",
        "data.limits",
    ];
    for input in inputs {
        write(folder.path(), "input.json", input);
        for asked in asked {
            let arguments = ["eval", "-b", "p", "-i", "input.json", "-f", "json", asked];
            let output = opa(&tool, folder.path(), &arguments);
            let theirs: Value = serde_json::from_str(&output.stdout).expect("OPA prints JSON");
            let theirs = theirs.pointer("/result/0/expressions/0/value");
            let arguments = ["eval", "p", "-i", "input.json", "--entrypoint", asked];
            let (code, ours) = policy_json(folder.path(), &arguments);
            let value = Some(&ours["value"]).filter(|_| ours["defined"] == true);
            assert_eq!(value, theirs, "{asked} of {input}");
            assert_eq!(
                code,
                Some(i32::from(theirs.is_none())),
                "{asked} of {input}"
            );
        }
    }
}

/// Modules of the package `envoy.authz`, without its line.
const CHECKED: &[&str] = &[
    "allow if 1 < 2",
    "allow if y == 1",
    "allow { 1 < 2 }",
    "allow if {",
    "allow if http.sent({})",
    "allow if count(1, 2, 3)",
    "allow if any([true])",
    "allow if f(1)\nf(x) := g(x)\ng(x) := f(x)",
    "allow if data.envoy.authz[input.x]",
    "allow if data[input.x].policy.allow",
    "allow if data.envoy[input.x].allow",
    "import data.a.b\nimport data.c.b\nallow if b.x",
    "allow contains 1\nallow := 2",
    "default allow := input.x",
    "default allow := [x | x := 1]",
    "allow := 1\nallow := 2",
    "allow if { x := 1; x := 2 }",
    "allow if f(1)\nf(x) := x\nf(x, y) := x",
    "allow if { input := 1; input == 1 }",
    // Under --strict alone.
    "import data.a\nallow if 1 < 2",
    "import data.a\nallow if a.b",
    "import data.a as b\nallow if { a := 1; a == 1 }",
    "allow if { x := 1 }",
    "allow if { some x; input[x] }",
    "allow if { some k, v in input.x; v }",
    "allow if { [x, y] := input.x; x }",
    "allow if f(1)\nf(x) := 1",
    "allow if f(1)\nf(_) := 1",
    "allow if f([1, 2])\nf([x, y]) := x",
    "allow if f(1)\nf(x) := 1 if { false } else := x",
    "allow if { x := 1; y := {z | z := x}; y }",
    "allow if { x := 1; y := {x | x := 2}; y }",
    "allow if { print(input.x) }",
    "allow if { x := 1 with input as 2; x }",
    "allow if { input.x with input as y }\ny := 1",
];

/// What OPA refuses always and we warn of: it does no harm.
const WARNED_OF: &[&str] = &[
    "allow if { some x; true }",
    "allow if { every k, v in input.x { v } }",
    "allow if { every v in input.x { true } }",
];

#[test]
fn what_opa_refuses_is_refused_and_under_strict_too() {
    let Some(tool) = opa_or_skip("what_opa_refuses_is_refused_and_under_strict_too") else {
        return;
    };
    let folder = folder();
    let mut wrong = Vec::new();
    for body in CHECKED.iter().chain(WARNED_OF) {
        write(
            folder.path(),
            "p.rego",
            format!("package envoy.authz\n\n{body}\n"),
        );
        for strict in [&[][..], &["--strict"]] {
            if strict.is_empty() && WARNED_OF.contains(body) {
                continue;
            }
            let check = [&["check", "p.rego"], strict].concat();
            let theirs = opa(&tool, folder.path(), &check);
            let ours = policy(folder.path(), &check);
            if theirs.status.success() != ours.status.success() {
                wrong.push(format!(
                    "{body} {strict:?}\n{}\n{}",
                    theirs.stderr, ours.stdout
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
