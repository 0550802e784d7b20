//! What `check` and `policy status` tell of a log that does not get where it should.

use http::StatusCode;
use serde_json::Value;
use sidegate_tests::{Sidegate, until};

use super::Logged;
use super::receiver::{Answer, Receiver};
use super::upload::lines;
use crate::support::{finish, folder};

/// `sidegate check` of the instance: its exit code and the row of the log.
fn check(sidegate: &Sidegate) -> (Option<i32>, Value) {
    let mut command = Sidegate::command("check");
    let state = &sidegate.ready.state;
    let output = finish(command.args(["-o", "json", "--state"]).arg(state));
    let report: Value = serde_json::from_str(&output.stdout).expect(&output.stderr);
    let categories = report["categories"].as_array().unwrap().iter();
    let mut rows = categories.flat_map(|it| it["checks"].as_array().unwrap());
    let row = rows.find(|row| row["id"] == "decision-log");
    (output.status.code(), row.expect("a row of the log").clone())
}

/// Waits until the row is like this; tells its exit code and reason.
fn wait_for(sidegate: &Sidegate, result: &str, code: Option<&str>) -> (Option<i32>, String) {
    until(&format!("a row that is {result}"), || {
        let (exit, row) = check(sidegate);
        let is_so = row["result"] == result && row["code"].as_str() == code;
        let reason = row["reason"].as_str().unwrap_or_default().to_owned();
        is_so.then_some((exit, reason))
    })
}

fn status(sidegate: &Sidegate) -> (Value, String) {
    let ask = |arguments: &[&str]| {
        let mut command = Sidegate::command("policy");
        let command = command.arg("status").args(arguments);
        finish(command.arg("--state").arg(&sidegate.ready.state)).stdout
    };
    let facts: Value = serde_json::from_str(&ask(&["-o", "json"])).unwrap();
    (facts["decision_log"].clone(), ask(&[]))
}

#[tokio::test(flavor = "multi_thread")]
async fn events_that_wait_are_a_warning_and_events_that_are_lost_an_error_with_the_reason() {
    let folder = folder();
    let receiver = Receiver::start().await;
    let logged = Logged::start(folder.path(), &lines(&receiver.address), "").await;
    let sidegate = &logged.sidegate;
    assert_eq!(check(sidegate).1["result"], "ok");

    for (answer, told) in [
        (StatusCode::INTERNAL_SERVER_ERROR, "500"),
        (StatusCode::FOUND, "302"),
    ] {
        receiver.answer(Answer::Status(answer));
        logged.get("/open").await;
        let (exit, reason) = wait_for(sidegate, "warning", Some("SG0263"));
        assert_eq!(exit, Some(0), "{reason}");
        assert!(reason.contains(told), "{reason}");
        let (facts, text) = status(sidegate);
        assert_eq!(facts["waiting"], 1, "{facts}");
        assert_eq!(facts["lost"], 0, "{facts}");
        assert!(text.contains("1 wait for the receiver\n"), "{text}");
        assert!(text.contains("SG0263: ") && text.contains(told), "{text}");
        receiver.answer(Answer::Status(StatusCode::OK));
        wait_for(sidegate, "ok", None);
    }

    receiver.answer(Answer::Status(StatusCode::PAYLOAD_TOO_LARGE));
    logged.get("/open").await;
    let (exit, reason) = wait_for(sidegate, "error", Some("SG0269"));
    assert_eq!(exit, Some(1), "{reason}");
    assert!(reason.starts_with("1 were lost"), "{reason}");
    assert!(reason.contains("413"), "{reason}");
    // It stays lost, whatever comes after it.
    receiver.answer(Answer::Status(StatusCode::OK));
    logged.get("/open").await;
    until("the next event", || {
        (status(sidegate).0["written"] == 3).then_some(())
    });
    let (_, reason) = wait_for(sidegate, "error", Some("SG0269"));
    assert!(reason.contains("413"), "{reason}");
    let (facts, text) = status(sidegate);
    assert_eq!((&facts["lost"], &facts["error"]), (&1.into(), &Value::Null));
    assert!(text.contains("SG0269: 1 were lost"), "{text}");
}
