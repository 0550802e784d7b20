//! What the commands say is what the service does: which members a set has, and which engine
//! decides.

use serde_json::{Value, json};
use sidegate_tests::{Sidegate, Tool, skip, tool};

use super::opa::opa;
use super::{policy, policy_json, sound};
use crate::support::{finish, folder, up_with_policy, write};

/// Partial rules some of whose members have no value.
const MEMBERS: &str = r#"package members

names := {"a": "one", "b": "two"}

plain contains names[key] if some key in ["x", "a"]

several contains names[key] if {
	some key in [
		"a", "x", "b",
	]
}

pairs[key] := names[key] if some key in ["x", "b"]

called contains value_of(key) if some key in ["x", "a"]

built contains {"name": names[key]} if some key in ["a", "x"]

none contains names[key] if some key in ["x", "y"]

value_of(key) := names[key]

allow if {
	count(several) == 2
	not none["one"]
}
"#;

const MEMBERS_TESTS: &str = r#"package members_test

import data.members

test_plain if members.plain == {"one"}

test_several if members.several == {"one", "two"}

test_pairs if members.pairs == {"b": "two"}

test_called if members.called == {"one"}

test_built if members.built == {{"name": "one"}}

test_none if members.none == set()

test_allow if members.allow

test_cases[key] := members.pairs[key] == value if some key, value in {"b": "two"}

test_own contains members.names[key] if some key in ["x", "a"]

test_wrong if members.plain == {"one", "two"}
"#;

#[test]
fn a_member_without_a_value_costs_a_set_no_other() {
    let test = "a_member_without_a_value_costs_a_set_no_other";
    let folder = folder();
    write(folder.path(), "p/members.rego", MEMBERS);
    write(folder.path(), "p/members_test.rego", MEMBERS_TESTS);
    let eval = |asked: &str| policy_json(folder.path(), &["eval", "p", "--entrypoint", asked]);
    let expected = [
        ("data.members.plain", json!(["one"])),
        ("data.members.several", json!(["one", "two"])),
        ("data.members.pairs", json!({"b": "two"})),
        ("data.members.called", json!(["one"])),
        ("data.members.built", json!([{"name": "one"}])),
        ("data.members.none", json!([])),
        ("data.members.allow", json!(true)),
    ];
    for (asked, value) in &expected {
        let (code, document) = eval(asked);
        assert_eq!((code, &document["value"]), (Some(0), value), "{asked}");
    }
    let (code, ours) = policy_json(folder.path(), &["test", "p"]);
    assert_eq!(code, Some(1), "{ours}");
    let results = ours["results"].as_array().unwrap().iter();
    let mut ours: Vec<_> = results
        .map(|it| {
            (
                it["name"].as_str().unwrap().to_owned(),
                it["passed"] == true,
            )
        })
        .collect();
    let failed: Vec<_> = ours
        .iter()
        .filter(|it| !it.1)
        .map(|it| it.0.as_str())
        .collect();
    assert_eq!(
        failed,
        ["data.members_test.test_own", "data.members_test.test_wrong"]
    );
    // The same in what explains it.
    let explain = [
        "explain",
        "p",
        "--entrypoint",
        "members/allow",
        "--input",
        "input.json",
    ];
    write(folder.path(), "input.json", "{}");
    let output = policy(folder.path(), &explain);
    assert!(
        output
            .stdout
            .contains("data.members.several is \"one\" or \"two\"\n"),
        "{output:?}"
    );

    let Some(tool) = tool(Tool::Opa) else {
        skip(test, Tool::Opa);
        return;
    };
    for (asked, value) in &expected {
        let output = opa(
            &tool,
            folder.path(),
            &["eval", "-d", "p", "-f", "json", asked],
        );
        let theirs: Value = serde_json::from_str(&output.stdout).expect("OPA prints JSON");
        let theirs = theirs.pointer("/result/0/expressions/0/value");
        assert_eq!(theirs, Some(value), "{asked}");
    }
    let output = opa(&tool, folder.path(), &["test", "p", "-f", "json"]);
    let theirs: Value = serde_json::from_str(&output.stdout).expect("OPA prints JSON");
    let theirs = theirs.as_array().unwrap().iter();
    let theirs = theirs.map(|it| {
        let [package, name] = ["package", "name"].map(|key| it[key].as_str().unwrap());
        (
            format!("{package}.{name}"),
            it["fail"] != true && it["error"].is_null(),
        )
    });
    let mut theirs: Vec<_> = theirs.collect();
    ours.sort();
    theirs.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn lines_and_places_are_those_of_the_files_however_they_are_run() {
    let folder = folder();
    write(folder.path(), "p/members.rego", MEMBERS);
    write(folder.path(), "p/members_test.rego", MEMBERS_TESTS);
    let failing = r#"package failing

f(x) := 1 if x

f(x) := 2 if x

short contains f(key) if some key in ["x", "a"]

long contains f(key) if {
	some key in ["x", "a"]
}

test_short if count(short) == 1

test_long if count(long) == 1
"#;
    write(folder.path(), "q/failing.rego", failing);
    let (_, document) = policy_json(folder.path(), &["test", "p", "--coverage"]);
    let lines = |name: &str, key: &str| {
        let files = document["coverage"]["files"].as_array().unwrap().iter();
        let mut files = files.filter(|it| it["file"] == name);
        files.next().expect("the file is there")[key].clone()
    };
    // Line 10, where the body of `several` ends, holds no expression.
    let covered = json!([3, 5, 7, 8, 9, 13, 15, 17, 19, 21, 24, 25]);
    assert_eq!(lines("p/members.rego", "covered"), covered, "{document}");
    assert_eq!(lines("p/members.rego", "not_covered"), json!([]));

    for (rule, place, line) in [
        (
            "short",
            "q/failing.rego:7:17",
            "short contains f(key) if some key in [\"x\", \"a\"]\n",
        ),
        ("long", "q/failing.rego:9:16", "long contains f(key) if {\n"),
    ] {
        let asked = format!("data.failing.{rule}");
        let output = policy(folder.path(), &["eval", "q", "--entrypoint", &asked]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(output.stderr.contains("error[SG0223]"), "{output:?}");
        let test = policy(folder.path(), &["test", "q", "--run", rule]);
        for text in [&output.stderr, &test.stdout] {
            assert!(text.contains(place) && text.contains(line), "{text}");
        }
    }

    // What is wrong with the text is shown in the text.
    let unsafe_text = "package unsound\n\ndeny contains data.x[key] if key == unknown\n";
    write(folder.path(), "u/unsound.rego", unsafe_text);
    for command in ["test", "eval", "bench"] {
        let output = policy(folder.path(), &[command, "u"]);
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(
            output
                .stderr
                .contains("deny contains data.x[key] if key == unknown\n"),
            "{output:?}"
        );
    }
}

/// A rule that the machine cannot have: it replaces its input.
const REPLACES: &str = "package envoy.authz

allow if inner with input as {\"user\": \"root\"}

inner if input.user == \"root\"
";

#[test]
fn a_bench_times_the_engine_that_decides_in_service_and_names_it() {
    let folder = sound();
    write(folder.path(), "with/policy.rego", REPLACES);
    write(
        folder.path(),
        "failing/policy.rego",
        "package envoy.authz\n\nallow := true\n\ntest_it if false\n",
    );
    let bench = |arguments: &[&str]| {
        let arguments = [&["bench", "--count", "20"], arguments].concat();
        let (code, document) = policy_json(folder.path(), &arguments);
        assert_eq!(code, Some(0), "{document}");
        let because = document["because"].as_str().map(str::to_owned);
        (document["engine"].as_str().unwrap().to_owned(), because)
    };
    // As `explain --read-set` says of the same policy.
    for path in ["with", "failing", "p"] {
        let (engine, because) = bench(&[path]);
        let (_, explained) = policy_json(folder.path(), &["explain", path, "--read-set"]);
        if explained["engine"].is_null() {
            assert_eq!((path, engine.as_str()), ("failing", "interpreter"));
            assert!(because.unwrap().contains("would be refused"));
        } else {
            assert_eq!(explained["engine"]["name"], engine.as_str(), "{path}");
            assert_eq!(
                explained["engine"]["because"].as_str(),
                because.as_deref(),
                "{path}"
            );
        }
    }
    let (engine, because) = bench(&["with"]);
    assert_eq!(engine, "interpreter");
    assert!(because.unwrap().contains("`with`"));
    // The stock policy is on the machine, all of its points.
    for entrypoint in ["envoy/authz/allow", "data.sidegate.connect.allow"] {
        let machine = ("machine".to_owned(), None);
        assert_eq!(
            bench(&["--entrypoint", entrypoint]),
            machine,
            "{entrypoint}"
        );
    }
    for (arguments, reason) in [
        (&["p", "--entrypoint", "data.roles"][..], "no rule"),
        (&["p", "--entrypoint", "data.roles.admins"], "no rule"),
        (&["p", "--entrypoint", "data.envoy"], "no rule"),
        (&["--strict-builtin-errors"], "no error in service"),
    ] {
        let (engine, because) = bench(arguments);
        assert_eq!(engine, "interpreter", "{arguments:?}");
        assert!(because.unwrap().contains(reason), "{arguments:?}");
    }
    let output = policy(folder.path(), &["bench", "--count", "1"]);
    assert!(
        output.stdout.ends_with("\nengine       machine\n"),
        "{output:?}"
    );
    let output = policy(folder.path(), &["bench", "failing", "--count", "1"]);
    assert!(
        output.stdout.contains("\nengine       interpreter: "),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_status_names_the_engine_that_decides_and_why_it_is_not_the_machine() {
    let machine = "package envoy.authz\n\nallow if input.source_principal == \"spiffe://a/b\"\n";
    for (rego, name, reason) in [
        (machine, "machine", None),
        (REPLACES, "interpreter", Some("`with`")),
    ] {
        let folder = folder();
        let sidegate = up_with_policy(&folder, rego);
        let status = |more: &[&str]| {
            let mut command = Sidegate::command("policy");
            let state = &sidegate.ready.state;
            let output = finish(command.arg("status").args(more).arg("--state").arg(state));
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            output.stdout
        };
        let facts: Value = serde_json::from_str(&status(&["-o", "json"])).unwrap();
        write(folder.path(), "same/policy.rego", rego);
        let (_, explained) = policy_json(folder.path(), &["explain", "same", "--read-set"]);
        assert_eq!(facts["engine"], explained["engine"], "in the same words");
        assert_eq!(facts["engine"]["name"], name);
        let because = facts["engine"]["because"].as_str();
        assert_eq!(because.is_some(), reason.is_some(), "{facts}");
        assert!(
            because
                .unwrap_or_default()
                .contains(reason.unwrap_or_default())
        );
        let line = match because {
            None => format!("\nengine      {name}\n"),
            Some(because) => format!("\nengine      {name}: {because}\n"),
        };
        let text = status(&[]);
        assert!(text.contains(&line), "{line}: {text}");
        sidegate.stop();
    }
}
