//! Which policies run on the machine, why others do not, and what happens if one should not have.

use std::fmt::Write as _;
use std::time::{Duration, Instant, SystemTime};

use http::Request;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::{Candidate, EngineChoice, InterpreterReason, examine};
use crate::analysis::Analysis;
use crate::engine::Interpreter;
use crate::evaluator::Evaluator;
use crate::input::{ConnectionFacts, ConnectionParameters, RequestFacts};
use crate::machine::Guarded;
use crate::metrics::PolicyMetrics;
use crate::policy::{Policy, PolicyOptions};
use crate::sources::PolicySources;
use crate::syntax::Syntax;

fn load(files: &[(&str, &str)]) -> Policy {
    let files = files
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let options = PolicyOptions {
        decision_timeout: Duration::from_secs(30),
        memory_bytes: 0,
        ..PolicyOptions::default()
    };
    Policy::load(PolicySources::from_files(files).unwrap(), &options).unwrap()
}

/// A policy of these rules.
fn policy(rules: &str) -> Policy {
    let module =
        format!("package envoy.authz\n\nimport input.attributes.request.http as http\n\n{rules}\n");
    load(&[("policy.rego", &module)])
}

fn connection() -> ConnectionFacts {
    ConnectionFacts::new(ConnectionParameters {
        downstream_address: "192.0.2.7:40001".parse().unwrap(),
        local_address: "192.0.2.1:8443".parse().unwrap(),
        source_principal: None,
        source_certificate: None,
        destination_principal: None,
        server_name: None,
        listener: String::new(),
        context_extensions: std::collections::BTreeMap::new(),
    })
}

fn request(path: &str) -> RequestFacts {
    let (head, ()) = Request::get(path).body(()).unwrap().into_parts();
    RequestFacts {
        head,
        scheme: "https".into(),
        host: "orders.example".into(),
        request_id: "1".into(),
        time: SystemTime::UNIX_EPOCH,
        declared_body_bytes: None,
        body: crate::RequestBody::default(),
    }
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

fn text(registry: &Registry) -> String {
    let mut text = String::new();
    encode(&mut text, registry).unwrap();
    text
}

#[test]
fn usual_policies_run_on_the_machine() {
    let bench = |name: &str| format!("{}/../bench/src/policy/{name}", env!("CARGO_MANIFEST_DIR"));
    let bench = |name: &str| std::fs::read_to_string(bench(name)).unwrap();
    let ten_rules = load(&[
        ("policy.rego", &bench("ten_rule.rego")),
        ("policy_test.rego", &bench("ten_rule_test.rego")),
        (
            "data.json",
            r#"{
                "bindings": {"spiffe://bench.test/a": ["reader", "writer"]},
                "roles": {
                    "reader": [{"methods": ["GET"], "path": "/catalog/*/items"}],
                    "writer": [{"methods": ["GET", "POST"], "path": "/orders/7/**"}]
                },
                "teams": {"spiffe://bench.test/a": "team-1"},
                "suspended": {"spiffe://bench.test/suspended": true}
            }"#,
        ),
    ]);
    let rbac = load(&[
        ("policy.rego", &bench("rbac.rego")),
        ("policy_test.rego", &bench("rbac_test.rego")),
        (
            "data.json",
            r#"{"callers": {"spiffe://bench.test/a": ["GET", "POST"]}}"#,
        ),
    ]);
    let many_rules = policy(&(0..60).fold("default allow := false\n".to_owned(), |mut rules, number| {
        let caller = number % 7;
        let _ = write!(
            rules,
            "\nallow if {{\n\tinput.source_principal == \"spiffe://x.test/{caller}\"\n\tinput.parsed_path == [\"orders\", \"{number}\"]\n}}\n"
        );
        rules
    }));
    let stock = Policy::load(PolicySources::stock().unwrap(), &PolicyOptions::default()).unwrap();
    let cases = [
        ("stock", stock, 11),
        ("ten rules", ten_rules, 23),
        ("roles", rbac, 1),
        ("many rules", many_rules, 120),
    ];
    for (name, policy, expected) in cases {
        match policy.engine() {
            EngineChoice::Machine(examined) => {
                assert_eq!(
                    (examined.covered, examined.statements),
                    (expected, expected),
                    "{name}"
                );
                assert!(examined.inputs > 20, "{name}: {examined:?}");
            }
            EngineChoice::Interpreter { because } => panic!("{name}: {because}"),
        }
    }
}

#[test]
fn inputs_are_found_that_reach_what_policies_usually_ask() {
    let cases = [
        (
            "a comparison",
            "allow if { http.method == \"PURGE\"; http.host == \"b\"; input.parsed_path }",
        ),
        (
            "the other way round",
            "allow if { \"PURGE\" == http.method; \"b\" == http.host; input.parsed_path }",
        ),
        (
            "a variable",
            "allow if { method := http.method; method == \"PURGE\"; http.host == \"b\" }",
        ),
        (
            "membership",
            "allow if { http.method in {\"PURGE\", \"TRACE\"}; http.host == \"b\" }",
        ),
        (
            "a member of the path",
            "allow if { \"purge\" in input.parsed_path; http.host == \"b\"; input.parsed_path }",
        ),
        (
            "some",
            "allow if { some part in input.parsed_path; part == \"purge\"; http.host == \"b\" }",
        ),
        (
            "an array",
            "allow if { [\"users\", id] = input.parsed_path; id == \"seven\"; http.host == \"b\" }",
        ),
        (
            "a prefix",
            "allow if { startswith(http.path, \"/purge/\"); http.host == \"b\" }",
        ),
        (
            "a pattern",
            "allow if { glob.match(\"/purge/*/all\", [\"/\"], http.path); http.host == \"b\" }",
        ),
        (
            "a part",
            "allow if { split(http.headers.authorization, \" \")[0] == \"Bearer\"; http.host == \"b\" }",
        ),
        (
            "lower case",
            "allow if { lower(http.headers[\"x-role\"]) == \"purge\"; http.host == \"b\" }",
        ),
        (
            "a number",
            "allow if { http.size > 1000; http.host == \"b\" }",
        ),
        (
            "a query",
            "allow if { input.parsed_query.purge[0] == \"all\"; http.host == \"b\" }",
        ),
        (
            "a rule",
            "purges if http.method == \"PURGE\"\n\nallow if { purges; http.host == \"b\" }",
        ),
        (
            "a function",
            "purges(method, _) if method == \"PURGE\"\n\nallow if { purges(http.method, 1); http.host == \"b\" }",
        ),
        (
            "a function by its argument",
            "may(\"PURGE\", path) if startswith(path, \"/purge\")\n\nallow if { may(http.method, http.path); http.host == \"b\" }",
        ),
        (
            "behind a negation",
            "denied if { http.method == \"PURGE\"; http.host == \"b\"; input.parsed_path[0] == \"x\" }\n\nallow if not denied",
        ),
        (
            "a set of rules",
            "reasons contains \"purge\" if { http.method == \"PURGE\"; http.host == \"b\" }\n\nallow if count(reasons) == 0",
        ),
        (
            "every",
            "allow if { http.method == \"PURGE\"; every part in input.parsed_path { part != \"\"; part == \"x\"; http.host == \"b\" } }",
        ),
    ];
    for (name, rules) in cases {
        let engine = policy(rules).engine();
        assert!(
            matches!(engine, EngineChoice::Machine(_)),
            "{name}: {engine}"
        );
    }
}

#[test]
fn the_interpreter_stays_for_a_reason() {
    let cases = [
        (
            "with",
            "allow if http.path == \"/\" with input.x as 1",
            "with",
        ),
        (
            "helpers that contradict each other",
            "level := 1 if http.method == \"GET\"\n\nlevel := 2 if http.host == \"a\"\n\nallow if not level == 1",
            "`data.envoy.authz.level` could contradict",
        ),
        (
            "answers that contradict each other",
            "allow if input.parsed_path[0] == \"ok\"\n\nallow := false if input.parsed_path[1] == \"both\"",
            "the machine answers undefined instead of an error",
        ),
        (
            "a loop before else",
            "role := \"a\" if { some part in input.parsed_path; part == \"a\" } else := \"b\"\n\nallow if role == \"b\"",
            "`else` from the loop at policy.rego:5:",
        ),
        (
            "the default of a function",
            "default role(_) := \"b\"\n\nrole(x) := x if x != \"c\"\n\nallow if role(http.method) == \"b\"",
            "the default of a function at policy.rego:5:",
        ),
        (
            "what nothing reaches",
            "allow if {\n\tbase64.decode(http.headers[\"x-code\"]) == \"open\"\n\thttp.method == \"GET\"\n}",
            "no input reached policy.rego:7 (1 of 2 statements were); add a test",
        ),
    ];
    for (name, rules, expected) in cases {
        let said = policy(rules).engine().to_string();
        assert!(said.starts_with("the interpreter: "), "{name}: {said}");
        assert!(said.contains(expected), "{name}: {said}");
    }
}

#[test]
fn a_test_reaches_what_no_guess_does() {
    let rules = "package envoy.authz\n\nallow if {\n\tcode := input.attributes.request.http.headers[\"x-code\"]\n\tbase64.decode(code) == \"open\"\n\tinput.attributes.request.http.method == \"GET\"\n}\n";
    let tests = [
        (
            "directly",
            "test_x if authz.allow with input as asked(\"b3Blbg==\")",
        ),
        (
            "with a variable",
            "test_x if {\n\tcode := \"b3Blbg==\"\n\tauthz.allow with input as asked(code)\n}",
        ),
        (
            "in a loop",
            "test_x if every code in [\"b3Blbg==\"] { authz.allow with input as asked(code) }",
        ),
        (
            "in a helper",
            "allowed(code) if authz.allow with input as asked(code)\n\ntest_x if allowed(\"b3Blbg==\")",
        ),
        (
            "what is denied",
            "test_x if not authz.allow with input as object.union(asked(\"b3Blbg==\"), {\"attributes\": {\"request\": {\"http\": {\"method\": \"PUT\"}}}})",
        ),
    ];
    let helper = "asked(code) := {\"attributes\": {\"request\": {\"http\": {\"method\": \"GET\", \"headers\": {\"x-code\": code}}}}}";
    assert!(matches!(
        load(&[("a.rego", rules)]).engine(),
        EngineChoice::Interpreter { .. }
    ));
    for (name, test) in tests {
        let tests =
            format!("package envoy.authz_test\n\nimport data.envoy.authz\n\n{helper}\n\n{test}\n");
        let engine = load(&[("a.rego", rules), ("a_test.rego", &tests)]).engine();
        assert!(
            matches!(engine, EngineChoice::Machine(_)),
            "{name}: {engine}"
        );
    }
}

/// The machine alone would answer otherwise to each of these.
#[test]
fn what_has_no_value_is_no_yes_on_the_machine() {
    let cases = [
        (
            "a variable",
            "allow if { role := lower(http.headers[\"x-role\"]); not role == \"guest\" }",
        ),
        (
            "two variables",
            "allow if { [role, _] := split(http.headers[\"x-role\"], \",\"); not role == \"guest\" }",
        ),
        (
            "without braces",
            "fits(x) if y := lower(x)\n\nallow if fits(http.headers[\"x-role\"])",
        ),
        (
            "in a list",
            "allow if count([x | some part in input.parsed_path; x := data.nothing[part]]) > 0",
        ),
        (
            "a member of a list",
            "names := {\"a\": 1}\n\nallow if count([names[part] | some part in input.parsed_path]) != 1",
        ),
        (
            "a member of a set",
            "names := {\"a\": 1}\n\nallow if count({names[part] | some part in input.parsed_path}) != 1",
        ),
        (
            "before else",
            "role := http.headers[\"x-role\"] if http.method == \"GET\" else := \"none\"\n\nallow if not role == \"none\"",
        ),
        (
            "an argument under not",
            "allow if not startswith(http.headers[\"x-role\"], \"guest\")",
        ),
        (
            "an index under not",
            "banned := {\"eve\": true}\n\nallow if not banned[http.headers[\"x-role\"]]",
        ),
        (
            "a member under not",
            "allow if not http.headers[\"x-role\"] in {\"guest\", \"eve\"}",
        ),
        (
            "a comparison under not",
            "allow if not http.headers[\"x-role\"] > \"guest\"",
        ),
        (
            "an argument of the policy's own function under not",
            "bad(role) if role == \"guest\"\n\nallow if not bad(http.headers[\"x-role\"])",
        ),
    ];
    for (name, rules) in cases {
        let policy = policy(rules);
        let engine = policy.engine();
        assert!(
            matches!(engine, EngineChoice::Machine(_)),
            "{name}: {engine}"
        );
        let metrics = PolicyMetrics::register(&mut Registry::default());
        let mut evaluator = policy.evaluator(&metrics).unwrap();
        let denied = evaluator.decide(&connection(), request("/a/b"));
        assert!(denied.is_err(), "{name}");
    }
}

#[test]
fn a_program_of_another_policy_is_found_out() {
    let right = "package envoy.authz\n\nallow if {\n\tinput.parsed_path[0] == \"a\"\n\tinput.parsed_path[1] == \"b\"\n}\n";
    let wrongs = [
        (
            "a condition less",
            "package envoy.authz\n\nallow if input.parsed_path[0] == \"a\"\n",
        ),
        (
            "another value",
            "package envoy.authz\n\nallow := 1 if {\n\tinput.parsed_path[0] == \"a\"\n\tinput.parsed_path[1] == \"b\"\n}\n",
        ),
        (
            "undefined is not false",
            "package envoy.authz\n\ndefault allow := false\n\nallow if {\n\tinput.parsed_path[0] == \"a\"\n\tinput.parsed_path[1] == \"b\"\n}\n",
        ),
        (
            "absent is not undefined",
            "package envoy.authz\n\nallow if input.parsed_path[1] == \"b\"\n",
        ),
    ];
    let sources = PolicySources::from_modules([("policy.rego", right)]).unwrap();
    let interpreter = Interpreter::parse(&sources, Duration::from_secs(30)).unwrap();
    let trees = interpreter.syntax().unwrap();
    let syntax = Syntax::new(&trees, &sources);
    let entrypoint = ["envoy", "authz", "allow"].map(str::to_owned);
    let analysis = Analysis::new(&syntax, &entrypoint);
    for (name, wrong) in wrongs {
        let engine = examine(&Candidate {
            sources: &sources,
            guarded: &Guarded::from([("policy.rego".to_owned(), wrong.to_owned())]),
            syntax: &syntax,
            analysis: &analysis,
            entrypoint: &entrypoint,
            rule: "data.envoy.authz.allow",
            asking: None,
        });
        let EngineChoice::Interpreter {
            because:
                InterpreterReason::Difference {
                    input,
                    machine,
                    interpreter,
                },
        } = engine
        else {
            panic!("{name}: {engine}");
        };
        assert!(input.contains("input.parsed_path[0] = "), "{name}: {input}");
        assert_ne!(machine, interpreter, "{name}");
    }
}

#[test]
fn a_machine_that_answers_wrongly_in_service_is_given_up() {
    let right = policy("default allow := false\n\nallow if input.parsed_path[0] == \"a\"");
    let wrong = policy("default allow := false\n\nallow if input.parsed_path[0] != \"a\"");
    let mut registry = Registry::with_prefix("sidegate");
    let metrics = PolicyMetrics::register(&mut registry);
    let wrong_machine = || wrong.machine();
    let mut first = Evaluator::with_machine(right.clone(), wrong_machine(), &metrics).unwrap();
    let mut second = Evaluator::with_machine(right.clone(), wrong_machine(), &metrics).unwrap();
    for number in 0..super::recheck::ONE_IN {
        assert!(
            first.decide(&connection(), request("/a")).is_err(),
            "{number}"
        );
    }
    until("the machine is given up", || right.is_disproved());
    for evaluator in [&mut first, &mut second] {
        assert!(evaluator.decide(&connection(), request("/a")).is_ok());
        assert!(evaluator.decide(&connection(), request("/b")).is_err());
    }
    let because = InterpreterReason::Disproved;
    assert_eq!(right.engine(), EngineChoice::Interpreter { because });
    assert!(right.machine().is_none());
    let line = "sidegate_policy_rechecks_total{result=\"different\"} 1\n";
    assert!(text(&registry).contains(line), "{}", text(&registry));
}

#[test]
fn a_right_machine_is_checked_until_its_last_evaluator_is_gone() {
    let policy = policy("default allow := false\n\nallow if input.parsed_path[0] == \"a\"");
    let mut registry = Registry::with_prefix("sidegate");
    let metrics = PolicyMetrics::register(&mut registry);
    let mut evaluators = [(); 2].map(|()| policy.evaluator(&metrics).unwrap());
    for evaluator in &mut evaluators {
        for _ in 0..super::recheck::ONE_IN {
            let _ = evaluator.decide(&connection(), request("/a"));
        }
    }
    let line = "sidegate_policy_rechecks_total{result=\"same\"} 2\n";
    until("both are checked", || text(&registry).contains(line));
    assert!(matches!(policy.engine(), EngineChoice::Machine(_)));
    // Both evaluators, the one thread, and this.
    assert_eq!(policy.holders(), 4);
    drop(evaluators);
    until("the thread has ended", || policy.holders() == 1);
}

#[test]
fn the_choice_has_a_form_for_status_pages() {
    let machine = policy("allow if http.method == \"GET\"").engine();
    let machine = serde_json::to_value(machine).unwrap();
    assert_eq!(machine.get("engine"), Some(&"machine".into()));
    assert_eq!(machine.get("statements"), Some(&1.into()));
    let interpreter = policy("allow if http.path == \"/\" with input.x as 1").engine();
    let interpreter = serde_json::to_value(interpreter).unwrap();
    assert_eq!(interpreter.get("engine"), Some(&"interpreter".into()));
    assert_eq!(
        interpreter.pointer("/because/reason"),
        Some(&"no-program".into())
    );
}
