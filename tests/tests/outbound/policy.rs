//! What the policy says at `egress`.

use std::path::Path;

use http::Request;
use http_body_util::BodyExt;
use http_body_util::channel::Channel;
use serde_json::Value;
use sidegate_tests::{Sidegate, until};

use super::{Gate, SERVER, egress, entry, free_port, server, told};
use crate::support::{Upstream, body, counter, finish, folder, patiently, write};

/// A policy that lets everybody in, and out by these rules.
pub(super) fn write_policy(folder: &Path, rules: &str) {
    write(
        folder,
        "policy/ingress.rego",
        "package envoy.authz\nallow := true\n",
    );
    let rules = format!("package sidegate.egress\n{rules}\n");
    write(folder, "policy/egress.rego", rules);
}

const POLICY: &str = "[policy]\npath = \"policy\"\n";

fn pair(upstream: &str, rules: &str, sections: &str) -> Gate {
    let folder = folder();
    write_policy(folder.path(), rules);
    pair_in(folder, upstream, sections)
}

fn pair_in(folder: tempfile::TempDir, upstream: &str, sections: &str) -> Gate {
    let address = format!("127.0.0.1:{}", free_port());
    let lines = format!("{SERVER}\ncontext_extensions = {{ tier = \"gold\" }}");
    let sections = [
        entry("sidegate.local", "/server", "main", ""),
        entry("sidegate.local", "/app", "app", ""),
        server(&address, upstream),
        egress("app", &format!("https://{address}"), &lines),
        POLICY.to_owned(),
        sections.to_owned(),
    ];
    Gate::start_with(folder, super::text("sidegate.local", &sections.concat()))
}

const RULES: &str = r#"
default allow := false

allow := {
    "allowed": true,
    "headers": {"x-added": input.attributes.contextExtensions.tier},
    "request_headers_to_remove": ["x-removed"],
    "query_parameters_to_remove": ["debug"],
    "response_headers_to_add": {"x-told": input.workload.selectors[0]},
} if {
    input.source_principal == "spiffe://sidegate.local/app"
    input.attributes.contextExtensions.listener == "app"
    input.attributes.destination.principal == "spiffe://sidegate.local/server"
    input.attributes.destination.address.socketAddress.address == "127.0.0.1"
    input.attributes.request.http.host == "orders.example"
    input.parsed_path[0] == "orders"
}

allow := {"allowed": false, "http_status": 409, "body": "no tea"} if input.parsed_path[0] == "tea"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_decides_on_each_request_and_edits_what_is_sent() {
    let upstream = Upstream::start().await;
    let log = "[decision_log]\noutput = \"file\"\npath = \"decisions.log\"\n";
    let pair = pair(&upstream.url, RULES, log);
    let app = pair.app("app");
    let request = Request::get("/orders/7?a=1&debug=1").header("x-removed", "1");
    let answer = app.send(request).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("x-told"), "listener:name:app");
    let denied = app.get("/tea").await;
    assert_eq!(
        (denied.status.as_u16(), denied.body.as_str()),
        (409, "no tea")
    );
    let denied = app.get("/").await;
    assert_eq!(denied.status, 403);

    let [head] = <[_; 1]>::try_from(upstream.heads()).expect("one request was sent");
    assert_eq!(head.uri, "/orders/7?a=1");
    assert_eq!(head.headers["x-added"], "gold");
    assert_eq!(head.headers.get("x-removed"), None);

    let line = pair.line(&denied);
    assert_eq!(
        (line["verdict"].as_str(), line["listener"].as_str()),
        (Some("deny"), Some("app"))
    );
    let labels = ["decision_point=\"egress\"", "verdict=\"deny\""];
    assert_eq!(
        counter(&pair.gate, "sidegate_authz_decisions_total", &labels),
        2.0
    );
    let events = until("the decision log's events", || {
        let text = std::fs::read_to_string(pair.folder.path().join("decisions.log")).ok()?;
        let events: Vec<Value> = text
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|event: &Value| event["path"] == "sidegate/egress/allow")
            .collect();
        (events.len() == 3).then_some(events)
    });
    let input = &events[0]["input"];
    assert_eq!(input["source_principal"], "spiffe://sidegate.local/app");
    assert_eq!(
        input["attributes"]["request"]["http"]["path"],
        "/orders/7?a=1&debug=1"
    );
    assert_eq!(input["attributes"]["contextExtensions"]["tier"], "gold");
    assert_eq!(events[2]["result"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_says_nothing_of_what_apps_send_denies_it_and_is_warned_of() {
    let upstream = Upstream::start().await;
    let folder = folder();
    let ingress = "package envoy.authz\nallow := true\n";
    write(folder.path(), "policy/ingress.rego", ingress);
    let pair = pair_in(folder, &upstream.url, "");
    told(&pair, &["SG0398", "sidegate.egress"]);
    let answer = pair.app("app").get("/orders").await;
    assert_eq!(answer.status, 403);
    assert_eq!(pair.line(&answer)["code"], "SG0221");
    assert_eq!(upstream.connections(), 0);

    let mut command = Sidegate::command("check");
    let file = pair.folder.path().join("sidegate.toml");
    let output = finish(command.arg("--config").arg(file));
    assert!(output.stdout.contains("[SG0398]"), "{output:?}");
    let mut command = Sidegate::command("check");
    let output = finish(command.arg("--state").arg(&pair.gate.ready.state));
    assert!(output.stdout.contains("[SG0398]"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_a_changed_policy_denies_is_ended_and_others_are_not_asked_at_ingress() {
    let upstream = Upstream::start().await;
    let pair = pair(&upstream.url, "allow := true", "");
    let app = pair.app("app");
    let (mut chunks, channel) = Channel::<bytes::Bytes, std::convert::Infallible>::new(1);
    let mut connection = app.http2().await;
    let request = Request::post("http://orders.example/echo").body(channel.boxed());
    let response = connection.send_request(request.expect("a request"));
    chunks.send_data("one".into()).await.expect("it is sent");
    let response = patiently(response).await.expect("a response");
    let mut answer = response.into_body();
    let first = patiently(answer.frame()).await.expect("a frame");
    assert_eq!(
        first.expect("it is whole").into_data().expect("data"),
        "one"
    );

    write_policy(pair.folder.path(), "default allow := false");
    told(&pair, &["SG0340"]);
    let rest = patiently(answer.collect()).await;
    assert!(rest.is_err(), "it was cut");
    assert_eq!(app.get("/").await.status, 403);
    let request = Request::get("http://orders.example/").body(body(""));
    let response = connection.send_request(request.expect("a request"));
    let response = patiently(response).await.expect("the connection stays");
    assert_eq!(response.status(), 403);
}
