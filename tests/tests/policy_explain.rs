//! `sidegate policy explain` and `replay`: on the command line, and on a decision log that an
//! instance wrote.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sidegate_tests::{Output, Sidegate, until};

use crate::support::{Client, Upstream, address, finish, folder, own_uid, write};

const POLICY: &str = r#"package envoy.authz

import input.attributes.request.http

default allow := false

allow if {
	http.method == "GET"
	input.parsed_path[0] == "open"
	input.source_principal == "spiffe://sidegate.local/demo"
}

allow if {
	input.parsed_path[0] == "shop"
	input.source_principal == "spiffe://sidegate.local/shop"
}

allow if http.headers.authorization == "Bearer s3cret"
"#;

/// `sidegate policy …` in a folder, to its end.
fn policy(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Sidegate::command("policy");
    finish(command.current_dir(folder).args(arguments))
}

/// The lines of JSON that it prints.
fn lines(output: &Output) -> Vec<Value> {
    let lines = output.stdout.lines();
    let lines = lines.map(|line| serde_json::from_str(line).expect("JSON"));
    lines.collect()
}

/// An instance with the policy and a decision log, and its client.
async fn start(folder: &Path) -> (Sidegate, Client) {
    let upstream = Upstream::start().await;
    write(folder, "policy/policy.rego", POLICY);
    let text = format!(
        r#"
[identity]
trust_domain = "sidegate.local"
state = "state"

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/app"
selectors = ["listener:name:main"]
dns_names = ["localhost"]

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/demo"
selectors = ["{uid}"]

[[svid_file]]
spiffe_id = "spiffe://sidegate.local/demo"
directory = "demo"

[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[policy]
path = "policy"
timeout = "5s"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
upstream = "{upstream}"

[decision_log]
output = "file"
path = "decisions.log"
"#,
        uid = own_uid(),
        upstream = upstream.url,
    );
    let sidegate = Sidegate::run(&write(folder, "sidegate.toml", text));
    let demo = folder.join("demo");
    let [bundle, svid, key] = ["bundle.pem", "svid.pem", "key.pem"].map(|it| demo.join(it));
    let client = Client::new(address(&sidegate), &bundle, &svid, &key);
    (sidegate, client)
}

/// The id of the decision on a request, once the log has it.
fn decision(log: &PathBuf, request: &str) -> String {
    until("the event of a request", || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        let mut events = whole.map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        let event = events
            .find(|event| event["input"]["attributes"]["request"]["http"]["id"] == request)?;
        Some(event["decision_id"].as_str().expect("an id").to_owned())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_request_leads_to_the_statement_that_stopped_it_and_a_log_to_what_would_change() {
    let folder = folder();
    let (_sidegate, client) = start(folder.path()).await;
    let log = folder.path().join("decisions.log");
    let mut decisions = Vec::new();
    for (path, status) in [
        ("/open/1", 200),
        ("/shop/2?card=s3cret", 403),
        ("/open/3", 200),
        ("/other", 403),
    ] {
        let answer = client.get(path).await;
        assert_eq!(answer.status, status, "{path}");
        let request = answer.header("x-request-id").to_owned();
        decisions.push((decision(&log, &request), request));
    }
    let [first, denied, third, other] = decisions.as_slice() else {
        panic!("four decisions");
    };

    // By either id.
    for id in [&denied.0, &denied.1] {
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
        let [document] = lines(&output).try_into().expect("one document");
        let document: Value = document;
        assert_eq!(document["decision_id"], denied.0.as_str());
        assert_eq!(document["decision"]["verdict"], "deny");
        // Two come as far: the one of which less is missing is closer.
        let closest = &document["definitions"][0];
        assert_eq!(closest["line"], 13, "{document}");
        assert_eq!(
            (&closest["held"], &closest["statements"]),
            (&json!(1), &json!(2))
        );
        let stop = &closest["stopped"];
        assert_eq!(
            (&stop["file"], &stop["line"]),
            (&json!("policy/policy.rego"), &json!(15))
        );
        let actual = &stop["comparison"]["actual"]["values"];
        assert_eq!(actual, &json!(["spiffe://sidegate.local/demo"]));
        let expected = &stop["comparison"]["expected"]["values"];
        assert_eq!(expected, &json!(["spiffe://sidegate.local/shop"]));
        assert_eq!(
            document["removed"],
            json!([]),
            "the request had no such header, so nothing was erased"
        );

        let output = policy(folder.path(), &arguments);
        assert!(
            output.stdout.contains("--> policy/policy.rego:15:2\n"),
            "{output:?}"
        );
        assert!(output.stdout.contains("^^^^^^^"), "{output:?}");
        assert!(!output.stdout.contains("card="), "no query: {output:?}");
    }

    // A policy that opens /shop to all and closes /open/3.
    let changed = POLICY
        .replace(
            "\tinput.source_principal == \"spiffe://sidegate.local/shop\"\n",
            "",
        )
        .replace(
            "== \"open\"\n",
            "== \"open\"\n\tinput.parsed_path[1] != \"3\"\n",
        )
        .replace(
            "allow if http.headers.authorization == \"Bearer s3cret\"\n",
            "",
        );
    write(folder.path(), "changed/policy.rego", changed);
    let arguments = ["replay", "decisions.log", "--bundle", "changed"];
    let output = policy(folder.path(), &[&arguments[..], &["-o", "json"]].concat());
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let found = lines(&output);
    let events: Vec<_> = found
        .iter()
        .map(|it| (&it["kind"], &it["decision_id"], &it["after"]))
        .collect();
    assert_eq!(
        events,
        [
            (&json!("changed"), &json!(denied.0), &json!("allow")),
            (&json!("changed"), &json!(third.0), &json!("deny")),
            (&json!("summary"), &Value::Null, &Value::Null),
        ]
    );
    assert_eq!(found[0]["principal"], "spiffe://sidegate.local/demo");
    assert_eq!(
        (&found[0]["method"], &found[0]["path"]),
        (&json!("GET"), &json!("/shop/2"))
    );
    let summary = &found[2];
    assert_eq!(
        (&summary["same"], &summary["changed"]),
        (&json!(2), &json!(2)),
        "{summary}"
    );
    let output = policy(folder.path(), &arguments);
    assert!(
        output.stdout.contains(&format!("{} ", denied.0)),
        "{output:?}"
    );
    assert!(!output.stdout.contains(&first.0) && !output.stdout.contains(&other.0));
    assert!(
        output.stderr.starts_with("4 decisions: 2 change"),
        "{output:?}"
    );

    // The same as a bundle.
    let bundle = std::fs::File::create(folder.path().join("changed.tar.gz")).unwrap();
    let gzip = flate2::write::GzEncoder::new(bundle, flate2::Compression::fast());
    let mut archive = tar::Builder::new(gzip);
    let module = folder.path().join("changed/policy.rego");
    archive
        .append_path_with_name(module, "policy.rego")
        .unwrap();
    archive.into_inner().unwrap().finish().unwrap();
    let arguments = ["replay", "decisions.log", "--bundle", "changed.tar.gz"];
    let output = policy(folder.path(), &[&arguments[..], &["-o", "json"]].concat());
    assert_eq!((output.status.code(), lines(&output)), (Some(1), found));

    // Its own policy changes nothing.
    let output = policy(
        folder.path(),
        &["replay", "decisions.log", "--bundle", "policy"],
    );
    assert_eq!(
        (output.status.code(), output.stdout.as_str()),
        (Some(0), ""),
        "{output:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_erased_from_the_log_and_is_read_is_said() {
    let folder = folder();
    let (_sidegate, client) = start(folder.path()).await;
    let log = folder.path().join("decisions.log");
    let request = http::Request::get("/x").header("authorization", "Bearer s3cret");
    let answer = client.send(request, crate::support::body("")).await;
    assert_eq!(answer.status, 200);
    let id = decision(&log, answer.header("x-request-id"));
    let path = "/input/attributes/request/http/headers/authorization";

    let output = policy(
        folder.path(),
        &[
            "explain",
            "policy",
            "--decision",
            &id,
            "--log",
            "decisions.log",
        ],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.contains(path), "{output:?}");
    assert!(
        output.stderr.contains("the log has another verdict"),
        "{output:?}"
    );
    let arguments = [
        "replay",
        "decisions.log",
        "--bundle",
        "policy",
        "-o",
        "json",
    ];
    let output = policy(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let found = lines(&output);
    assert_eq!(found[0]["kind"], "not_replayable");
    assert_eq!(found[0]["paths"], json!([path]));
    assert_eq!(found[1]["not_replayable"], 1);
}

#[test]
fn a_request_on_the_command_line_is_explained_without_its_credentials() {
    let folder = folder();
    write(folder.path(), "p/policy.rego", POLICY);
    let told = ["explain", "p", "--method", "GET", "--path", "/shop/1"];
    let by = [
        "--principal",
        "spiffe://sidegate.local/web",
        "--header",
        "Authorization: Bearer wr0ng",
    ];
    let output = policy(folder.path(), &[&told[..], &by].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(
        output.stdout.starts_with("data.envoy.authz.allow: deny: "),
        "{output:?}"
    );
    for text in [
        "expected \"spiffe://sidegate.local/shop\"",
        "actual \"spiffe://sidegate.local/web\"",
        "not shown: it may be a credential",
    ] {
        assert!(output.stdout.contains(text), "{text}: {output:?}");
    }
    assert!(!output.stdout.contains("wr0ng"), "{output:?}");
    let output = policy(folder.path(), &["explain", "p", "--read-set", "-o", "json"]);
    let [document] = lines(&output).try_into().expect("one document");
    let document: Value = document;
    assert_eq!(document["remembering"]["remembered"], true, "{document}");
    assert_eq!(document["reads"][0]["file"], "p/policy.rego");
    // The stock policy.
    let output = policy(folder.path(), &["explain", "--read-set"]);
    assert!(
        output.stdout.contains("input.source_principal"),
        "{output:?}"
    );
}

#[test]
fn what_cannot_be_explained_or_replayed_is_said_with_its_code() {
    let folder = folder();
    write(folder.path(), "p/policy.rego", POLICY);
    let event =
        json!({"decision_id": "d", "result": false, "input": {}, "path": "envoy/authz/allow"});
    let withheld = json!({"decision_id": "w", "erased": ["/input"], "path": "envoy/authz/allow"});
    write(
        folder.path(),
        "bad.log",
        format!("{event}\n{{\"decision_id\":\n{withheld}\n"),
    );
    write(folder.path(), "cut.log.gz", [0x1f, 0x8b, 8, 0]);
    let cases: &[(&[&str], &str)] = &[
        (&["explain", "p"], "required"),
        (&["explain", "p", "--method", "GET"], "--path"),
        (&["explain", "p", "--decision", "d"], "--log"),
        (
            &[
                "explain",
                "p",
                "--read-set",
                "--method",
                "GET",
                "--path",
                "/",
            ],
            "cannot be used with",
        ),
        (
            &["explain", "p", "--method", "GET", "--path", "/%zz"],
            "error[SG0310]",
        ),
        (
            &["explain", "p", "--method", "GET", "--path", "/?a=%zz"],
            "error[SG0296]",
        ),
        (
            &[
                "explain",
                "p",
                "--method",
                "GET",
                "--path",
                "/",
                "--principal",
                "web",
            ],
            "invalid value 'web'",
        ),
        (
            &[
                "explain", "p", "--method", "GET", "--path", "/", "--header", "x",
            ],
            "'name: value'",
        ),
        (
            &[
                "explain",
                "p",
                "--read-set",
                "--entrypoint",
                "envoy/authz/alow",
            ],
            "did you mean `envoy/authz/allow`?",
        ),
        (
            &["explain", "p", "--decision", "none", "--log", "bad.log"],
            "error[SG0295]",
        ),
        (
            &["explain", "p", "--decision", "w", "--log", "bad.log"],
            "has no input",
        ),
        (
            &["explain", "p", "--decision", "d", "--log", "missing.log"],
            "error[SG0288]",
        ),
        (&["replay", "missing.log", "--bundle", "p"], "error[SG0288]"),
        (&["replay", "cut.log.gz", "--bundle", "p"], "error[SG0288]"),
        (
            &["replay", "bad.log", "--bundle", "missing"],
            "error[SG0201]",
        ),
        (
            &["replay", "bad.log", "--bundle", "missing.tar.gz"],
            "error[SG02",
        ),
        (
            &["replay", "bad.log", "--bundle", "p", "--entrypoint", "a/b"],
            "error[SG0210]",
        ),
    ];
    for (arguments, expected) in cases {
        let output = policy(folder.path(), arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(
            output.stderr.contains(expected),
            "{arguments:?}: {output:?}"
        );
    }
    let output = policy(folder.path(), &["replay", "bad.log", "--bundle", "p"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(
        output
            .stderr
            .contains("error[SG0289]: line 2 of the log is no event"),
        "{output:?}"
    );
    assert!(
        output
            .stdout
            .contains("not replayable: its input was withheld"),
        "{output:?}"
    );
}

#[test]
fn a_request_that_no_policy_is_asked_about_is_told_as_in_service() {
    let folder = folder();
    write(folder.path(), "policy/policy.rego", POLICY);
    for (method, path, status, problem) in [
        ("GET", "/a/../b", 400, "dot segment"),
        ("GET", "/a/%2e%2e/b", 400, "dot segment"),
        ("GET", "/a//b?x=1", 400, "empty segment"),
        ("GET", "/a;b", 400, "semicolon"),
        ("CONNECT", "/open", 400, "a CONNECT has no path"),
    ] {
        let arguments = ["explain", "policy", "--method", method, "--path", path];
        let output = policy(folder.path(), &arguments);
        assert_eq!(output.status.code(), Some(2), "{path}: {output:?}");
        assert_eq!(output.stdout, "", "{path}");
        let told = format!("refused with {status} before the policy is asked");
        for part in ["error[SG0310]", told.as_str(), problem] {
            assert!(output.stderr.contains(part), "{path}: {part}: {output:?}");
        }
    }
    // The query is the policy's to look at.
    let arguments = [
        "explain",
        "policy",
        "--method",
        "GET",
        "--path",
        "/a?b=/../",
    ];
    let output = policy(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.contains("[SG0220]"), "{output:?}");
}
