//! gRPC through two listeners.

use serde_json::{Value, json};

use super::{Gate, SERVER};
use crate::routes::{Grpc, peer};
use crate::support::finish;

#[test]
fn grpc_passes_from_app_to_peer_with_its_trailers() {
    let Some(server) = Grpc::serve("grpc_passes_from_app_to_peer") else {
        return;
    };
    let url = format!("h2c://127.0.0.1:{}", server.port);
    let pair = Gate::pair(&url, SERVER, "");
    let calls = json!([
        ["/test.Echo/Unary", ["hello"], 10],
        ["/test.Echo/Stream", ["one", "two", "three"], 10],
        ["/test.Echo/Fail", ["5"], 10],
    ]);
    let mut command = peer("plain").expect("it served before");
    let output = finish(command.arg(pair.address("app")).arg(calls.to_string()));
    assert!(output.status.success(), "{}", output.stderr);
    let answers: Vec<Value> = serde_json::from_str(&output.stdout).expect("it is JSON");
    let codes: Vec<_> = answers
        .iter()
        .map(|answer| answer["code"].clone())
        .collect();
    assert_eq!(codes, [0, 0, 5], "{answers:?}");
    assert_eq!(answers[0]["answers"], json!(["hello"]));
    assert_eq!(answers[1]["answers"], json!(["one", "two", "three"]));
    for answer in &answers {
        assert_eq!(answer["trailers"], json!(["sent"]), "{answer}");
    }
}

#[test]
fn a_grpc_caller_learns_of_a_wrong_server_in_trailers() {
    let Some(server) = Grpc::serve("a_grpc_caller_learns_of_a_wrong_server") else {
        return;
    };
    let url = format!("h2c://127.0.0.1:{}", server.port);
    let expected = "expected_spiffe_ids = [\"spiffe://sidegate.local/other\"]";
    let pair = Gate::pair(&url, expected, "");
    let calls = json!([["/test.Echo/Unary", ["hello"], 10]]);
    let mut command = peer("plain").expect("it served before");
    let output = finish(command.arg(pair.address("app")).arg(calls.to_string()));
    let answers: Vec<Value> = serde_json::from_str(&output.stdout).expect("it is JSON");
    assert_eq!(answers[0]["code"], 14, "{answers:?}");
}
