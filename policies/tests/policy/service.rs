//! Evaluators in service: on threads of their own, counted, and silent.

use std::process::Command;

use crate::common::{connection, evaluator, get, load, options};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sidegate_policy::{Evaluator, Permit, PolicyMetrics, PolicyOptions};

const POLICY: &str = "package envoy.authz\n\nallow if {\n\tsome role in {\"a\", \"b\"}\n\tinput.parsed_path[0] == role\n\tprint(\"printed-by-policy\", input.parsed_path)\n}\n";

#[test]
fn evaluators_move_to_threads_and_decide_there_on_their_own() {
    fn is_send<T: Send>() {}
    is_send::<Evaluator>();
    is_send::<Permit>();

    let policy = load(
        POLICY,
        &PolicyOptions {
            generation: 3,
            ..options()
        },
    )
    .unwrap();
    let metrics = crate::common::metrics();
    let threads: Vec<_> = (0..4)
        .map(|_| policy.evaluator(&metrics).unwrap())
        .map(|mut evaluator| {
            std::thread::spawn(move || {
                for round in 0..200 {
                    // Facts belong to the thread that serves the connection.
                    let connection = connection();
                    assert_eq!(
                        evaluator
                            .decide(&connection, get("/a"))
                            .unwrap()
                            .generation(),
                        3,
                        "{round}"
                    );
                    assert!(evaluator.decide(&connection, get("/c")).is_err(), "{round}");
                }
                evaluator
            })
        })
        .collect();
    let evaluators: Vec<Evaluator> = threads
        .into_iter()
        .map(|thread| thread.join().unwrap())
        .collect();
    assert!(
        evaluators
            .iter()
            .all(|evaluator| evaluator.generation() == 3)
    );
}

#[test]
fn decisions_are_counted_by_verdict_and_reason() {
    let mut registry = Registry::with_prefix("sidegate");
    let metrics = PolicyMetrics::register(&mut registry);
    let policy = load(POLICY, &options()).unwrap();
    let mut first = policy.evaluator(&metrics).unwrap();
    let mut second = policy.evaluator(&metrics).unwrap();
    for path in ["/a", "/b", "/c", "/?a;b"] {
        let _ = first.decide(&connection(), get(path));
        let _ = second.decide(&connection(), get(path));
    }
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for line in [
        r#"sidegate_authz_decisions_total{decision_point="ingress",verdict="allow",reason="policy"} 4"#,
        r#"sidegate_authz_decisions_total{decision_point="ingress",verdict="deny",reason="undefined"} 2"#,
        r#"sidegate_authz_decisions_total{decision_point="ingress",verdict="deny",reason="malformed_request"} 2"#,
        r#"sidegate_authz_decisions_total{decision_point="ingress",verdict="deny",reason="policy"} 0"#,
        r#"sidegate_authz_decisions_total{decision_point="ingress",verdict="deny",reason="timeout"} 0"#,
        r#"sidegate_authz_decisions_total{decision_point="ingress",verdict="deny",reason="evaluation_error"} 0"#,
        r#"sidegate_authz_decisions_total{decision_point="ingress",verdict="deny",reason="invalid_decision"} 0"#,
        "sidegate_authz_duration_seconds_count 8",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(
        text.contains(r#"sidegate_authz_duration_seconds_bucket{le="0.000001"}"#)
            || text.contains("le=\"1e-6\""),
        "{text}"
    );
}

/// The next test runs this one in a process whose output it reads.
#[test]
fn a_policy_prints() {
    assert!(evaluator(POLICY).decide(&connection(), get("/a")).is_ok());
}

#[test]
fn print_in_a_policy_writes_nowhere() {
    let arguments = ["--exact", "service::a_policy_prints", "--nocapture"];
    let output = Command::new(std::env::current_exe().unwrap())
        .args(arguments)
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    assert!(!said.contains("printed-by-policy"), "{said}");
}
