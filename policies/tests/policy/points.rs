//! The decision points `egress` and `admit`: what becomes of their answers.

use std::sync::Arc;
use std::time::SystemTime;

use http::Request;
use sidegate_policy::{
    AdmitFacts, DecisionError, DecisionPoint, DenialReason, EgressRequest, Evaluator, Policy,
    PolicyOptions, PolicySources, Workload,
};

use crate::common::{connection, load, metrics, options, request};

fn evaluator(point: DecisionPoint, module: &str) -> Evaluator {
    let options = PolicyOptions {
        entrypoint: point.entrypoint().to_owned(),
        ..options()
    };
    let policy = load(module, &options).unwrap();
    policy.evaluator(&metrics()).unwrap()
}

fn workload() -> Arc<Workload> {
    Arc::new(Workload {
        principal: Some("spiffe://sidegate.local/frontend".to_owned()),
        selectors: vec!["component:name:frontend".to_owned()],
    })
}

fn egress(target: &str) -> EgressRequest {
    EgressRequest {
        head: request(Request::get(target)).head,
        scheme: "https".to_owned(),
        host: "api.example".to_owned(),
        address: None,
        principal: None,
        time: SystemTime::UNIX_EPOCH,
    }
}

fn component() -> AdmitFacts {
    AdmitFacts {
        digest: format!("sha256:{}", "0a".repeat(32)),
        signer: Some("key-1".to_owned()),
        repository: None,
        namespace: "default".to_owned(),
        name: "hello".to_owned(),
        requested_identity: None,
        capabilities: vec!["egress".to_owned()],
    }
}

#[test]
fn a_request_that_may_be_sent_is_sent_with_the_policys_edits() {
    let mut evaluator = evaluator(
        DecisionPoint::Egress,
        r#"package sidegate.egress

allow := {
    "allowed": true,
    "headers": {"authorization": "Bearer x"},
    "query_parameters_to_remove": ["debug"],
} if {
    input.source_principal == "spiffe://sidegate.local/frontend"
    "component:name:frontend" in input.workload.selectors
    input.attributes.request.http.host == "api.example"
    input.parsed_path[0] == "v1"
}
"#,
    );
    let mut ask = |target| evaluator.egress(&connection(), &workload(), egress(target));
    let forwardable = ask("/v1/x?a=1&debug=1").unwrap().into_forwardable();
    assert_eq!(forwardable.head.uri, "/v1/x?a=1");
    assert_eq!(forwardable.head.headers["authorization"], "Bearer x");
    assert_eq!(forwardable.generation, 7);

    let denial = ask("/v2").unwrap_err();
    assert_eq!(denial.reason, DenialReason::Undefined);
    let denial = ask("/%ff").unwrap_err();
    assert_eq!(denial.status.as_u16(), 400);
}

#[test]
fn a_policy_that_decides_on_requests_decides_beside_on_what_workloads_send() {
    let module = |egress: &str| format!("package envoy.authz\nallow := true\n{egress}");
    let egress_module = r#"package sidegate.egress
default allow := false
allow if {
    input.attributes.contextExtensions.listener == "public"
    input.attributes.request.http.path == "/v1"
}"#;
    let options = PolicyOptions {
        egress: true,
        ..options()
    };
    let sources = PolicySources::from_modules([
        ("ingress.rego", &*module("")),
        ("egress.rego", egress_module),
    ]);
    let policy = Policy::load(sources.unwrap(), &options).unwrap();
    assert_eq!(policy.status().egress, Some(true));
    let mut evaluator = policy.evaluator(&metrics()).unwrap();
    let mut ask = |target| evaluator.egress(&connection(), &workload(), egress(target));
    assert!(ask("/v1").is_ok());
    assert_eq!(ask("/v2").unwrap_err().reason, DenialReason::Policy);
    let decided = evaluator.decide(&connection(), request(Request::get("/v2")));
    assert!(decided.is_ok(), "the other decision point stays as it is");
}

#[test]
fn a_policy_that_says_nothing_of_what_workloads_send_denies_it() {
    let options = PolicyOptions {
        egress: true,
        ..options()
    };
    let policy = load("package envoy.authz\nallow := true", &options).unwrap();
    assert_eq!(policy.status().egress, Some(false));
    let mut evaluator = policy.evaluator(&metrics()).unwrap();
    let denial = evaluator.egress(&connection(), &workload(), egress("/"));
    assert_eq!(denial.unwrap_err().reason, DenialReason::Undefined);
}

#[test]
fn only_a_clear_yes_lets_a_component_start() {
    let decisions = [
        ("allow if input.component.signer == \"key-1\"", Ok(())),
        (
            "allow := {\"allowed\": true, \"reason\": \"signed\"}",
            Ok(()),
        ),
        (
            "default allow := false",
            Err(("policy", "the policy denies the component")),
        ),
        (
            "allow := {\"allowed\": false, \"reason\": \"no\\nsignature\"}",
            Err(("policy", "the policy denies the component: no\\nsignature")),
        ),
        (
            "allow if input.component.repository",
            Err((
                "undefined",
                "the policy's admit rule is undefined for the component",
            )),
        ),
        (
            "allow := true\n\nallow := false",
            Err(("evaluation_error", "")),
        ),
        (
            "allow := \"true\"",
            Err((
                "invalid_decision",
                "the policy's decision cannot be carried out: it is a string, not a boolean or an object",
            )),
        ),
        (
            "allow := {\"allowed\": true, \"headers\": {}}",
            Err((
                "invalid_decision",
                "the policy's decision cannot be carried out: the key `headers` is not supported",
            )),
        ),
    ];
    for (rules, expected) in decisions {
        let module = format!("package sidegate.admit\n\n{rules}\n");
        let admitted = evaluator(DecisionPoint::Admit, &module).admit(&component());
        match (admitted, expected) {
            (Ok(admission), Ok(())) => assert_eq!(admission.generation(), 7),
            (Err(denial), Err((label, text))) => {
                assert_eq!((denial.reason.label(), denial.generation), (label, 7));
                assert!(denial.to_string().contains(text), "{rules}: {denial}");
            }
            (found, _) => panic!("{rules}: {found:?}"),
        }
    }
    let refused = evaluator(
        DecisionPoint::Admit,
        "package sidegate.admit\n\nallow := 1\n",
    )
    .admit(&component())
    .unwrap_err();
    let found = DecisionError::Type { found: "a number" };
    assert_eq!(refused.reason, DenialReason::InvalidDecision(found));
}
