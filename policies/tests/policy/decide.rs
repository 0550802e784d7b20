//! What becomes of a policy's answer: a permit or a denial.

use std::time::Duration;

use crate::common::{connection, evaluator, get, load, options, request};
use http::{HeaderMap, Request, StatusCode};
use sidegate_policy::{DecisionError, Denial, DenialReason, Permit, PolicyOptions};

/// Asks a policy whose `allow` is `value` about `GET /`.
fn answer(value: &str) -> Result<Permit, Box<Denial>> {
    let module = format!("package envoy.authz\n\nallow := {value}\n");
    evaluator(&module).decide(&connection(), get("/"))
}

/// Headers as lines, in the order of their names.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let text = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        format!("{name}: {}", value.to_str().unwrap())
    };
    let mut lines: Vec<String> = headers.iter().map(text).collect();
    lines.sort();
    lines
}

#[test]
fn an_allowed_request_is_forwarded_with_the_policys_edits() {
    let cases: &[(&str, &str, &[&str], &[&str])] = &[
        (
            "true",
            "true",
            &["x-old: 1", "x-old: 2", "x-role: guest"],
            &[],
        ),
        (
            "an object",
            r#"{"allowed": true}"#,
            &["x-old: 1", "x-old: 2", "x-role: guest"],
            &[],
        ),
        (
            "a header replaces all values of its name",
            r#"{"allowed": true, "headers": {"X-Old": "3", "x-new": "n"}}"#,
            &["x-new: n", "x-old: 3", "x-role: guest"],
            &[],
        ),
        (
            "a list of values sets all of them",
            r#"{"allowed": true, "headers": {"x-old": ["3", "4"]}}"#,
            &["x-old: 3", "x-old: 4", "x-role: guest"],
            &[],
        ),
        (
            "a list of objects sets all of them",
            r#"{"allowed": true, "headers": [{"x-old": "3"}, {"x-old": "4"}, {"x-a": "5"}]}"#,
            &["x-a: 5", "x-old: 3", "x-old: 4", "x-role: guest"],
            &[],
        ),
        (
            "removing comes last",
            r#"{"allowed": true, "headers": {"x-new": "n"}, "request_headers_to_remove": ["X-Old", "x-new", "absent"]}"#,
            &["x-role: guest"],
            &[],
        ),
        (
            "a set is a list",
            r#"{"allowed": true, "request_headers_to_remove": {"x-old", "x-role"}}"#,
            &[],
            &[],
        ),
        (
            "headers for the response",
            r#"{"allowed": true, "response_headers_to_add": {"x-decided": ["a", "b"]}}"#,
            &["x-old: 1", "x-old: 2", "x-role: guest"],
            &["x-decided: a", "x-decided: b"],
        ),
        (
            "what is for denials is left out",
            r#"{"allowed": true, "http_status": 404, "body": "no"}"#,
            &["x-old: 1", "x-old: 2", "x-role: guest"],
            &[],
        ),
    ];
    for (name, value, expected, expected_response) in cases {
        let module = format!("package envoy.authz\n\nallow := {value}\n");
        let builder = Request::get("/")
            .header("x-old", "1")
            .header("x-old", "2")
            .header("x-role", "guest");
        let permit = evaluator(&module)
            .decide(&connection(), request(builder))
            .unwrap();
        assert_eq!(
            permit.head().headers.len(),
            3,
            "{name}: the permit holds the head as it was decided"
        );
        let decision_id = permit.decision_id();
        let forwardable = permit.into_forwardable();
        assert_eq!(lines(&forwardable.head.headers), *expected, "{name}");
        assert_eq!(
            lines(&forwardable.response_headers_to_add),
            *expected_response,
            "{name}"
        );
        assert_eq!(
            (forwardable.decision_id, forwardable.generation),
            (decision_id, 7),
            "{name}"
        );
    }
}

#[test]
fn keys_that_opa_envoy_does_not_know_are_left_out() {
    for value in [
        r#"{"allowed": true, "reason": "because", "x": {"y": [1]}}"#,
        r#"{"allowed": true, 1: 2, null: 3}"#,
        r#"{"allowed": true, "Headers": 1, "http-status": "x"}"#,
    ] {
        let forwardable = answer(value).unwrap().into_forwardable();
        assert_eq!(forwardable.head.headers, HeaderMap::new(), "{value}");
    }
}

#[test]
fn the_query_is_forwarded_with_the_policys_edits() {
    let value = r#"{
        "allowed": true,
        "query_parameters_to_set": {"role": ["x", "guest"], "added": "J%C3%BCrgen"},
        "query_parameters_to_remove": ["debug", "added2"],
    }"#;
    let module = format!("package envoy.authz\n\nallow := {value}\n");
    let permit = evaluator(&module)
        .decide(
            &connection(),
            get("/orders?role=admin&q=%2F&debug=1&%72ole=king&de%62ug=2"),
        )
        .unwrap();
    let decided = "/orders?role=admin&q=%2F&debug=1&%72ole=king&de%62ug=2";
    assert_eq!(permit.head().uri, decided);
    let forwarded = permit.into_forwardable().head.uri;
    assert_eq!(forwarded, "/orders?q=%2F&added=J%C3%BCrgen&role=guest");
}

#[test]
fn dynamic_metadata_is_told_whatever_the_verdict() {
    for allowed in [true, false] {
        let value = format!(
            r#"{{"allowed": {allowed}, "dynamic_metadata": {{"tier": "gold", "tags": {{"b", "a"}}, "n": {{1: [null, 0.5]}}}}}}"#
        );
        let metadata = match answer(&value) {
            Ok(permit) => permit.dynamic_metadata().cloned(),
            Err(denial) => denial.dynamic_metadata,
        };
        let expected =
            serde_json::json!({"tier": "gold", "tags": ["a", "b"], "n": {"1": [null, 0.5]}});
        assert_eq!(metadata.map(serde_json::Value::Object), Some(expected));
    }
    assert_eq!(answer("true").unwrap().dynamic_metadata(), None);
    assert_eq!(answer("false").unwrap_err().dynamic_metadata, None);
}

#[test]
fn a_denied_request_gets_the_policys_response() {
    let cases: &[(&str, &str, u16, &[&str], &str)] = &[
        ("false", "false", 403, &[], ""),
        ("an object", r#"{"allowed": false}"#, 403, &[], ""),
        (
            "status, headers and body",
            r#"{"allowed": false, "http_status": 401, "headers": {"WWW-Authenticate": "Bearer"}, "body": "who?"}"#,
            401,
            &["content-type: text/plain", "www-authenticate: Bearer"],
            "who?",
        ),
        (
            "a content type of its own",
            r#"{"allowed": false, "headers": {"content-type": "application/json"}, "body": "{}"}"#,
            403,
            &["content-type: application/json"],
            "{}",
        ),
        (
            "what is for permits is left out",
            r#"{"allowed": false, "response_headers_to_add": {"x-a": "b"}, "request_headers_to_remove": ["x-c"]}"#,
            403,
            &[],
            "",
        ),
    ];
    for (name, value, status, headers, body) in cases {
        let denial = answer(value).unwrap_err();
        assert_eq!(denial.status.as_u16(), *status, "{name}");
        assert_eq!(lines(&denial.headers), *headers, "{name}");
        assert_eq!(denial.body, *body, "{name}");
        assert_eq!(denial.reason, DenialReason::Policy, "{name}");
        assert_eq!(
            (denial.generation, denial.head.uri.path()),
            (7, "/"),
            "{name}"
        );
    }
}

#[test]
fn an_answer_that_cannot_be_carried_out_is_a_denial() {
    let value_type = |key, expected| DecisionError::ValueType { key, expected };
    let protected = |key, header: &str| DecisionError::ProtectedHeader {
        key,
        header: header.into(),
    };
    let invalid = |key, header: &str| DecisionError::Header {
        key,
        header: header.into(),
    };
    let mut cases = vec![
        ("\"true\"", DecisionError::Type { found: "a string" }),
        ("1", DecisionError::Type { found: "a number" }),
        ("null", DecisionError::Type { found: "null" }),
        ("[true]", DecisionError::Type { found: "an array" }),
        ("{true}", DecisionError::Type { found: "a set" }),
        ("{}", DecisionError::AllowedMissing),
        (r#"{"allow": true}"#, DecisionError::AllowedMissing),
        (r#"{"allowed": "true"}"#, value_type("allowed", "a boolean")),
        (r#"{"allowed": 1}"#, value_type("allowed", "a boolean")),
        (
            r#"{"allowed": true, "dynamic_metadata": []}"#,
            value_type("dynamic_metadata", "an object"),
        ),
        (
            r#"{"allowed": true, "query_parameters_to_remove": "a"}"#,
            value_type("query_parameters_to_remove", "a list of strings"),
        ),
        (
            r#"{"allowed": true, "query_parameters_to_remove": [1]}"#,
            value_type("query_parameters_to_remove", "a string"),
        ),
        (
            r#"{"allowed": true, "query_parameters_to_set": "a=b"}"#,
            value_type("query_parameters_to_set", "an object or a list of objects"),
        ),
        (
            r#"{"allowed": true, "query_parameters_to_set": {"a": 1}}"#,
            value_type("query_parameters_to_set", "a string"),
        ),
        (
            r#"{"allowed": true, "query_parameters_to_set": {"a": "b&c=d"}}"#,
            DecisionError::QueryParameter {
                parameter: "a".into(),
            },
        ),
        (
            r#"{"allowed": false, "query_parameters_to_set": ["a"]}"#,
            value_type("query_parameters_to_set", "an object or a list of objects"),
        ),
        (
            r#"{"allowed": true, "query_parameters_to_set": {"a": concat("", [x | some _ in numbers.range(1, 4000); x := "0123456789abcdefghij"])}}"#,
            DecisionError::Target,
        ),
        (
            r#"{"allowed": false, "http_status": "404"}"#,
            value_type("http_status", "a whole number"),
        ),
        (
            r#"{"allowed": false, "http_status": 404.5}"#,
            value_type("http_status", "a whole number"),
        ),
        (
            r#"{"allowed": true, "body": 1}"#,
            value_type("body", "a string"),
        ),
        (
            r#"{"allowed": true, "headers": "a: b"}"#,
            value_type("headers", "an object or a list of objects"),
        ),
        (
            r#"{"allowed": true, "headers": ["a"]}"#,
            value_type("headers", "an object or a list of objects"),
        ),
        (
            r#"{"allowed": true, "headers": {"a": 1}}"#,
            value_type("headers", "a string"),
        ),
        (
            r#"{"allowed": true, "headers": {"a": ["b", null]}}"#,
            value_type("headers", "a string"),
        ),
        (
            r#"{"allowed": true, "headers": {"a": [["b"]]}}"#,
            value_type("headers", "a string"),
        ),
        (
            r#"{"allowed": true, "headers": {"a b": "c"}}"#,
            invalid("headers", "a b"),
        ),
        (
            r#"{"allowed": true, "headers": {"": "c"}}"#,
            invalid("headers", ""),
        ),
        (
            r#"{"allowed": true, "headers": {"a": "b\r\nc: d"}}"#,
            invalid("headers", "a"),
        ),
        (
            r#"{"allowed": true, "headers": {"a\nb": "c"}}"#,
            invalid("headers", "a\\nb"),
        ),
        (
            r#"{"allowed": true, "headers": {":path": "/admin"}}"#,
            protected("headers", ":path"),
        ),
        (
            r#"{"allowed": true, "headers": {"Host": "evil"}}"#,
            protected("headers", "host"),
        ),
        (
            r#"{"allowed": true, "request_headers_to_remove": "x"}"#,
            value_type("request_headers_to_remove", "a list of strings"),
        ),
        (
            r#"{"allowed": true, "request_headers_to_remove": [1]}"#,
            value_type("request_headers_to_remove", "a string"),
        ),
        (
            r#"{"allowed": true, "request_headers_to_remove": ["X-Forwarded-Client-Cert"]}"#,
            protected("request_headers_to_remove", "x-forwarded-client-cert"),
        ),
        (
            r#"{"allowed": true, "response_headers_to_add": {"Content-Length": "0"}}"#,
            protected("response_headers_to_add", "content-length"),
        ),
        (
            r#"{"allowed": false, "headers": {"Transfer-Encoding": "chunked"}}"#,
            protected("headers", "transfer-encoding"),
        ),
        // Checked whatever the verdict.
        (
            r#"{"allowed": false, "response_headers_to_add": {"te": "x"}}"#,
            protected("response_headers_to_add", "te"),
        ),
    ];
    let statuses = [
        -1, 0, 99, 100, 101, 199, 209, 306, 418, 419, 430, 509, 512, 599, 600, 70_000,
    ];
    let statuses: Vec<(String, i64)> = statuses
        .iter()
        .map(|status| {
            (
                format!(r#"{{"allowed": false, "http_status": {status}}}"#),
                *status,
            )
        })
        .collect();
    cases.extend(
        statuses
            .iter()
            .map(|(value, status)| (value.as_str(), DecisionError::Status { status: *status })),
    );
    for (value, expected) in cases {
        let denial = answer(value).unwrap_err();
        assert_eq!(
            denial.reason,
            DenialReason::InvalidDecision(expected),
            "{value}"
        );
        assert_eq!(
            (denial.status, denial.headers.len(), denial.body.len()),
            (StatusCode::FORBIDDEN, 0, 0),
            "{value}"
        );
        assert_eq!(
            (denial.reason.label(), denial.reason.code()),
            ("invalid_decision", "SG0224"),
            "{value}"
        );
    }
}

#[test]
fn headers_that_frame_messages_are_out_of_reach() {
    let names = [
        "connection",
        "content-length",
        "expect",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "x-forwarded-client-cert",
        ":authority",
        ":status",
    ];
    for name in names {
        for object in [
            format!(r#"{{"allowed": true, "headers": {{"{name}": "x"}}}}"#),
            format!(r#"{{"allowed": true, "response_headers_to_add": [{{"{name}": "x"}}]}}"#),
            format!(r#"{{"allowed": true, "request_headers_to_remove": ["{name}"]}}"#),
        ] {
            let denial = answer(&object).unwrap_err();
            let found = matches!(&denial.reason, DenialReason::InvalidDecision(DecisionError::ProtectedHeader { header, .. }) if header == name);
            assert!(found, "{object}: {:?}", denial.reason);
        }
    }
}

#[test]
fn no_answer_is_a_denial() {
    let denial = evaluator("package envoy.authz\n\nallow if input.nowhere\n")
        .decide(&connection(), get("/"))
        .unwrap_err();
    assert_eq!(
        (denial.reason, denial.status),
        (DenialReason::Undefined, StatusCode::FORBIDDEN)
    );
}

#[test]
fn rules_that_contradict_each_other_are_a_denial_that_quotes_no_value() {
    let module = "package envoy.authz\n\nallow := true\n\nallow := {\"allowed\": false, \"body\": input.attributes.request.http.headers[\"x-secret\"]}\n";
    let denial = evaluator(module)
        .decide(
            &connection(),
            request(Request::get("/").header("x-secret", "hunter2")),
        )
        .unwrap_err();
    let DenialReason::Evaluation(message) = &denial.reason else {
        panic!("{:?}", denial.reason)
    };
    assert!(message.to_string().contains("policy.rego:"), "{message}");
    assert!(
        !denial.reason.to_string().contains("hunter2"),
        "{}",
        denial.reason
    );
    assert_eq!(
        (denial.status, denial.body.len()),
        (StatusCode::FORBIDDEN, 0)
    );
}

#[test]
fn an_evaluator_decides_on_after_an_evaluation_failed() {
    let module = "package envoy.authz\n\nallow if input.parsed_path[0] == \"ok\"\n\nallow := false if input.parsed_path[1] == \"both\"\n";
    let mut evaluator = evaluator(module);
    for round in 0..3 {
        let failed = evaluator
            .decide(&connection(), get("/ok/both"))
            .unwrap_err();
        assert_eq!(failed.reason.label(), "evaluation_error", "{round}");
        assert!(
            evaluator.decide(&connection(), get("/ok")).is_ok(),
            "{round}"
        );
        let denied = evaluator
            .decide(&connection(), get("/no/both"))
            .unwrap_err();
        assert_eq!(denied.reason, DenialReason::Policy, "{round}");
    }
}

#[test]
fn a_decision_that_takes_too_long_is_a_denial_even_where_the_engine_swallows_its_timeout() {
    let slow = "count([1 | some a in numbers.range(1, 300); some b in numbers.range(1, 300); some c in numbers.range(1, 300); a + b + c > 0])";
    let cases = [
        ("in a rule", format!("allow if {slow} > 0")),
        (
            "in a rule that is not taken",
            format!("allow if {{\n\tinput.parsed_path[0] == \"slow\"\n\tnot {slow} == 0\n}}"),
        ),
        (
            "in a negated function",
            format!("expensive(_) if {slow} == 0\n\nallow if not expensive(1)"),
        ),
        (
            "in an else branch",
            format!("f(_) := false if {slow} == 0\n\nelse := true\n\nallow if f(1)"),
        ),
        // Here the engine itself would answer: low, allowed.
        (
            "in one of two definitions of a function",
            format!(
                "risk(_) := \"high\" if {slow} > 0\n\nrisk(_) := \"low\"\n\nallow if risk(1) == \"low\""
            ),
        ),
    ];
    let options = PolicyOptions {
        decision_timeout: Duration::from_millis(20),
        generation: 7,
        ..options()
    };
    for (name, rules) in cases {
        let module = format!("package envoy.authz\n\n{rules}\n");
        let policy = load(&module, &options).unwrap();
        let mut evaluator = policy.evaluator(&crate::common::metrics()).unwrap();
        let denial = evaluator.decide(&connection(), get("/slow")).unwrap_err();
        assert_eq!(
            denial.reason,
            DenialReason::Timeout(Duration::from_millis(20)),
            "{name}"
        );
        assert_eq!(denial.status, StatusCode::FORBIDDEN, "{name}");
    }
}

#[test]
fn a_builtin_that_fails_is_undefined_as_in_opa() {
    let module = "package envoy.authz\n\ndefault allow := false\n\nallow if to_number(input.attributes.request.http.method) > 0\n\nallow if input.parsed_path[0] == \"ok\"\n";
    assert!(evaluator(module).decide(&connection(), get("/ok")).is_ok());
    let denial = evaluator(module)
        .decide(&connection(), get("/no"))
        .unwrap_err();
    assert_eq!(denial.reason, DenialReason::Policy);
}

#[test]
fn a_request_that_cannot_be_put_before_the_policy_is_denied_with_400() {
    let denial = evaluator("package envoy.authz\n\nallow := true\n")
        .decide(&connection(), get("/?a;b"))
        .unwrap_err();
    assert_eq!(
        (denial.status, denial.reason.label()),
        (StatusCode::BAD_REQUEST, "malformed_request")
    );
}

#[test]
fn the_policy_sees_the_request_and_data() {
    let sources = sidegate_policy::PolicySources::from_files([
        (
            "policy.rego".to_owned(),
            "package envoy.authz\n\nallow if {\n\tinput.attributes.request.http.headers[\":authority\"] == data.hosts.allowed[_]\n\tinput.parsed_query.v == [\"1\"]\n}\n".to_owned(),
        ),
        ("hosts/data.json".to_owned(), r#"{"allowed": ["orders.example"]}"#.to_owned()),
    ]);
    let policy = sidegate_policy::Policy::load(sources.unwrap(), &options()).unwrap();
    let mut evaluator = policy.evaluator(&crate::common::metrics()).unwrap();
    assert!(evaluator.decide(&connection(), get("/?v=1")).is_ok());
    assert!(evaluator.decide(&connection(), get("/?v=2")).is_err());
}

#[test]
fn an_entrypoint_may_be_made_of_several_rules() {
    let cases = [
        (
            "keys with dots",
            "allow.allowed := true\n\nallow.headers[name] := \"1\" if some name in [\"x-a\"]",
        ),
        (
            "keys in brackets",
            "allow[\"allowed\"] := true\n\nallow[\"headers\"] := {\"x-a\": \"1\"}",
        ),
        (
            "a partial object",
            "allow[key] := value if some key, value in {\"allowed\": true, \"headers\": {\"x-a\": \"1\"}}",
        ),
        (
            "a default and a value",
            "default allow := false\n\nallow := {\"allowed\": true, \"headers\": {\"x-a\": \"1\"}} if input.parsed_path",
        ),
    ];
    for (name, rules) in cases {
        let permit =
            evaluator(&format!("package envoy.authz\n\n{rules}\n")).decide(&connection(), get("/"));
        let permit = permit.unwrap_or_else(|denial| panic!("{name}: {}", denial.reason));
        assert_eq!(
            lines(&permit.into_forwardable().head.headers),
            ["x-a: 1"],
            "{name}"
        );
    }
}

#[test]
fn every_decision_has_an_id_of_its_own() {
    let mut evaluator =
        evaluator("package envoy.authz\n\nallow if input.parsed_path[0] == \"ok\"\n");
    let first = evaluator.decide(&connection(), get("/ok")).unwrap();
    let second = evaluator.decide(&connection(), get("/ok")).unwrap();
    let denied = evaluator.decide(&connection(), get("/")).unwrap_err();
    assert_ne!(first.decision_id(), second.decision_id());
    assert_ne!(second.decision_id(), denied.decision_id);
}

/// OPA makes an error of this. Here so that an engine that does too is noticed:
/// then this test changes, and a limit known to users goes.
#[test]
fn known_limit_the_engine_drops_a_conflict_in_one_of_several_definitions_of_a_function() {
    let module = "package envoy.authz\n\ng(x) := 1 if x\n\ng(x) := 2 if x\n\nrisk(_) := \"high\" if g(true) == 2\n\nrisk(_) := \"low\"\n\nallow if risk(1) == \"low\"\n";
    assert!(evaluator(module).decide(&connection(), get("/")).is_ok());
    // With one definition the error is one.
    let module = "package envoy.authz\n\ng(x) := 1 if x\n\ng(x) := 2 if x\n\nrisk(_) := \"high\" if g(true) == 2\n\nallow if not risk(1)\n";
    let denial = evaluator(module)
        .decide(&connection(), get("/"))
        .unwrap_err();
    assert_eq!(denial.reason.label(), "evaluation_error");
}

#[test]
fn an_engine_that_breaks_on_what_a_caller_sends_denies_and_decides_on() {
    let module = "package envoy.authz\n\nallow if input.parsed_path[0] == \"ok\"\n\nallow if time.parse_ns(input.parsed_path[0], \"2020\") > 0\n";
    let mut evaluator = evaluator(module);
    for _ in 0..3 {
        let denial = evaluator
            .decide(&connection(), get("/%E2%82%AC"))
            .unwrap_err();
        assert_eq!(denial.reason.label(), "evaluation_error");
        assert!(evaluator.decide(&connection(), get("/ok")).is_ok());
    }
}

#[test]
fn headers_have_their_names_in_lower_case_only() {
    let module = "package envoy.authz\n\nallow if input.attributes.request.http.headers[\"X-Role\"] == \"admin\"\n\nallow if input.attributes.request.http.headers[\"x-role\"] == \"reader\"\n";
    let mut evaluator = evaluator(module);
    for (role, allowed) in [("admin", false), ("reader", true), ("admin", false)] {
        let asked = request(Request::get("/").header("X-Role", role));
        assert_eq!(
            evaluator.decide(&connection(), asked).is_ok(),
            allowed,
            "{role}"
        );
    }
}

#[test]
fn members_with_the_same_key_are_a_denial_whatever_evaluates() {
    let rules = [
        "roles := {k: v | some v in input.parsed_path; k := \"role\"}\n\nallow if roles.role == \"admin\"",
        "roles[k] := v if { some v in input.parsed_path; k := \"role\" }\n\nallow if roles.role == \"admin\"",
    ];
    for rules in rules {
        let mut evaluator = evaluator(&format!("package envoy.authz\n\n{rules}\n"));
        assert!(
            evaluator.decide(&connection(), get("/admin")).is_ok(),
            "{rules}"
        );
        for path in ["/reader/admin", "/admin/reader"] {
            let denial = evaluator.decide(&connection(), get(path)).unwrap_err();
            assert_eq!(denial.reason.label(), "evaluation_error", "{rules} {path}");
        }
    }
}
