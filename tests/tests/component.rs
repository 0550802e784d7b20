//! Components that misbehave: each fault is told, and the next request is served.

use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use sidegate_tests::{Sidegate, until};

use crate::support::{
    Client, Configuration, access_line, body, counter, folder, logged, patiently, up,
};

/// The instances of components that run now.
fn running(sidegate: &Sidegate) -> f64 {
    counter(sidegate, "sidegate_component_instances", &[])
}

/// A response whose end is missing. Its head may be missing too: what the component had sent when
/// it failed need not have left yet.
async fn never_whole(response: hyper::Result<Response<Incoming>>) {
    let Ok(response) = response else {
        return;
    };
    assert_eq!(response.status(), 200);
    let whole = patiently(response.into_body().collect()).await;
    assert!(whole.is_err(), "it ends as if it were whole: {whole:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_before_the_response_is_a_status_with_a_code_and_the_next_request_is_served() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .component("request_deadline = \"1s\"\n")
        .start(folder.path());
    // The path, the status, and what the log says besides the code.
    let cases = [
        ("/trap", 500, "unreachable"),
        ("/grow", 500, "memory"),
        ("/silent", 502, "without a response"),
        ("/error", 502, "ConfigurationError"),
        ("/bodiless", 502, "content-length"),
        ("/spin", 504, "1000 ms"),
        ("/sleep/3600000", 504, "1000 ms"),
    ];
    let mut wrong = Vec::new();
    for (path, status, said) in cases {
        for answer in [
            client.get(path).await,
            client.send_http2(Request::builder(), path).await,
        ] {
            let line = access_line(&sidegate, answer.header("x-request-id"));
            let code = line["code"].as_str().unwrap_or_default();
            let told = code.starts_with("SG04") && line["detail"].to_string().contains(said);
            if answer.status != status || !answer.body.is_empty() || !told {
                wrong.push(format!("{path}: {answer:?}\n{line}"));
            } else {
                logged(&sidegate, &["component=\"probe\"", code]);
            }
            let next = client.get("/status/200").await;
            assert_eq!(next.status, 200, "after {path}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    until("no instance is left", || {
        (running(&sidegate) < 0.5).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fault_after_the_head_cuts_the_body_and_the_next_request_is_served() {
    let folder = folder();
    let (sidegate, client) = Configuration::new().start(folder.path());
    for path in ["/trap-late", "/short", "/unfinished"] {
        let request = Request::get(path).header("host", "localhost");
        let mut connection = client.http1().await;
        let response = connection.send_request(request.body(body("")).unwrap());
        never_whole(patiently(response).await).await;
        let line = until("its access line", || {
            let stdout = sidegate.process.stdout();
            let mut lines = stdout.lines();
            lines
                .find(|line| line.contains(path))
                .map(ToOwned::to_owned)
        });
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["status"], 200, "{line}");
        assert_eq!(line["error"], "response_broken", "{line}");

        let request = Request::get(format!("https://localhost{path}"));
        let mut connection = client.http2().await;
        let response = connection.send_request(request.body(body("")).unwrap());
        never_whole(patiently(response).await).await;
        // The connection and its other requests live on.
        let request = Request::get("https://localhost/status/200");
        patiently(connection.ready()).await.unwrap();
        let response = connection.send_request(request.body(body("")).unwrap());
        assert_eq!(
            patiently(response).await.unwrap().status(),
            200,
            "after {path}"
        );
    }
    logged(
        &sidegate,
        &["component=\"probe\"", "code=\"SG04", "trapped"],
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_stalls_is_cut_when_its_connection_idles() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .timeouts("idle = \"1s\"\n")
        .start(folder.path());
    let request = Request::get("/stall").header("host", "localhost");
    let mut connection = client.http1().await;
    let response = connection.send_request(request.body(body("")).unwrap());
    never_whole(patiently(response).await).await;

    let request = Request::get("https://localhost/stall");
    let mut connection = client.http2().await;
    let response = connection.send_request(request.body(body("")).unwrap());
    never_whole(patiently(response).await).await;
    until("no instance is left", || {
        (running(&sidegate) < 0.5).then_some(())
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_deadline_may_be_of_any_length() {
    let folder = folder();
    let (_sidegate, client) = Configuration::new()
        .component("request_deadline = \"10m\"\n")
        .start(folder.path());
    assert_eq!(client.get("/status/200").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn while_some_clients_spin_the_others_are_answered() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .component("request_deadline = \"1m\"\n")
        .timeouts("request = \"10m\"\nidle = \"10m\"\n")
        // One worker for all, so that none can hide behind another.
        .rest("[proxy]\nworkers = 1\ndrain_timeout = \"0s\"\n")
        .start(folder.path());

    let spinning: Vec<_> = (0..3)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut connection = client.http1().await;
                let request = Request::get("/spin").header("host", "localhost");
                connection
                    .send_request(request.body(body("")).unwrap())
                    .await
            })
        })
        .collect();
    until("three instances spin", || {
        (running(&sidegate) > 2.5).then_some(())
    });
    for _ in 0..10 {
        assert_eq!(client.get("/status/200").await.status, 200);
        let answer = client.send_http2(Request::builder(), "/admin").await;
        assert_eq!(answer.status, 403);
    }
    assert!(spinning.iter().all(|spin| !spin.is_finished()));
    assert_eq!(sidegate.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_takes_its_instance_with_it() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .component("request_deadline = \"1m\"\n")
        .timeouts("request = \"10m\"\nidle = \"10m\"\n")
        .start(folder.path());
    for path in ["/sleep/3600000", "/spin"] {
        let mut stream = client.raw().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes())
            .await
            .unwrap();
        until("it runs", || (running(&sidegate) > 0.5).then_some(()));
        drop(stream);
        until("it is gone", || (running(&sidegate) < 0.5).then_some(()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_sees_nothing_of_the_machine_and_reaches_nothing() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);
    let answer = client.get("/outbound").await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("HttpRequestDenied"), "{}", answer.body);
    let answer = client.get("/environment").await;
    assert_eq!(
        answer.body,
        "variables: 0\narguments: 0\npreopens: 0\ntcp: Err(\"access-denied\")\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_component_says_is_one_log_line_that_it_cannot_forge() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let client = Client::demo(&sidegate);
    assert_eq!(client.get("/log/good-news").await.body, "logged\n");
    logged(&sidegate, &["good-news", "component=\"probe\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_components_concurrency_are_turned_away_and_counted_off_again() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .component("max_concurrency = 2\nrequest_deadline = \"1m\"\n")
        .timeouts("request = \"10m\"\n")
        .start(folder.path());
    let sleep = || {
        let client = client.clone();
        tokio::spawn(async move { client.get("/sleep/3600000").await })
    };
    let sleeping = [sleep(), sleep()];
    until("two instances sleep", || {
        (running(&sidegate) > 1.5).then_some(())
    });
    let answer = tokio::time::timeout(Duration::from_secs(20), client.get("/status/200"))
        .await
        .expect("it is not kept waiting for an hour");
    assert_eq!(answer.status, 503);
    let line = access_line(&sidegate, answer.header("x-request-id"));
    assert!(line["code"].is_string(), "{line}");
    for sleeping in sleeping {
        sleeping.abort();
    }
    until("there is room again", || {
        (running(&sidegate) < 0.5).then_some(())
    });
    assert_eq!(client.get("/status/200").await.status, 200);
}
