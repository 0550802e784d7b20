//! One rule is asked, with an input.

use std::cell::Cell;
use std::time::Duration;

use serde_json::{Value, json};
use sidegate_policy::question::{
    BenchLimits, DecisionPoint, InputDocument, Question, QuestionOptions, Verdict, bench,
    suggestion,
};
use sidegate_policy::{PolicyError, PolicySources};

const RULES: &str = r#"
package a.b

default allow := false

allow if input.user == "root"

roles contains role if some role in input.roles

by_name[name] := size if some name, size in input.sizes

nested.one := 1

nested[name].two := 2 if some name in ["x"]

f(x) := x

undefined if input.absent

contradiction := x if some x in [1, 2]

number := to_number("x")

said if print("said", input.user)

endless if {
    some a in numbers.range(1, 1000)
    some b in numbers.range(1, 1000)
    some c in numbers.range(1, 1000)
    a * b * c < 0
}
"#;

fn sources(module: &str) -> PolicySources {
    PolicySources::from_files([
        ("a.rego".to_owned(), module.to_owned()),
        ("x/data.json".to_owned(), r#"{"y": {"z": [1]}}"#.to_owned()),
    ])
    .unwrap()
}

fn options(entrypoint: &str) -> QuestionOptions {
    QuestionOptions {
        entrypoint: entrypoint.to_owned(),
        strict_builtin_errors: false,
        time_limit: Duration::from_secs(30),
    }
}

fn input() -> InputDocument {
    InputDocument::parse(
        r#"{"user": "root", "roles": ["b", "a"], "sizes": {"big": 2, "small": 1}}"#,
    )
    .unwrap()
}

#[test]
fn rules_packages_data_and_their_parts_can_be_asked() {
    let cases: &[(&str, Option<Value>)] = &[
        ("a/b/allow", Some(json!(true))),
        ("data.a.b.allow", Some(json!(true))),
        ("data.a.b.roles", Some(json!(["a", "b"]))),
        ("a/b/by_name", Some(json!({"big": 2, "small": 1}))),
        ("a/b/by_name/big", Some(json!(2))),
        ("data.a.b.nested", Some(json!({"one": 1, "x": {"two": 2}}))),
        ("data.a.b.nested.one", Some(json!(1))),
        ("data.a.b.nested[\"x\"].two", Some(json!(2))),
        ("data.a.b.undefined", None),
        ("data.a.b.number", None),
        ("data.x.y.z", Some(json!([1]))),
        ("x", Some(json!({"y": {"z": [1]}}))),
    ];
    for (entrypoint, expected) in cases {
        let mut question = Question::new(sources(RULES), options(entrypoint)).unwrap();
        let answer = question.ask(&input()).unwrap();
        assert_eq!(&answer.value, expected, "{entrypoint}");
        // What was asked before leaves nothing behind.
        let answer = question.ask(&InputDocument::none()).unwrap();
        assert_ne!(answer.value, Some(json!(true)), "{entrypoint}");
    }
}

#[test]
fn what_cannot_be_asked_is_said_with_what_was_likely_meant() {
    let sources = sources(RULES);
    for (entrypoint, code, meant) in [
        ("a/b/alow", "SG0210", Some("a/b/allow")),
        ("data.a.b.rolls", "SG0210", Some("data.a.b.roles")),
        ("data.somewhere.entirely.different", "SG0210", None),
        ("a/b/f", "SG0210", None),
        ("data.a..b", "SG0209", None),
    ] {
        let asked = Question::new(sources.clone(), options(entrypoint));
        let error = asked.err().unwrap();
        assert_eq!(error.code(), code, "{entrypoint}");
        if matches!(error, PolicyError::EntrypointMissing { .. }) && meant.is_some() {
            assert_eq!(suggestion(&sources, entrypoint).as_deref(), meant);
        }
    }
}

#[test]
fn an_evaluation_that_fails_is_an_error_and_the_next_one_is_not() {
    let mut question = Question::new(sources(RULES), options("a/b/contradiction")).unwrap();
    for _ in 0..2 {
        assert_eq!(question.ask(&input()).unwrap_err().code(), "SG0223");
    }
    let mut strict = options("a/b/number");
    strict.strict_builtin_errors = true;
    let mut question = Question::new(sources(RULES), strict).unwrap();
    assert_eq!(question.ask(&input()).unwrap_err().code(), "SG0223");

    let mut short = options("a/b/endless");
    short.time_limit = Duration::from_millis(50);
    let mut question = Question::new(sources(RULES), short).unwrap();
    assert_eq!(question.ask(&input()).unwrap_err().code(), "SG0222");
}

#[test]
fn prints_belong_to_their_answer() {
    let mut question = Question::new(sources(RULES), options("a/b/said")).unwrap();
    for _ in 0..2 {
        let answer = question.ask(&input()).unwrap();
        assert_eq!(answer.prints, ["a.rego:24: said root"]);
    }
}

#[test]
fn an_answer_is_taken_as_its_decision_point_takes_it() {
    use DecisionPoint::{Admit, Connect, Egress, Ingress};
    let cases: &[(&str, &[DecisionPoint], Option<&str>)] = &[
        ("true", &DecisionPoint::ALL, None),
        ("false", &DecisionPoint::ALL, Some("SG0220")),
        ("{\"allowed\": true}", &DecisionPoint::ALL, None),
        ("{\"allowed\": false}", &DecisionPoint::ALL, Some("SG0220")),
        (
            "{\"allowed\": \"true\"}",
            &DecisionPoint::ALL,
            Some("SG0224"),
        ),
        ("{}", &DecisionPoint::ALL, Some("SG0224")),
        ("1", &DecisionPoint::ALL, Some("SG0224")),
        ("null", &DecisionPoint::ALL, Some("SG0224")),
        ("input.absent", &DecisionPoint::ALL, Some("SG0221")),
        (
            "{\"allowed\": true, \"http_status\": 200}",
            &[Ingress, Egress],
            None,
        ),
        (
            "{\"allowed\": true, \"http_status\": 200}",
            &[Connect, Admit],
            Some("SG0224"),
        ),
        (
            "{\"allowed\": true, \"reason\": \"x\"}",
            &DecisionPoint::ALL,
            None,
        ),
    ];
    for (value, points, code) in cases {
        let module = format!("package a\n\nallow := {value}\n");
        let mut question = Question::new(sources(&module), options("a/allow")).unwrap();
        let answer = question.ask(&input()).unwrap();
        for point in *points {
            let judgement = point.judge(&answer);
            assert_eq!(judgement.code, *code, "{value} at {point:?}");
            let allowed = judgement.verdict == Verdict::Allow;
            assert_eq!(allowed, code.is_none(), "{value} at {point:?}");
            assert_eq!(judgement.reason.is_some(), code.is_some());
        }
    }
}

#[test]
fn input_that_is_no_json_is_refused_at_its_place() {
    for (text, place) in [
        ("{\"a\": 1,\n  b}", Some((2, 3))),
        ("", Some((1, 1))),
        ("{} {}", Some((1, 4))),
    ] {
        assert_eq!(
            InputDocument::parse(text).unwrap_err().place,
            place,
            "{text}"
        );
    }
}

#[test]
fn a_bench_ends_by_its_count_or_its_time_and_its_times_are_in_order() {
    let mut question = Question::new(sources(RULES), options("a/b/allow")).unwrap();
    let clock = Cell::new(Duration::ZERO);
    let cpu_time = || clock.replace(clock.get() + Duration::from_micros(50));
    let limits = BenchLimits {
        evaluations: 25,
        time: Duration::from_secs(60),
    };
    let report = bench(&mut question, &input(), limits, &cpu_time).unwrap();
    assert_eq!(report.evaluations, 25);
    assert_eq!(report.cpu_ns, 2_000);
    let times = [report.p50_ns, report.p90_ns, report.p99_ns, report.max_ns];
    assert!(
        times.is_sorted() && report.mean_ns <= report.max_ns,
        "{report:?}"
    );

    let limits = BenchLimits {
        evaluations: usize::MAX,
        time: Duration::from_millis(1),
    };
    let report = bench(&mut question, &input(), limits, &cpu_time).unwrap();
    assert!(report.evaluations > 0);
}
