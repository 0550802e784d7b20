//! The `connect` decision point: who may have a connection at all.

use std::time::SystemTime;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sidegate_policy::{DenialReason, Policy, PolicyError, PolicyMetrics, PolicySources};

use crate::common::{connection, evaluator, get, load, options};

/// A policy of requests, and what it says of connections.
fn with_connect(connect: &str) -> PolicySources {
    let connect = format!("package sidegate.connect\nimport rego.v1\n{connect}");
    PolicySources::from_modules([
        ("ingress.rego", "package envoy.authz\nallow := true\n"),
        ("connect.rego", &connect),
    ])
    .unwrap()
}

fn connects(connect: &str) -> Result<(), (&'static str, String)> {
    let policy = Policy::load(with_connect(connect), &options()).unwrap();
    let mut evaluator = policy.evaluator(&crate::common::metrics()).unwrap();
    let asked = evaluator.connect(&connection(), SystemTime::UNIX_EPOCH);
    // Requests are decided by their own rule before and after.
    assert!(evaluator.decide(&connection(), get("/")).is_ok());
    match asked {
        Ok(permit) => {
            assert_eq!(permit.generation(), 7);
            Ok(())
        }
        Err(denial) => {
            assert_eq!(denial.generation, 7);
            Err((denial.reason.label(), denial.to_string()))
        }
    }
}

#[test]
fn a_policy_without_the_package_leaves_connections_to_their_requests() {
    let mut evaluator = evaluator("package envoy.authz\nallow := false\n");
    assert!(
        evaluator
            .connect(&connection(), SystemTime::UNIX_EPOCH)
            .is_ok()
    );
    assert!(evaluator.decide(&connection(), get("/")).is_err());
    let policy = load("package envoy.authz\nallow := true\n", &options()).unwrap();
    assert!(!policy.status().connect);
}

#[test]
fn a_package_without_the_rule_is_refused() {
    for rest in ["deny := true\n", "allowed := true\n", "allow(x) := x\n"] {
        let loaded = Policy::load(with_connect(rest), &options());
        let error = loaded.unwrap_err();
        assert_eq!(error.code(), "SG0210", "{rest}");
        assert!(
            matches!(error, PolicyError::EntrypointMissing { entrypoint, .. }
            if entrypoint == "sidegate/connect/allow")
        );
    }
}

#[test]
fn only_a_clear_yes_lets_a_connection_in() {
    let policy = "the policy denies the connection";
    let undefined = "the policy's connect rule is undefined for the connection";
    type Expected = Result<(), (&'static str, &'static str)>;
    let cases: &[(&str, Expected)] = &[
        ("allow := true", Ok(())),
        ("default allow := false", Err(("policy", policy))),
        ("allow if false", Err(("undefined", undefined))),
        ("allow := {\"allowed\": true}", Ok(())),
        ("allow.allowed := true", Ok(())),
        ("allow.allowed := false", Err(("policy", policy))),
        (
            "allow := {\"allowed\": false, \"reason\": \"not\\nfrom here\"}",
            Err((
                "policy",
                "the policy denies the connection: not\\nfrom here",
            )),
        ),
        (
            "allow := {\"reason\": \"none\"}",
            Err(("invalid_decision", "`allowed`")),
        ),
        ("allow := \"true\"", Err(("invalid_decision", "a string"))),
        (
            "allow := {\"allowed\": \"true\"}",
            Err(("invalid_decision", "a boolean")),
        ),
        (
            "allow := {\"allowed\": true, \"reason\": 1}",
            Err(("invalid_decision", "a string")),
        ),
        (
            "allow := {\"allowed\": true, \"http_status\": 200}",
            Err(("invalid_decision", "http_status")),
        ),
        (
            "allow := true if true\nallow := false if input.version",
            Err(("evaluation_error", "")),
        ),
    ];
    for (rules, expected) in cases {
        let found = connects(rules);
        match (&found, expected) {
            (Ok(()), Ok(())) => {}
            (Err((label, text)), Err((expected, part))) => {
                assert_eq!(label, expected, "{rules}: {text}");
                assert!(text.contains(part), "{rules}: {text}");
            }
            _ => panic!("{rules}: {found:?}"),
        }
    }
}

#[test]
fn the_document_says_all_of_a_connection_and_nothing_of_a_request() {
    let rules = r#"
allow if {
    object.keys(input) == {"attributes", "source_principal", "version"}
    object.keys(input.attributes) == {
        "source", "destination", "contextExtensions", "metadataContext", "routeMetadataContext",
    }
    input.source_principal == "spiffe://sidegate.local/frontend"
    input.attributes.source.principal == input.source_principal
    input.attributes.source.address.socketAddress == {"address": "192.0.2.7", "portValue": 40001}
    input.attributes.destination.principal == "spiffe://sidegate.local/orders"
    input.attributes.contextExtensions == {"listener": "public"}
    input.version == {"ext_authz": "v3", "encoding": "protojson"}
}
"#;
    assert_eq!(connects(rules), Ok(()));
}

#[test]
fn connections_are_counted_apart_from_requests_and_only_where_they_are_decided() {
    let mut registry = Registry::with_prefix("sidegate");
    let metrics = PolicyMetrics::register(&mut registry);
    let text = |registry: &Registry| {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    };
    let silent = load("package envoy.authz\nallow := true\n", &options()).unwrap();
    let mut silent = silent.evaluator(&metrics).unwrap();
    assert!(
        silent
            .connect(&connection(), SystemTime::UNIX_EPOCH)
            .is_ok()
    );
    assert!(!text(&registry).contains("decision_point=\"connect\""));

    let policy = Policy::load(with_connect("default allow := false"), &options()).unwrap();
    let mut evaluator = policy.evaluator(&metrics).unwrap();
    let denial = evaluator
        .connect(&connection(), SystemTime::UNIX_EPOCH)
        .unwrap_err();
    assert_eq!(denial.reason, DenialReason::Policy);
    assert!(evaluator.decide(&connection(), get("/")).is_ok());
    let text = text(&registry);
    for line in [
        r#"sidegate_authz_decisions_total{decision_point="connect",verdict="deny",reason="policy"} 1"#,
        r#"sidegate_authz_decisions_total{decision_point="connect",verdict="allow",reason="policy"} 0"#,
        r#"sidegate_authz_decisions_total{decision_point="ingress",verdict="allow",reason="policy"} 1"#,
        "sidegate_authz_duration_seconds_count 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(metrics.ingress_decisions(), (1, 0));
}

#[test]
fn a_policy_can_be_put_into_service_again_under_another_number() {
    let policy = Policy::load(with_connect("allow := true"), &options()).unwrap();
    let again = policy.as_generation(9);
    assert_eq!((policy.generation(), again.generation()), (7, 9));
    assert_eq!(policy.sources(), again.sources());
    let mut evaluator = again.evaluator(&crate::common::metrics()).unwrap();
    let permit = evaluator.decide(&connection(), get("/")).unwrap();
    assert_eq!(permit.generation(), 9);
    assert_eq!(
        evaluator
            .connect(&connection(), SystemTime::UNIX_EPOCH)
            .unwrap()
            .generation(),
        9
    );
}
