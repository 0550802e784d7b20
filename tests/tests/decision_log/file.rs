//! Files and standard output.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use http::Request;
use serde_json::{Value, json};
use sidegate_tests::until;

use super::{Logged, events, request_id};
use crate::support::{access_line, body, counter, folder};

const FILE: &str = "output = \"file\"\npath = \"decisions.log\"\n";

/// The event of a request, once it is there.
fn event(logged: &Logged, request: &str) -> Value {
    let path = logged.folder.join("decisions.log");
    until("the event of a request", || {
        let events = events(&path).into_iter();
        events
            .filter(|event| event.get("input").is_some())
            .find(|event| request_id(event) == request)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_holds_what_was_asked_and_what_was_answered() {
    let folder = folder();
    let lines = format!("{FILE}labels = {{ region = \"north\" }}\n");
    let logged = Logged::start(folder.path(), &lines, "").await;
    let request = Request::put("/mirror/a%20b?q=1&q=x+y")
        .header("x-two", "one")
        .header("x-two", "two")
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    let answer = logged.client.send(request, body("")).await;
    assert_eq!(
        answer.status,
        429,
        "{}",
        access_line(&logged.sidegate, answer.header("x-request-id"))
    );
    let seen: Value = serde_json::from_str(&answer.body).unwrap();

    let event = event(&logged, answer.header("x-request-id"));
    assert_eq!(
        event["input"], seen,
        "the input is the one that the policy saw"
    );
    assert_eq!(event["input"]["parsed_path"], json!(["mirror", "a b"]));
    assert_eq!(
        event["input"]["source_principal"],
        "spiffe://sidegate.local/demo"
    );
    assert_eq!(event["result"]["http_status"], 429);
    assert_eq!(event["path"], "envoy/authz/allow");
    assert_eq!(event["labels"]["region"], "north");
    assert_eq!(event["labels"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(event["labels"]["id"].as_str().unwrap().len(), 36);
    assert_eq!(event["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let line = access_line(&logged.sidegate, answer.header("x-request-id"));
    assert_eq!(event["span_id"], line["span_id"]);
    let source = &seen["attributes"]["source"]["address"]["socketAddress"];
    let port = source["portValue"].as_u64().unwrap();
    assert_eq!(event["requested_by"], format!("127.0.0.1:{port}"));
    let timestamp = event["timestamp"].as_str().unwrap();
    assert!(
        timestamp.ends_with('Z') && timestamp.contains('T'),
        "{timestamp}"
    );
    for timer in ["timer_rego_query_eval_ns", "timer_server_handler_ns"] {
        assert!(event["metrics"][timer].as_u64().unwrap() > 0, "{timer}");
    }
    assert_eq!(event.get("error"), None);
    assert_eq!(event.get("type"), None);
    let mode = fs::metadata(folder.path().join("decisions.log")).unwrap();
    assert_eq!(mode.permissions().mode() & 0o777, 0o600);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_denial_has_an_id_that_leads_to_its_event() {
    let folder = folder();
    let logged = Logged::start(folder.path(), FILE, "").await;
    for path in ["/closed", "/mirror", "/open"] {
        let (status, request) = logged.get(path).await;
        let line = access_line(&logged.sidegate, &request);
        let event = event(&logged, &request);
        assert_eq!(event["decision_id"], line["decision_id"], "{path}");
        assert_eq!(line["status"], status);
        let allowed = event["result"] == true;
        assert_eq!(
            line["verdict"],
            if allowed { "allow" } else { "deny" },
            "{path}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_before_its_input_can_be_made_is_in_the_log_too() {
    let folder = folder();
    let logged = Logged::start(folder.path(), FILE, "").await;
    let (status, request) = logged.get("/open?q=%").await;
    assert_eq!(status, 400);
    let decision = access_line(&logged.sidegate, &request)["decision_id"].clone();
    let event = until("its event", || {
        let events = events(&folder.path().join("decisions.log")).into_iter();
        events
            .into_iter()
            .find(|event| event["decision_id"] == decision)
    });
    assert_eq!(event["error"]["code"], "SG0225");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_in_no_log() {
    let folder = folder();
    // A rule that tries to bring them back, and one that fails.
    let module = r#"
mask contains {"op": "upsert", "path": "/input/copy", "value": value} if {
    some value in input.input.attributes.request.http.headers
}
drop if input.input.attributes.request.http.headers.authorization
"#;
    let lines = format!("{FILE}mask_headers = [\"X-Api-Key\"]\n");
    let logged = Logged::start(folder.path(), &lines, module).await;
    let request = || {
        Request::get("/headers")
            .header("authorization", "Bearer s3cret-of-the-client")
            .header("proxy-authorization", "Basic s3cret-of-the-client")
            .header("cookie", "a=s3cret-of-the-client")
            .header("cookie", "b=s3cret-of-the-client")
            .header("x-api-key", "s3cret-of-the-client")
    };
    let answer = logged.client.send(request(), body("")).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.header("set-cookie").contains("s3cret"),
        "the client gets it"
    );
    let event = event(&logged, answer.header("x-request-id"));
    let headers = "/input/attributes/request/http/headers";
    let erased: BTreeSet<&str> = event["erased"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_str)
        .collect();
    let expected = [
        format!("{headers}/authorization"),
        format!("{headers}/cookie"),
        format!("{headers}/x-api-key"),
        "/result/headers/authorization".to_owned(),
        "/result/response_headers_to_add/set-cookie".to_owned(),
    ];
    assert_eq!(erased, expected.iter().map(String::as_str).collect());
    let log = fs::read_to_string(folder.path().join("decisions.log")).unwrap();
    let output = logged.sidegate.stop();
    for text in [&log, &output.stdout, &output.stderr] {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_logged_only_where_that_is_asked_for_in_so_many_words() {
    let folder = folder();
    let lines = format!("{FILE}credentials = \"logged_in_plain_text\"\n");
    let logged = Logged::start(folder.path(), &lines, "").await;
    let request = Request::get("/open").header("authorization", "Bearer token");
    let answer = logged.client.send(request, body("")).await;
    let event = event(&logged, answer.header("x-request-id"));
    let headers = &event["input"]["attributes"]["request"]["http"]["headers"];
    assert_eq!(headers["authorization"], "Bearer token");
    assert_eq!(event.get("erased"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policys_own_rules_mask_and_drop() {
    let folder = folder();
    let module = r#"
drop if input.input.parsed_path[1] == "health"
mask contains "/input/attributes/source/certificate"
mask contains {"op": "upsert", "path": "/input/parsed_query/card", "value": ["**REDACTED**"]} if {
    input.input.parsed_query.card
}
mask contains {"op": "upsert", "path": concat("", ["/input/attributes/request/http/", name]), "value": "/open"} if {
    input.input.parsed_query.card
    some name in ["path", "headers/:path"]
}
"#;
    let logged = Logged::start(folder.path(), FILE, module).await;
    assert_eq!(logged.get("/open/health").await.0, 200);
    let (status, request) = logged.get("/open?card=visa-4111").await;
    assert_eq!(status, 200);
    let event = event(&logged, &request);
    assert_eq!(
        event["input"]["parsed_query"]["card"],
        json!(["**REDACTED**"])
    );
    assert!(!event.to_string().contains("visa-4111"), "{event}");
    assert_eq!(
        event["erased"],
        json!(["/input/attributes/source/certificate"])
    );
    assert_eq!(event["masked"].as_array().unwrap().len(), 3);
    assert_eq!(events(&folder.path().join("decisions.log")).len(), 1);
    let dropped = "sidegate_decision_log_dropped_total";
    assert_eq!(
        counter(&logged.sidegate, dropped, &["reason=\"rule\""]),
        1.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mask_that_fails_leaves_nothing_to_see_of_the_request() {
    let folder = folder();
    let module = "mask := [\"/input/a\"] if input.path\nmask := [\"/input/b\"] if input.path\n";
    let logged = Logged::start(folder.path(), FILE, module).await;
    let (status, request) = logged.get("/open?card=visa-4111").await;
    assert_eq!(status, 200);
    let decision = access_line(&logged.sidegate, &request)["decision_id"].clone();
    let event = until("its event", || {
        events(&folder.path().join("decisions.log"))
            .into_iter()
            .next()
    });
    assert_eq!(event["decision_id"], decision);
    assert_eq!(event["error"]["code"], "SG0261");
    assert_eq!(event["erased"], json!(["/input", "/result"]));
    assert!(!event.to_string().contains("visa-4111"), "{event}");
    let withheld = counter(
        &logged.sidegate,
        "sidegate_decision_log_withheld_total",
        &[],
    );
    assert_eq!(withheld, 1.0);
    let output = logged.sidegate.stop();
    assert!(output.stderr.contains("SG0261"), "{}", output.stderr);
    assert!(!output.stderr.contains("visa-4111"), "{}", output.stderr);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_file_makes_way_and_no_event_is_lost_among_those_that_are_kept() {
    let folder = folder();
    let lines = format!("{FILE}max_size = \"16KiB\"\nkeep = 3\n");
    let logged = Logged::start(folder.path(), &lines, "").await;
    let mut requests = Vec::new();
    for number in 0..40 {
        requests.push(logged.get(&format!("/open/{number}")).await.1);
    }
    event(&logged, requests.last().unwrap());
    assert_eq!(logged.sidegate.stop().status.code(), Some(0));
    let mut found = Vec::new();
    for name in [
        "decisions.log.3",
        "decisions.log.2",
        "decisions.log.1",
        "decisions.log",
    ] {
        let path = folder.path().join(name);
        let metadata = fs::metadata(&path).expect(name);
        assert!(metadata.len() <= 16 * 1024, "{name}: {}", metadata.len());
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600, "{name}");
        found.extend(
            events(&path)
                .iter()
                .map(|event| request_id(event).to_owned()),
        );
    }
    assert!(
        found.len() > 10 && requests.ends_with(&found),
        "{} of {}",
        found.len(),
        requests.len()
    );
    assert!(!folder.path().join("decisions.log.4").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn on_standard_output_events_are_lines_with_a_type() {
    let folder = folder();
    let logged = Logged::start(folder.path(), "output = \"stdout\"\n", "").await;
    let (_, request) = logged.get("/closed").await;
    access_line(&logged.sidegate, &request);
    let output = logged.sidegate.stop();
    let lines = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let kind = "openpolicyagent.org/decision_logs";
    let events: Vec<Value> = lines.filter(|line| line["type"] == kind).collect();
    assert_eq!(events.len(), 1, "{}", output.stdout);
    assert_eq!(request_id(&events[0]), request);
    assert_eq!(events[0]["result"], false);
}
