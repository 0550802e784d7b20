//! OPA bundles in the place of files: taken and refused as in service.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sidegate_tests::{Tool, skip, tool};

use super::opa::opa;
use super::{policy, policy_json};
use crate::bundles::tarball;
use crate::support::{folder, write};

/// Two versions of Rego, each of which does not take the other's rules.
const OLD: &str = r#"package envoy.authz

import data.envoy.roles

default allow = false

allow { roles.has[input.user] }

test_root_may { allow with input as {"user": "root"} }

test_cases[user] = verdict { some user; {"eve": true, "mallory": true}[user]; verdict := not_allowed(user) }

not_allowed(user) { not allow with input as {"user": user} }
"#;
const NEW: &str =
    "package envoy.roles\n\nhas contains name if some name in data.envoy.names.admins\n";
const NAMES: &str = "admins:\n  - root\n";
const MANIFEST: &str = r#"{
    "revision": "7", "roots": ["envoy"], "rego_version": 0, "file_rego_versions": {"/new/*.rego": 1}
}"#;

const FILES: [(&str, &str); 4] = [
    ("old.rego", OLD),
    ("new/roles.rego", NEW),
    ("envoy/names/data.yml", NAMES),
    // Nothing of this is data.
    ("envoy/names/other.json", "[1, }"),
];

const EVENT: &str = r#"{"decision_id": "1", "path": "envoy/authz/allow", "input": {"user": "root"}, "result": true, "timestamp": "2026-11-02T09:00:00Z"}"#;

/// A folder with the same bundle as a tarball and as a directory, an input and a decision log.
fn bundled() -> tempfile::TempDir {
    let folder = folder();
    let files = [&[(".manifest", MANIFEST)], &FILES[..]].concat();
    for (name, content) in &files {
        write(folder.path(), &format!("directory/{name}"), content);
    }
    let rooted: Vec<_> = files
        .iter()
        .map(|(name, content)| (format!("/{name}"), *content))
        .collect();
    let rooted: Vec<_> = rooted
        .iter()
        .map(|(name, it)| (name.as_str(), *it))
        .collect();
    write(folder.path(), "bundle.tar.gz", tarball(&rooted));
    write(folder.path(), "input.json", r#"{"user": "root"}"#);
    write(folder.path(), "decisions.log", format!("{EVENT}\n"));
    folder
}

#[test]
fn every_command_takes_a_bundle_as_a_tarball_and_as_a_directory() {
    let folder = bundled();
    for bundle in ["bundle.tar.gz", "directory"] {
        let input = ["--input", "input.json"];
        for (command, rest, expected) in [
            ("test", &[][..], "PASS: 3/3\n"),
            (
                "check",
                &["--strict"],
                "2 modules, 1 data document, 2 tests run",
            ),
            ("eval", &input, "true\n"),
            (
                "bench",
                &["-i", "input.json", "--count", "20"],
                "\nengine       ",
            ),
            ("explain", &input, ": allow\n"),
            ("explain", &["--read-set"], "  input.user  "),
        ] {
            let arguments = [&[command, bundle], rest].concat();
            let output = policy(folder.path(), &arguments);
            assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
            assert!(
                output.stdout.contains(expected),
                "{arguments:?}: {output:?}"
            );
            assert_eq!(output.stderr, "", "{arguments:?}");
        }
        let output = policy(
            folder.path(),
            &["replay", "decisions.log", "--bundle", bundle],
        );
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(
            output.stderr.starts_with("1 decisions: 0 change"),
            "{output:?}"
        );

        // Places lead into the bundle.
        let output = policy(folder.path(), &["explain", bundle, "--read-set"]);
        let place = format!("{bundle}/old.rego:7:");
        assert!(output.stdout.contains(&place), "{place}: {output:?}");
        // Without an input nobody is let in.
        assert_eq!(policy(folder.path(), &["eval", bundle]).stdout, "false\n");
    }
}

#[test]
fn all_that_is_wrong_is_shown_of_rego_v0_too() {
    let folder = bundled();
    let wrong = "package envoy.wrong\n\nnames[x] { x == absent }\n\nallow { other == 1 }\n";
    write(folder.path(), "directory/wrong.rego", wrong);
    let (code, document) = policy_json(folder.path(), &["check", "directory"]);
    assert_eq!(code, Some(1), "{document}");
    let findings = document["findings"].as_array().unwrap().iter();
    let findings = findings.filter(|it| it["severity"] == "error");
    let found: Vec<_> = findings.map(|it| (&it["code"], &it["line"])).collect();
    let code = json!("SG0208");
    assert_eq!(
        found,
        [(&code, &json!(3)), (&code, &json!(5))],
        "{document}"
    );
}

#[test]
fn without_a_manifest_a_directory_is_what_it_was() {
    let folder = bundled();
    fs::remove_file(folder.path().join("directory/.manifest")).unwrap();
    write(folder.path(), "directory/.signatures.json", "{}");
    let output = policy(folder.path(), &["eval", "directory"]);
    assert_eq!(output.status.code(), Some(2), "it is Rego v1: {output:?}");
    assert!(output.stderr.contains("error[SG0207]"), "{output:?}");
    fs::remove_file(folder.path().join("directory/old.rego")).unwrap();
    let output = policy(
        folder.path(),
        &["eval", "directory", "--entrypoint", "data.envoy.roles.has"],
    );
    assert_eq!(
        (output.stdout.as_str(), output.stderr.as_str()),
        ("[]\n", ""),
        "data.yml is none"
    );

    // A manifest that cannot be followed is one all the same.
    std::os::unix::fs::symlink("nowhere", folder.path().join("directory/.manifest")).unwrap();
    let output = policy(folder.path(), &["eval", "directory"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("error[SG0201]"), "{output:?}");
}

#[test]
fn bundles_and_files_go_together_and_roots_are_told_apart() {
    let folder = bundled();
    let more = "package more_test\n\ntest_more if not data.envoy.authz.allow\n";
    write(folder.path(), "more_test.rego", more);
    let limits = tarball(&[
        (".manifest", r#"{"roots": ["limits"]}"#),
        ("limits/data.json", r#"{"small": 1}"#),
    ]);
    write(folder.path(), "limits.tgz", limits);
    let output = policy(
        folder.path(),
        &["test", "bundle.tar.gz", "more_test.rego", "limits.tgz"],
    );
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stdout.ends_with("PASS: 4/4\n"), "{output:?}");
    let arguments = [
        "eval",
        "directory",
        "limits.tgz",
        "--entrypoint",
        "data.limits",
    ];
    let (code, document) = policy_json(folder.path(), &arguments);
    assert_eq!((code, &document["value"]), (Some(0), &json!({"small": 1})));

    let output = policy(folder.path(), &["eval", "bundle.tar.gz", "directory"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    for text in [
        "error[SG0239]",
        "`bundle.tar.gz` and `directory` both own `envoy`",
    ] {
        assert!(output.stderr.contains(text), "{text}: {output:?}");
    }
}

#[test]
fn a_bundle_that_service_refuses_is_refused_by_the_same_code() {
    let folder = bundled();
    let good = fs::read(folder.path().join("bundle.tar.gz")).unwrap();
    let cut = good[..good.len() - 20].to_vec();
    let policy_file = ("/policy.rego", NEW);
    let manifest = |text: &'static str| tarball(&[("/.manifest", text), policy_file]).to_vec();
    let twice = tarball(&[policy_file, policy_file]).to_vec();
    let cases: &[(&str, Vec<u8>, &[&str])] = &[
        ("cut", cut, &["SG0231"]),
        (
            "page",
            b"<html>".to_vec(),
            &["SG0231", "not a whole gzip tarball"],
        ),
        (
            "climbing",
            tarball(&[("../p.rego", NEW)]).to_vec(),
            &["SG0233", "\"../p.rego\" climbs"],
        ),
        ("twice", twice, &["SG0235", "policy.rego"]),
        (
            "delta",
            tarball(&[("/patch.json", "{}")]).to_vec(),
            &["SG0236", "patch.json"],
        ),
        (
            "manifest",
            manifest("{"),
            &["SG0237", ".manifest cannot be read"],
        ),
        (
            "version",
            manifest(r#"{"rego_version": 2}"#),
            &["SG0237", "neither 0 nor 1"],
        ),
        (
            "wasm",
            manifest(r#"{"wasm": [{"entrypoint": "a"}]}"#),
            &["SG0237", "WebAssembly"],
        ),
        (
            "outside",
            manifest(r#"{"roots": ["other"]}"#),
            &["SG0238", "envoy/roles", "[\"other\"]"],
        ),
        (
            "nothing",
            tarball(&[("/data.json", "{}")]).to_vec(),
            &["SG0204", "nothing.tar.gz"],
        ),
    ];
    for (name, content, texts) in cases {
        let bundle = format!("{name}.tar.gz");
        write(folder.path(), &bundle, content);
        let input = ["--input", "input.json"];
        for arguments in [
            [&["test", bundle.as_str()], &[][..]].concat(),
            vec!["check", &bundle],
            [&["eval", bundle.as_str()], &input[..]].concat(),
            [&["bench", bundle.as_str()], &input[..]].concat(),
            [&["explain", bundle.as_str()], &input[..]].concat(),
            vec!["replay", "decisions.log", "--bundle", &bundle],
        ] {
            let output = policy(folder.path(), &arguments);
            let what = format!("{arguments:?}: {output:?}");
            assert_eq!(output.status.code(), Some(2), "{what}");
            assert_eq!(output.stdout, "", "{what}");
            assert!(output.stderr.starts_with("error["), "{what}");
            for text in [&bundle.as_str()].into_iter().chain(*texts) {
                assert!(output.stderr.contains(text), "{text} in {what}");
            }
        }
    }
    // A directory with a manifest is no less a bundle.
    let other = r#"{"roots": ["other"]}"#;
    write(folder.path(), "directory/.manifest", other);
    let output = policy(folder.path(), &["check", "directory"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stderr.contains("error[SG0238]"), "{output:?}");
}

#[test]
fn a_signature_is_not_verified_and_that_is_said() {
    let folder = bundled();
    write(
        folder.path(),
        "directory/.signatures.json",
        "anything at all",
    );
    let warning = "warning: the signature of directory is not verified\n";
    let commands: [&[&str]; 5] = [
        &["test", "directory"],
        &["check", "directory"],
        &["eval", "directory", "--input", "input.json"],
        &["bench", "directory", "--count", "1"],
        &["explain", "directory", "--read-set"],
    ];
    for arguments in commands {
        let output = policy(folder.path(), &[arguments, &["-o", "json"]].concat());
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        assert_eq!(output.stderr, warning, "{arguments:?}");
        serde_json::from_str::<Value>(&output.stdout).expect("the warning is no data");
    }
    let arguments = ["replay", "decisions.log", "--bundle", "directory"];
    let output = policy(folder.path(), &arguments);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(output.stderr.starts_with(warning), "{output:?}");
}

#[test]
fn bundles_that_opa_builds_and_signs_have_the_values_that_opa_gives() {
    let test = "bundles_that_opa_builds_and_signs_have_the_values_that_opa_gives";
    let Some(tool) = tool(Tool::Opa) else {
        skip(test, Tool::Opa);
        return;
    };
    let folder = bundled();
    write(
        folder.path(),
        "hmac.key",
        "a key that is long enough for this",
    );
    let build = ["build", "-b", "directory", "-o"];
    let signing = ["--signing-alg", "HS256", "--signing-key", "hmac.key"];
    for (file, more) in [("plain.tar.gz", &[][..]), ("signed.tgz", &signing[..])] {
        let arguments = [&build[..], &[file], more].concat();
        let built = opa(&tool, folder.path(), &arguments);
        assert!(built.status.success(), "{arguments:?}: {built:?}");
        assert_values(&tool, folder.path(), file);
        let output = policy(folder.path(), &["test", file]);
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        assert!(output.stdout.ends_with("PASS: 3/3\n"), "{output:?}");
        let is_told = output
            .stderr
            .contains("warning: the signature of signed.tgz");
        assert_eq!(is_told, file == "signed.tgz", "{output:?}");
    }
    assert_values(&tool, folder.path(), "directory");
}

/// Compares the values of some rules and data of a bundle.
fn assert_values(tool: &Path, folder: &Path, bundle: &str) {
    for asked in [
        "data.envoy.authz.allow",
        "data.envoy.roles",
        "data.envoy.names",
    ] {
        let arguments = [
            "eval",
            "-b",
            bundle,
            "-i",
            "input.json",
            "-f",
            "json",
            asked,
        ];
        let output = opa(tool, folder, &arguments);
        let theirs: Value = serde_json::from_str(&output.stdout).expect("OPA prints JSON");
        let theirs = theirs.pointer("/result/0/expressions/0/value");
        let arguments = ["eval", bundle, "-i", "input.json", "--entrypoint", asked];
        let (_, ours) = policy_json(folder, &arguments);
        let value = Some(&ours["value"]).filter(|_| ours["defined"] == true);
        assert_eq!(value, theirs, "{asked} of {bundle}");
    }
}
