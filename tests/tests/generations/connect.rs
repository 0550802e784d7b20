//! Connections that the policy decides on.

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::Gate;
use super::cut::{send1, send2};
use crate::support::{Client, counter, logged, patiently};

const REQUESTS: &str = "package envoy.authz\nallow := true\n";

/// A policy of connections, beside the one of requests.
fn write(gate: &Gate, rego: &str) {
    let rego = format!("package sidegate.connect\n{rego}\n");
    let before = gate.generation();
    gate.put("connect.rego", &rego);
    gate.is_changed(before);
}

/// All that a connection brings for a request that is sent at once.
async fn answer(client: &Client) -> Vec<u8> {
    let mut stream = client.raw().await;
    // The connection may be gone already.
    let _ = stream
        .write_all(b"GET /status/200 HTTP/1.1\r\nhost: a\r\n\r\n")
        .await;
    let mut answer = Vec::new();
    let _ = patiently(stream.read_to_end(&mut answer)).await;
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_denied_sees_no_response() {
    let gate = Gate::up(REQUESTS);
    let sidegate = &gate.sidegate;
    let client = Client::demo(sidegate);
    let decided = |verdict: &str| {
        let labels = ["decision_point=\"connect\"", verdict];
        counter(sidegate, "sidegate_authz_decisions_total", &labels) as u64
    };
    let refused = || counter(sidegate, "sidegate_connections_refused_total", &[]) as u64;
    // Nothing is asked, and requests decide.
    assert_eq!(client.get("/status/200").await.status, 200);
    assert_eq!(gate.ask("status", 0)["connect"], false);
    assert_eq!((decided("allow"), decided("deny"), refused()), (0, 0, 0));

    write(
        &gate,
        r#"
default allow := {"allowed": false, "reason": "not from here"}
allow if {
    input.source_principal == "spiffe://sidegate.local/other"
    input.attributes.contextExtensions.listener == "main"
}
"#,
    );
    assert_eq!(gate.ask("status", 0)["connect"], true);
    assert_eq!(answer(&client).await, b"");
    logged(
        sidegate,
        &["SG0341", "not from here", "spiffe://sidegate.local/demo"],
    );
    assert_eq!((decided("allow"), decided("deny"), refused()), (0, 1, 1));

    write(
        &gate,
        "allow if startswith(input.source_principal, \"spiffe://sidegate.local/\")",
    );
    assert_eq!(client.get("/status/200").await.status, 200);
    let answer = client.send_http2(Request::builder(), "/status/200").await;
    assert_eq!(answer.status, 200);
    assert_eq!((decided("allow"), decided("deny"), refused()), (2, 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_the_next_policy_denies_are_cut_and_the_others_stay() {
    let gate = Gate::up(REQUESTS);
    let client = Client::demo(&gate.sidegate);
    let mut http1 = client.http1().await;
    let mut http2 = client.http2().await;
    let mut silent = client.raw().await;
    let in_use = async |http1: &mut _, http2: &mut _| {
        for answer in [
            send1(http1, "/status/200").await,
            send2(http2, "/status/200").await,
        ] {
            assert_eq!(answer.unwrap().status, 200);
        }
    };
    in_use(&mut http1, &mut http2).await;
    write(&gate, "allow if input.source_principal");
    in_use(&mut http1, &mut http2).await;
    let cut = || counter(&gate.sidegate, "sidegate_connections_cut_total", &[]) as u64;
    assert_eq!(cut(), 0);

    // What is neither yes nor no is no.
    write(&gate, "allow if input.no_such_thing");
    patiently(async {
        while http1.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
        while http2.ready().await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut rest = Vec::new();
    let _ = patiently(silent.read_to_end(&mut rest)).await;
    logged(&gate.sidegate, &["SG0342", "undefined"]);
    assert_eq!(cut(), 3);
    assert_eq!(answer(&client).await, b"");

    // A rule that is missing from its package is no policy.
    let failures = gate.loads("failure");
    gate.put("connect.rego", "package sidegate.connect\nno := 1\n");
    sidegate_tests::until("a failure", || {
        (gate.loads("failure") > failures).then_some(())
    });
    assert!(gate.check(1).contains("sidegate/connect/allow"));
}
