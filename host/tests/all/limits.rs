//! Time, concurrency, and the end of instances.

use std::time::{Duration, Instant};

use http::StatusCode;
use sidegate_host::HostConfig;

use crate::support::{PROBE, TestHost, ask, chunk, config, get, probe, text};

const INSTANCES: &str = r#"sidegate_component_instances{component="probe"}"#;

fn requests(outcome: &str) -> String {
    format!(r#"sidegate_component_requests_total{{component="probe",outcome="{outcome}"}}"#)
}

#[tokio::test]
async fn a_guest_that_spins_is_stopped_and_holds_up_nobody_on_its_thread() {
    let spinning = tokio::spawn(async { ask(&probe(), get("/spin")).await.map(drop) });

    // Ten timers in turn: were sockets and timers polled only now and then, this would outlast
    // the spinning.
    for _ in 0..10 {
        assert_eq!(text(&probe(), "/sleep/1").await.0, StatusCode::OK);
    }
    assert!(!spinning.is_finished());

    let error = spinning.await.unwrap().unwrap_err();
    assert_eq!(
        (error.code(), error.status()),
        ("SG0425", StatusCode::GATEWAY_TIMEOUT)
    );
    assert_eq!(
        error.to_string(),
        "the component did not finish within 2000 ms"
    );
}

#[tokio::test]
async fn beyond_its_concurrency_a_host_refuses_and_instances_end_with_their_callers() {
    let host = TestHost::new(HostConfig {
        max_concurrency: 1,
        queue_wait: Duration::from_millis(20),
        ..config()
    });
    let probe = host.load("probe", PROBE);

    // One that has not answered yet.
    let waiting = tokio::spawn({
        let probe = probe.clone();
        async move { ask(&probe, get("/sleep/600000")).await.map(drop) }
    });
    host.metric_becomes(INSTANCES, 1.0).await;
    let error = ask(&probe, get("/status/200")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.status()),
        ("SG0420", StatusCode::SERVICE_UNAVAILABLE)
    );
    waiting.abort();
    host.metric_becomes(INSTANCES, 0.0).await;

    // One whose body is being read.
    let mut body = ask(&probe, get("/stall")).await.unwrap().into_body();
    assert_eq!(chunk(&mut body).await.unwrap().unwrap(), "one");
    assert_eq!(host.metric(INSTANCES), 1.0);
    drop(body);
    host.metric_becomes(INSTANCES, 0.0).await;

    // The slot is free again.
    assert_eq!(text(&probe, "/status/204").await.0, StatusCode::NO_CONTENT);
    host.metric_becomes(&requests("ok"), 1.0).await;
    assert_eq!(host.metric(&requests("cancelled")), 2.0);
    assert_eq!(host.metric(&requests("saturated")), 1.0);
    let durations = r#"sidegate_component_duration_seconds_count{component="probe"}"#;
    assert_eq!(host.metric(durations), 3.0);
}

#[tokio::test]
async fn a_guest_may_go_on_after_its_body_is_complete() {
    let host = TestHost::new(config());
    let probe = host.load("probe", PROBE);
    let started = Instant::now();
    assert_eq!(text(&probe, "/after/500").await.1, "answered\n");
    assert!(
        started.elapsed() < Duration::from_millis(500),
        "the end of the body does not wait"
    );
    assert_eq!(host.metric(INSTANCES), 1.0);
    host.metric_becomes(&requests("ok"), 1.0).await;
    assert_eq!(host.metric(INSTANCES), 0.0);
}
