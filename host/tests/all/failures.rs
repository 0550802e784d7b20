//! Components that fail: the caller gets an error, the operator the reason, the others nothing.

use http::StatusCode;
use http_body_util::BodyExt;
use sidegate_host::InvokeError;

use crate::support::{Logged, ask, chunk, get, probe, text};

async fn error(path: &str) -> InvokeError {
    ask(&probe(), get(path)).await.unwrap_err()
}

#[tokio::test]
async fn a_failure_before_the_head_is_an_error_with_its_own_status_and_code() {
    let table = [
        ("/trap", "SG0423", "trap", 500, "the component trapped: "),
        (
            "/grow",
            "SG0424",
            "memory_limit",
            500,
            "the component needed more than its 16777216 bytes",
        ),
        (
            "/silent",
            "SG0426",
            "no_response",
            502,
            "the component returned without a response",
        ),
        ("/error", "SG0427", "guest_error", 502, "ConfigurationError"),
        (
            "/bodiless",
            "SG0428",
            "invalid_response",
            502,
            "it has a content-length, but no body",
        ),
        (
            "/status/101",
            "SG0428",
            "invalid_response",
            502,
            "its status is informational",
        ),
    ];
    for (path, code, label, status, message) in table {
        let error = error(path).await;
        assert_eq!(
            (error.code(), error.label()),
            (code, label),
            "{path}: {error}"
        );
        assert_eq!(error.status().as_u16(), status, "{path}: {error}");
        assert!(error.to_string().contains(message), "{path}: {error}");
        assert!(
            !error.caller_message().contains("wasm"),
            "{path}: {}",
            error.caller_message()
        );
        assert_eq!(
            text(&probe(), "/status/204").await.0,
            StatusCode::NO_CONTENT,
            "after {path}"
        );
    }
}

#[tokio::test]
async fn a_failure_after_the_head_is_an_error_in_the_body() {
    let table = [
        ("/trap-late", "SG0423"),
        ("/short", "SG0429"),
        ("/unfinished", "SG0429"),
        ("/stall", "SG0425"),
    ];
    for (path, code) in table {
        let response = ask(&probe(), get(path)).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let mut body = response.into_body();
        assert_eq!(chunk(&mut body).await.unwrap().unwrap(), "one", "{path}");
        assert_eq!(
            chunk(&mut body).await.unwrap().unwrap_err().code(),
            code,
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_request_without_an_authority_is_the_caller_s_fault() {
    let mut request = get("/");
    *request.uri_mut() = "/".parse().unwrap();
    let error = ask(&probe(), request).await.unwrap_err();
    assert_eq!(
        (error.code(), error.status()),
        ("SG0421", StatusCode::BAD_REQUEST)
    );
}

#[tokio::test]
async fn the_operator_learns_where_a_component_trapped() {
    let logged = Logged::start();
    let error = error("/trap").await;
    let detail = error.detail().unwrap();
    for expected in ["wasm trap", "probe::misbehave::trap"] {
        assert!(detail.contains(expected), "{expected}: {detail}");
        assert!(
            logged.text().contains(expected),
            "{expected}: {}",
            logged.text()
        );
    }
    assert!(
        logged.text().contains("code=\"SG0423\""),
        "{}",
        logged.text()
    );
}

#[tokio::test]
async fn a_failure_counts_whoever_found_it() {
    let host = crate::support::TestHost::new(crate::support::config());
    let probe = host.load("counted", crate::support::PROBE);
    let paths = [
        "/trap",
        "/trap-late",
        "/short",
        "/unfinished",
        "/bodiless",
        "/error",
        "/silent",
    ];
    for path in paths {
        if let Ok(response) = ask(&probe, get(path)).await {
            assert!(
                BodyExt::collect(response.into_body()).await.is_err(),
                "{path}"
            );
        }
    }
    let table = [
        ("trap", 2.0),
        ("incomplete_body", 2.0),
        ("invalid_response", 1.0),
        ("guest_error", 1.0),
        ("no_response", 1.0),
        ("ok", 0.0),
        ("cancelled", 0.0),
    ];
    host.metric_becomes(r#"sidegate_component_instances{component="counted"}"#, 0.0)
        .await;
    for (outcome, expected) in table {
        let series = format!(
            r#"sidegate_component_requests_total{{component="counted",outcome="{outcome}"}}"#
        );
        assert_eq!(host.metric(&series), expected, "{outcome}");
    }
}
