//! The policy's own tests, as `opa test` runs them.

use sidegate_policy::test_runner::{TestReport, run_tests};
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
            "two declarations",
            "test_x if 1 < 2\n\ntest_x if 1 > 2",
            Some("more than once"),
        ),
        (
            "cases",
            "test_x[case] if some case in [1, 2]",
            Some("cannot be judged"),
        ),
        ("a set", "test_x contains 1", Some("cannot be judged")),
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
    let rules = "todo_test_x if 1 > 2\n\ntest(x) := x\n\ntest_helper(x) := x\n\nmy_test_x if 1 > 2\n\ntests := 1";
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
fn tests_that_call_what_the_engine_lacks_are_not_run() {
    let error = run("package policy_test\n\ntest_x if http.send({})\n").unwrap_err();
    assert!(
        matches!(error, PolicyError::UnsupportedCalls { .. }),
        "{error}"
    );
}
