//! Everything that is wrong with policy files, all at once and at its place.

use std::fs;
use std::path::{Path, PathBuf};

use sidegate_policy::lint::{CheckReport, check, usable};
use sidegate_policy::{Policy, PolicyFiles, PolicyOptions, PolicySources};
use tempfile::TempDir;

/// Files below a folder of their own.
fn files(files: &[(&str, &str)]) -> (TempDir, PolicyFiles) {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let read = PolicyFiles::read(&[folder.path().to_owned()]).unwrap();
    (folder, read)
}

/// Each finding as `code file:line:column message`, files below `folder`.
fn told(report: &CheckReport, folder: &Path) -> Vec<String> {
    let findings = report.findings.iter().map(|it| {
        let file = it.file.as_ref().map(PathBuf::from);
        let file = file.as_ref().map(|it| it.strip_prefix(folder).unwrap());
        let place = match (file, it.line, it.column) {
            (Some(file), Some(line), Some(column)) => {
                format!("{}:{line}:{column} ", file.display())
            }
            _ => String::new(),
        };
        format!("{} {place}{}", it.code, it.message)
    });
    findings.collect()
}

/// What is found in the body of a module of the package `envoy.authz`.
fn found(body: &str) -> Vec<String> {
    let text = format!("package envoy.authz\n{body}\n");
    let (folder, files) = files(&[("p.rego", &text)]);
    let report = check(&files, &["envoy/authz/allow".to_owned()]);
    told(&report, folder.path())
}

#[test]
fn whatever_is_wrong_is_told_at_once() {
    let (folder, files) = files(&[
        ("data.json", "{\"a\": 1,\n \"b\": }"),
        ("more/data.yaml", "a: [1\nb: 2"),
        ("one.rego", "package one\n\nallow if {\n\tx :=\n}\n"),
        (
            "three.rego",
            "package three\n\nallow if http.send({})\n\nx if elsewhere.f(1)\n",
        ),
        ("two.rego", "package two\n\nallow { true }\n"),
    ]);
    let report = check(&files, &["envoy/authz/allow".to_owned()]);
    assert_eq!((report.modules, report.documents, report.tests), (3, 2, 0));
    let expected = [
        "SG0206 data.json:2:7 this data document does not parse: ",
        "SG0206 more/data.yaml:2:",
        "SG0207 one.rego:4:4 ",
        "SG0211 three.rego:3:10 unknown function `http.send`: ",
        "SG0207 two.rego:3:7 `if` keyword is required before rule body",
    ];
    let told = told(&report, folder.path());
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}\nis not {expected}");
    }
    assert_eq!(usable(&files).unwrap_err().findings.len(), expected.len());
}

#[test]
fn errors_have_a_code_and_a_place() {
    let cases: &[(&str, &[&str])] = &[
        ("allow if 1 < 2", &[]),
        (
            "allow if y == 1\nallow if { z == 2 }\nallow := 1 if {\n\tinput.a\n\tunknown\n}",
            &[
                "SG0208 p.rego:2:10 use of undefined variable `y` is unsafe",
                "SG0208 p.rego:3:12 use of undefined variable `z` is unsafe",
                "SG0208 p.rego:6:2 use of undefined variable `unknown` is unsafe",
            ],
        ),
        (
            "allow if count(1, 2, 3) > startwith(\"a\", \"b\")",
            &[
                "SG0211 p.rego:2:10 `count` takes 1 arguments, 3 are given",
                "SG0211 p.rego:2:27 unknown function `startwith`: did you mean `startswith`?",
            ],
        ),
        (
            "allow if f(1)\nf(x) := g(x)\ng(x) := data.envoy.authz.f(x)",
            &[
                "SG0285 p.rego:3:1 data.envoy.authz.f refers to itself, by data.envoy.authz.g",
                "SG0285 p.rego:4:1 data.envoy.authz.g refers to itself, by data.envoy.authz.f",
            ],
        ),
        (
            "allow if data.envoy.authz[input.rule]",
            &["SG0285 p.rego:2:1 data.envoy.authz.allow refers to itself"],
        ),
        ("allow if data[input.a].b[input.c].allow", &[]),
        (
            "allow if { some a, b, c in input.x }",
            &["SG0207 p.rego:2:23 encountered `c` while expecting `in`"],
        ),
        (
            "import data.a.b\nimport input.c.b\nallow if b.x",
            &["SG0284 p.rego:3:1 the imports data.a.b and input.c.b have the same name"],
        ),
        (
            "allow contains 1\nallow := 2",
            &[
                "SG0208 p.rego:3:1 data.envoy.authz.allow is declared as a set before, and as a value here",
            ],
        ),
        (
            "default allow := input.x",
            &["SG0208 p.rego:2:18 a default's value is fixed, and cannot hold a reference"],
        ),
        (
            "default allow := [x | some x in [1]]\nallow if f(1)\ndefault f(_) := 2",
            &[],
        ),
        (
            "alow if 1 < 2",
            &[
                "SG0283 p.rego:2:1 nothing refers to the rule data.envoy.authz.alow",
                "SG0210 no module declares the rule data.envoy.authz.allow of the entrypoint envoy/authz/allow",
            ],
        ),
        (
            "allow if 1 < 2\n\ntest_allow if {\n\tnot allow\n}\n\ntest_good if allow",
            &[
                "SG0213 p.rego:4:1 the test data.envoy.authz.test_allow fails: undefined: a condition of the test does not hold",
            ],
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(&found(body), expected, "{body}");
    }
}

#[test]
fn what_is_unused_is_warned_of_as_opa_does_under_strict() {
    let cases: &[(&str, &[&str])] = &[
        (
            "import data.a\nimport data.b as c\nimport data.d\nimport rego.v1\nallow if a.x\nallow if f(1) with data.d.x as 1\nf(d) := d",
            &[
                "SG0280 p.rego:3:1 the import data.b is not used",
                "SG0280 p.rego:4:1 the import data.d is not used",
            ],
        ),
        ("import data.a\nallow if f(1) with a.b as 2\nf(1) := 3", &[]),
        (
            "allow if { x := 1; y := {x | x := 2}; y }",
            &["SG0281 p.rego:2:12 the variable `x` is not used"],
        ),
        (
            "allow if { some i; input.a[i] == 1; some k, v in input.b; v }",
            &[],
        ),
        (
            "allow if { some unused; every k, v in input.a { v > 1 }; [one, _] := input.b }",
            &[
                "SG0281 p.rego:2:17 the variable `unused` is not used",
                "SG0281 p.rego:2:31 the variable `k` is not used",
                "SG0281 p.rego:2:59 the variable `one` is not used",
            ],
        ),
        (
            "allow if f(1, [2], 3)\nf(a, [b], c) := c if { a == 1 }",
            &["SG0282 p.rego:3:7 the argument `b` is not used"],
        ),
        ("allow if f(1)\nf(x) := 1 if { false } else := x", &[]),
        (
            "allow if { a := 1; m[a] }\nm[x] := y if { some x, y in input.m }\ns contains x if { x := 1 }",
            &["SG0283 p.rego:4:1 nothing refers to the rule data.envoy.authz.s"],
        ),
        (
            "allow if 1 < 2\nunused if helper\nunused if input.x\nhelper if 1 < 2\ntest_x if 1 < 2\n# METADATA\n# entrypoint: true\nasked if 1 < 2",
            &["SG0283 p.rego:3:1 nothing refers to the rule data.envoy.authz.unused"],
        ),
        (
            "allow if data[input.a].authz.used[input.b].c\nused.x := 1\nother := 2",
            &["SG0283 p.rego:4:1 nothing refers to the rule data.envoy.authz.other"],
        ),
        (
            "allow if walk(data.envoy.authz.tree, [[\"x\"], 1])\ntree.x := 1",
            &[],
        ),
    ];
    for (body, expected) in cases {
        assert_eq!(&found(body), expected, "{body}");
    }
}

#[test]
fn names_lead_back_to_the_files_and_data_to_its_place() {
    let (folder, _) = files(&[
        (
            "p/rules.rego",
            "package envoy.authz\nallow if data.roles.x == data.extra\n",
        ),
        ("p/roles/data.json", "{\"x\": 1}"),
        ("p/.hidden/broken.rego", "nonsense"),
        ("p/ignored.json", "nonsense"),
        ("extra.json", "{\"extra\": 1}"),
        (
            "p/rules_test.rego",
            "package t\ntest_x if data.envoy.authz.allow\n",
        ),
    ]);
    let paths = ["p", "extra.json"].map(|name| folder.path().join(name));
    let files = PolicyFiles::read(&paths).unwrap();
    let report = check(&files, &["envoy/authz/allow".to_owned()]);
    assert_eq!(told(&report, folder.path()), Vec::<String>::new());
    assert_eq!((report.modules, report.documents, report.tests), (2, 2, 1));

    let read = |name: &str| {
        let error = PolicyFiles::read(&[folder.path().join(name)]).unwrap_err();
        error.code()
    };
    assert_eq!(read("missing.rego"), "SG0201");
    assert_eq!(read("p/roles"), "SG0204");
    fs::write(folder.path().join("notes.txt"), "").unwrap();
    assert_eq!(read("notes.txt"), "SG0287");
}

#[test]
fn a_policy_that_would_never_end_is_not_loaded() {
    let module = "package envoy.authz\n\nallow if f(1)\n\nf(x) := f(x)\n";
    let sources = PolicySources::from_modules([("p.rego", module)]).unwrap();
    let error = Policy::load(sources, &PolicyOptions::default()).unwrap_err();
    assert_eq!(error.code(), "SG0285");
    let place = "p.rego:5:1: data.envoy.authz.f refers to itself";
    assert!(error.to_string().contains(place), "{error}");
}

#[test]
fn the_stock_policy_is_without_findings() {
    let report = check(&PolicyFiles::stock(), &["envoy/authz/allow".to_owned()]);
    assert_eq!(report.findings, []);
    assert!(report.tests > 5, "{report:?}");
}
