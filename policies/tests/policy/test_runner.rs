//! The policy's own tests, as `opa test` runs them.

use sidegate_policy::test_runner::{
    CaseResult, TestOptions, TestReport, run_tests, run_tests_with,
};
use sidegate_policy::{PolicyError, PolicySources};

fn run(module: &str) -> Result<TestReport, PolicyError> {
    run_tests(&PolicySources::from_modules([(
        "policy_test.rego",
        module,
    )])?)
}

#[test]
fn a_test_passes_only_if_it_is_true() {
    let cases = [
        ("a condition that holds", "test_x if 1 < 2", None),
        (
            "a condition that does not",
            "test_x if 1 > 2",
            Some("undefined"),
        ),
        ("true", "test_x := true", None),
        ("false", "test_x := false", Some("false")),
        ("a number", "test_x := 1", Some("not a boolean")),
        (
            "a default",
            "default test_x := false\n\ntest_x if 1 < 2",
            None,
        ),
        (
            "a default that stays",
            "default test_x := false\n\ntest_x if 1 > 2",
            Some("false"),
        ),
        (
            "a contradiction",
            "f(x) := 1 if x\n\nf(x) := 2 if x\n\ntest_x if f(true)",
            Some("policy_test.rego:"),
        ),
        (
            "cases that hold",
            "test_x[case] if some case in [1, 2]",
            None,
        ),
        (
            "cases of which one does not",
            "test_x[case] if { some case in [1, 2]; case < 2 }",
            Some("one of its cases"),
        ),
        ("no case", "test_x[case] if some case in []", None),
        ("a set", "test_x contains 1", Some("not a boolean")),
        (
            "input replaced",
            "test_x if input.a == 1 with input as {\"a\": 1}",
            None,
        ),
        (
            "a function replaced",
            "now := time.now_ns()\n\ntest_x if now == 1 with time.now_ns as 1",
            None,
        ),
        (
            "data replaced",
            "test_x if data.a.b == 1 with data.a.b as 1",
            None,
        ),
        ("a name with a dot", "test_x.y if 1 < 2", None),
    ];
    for (name, rules, failure) in cases {
        let report = run(&format!("package policy_test\n\n{rules}\n")).unwrap();
        assert_eq!(report.results.len(), 1, "{name}: {report:?}");
        let result = report.results.first().unwrap();
        assert_eq!(result.passed, failure.is_none(), "{name}: {result:?}");
        assert_eq!(report.passed(), result.passed, "{name}");
        match failure {
            None => assert_eq!(result.failure, None, "{name}"),
            Some(part) => assert!(
                result
                    .failure
                    .as_ref()
                    .is_some_and(|text| text.contains(part)),
                "{name}: {result:?}"
            ),
        }
    }
}

#[test]
fn what_is_no_test_is_not_run() {
    let rules = "todo_x if 1 > 2\n\ntest(x) := x\n\ntest_helper(x) := x\n\nmy_test_x if 1 > 2\n\ntests := 1";
    assert_eq!(
        run(&format!("package policy_test\n\n{rules}\n")).unwrap(),
        TestReport::default()
    );
}

#[test]
fn one_test_does_not_disturb_the_next() {
    let rules = "f(x) := 1 if x\n\nf(x) := 2 if x\n\ntest_1 if f(true) with input as {\"a\": 1} with data.a as 1\n\ntest_2 if not input.a\n\ntest_3 if not data.a\n\ntest_4 if { print(\"said\"); input.b }";
    let report = run(&format!("package policy_test\n\n{rules}\n")).unwrap();
    let passed: Vec<_> = report
        .results
        .iter()
        .map(|result| (result.name.as_str(), result.passed))
        .collect();
    assert_eq!(
        passed,
        [
            ("data.policy_test.test_1", false),
            ("data.policy_test.test_2", true),
            ("data.policy_test.test_3", true),
            ("data.policy_test.test_4", false),
        ]
    );
    assert_eq!(
        report.results.last().unwrap().prints,
        ["policy_test.rego:13: said"]
    );
}

#[test]
fn each_declaration_of_a_name_is_a_test_of_its_own() {
    let rules = "test_x if 1 < 2\n\ntest_x if 1 > 2\n\nin.test_y if 1 < 2\n\nin.test_y if { print(\"said\"); 1 > 2 }\n\ntest_z[x] if { some x in [1, 2] }\n\ntest_z[x] if { some x in [3, 4]; x > 3 }".replace("in.", "inner.");
    let report = run(&format!("package policy_test\n\n{rules}\n")).unwrap();
    let found: Vec<_> = report
        .results
        .iter()
        .map(|result| {
            let name = result.name.strip_prefix("data.policy_test.").unwrap();
            (name, result.line, result.passed)
        })
        .collect();
    assert_eq!(
        found,
        [
            ("test_x", 3, true),
            ("test_x#01", 5, false),
            ("inner.test_y", 7, true),
            ("inner.test_y#01", 9, false),
            ("test_z", 11, true),
            ("test_z#01", 13, false),
        ]
    );
    assert_eq!(report.results[3].prints, ["policy_test.rego:9: said"]);
    let counts = report.counts();
    assert_eq!((counts.passed, counts.failed, counts.skipped), (5, 3, 0));
}

/// The cases and verdicts of the only test, those within others as `a/b`.
fn cases(rule: &str) -> Result<Vec<(String, bool)>, String> {
    fn add(prefix: &str, cases: &[CaseResult], found: &mut Vec<(String, bool)>) {
        for case in cases {
            let name = format!("{prefix}{}", case.name);
            add(&format!("{name}/"), &case.cases, found);
            found.push((name, case.passed));
        }
    }
    let module = format!(
        "package policy_test\n\nimport data.policy_test.known\n\nknown := [1, 2]\n\n{rule}\n"
    );
    let result = run(&module).unwrap().results.into_iter().next().unwrap();
    let mut found = Vec::new();
    add("", &result.cases, &mut found);
    found.sort();
    assert_eq!(result.passed, result.failure.is_none());
    match (&result.failure, result.cases.iter().all(|case| case.passed)) {
        (Some(failure), true) => Err(failure.clone()),
        _ => Ok(found),
    }
}

#[test]
fn a_case_that_does_not_hold_is_told_from_one_that_is_not_there() {
    let yes = |name: &str| (name.to_owned(), true);
    let no = |name: &str| (name.to_owned(), false);
    for (rule, expected) in [
        (
            "test_x[tc.note] if {\n\tsome tc in [{\"note\": \"a\", \"n\": 1}, {\"note\": \"b\", \"n\": 2}]\n\ttc.n == 1\n}",
            vec![yes("a"), no("b")],
        ),
        (
            "test_x[name] if { some n in known; name := sprintf(\"n%d\", [n]); n == 1 }",
            vec![yes("n1"), no("n2")],
        ),
        (
            "test_x[a][b] if { some a in [\"x\", \"y\"]; some b in known; a == \"x\" }",
            vec![
                yes("x"),
                yes("x/1"),
                yes("x/2"),
                no("y"),
                no("y/1"),
                no("y/2"),
            ],
        ),
        (
            "test_x[name] := holds if { some name, holds in {\"a\": true, \"b\": false, \"c\": 1} }",
            vec![yes("a"), no("b"), no("c")],
        ),
        (
            "test_x[n] if { some n in known; data.m == n with data.m as 2 with input as {\"a\": \"b\"} }",
            vec![no("1"), yes("2")],
        ),
        ("test_x[n] if some n in known", vec![yes("1"), yes("2")]),
        ("test_x[\"fixed\"] if 1 < 2", vec![]),
    ] {
        assert_eq!(cases(rule), Ok(expected), "{rule}");
    }
}

#[test]
fn a_filter_chooses_tests_and_those_to_be_written_are_shown() {
    let module = "package policy_test\n\ntest_one if 1 < 2\n\ntest_two if 1 < 2\n\ntodo_test_three if 1 > 2\n";
    let sources = PolicySources::from_modules([("policy_test.rego", module)]).unwrap();
    let run = |filter: &dyn Fn(&str) -> bool| {
        let options = TestOptions {
            filter: Some(filter),
            coverage: false,
        };
        run_tests_with(&sources, &options).unwrap()
    };
    let report = run(&|name| name.ends_with("_two"));
    assert_eq!(report.results.len(), 1);
    assert_eq!(report.results[0].name, "data.policy_test.test_two");

    let report = run(&|_| true);
    assert!(report.passed());
    let counts = report.counts();
    assert_eq!((counts.passed, counts.failed, counts.skipped), (2, 0, 1));
    assert!(report.results[2].skipped);
    assert_eq!(report.results[2].name, "data.policy_test.todo_test_three");
}

#[test]
fn coverage_says_which_lines_were_evaluated() {
    let policy = "package a\n\ndefault x := 1\n\nx := 2 if {\n\tinput.one\n\tinput.two\n}\n\ny if {\n\tinput.y\n} else := 3 if {\n\tsome n in [\n\t\t4,\n\t]\n\tn == input.n\n}\n";
    let other = "package b\n\nz if input.z\n";
    let test = "package t\n\nimport data.a\n\ntest_x if {\n\ta.x == 1 with input as {\"one\": 1}\n}\n\nfails(x) := 1 if x\n\nfails(x) := 2 if x\n\ntest_contradiction if fails(true)\n";
    let sources =
        PolicySources::from_modules([("a.rego", policy), ("b.rego", other), ("t.rego", test)]);
    let options = TestOptions {
        filter: None,
        coverage: true,
    };
    let report = run_tests_with(&sources.unwrap(), &options).unwrap();
    let coverage = report.coverage.unwrap();
    let lines: Vec<_> = coverage
        .files
        .iter()
        .map(|file| {
            (
                file.file.as_str(),
                file.covered.as_slice(),
                file.not_covered.as_slice(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            ("a.rego", &[3, 6, 7][..], &[5, 11, 13, 14, 16][..]),
            ("b.rego", &[], &[3]),
            ("t.rego", &[6, 9, 11, 13], &[]),
        ]
    );
    assert_eq!((coverage.covered_lines, coverage.not_covered_lines), (7, 6));
    assert!((coverage.coverage - 100.0 * 7.0 / 13.0).abs() < 1e-9);
}

#[test]
fn tests_that_call_what_the_engine_lacks_are_not_run() {
    let error = run("package policy_test\n\ntest_x if http.send({})\n").unwrap_err();
    assert!(
        matches!(error, PolicyError::UnsupportedCalls { .. }),
        "{error}"
    );
}
