//! Decisions about connections.

use super::*;
use crate::test_schemas::schema;

const CONNECT: &str = r#"
package sidegate.connect

name := input.attributes.contextExtensions.listener

allow if name == "open"
allow := {"allowed": false, "reason": "not from here"} if name == "closed"
allow := {"allowed": true, "http_status": 200} if name == "edits"
allow if name == "conflict"
allow := false if name == "conflict"
"#;

fn on_listener(name: &str) -> ConnectionFacts {
    ConnectionFacts::new(ConnectionParameters {
        listener: name.to_owned(),
        server_name: Some("orders.example".into()),
        ..ConnectionParameters::clone(connection().parameters())
    })
}

/// The events of connections to these listeners, and the ids of those that were denied.
fn connected(modules: &[&str], listeners: &[&str]) -> (Vec<Json>, Vec<String>, DecisionLogMetrics) {
    let shown = Shown::default();
    let stream = DecisionLogOutput::Stream(Box::new(shown.clone()));
    let Started {
        mut evaluator,
        writer,
        metrics,
    } = start(options(stream), modules);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let ids = listeners.iter().filter_map(|name| {
        let denial = evaluator.connect(&on_listener(name), time).err()?;
        Some(denial.decision_id.to_string())
    });
    let ids = ids.collect();
    writer.finish(PATIENCE).unwrap();
    (shown.events(), ids, metrics)
}

#[test]
fn an_event_tells_of_a_connection_what_it_tells_of_a_request() {
    let (events, denied, metrics) = connected(&[POLICY, CONNECT], &["open", "closed"]);
    let [allowed, closed] = events.as_slice() else {
        panic!("{events:?}");
    };
    for event in [allowed, closed] {
        assert_eq!(event["path"], "sidegate/connect/allow");
        assert_eq!(event["labels"], json!({"id": "instance"}));
        assert_eq!(event["bundles"], json!({"authz": {"revision": "r1"}}));
        assert_eq!(event["requested_by"], "192.0.2.7:40001");
        assert_eq!(event["timestamp"], "2027-01-15T08:00:00Z");
        for timer in ["timer_rego_query_eval_ns", "timer_server_handler_ns"] {
            assert!(event["metrics"][timer].as_u64().unwrap() > 0, "{timer}");
        }
        schema("connect.input").check(&event["input"]);
        schema("connect.result").check(&event["result"]);
        for absent in ["error", "trace_id", "erased", "masked"] {
            assert_eq!(event.get(absent), None, "{absent}");
        }
    }
    let input = &closed["input"];
    assert_eq!(
        input["attributes"]["contextExtensions"]["listener"],
        "closed"
    );
    assert_eq!(input["attributes"]["tlsSession"]["sni"], "orders.example");
    assert_eq!(
        input["source_principal"],
        "spiffe://sidegate.local/frontend"
    );
    assert_eq!(allowed["result"], true);
    let expected = json!({"allowed": false, "reason": "not from here"});
    assert_eq!(closed["result"], expected);
    assert_eq!(denied, [closed["decision_id"].as_str().unwrap()]);
    assert_eq!(
        (&allowed["req_id"], &closed["req_id"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(metrics.events.get(), 2);
}

#[test]
fn the_input_of_a_connection_is_the_one_that_was_decided() {
    let mirror =
        "package sidegate.connect\nallow := {\"allowed\": true, \"reason\": json.marshal(input)}";
    let (events, ..) = connected(&[POLICY, mirror], &["open"]);
    let seen = events[0]["result"]["reason"].as_str().unwrap();
    let seen: Json = serde_json::from_str(seen).unwrap();
    assert_eq!(events[0]["input"], seen);
}

#[test]
fn a_denial_for_want_of_an_answer_is_an_event_with_an_error() {
    let listeners = ["none", "conflict", "edits"];
    let (events, ids, _) = connected(&[POLICY, CONNECT], &listeners);
    let codes: Vec<_> = events.iter().map(|event| &event["error"]["code"]).collect();
    assert_eq!(codes, ["SG0221", "SG0223", "SG0224"]);
    let logged: Vec<_> = events.iter().map(|event| &event["decision_id"]).collect();
    assert_eq!(logged, ids.iter().collect::<Vec<_>>());
    let undefined = "the policy's connect rule is undefined for the connection";
    assert_eq!(events[0]["error"]["message"], undefined);
    assert_eq!(events[0].get("result"), None);
    assert_eq!(events[2]["result"]["http_status"], 200);
}

#[test]
fn connections_are_masked_and_dropped_by_the_same_rules() {
    let rules = r#"
        package system.log
        drop if {
            input.path == "sidegate/connect/allow"
            input.result == true
        }
        mask contains "/input/attributes/source/address"
        mask contains "/result/reason"
    "#;
    let listeners = ["open", "closed"];
    let (events, ids, metrics) = connected(&[POLICY, CONNECT, rules], &listeners);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["decision_id"], ids[0]);
    let expected = json!(["/input/attributes/source/address", "/result/reason"]);
    assert_eq!(events[0]["erased"], expected);
    assert_eq!(events[0]["result"], json!({"allowed": false}));
    assert_eq!(metrics.drops.rule.get(), 1);
}

#[test]
fn a_policy_that_is_not_asked_about_connections_logs_none() {
    let (events, denied, metrics) = connected(&[POLICY], &["open", "closed"]);
    assert!(events.is_empty() && denied.is_empty(), "{events:?}");
    assert_eq!(metrics.events.get(), 0);
}
