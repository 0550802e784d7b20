//! Which sources become a policy, and what is said of those that do not.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use crate::common::{connection, get, load, options};
use sidegate_policy::{Policy, PolicyError, PolicyOptions, PolicySources};

const ALLOW: &str = "package envoy.authz\n\nallow := true\n";

/// Writes files below a new directory.
fn directory(files: &[(&str, &str)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        write(directory.path(), name, text);
    }
    directory
}

fn write(directory: &Path, name: &str, text: &str) {
    let path = directory.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn files(files: &[(&str, &str)]) -> Result<PolicySources, PolicyError> {
    PolicySources::from_files(
        files
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned())),
    )
}

#[test]
fn a_directory_is_read_as_opa_reads_a_bundle() {
    let directory = directory(&[
        ("b/policy.rego", "package b\n\nx := 1\n"),
        ("a.rego", ALLOW),
        ("data.json", r#"{"root": 1}"#),
        ("roles/data.json", r#"{"admins": ["ann"]}"#),
        ("roles/data.yaml", "guests: [bob]\n"),
        ("deep/er/data.yaml", "[1, 2]\n"),
        ("roles/more.json", "not JSON, not read"),
        ("roles/data.yml", ": not read"),
        ("notes.txt", "not read"),
        (".manifest", "not read"),
        ("..data/a.rego", "not read"),
    ]);
    let expected = files(&[
        ("a.rego", ALLOW),
        ("b/policy.rego", "package b\n\nx := 1\n"),
        ("data.json", r#"{"root": 1}"#),
        ("deep/er/data.yaml", "[1, 2]\n"),
        ("roles/data.json", r#"{"admins": ["ann"]}"#),
        ("roles/data.yaml", "guests: [bob]\n"),
    ]);
    assert_eq!(
        PolicySources::read(directory.path()).unwrap(),
        expected.unwrap()
    );
}

#[test]
fn data_is_placed_by_its_directory() {
    let module = "package envoy.authz\n\nallow if {\n\tdata.root == 1\n\tdata.roles == {\"admins\": [\"ann\"], \"guests\": [\"bob\"]}\n\tdata.deep.er == [1, 2]\n}\n";
    let sources = files(&[
        ("policy.rego", module),
        ("data.json", r#"{"root": 1}"#),
        ("/roles/data.json", r#"{"admins": ["ann"]}"#),
        ("roles/data.yaml", "guests: [bob]\n"),
        ("deep/er/data.yaml", "[1, 2]\n"),
    ]);
    let policy = Policy::load(sources.unwrap(), &options()).unwrap();
    let mut evaluator = policy.evaluator(&crate::common::metrics()).unwrap();
    assert!(evaluator.decide(&connection(), get("/")).is_ok());
}

#[test]
fn a_single_file_is_a_policy() {
    let directory = directory(&[("only.rego", ALLOW), ("other.rego", "not Rego")]);
    let sources = PolicySources::read(&directory.path().join("only.rego")).unwrap();
    assert_eq!(sources, files(&[("only.rego", ALLOW)]).unwrap());
}

#[test]
fn sources_that_cannot_be_used_are_refused_whole() {
    let empty = directory(&[("data.json", "{}"), ("policy.reg", ALLOW)]);
    let looped = directory(&[("policy.rego", ALLOW)]);
    symlink(looped.path(), looped.path().join("again")).unwrap();
    let dangling = directory(&[("policy.rego", ALLOW)]);
    symlink("nowhere", dangling.path().join("gone.rego")).unwrap();
    let text = directory(&[("policy.txt", ALLOW)]);
    let not_utf8 = directory(&[("policy.rego", ALLOW)]);
    fs::write(not_utf8.path().join("other.rego"), b"package \xff").unwrap();
    let deep = directory(
        &[("policy.rego", ALLOW), (&"d/".repeat(40).to_string(), "")].map(|(name, text)| {
            if name.ends_with('/') {
                (
                    "d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/d/x.rego",
                    text,
                )
            } else {
                ("policy.rego", text)
            }
        }),
    );
    let cases = [
        (
            "a path that is not there",
            PolicySources::read(Path::new("/nonexistent/policy")),
            "SG0201",
        ),
        (
            "a directory without modules",
            PolicySources::read(empty.path()),
            "SG0204",
        ),
        (
            "a file that is no module",
            PolicySources::read(&text.path().join("policy.txt")),
            "SG0204",
        ),
        (
            "a link to its own directory",
            PolicySources::read(looped.path()),
            "SG0203",
        ),
        (
            "directories nested too deep",
            PolicySources::read(deep.path()),
            "SG0203",
        ),
        (
            "a link to nothing",
            PolicySources::read(dangling.path()),
            "SG0201",
        ),
        (
            "a module that is not UTF-8",
            PolicySources::read(not_utf8.path()),
            "SG0201",
        ),
        (
            "no modules",
            PolicySources::from_modules([("", ""); 0]),
            "SG0204",
        ),
        (
            "a module twice",
            PolicySources::from_modules([("a.rego", ALLOW), ("a.rego", ALLOW)]),
            "SG0205",
        ),
        (
            "data that is no JSON",
            files(&[("a.rego", ALLOW), ("data.json", "{")]),
            "SG0206",
        ),
        (
            "data that is no YAML",
            files(&[("a.rego", ALLOW), ("data.yaml", "a: [")]),
            "SG0206",
        ),
        (
            "data at the root that is no object",
            files(&[("a.rego", ALLOW), ("data.json", "[1]")]),
            "SG0206",
        ),
        (
            "data that contradicts other data",
            files(&[
                ("a.rego", ALLOW),
                ("data.json", r#"{"a": {"b": 1}}"#),
                ("a/data.yaml", "b: 2\n"),
            ]),
            "SG0206",
        ),
    ];
    for (name, result, code) in cases {
        assert_eq!(
            result.as_ref().map_err(PolicyError::code),
            Err(code),
            "{name}: {result:?}"
        );
    }
}

#[test]
fn modules_that_do_not_become_a_policy_are_refused() {
    let at = |entrypoint: &str| PolicyOptions {
        entrypoint: entrypoint.into(),
        ..options()
    };
    let default = "envoy/authz/allow";
    let nested = format!(
        "package envoy.authz\n\nallow := {}1{}\n",
        "[x | x := ".repeat(14),
        "]".repeat(14)
    );
    let cases = [
        (
            "calls nested too deep to be seen",
            nested.as_str(),
            default,
            Err("SG0212"),
        ),
        (
            "text that is no Rego",
            "package envoy.authz\n\nallow if if\n",
            default,
            Err("SG0207"),
        ),
        (
            "Rego v0",
            "package envoy.authz\n\nallow { true }\n",
            default,
            Err("SG0207"),
        ),
        (
            "an unsafe variable",
            "package envoy.authz\n\nallow if x > y\n",
            default,
            Err("SG0208"),
        ),
        (
            "another package",
            "package authz\n\nallow := true\n",
            default,
            Err("SG0210"),
        ),
        (
            "another rule",
            "package envoy.authz\n\nallowed := true\n",
            default,
            Err("SG0210"),
        ),
        (
            "a function",
            "package envoy.authz\n\nallow(x) := x\n",
            default,
            Err("SG0210"),
        ),
        (
            "a name that begins like it",
            "package envoy.authz\n\nallow_all := true\n",
            default,
            Err("SG0210"),
        ),
        ("an empty entrypoint", ALLOW, "", Err("SG0209")),
        ("an entrypoint of one part", ALLOW, "allow", Err("SG0209")),
        (
            "an entrypoint with an empty part",
            ALLOW,
            "envoy//allow",
            Err("SG0209"),
        ),
        (
            "an entrypoint with dots",
            ALLOW,
            "data.envoy.authz.allow",
            Err("SG0209"),
        ),
        ("the default entrypoint", ALLOW, default, Ok(())),
        ("a leading slash", ALLOW, "/envoy/authz/allow", Ok(())),
        (
            "another entrypoint",
            "package a.b\n\nmay := true\n",
            "a/b/may",
            Ok(()),
        ),
        (
            "a part that is no identifier",
            "package a[\"b-c\"]\n\nmay := true\n",
            "a/b-c/may",
            Ok(()),
        ),
    ];
    for (name, module, entrypoint, expected) in cases {
        let result = load(module, &at(entrypoint));
        assert_eq!(
            result.as_ref().map(|_| ()).map_err(PolicyError::code),
            expected,
            "{name}: {result:?}"
        );
        if let Ok(policy) = result {
            let mut evaluator = policy.evaluator(&crate::common::metrics()).unwrap();
            assert!(evaluator.decide(&connection(), get("/")).is_ok(), "{name}");
        }
    }
    let no_time = PolicyOptions {
        decision_timeout: Duration::ZERO,
        ..options()
    };
    assert_eq!(load(ALLOW, &no_time).unwrap_err().code(), "SG0214");
}

#[test]
fn all_modules_that_do_not_parse_are_named() {
    let sources = PolicySources::from_modules([
        ("a.rego", "package a\n\nx if if\n"),
        ("b.rego", ALLOW),
        ("c.rego", "pakage c\n"),
    ]);
    let error = Policy::load(sources.unwrap(), &options()).unwrap_err();
    let PolicyError::Parse { failures } = &error else {
        panic!("{error}")
    };
    assert_eq!(
        failures
            .iter()
            .map(|failure| failure.file.as_str())
            .collect::<Vec<_>>(),
        ["a.rego", "c.rego"]
    );
    let text = error.to_string();
    assert!(
        text.contains("a.rego:3:6") && text.contains("c.rego:1:1"),
        "{text}"
    );
}

#[test]
fn a_policy_that_fails_its_own_tests_is_refused_by_their_names() {
    let tests = "package envoy.authz_test\n\nimport data.envoy.authz\n\ntest_yes if authz.allow\n\ntest_no if not authz.allow\n\ntest_never if input.x\n";
    let sources = PolicySources::from_modules([("a.rego", ALLOW), ("a_test.rego", tests)]).unwrap();
    let error = Policy::load(sources, &options()).unwrap_err();
    let text = error.to_string();
    assert_eq!(
        (error.code(), text.as_str()),
        (
            "SG0213",
            "tests of the policy that fail:\ndata.envoy.authz_test.test_no\ndata.envoy.authz_test.test_never"
        )
    );
}

#[test]
fn what_is_no_regular_file_is_not_read() {
    let directory = directory(&[("a.rego", ALLOW)]);
    symlink("/dev/zero", directory.path().join("zero.rego")).unwrap();
    let error = PolicySources::read(directory.path()).unwrap_err();
    assert_eq!(error.code(), "SG0201");
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    assert_eq!(cause.as_deref(), Some("it is no regular file"));
}

#[test]
fn brackets_in_brackets_are_bounded_before_the_parser_sees_them() {
    let nested = |depth: usize| {
        let text = "# [[[[[[[[[[[[[[[[\n".to_owned() + "package a\nx := `[[[[[[\n[[[[[[[[[`\n";
        let brackets = ["[".repeat(depth), "]".repeat(depth)];
        let brackets = brackets.join("\"[[[[[[[[[\\\"[[[[[[[[\"");
        format!("{text}y := {brackets}\n")
    };
    files(&[("a.rego", &nested(12))])
        .and_then(load_any)
        .unwrap();
    let error = files(&[("a.rego", &nested(40))]).and_then(load_any);
    let error = error.unwrap_err();
    assert_eq!(error.code(), "SG0212");
    assert_eq!(
        error.to_string(),
        "a.rego:5: brackets are nested more than 12 deep"
    );
}

fn load_any(sources: PolicySources) -> Result<Policy, PolicyError> {
    let options = PolicyOptions {
        entrypoint: "a/x".to_owned(),
        ..options()
    };
    Policy::load(sources, &options)
}

#[test]
fn a_rule_with_data_in_its_place_is_refused() {
    let policy = "package envoy.authz\n\ndefault allow := false\n\nroles contains 1 if input.x\n";
    for (file, data, refused) in [
        (
            "data.json",
            r#"{"envoy": {"authz": {"allow": true}}}"#,
            "allow",
        ),
        (
            "envoy/data.json",
            r#"{"authz": {"allow": {"x": 1}}}"#,
            "allow",
        ),
        ("envoy/authz/data.json", r#"{"roles": [2]}"#, "roles"),
        (
            "data.json",
            r#"{"envoy": 1}"#,
            "allow\ndata.envoy.authz.roles",
        ),
    ] {
        let sources = files(&[("policy.rego", policy), (file, data)]).unwrap();
        let error = Policy::load(sources, &options()).unwrap_err();
        assert_eq!(error.code(), "SG0292");
        let expected = format!("rules with data in their place:\ndata.envoy.authz.{refused}");
        assert_eq!(error.to_string(), expected);
    }
    let beside = ("envoy/authz/data.json", r#"{"others": [2]}"#);
    let sources = files(&[("policy.rego", policy), beside]).unwrap();
    Policy::load(sources, &options()).unwrap();
}
