//! What runs and is denied by the next policy.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use sidegate_tests::until;
use tokio::time::timeout;

use super::Gate;
use super::load::roll_back;
use crate::support::{
    Answer, Body, Client, Configuration, access_line, body, counter, folder, logged, patiently,
    read, write,
};

/// Denies what the path's second segment says.
const DENIES_ONE: &str = r#"
package envoy.authz
default allow := false
allow if input.parsed_path[1] != "denied"
"#;

const ALLOWS: &str = "package envoy.authz\nallow := true\n";

pub(super) async fn send1(connection: &mut http1::SendRequest<Body>, path: &str) -> Option<Answer> {
    Some(read(open1(connection, path).await?).await)
}

pub(super) async fn send2(connection: &mut http2::SendRequest<Body>, path: &str) -> Option<Answer> {
    Some(read(open2(connection, path).await?).await)
}

async fn open1(
    connection: &mut http1::SendRequest<Body>,
    path: &str,
) -> Option<Response<Incoming>> {
    connection.ready().await.ok()?;
    let request = Request::get(path).header("host", "localhost");
    patiently(connection.send_request(request.body(body("")).unwrap()))
        .await
        .ok()
}

async fn open2(
    connection: &mut http2::SendRequest<Body>,
    path: &str,
) -> Option<Response<Incoming>> {
    connection.ready().await.ok()?;
    let request = Request::get(format!("https://localhost{path}"));
    patiently(connection.send_request(request.body(body("")).unwrap()))
        .await
        .ok()
}

/// Whether a response goes on: what has come is read, and then there is nothing more and no end.
async fn runs(response: &mut Response<Incoming>) -> bool {
    while let Ok(frame) = timeout(Duration::from_millis(50), response.frame()).await {
        if !matches!(frame, Some(Ok(_))) {
            return false;
        }
    }
    true
}

/// Waits until a response was ended, and not as if it were complete.
async fn is_cut(response: Response<Incoming>) {
    let whole = patiently(response.into_body().collect()).await;
    assert!(whole.is_err(), "a response that was cut is not complete");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_now_is_cut_and_what_is_allowed_goes_on() {
    let folder = folder();
    let policy = write(folder.path(), "policy/policy.rego", ALLOWS);
    let (sidegate, client) = Configuration::new()
        .component("request_deadline = \"60s\"\n")
        .timeouts("idle = \"60s\"\nrequest = \"60s\"\n")
        .rest("[policy]\npath = \"policy\"\n")
        .start(folder.path());
    let mut denied1 = client.http1().await;
    let mut allowed1 = client.http1().await;
    let mut both2 = client.http2().await;
    let cut = [
        open1(&mut denied1, "/stall/denied").await.unwrap(),
        open2(&mut both2, "/stall/denied").await.unwrap(),
    ];
    let ids = cut.each_ref().map(|response| {
        let id = response.headers().get("x-request-id").unwrap();
        id.to_str().unwrap().to_owned()
    });
    let mut running = [
        open1(&mut allowed1, "/stall/allowed").await.unwrap(),
        open2(&mut both2, "/stall/allowed").await.unwrap(),
    ];
    let count = |name: &str| counter(&sidegate, name, &["listener=\"main\""]) as u64;
    assert_eq!(count("sidegate_requests_cut_total"), 0);

    std::fs::write(&policy, DENIES_ONE).unwrap();
    for response in cut {
        is_cut(response).await;
    }
    for id in ids {
        let line = access_line(&sidegate, &id);
        assert_eq!(line["error"], "policy_changed", "{line}");
        assert_eq!(line["code"], "SG0340", "{line}");
        assert_eq!(line["policy_generation"], 1, "{line}");
        logged(&sidegate, &["SG0340", &id]);
    }
    for response in &mut running {
        assert!(runs(response).await);
    }
    assert_eq!(count("sidegate_requests_cut_total"), 2);
    assert_eq!(count("sidegate_connections_cut_total"), 0);
    // The other streams of a connection do not suffer.
    let answer = send2(&mut both2, "/status/200").await.unwrap();
    assert_eq!(answer.status, 200);

    // The next policy asks those again that the last one allowed.
    std::fs::write(&policy, "package envoy.authz\nallow := false\n").unwrap();
    for response in running {
        is_cut(response).await;
    }
    assert_eq!(count("sidegate_requests_cut_total"), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_young_when_the_policy_changes_does_not_escape_it() {
    let gate = Gate::up("package envoy.authz\nallow := false\n");
    let client = Client::demo(&gate.sidegate);
    gate.change(ALLOWS);
    let mut connection = client.http2().await;
    let response = open2(&mut connection, "/stall").await.unwrap();
    assert_eq!(response.status(), 200);
    roll_back(&gate.sidegate.ready.state);
    is_cut(response).await;
    let answer = send2(&mut connection, "/status/200").await.unwrap();
    assert_eq!(answer.status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_waits_for_its_response_is_answered_with_the_denial() {
    let gate = Gate::up(ALLOWS);
    let client = Client::demo(&gate.sidegate);
    let mut connections = [client.http2().await, client.http2().await];
    let [denied, allowed] = &mut connections;
    let denied = send2(denied, "/sleep/9000");
    let allowed = send2(allowed, "/sleep/5000");
    let change = async {
        until("two requests that run", || {
            let instances = counter(&gate.sidegate, "sidegate_component_instances", &[]);
            (instances > 1.5).then_some(())
        });
        gate.change(
            r#"
package envoy.authz
allow := {"allowed": input.parsed_path[1] == "5000", "http_status": 429, "body": "no longer"}
"#,
        );
    };
    let (denied, allowed, ()) = tokio::join!(denied, allowed, change);
    let (denied, allowed) = (denied.unwrap(), allowed.unwrap());
    assert_eq!(denied.status, 429, "{denied:?}");
    assert_eq!(denied.body, "no longer");
    let line = access_line(&gate.sidegate, denied.header("x-request-id"));
    assert_eq!(line["error"], "policy_changed", "{line}");
    assert_eq!(line["verdict"], "deny", "{line}");
    assert_eq!(line["policy_generation"], 2, "{line}");
    assert_eq!(allowed.status, 200, "{allowed:?}");
    let line = access_line(&gate.sidegate, allowed.header("x-request-id"));
    assert_eq!(line["verdict"], "allow", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_nobody_reads_is_cut_with_its_connection() {
    let gate = Gate::up(ALLOWS);
    let client = Client::demo(&gate.sidegate);
    let mut connection = client.http2().await;
    let response = open2(&mut connection, "/large/100000000").await.unwrap();
    // What does not fit into any window stays with the proxy.
    gate.change("package envoy.authz\nallow := false\n");
    until("a connection that was cut", || {
        let labels = ["reason=\"policy\""];
        let cut = counter(&gate.sidegate, "sidegate_connections_cut_total", &labels);
        (cut > 0.5).then_some(())
    });
    is_cut(response).await;
    assert!(patiently(connection.ready()).await.is_err());
}
