//! py-spiffe, as it is, against the Workload API.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use sidegate_tests::{Sidegate, Tool, root, skip, tool};

use super::token::Token;
use super::{DEMO, NO_ARGUMENTS};
use crate::support::{finish, folder};

#[test]
fn py_spiffe_fetches_and_validates_whatever_it_can() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    // A path of one name only, which gRPC's authority has no trouble with.
    let socket = gate.ready.workload_socket.rsplit('/').next().unwrap();
    let Some(document) = ask(state.path(), &format!("unix:{socket}")) else {
        return skip(
            "py_spiffe_fetches_and_validates_whatever_it_can",
            Tool::Python,
        );
    };
    judge(&document);
}

#[test]
fn py_spiffe_reaches_the_socket_by_the_address_that_is_printed() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    // gRPC's C core, and so py-spiffe, makes the path its `:authority`, with %2F for slashes.
    let Some(document) = ask(state.path(), &gate.ready.workload_socket) else {
        return skip("py_spiffe_reaches_the_socket", Tool::Python);
    };
    judge(&document);
}

/// What py-spiffe gets by a socket, or `None` where it is not installed.
pub(crate) fn ask(folder: &Path, socket: &str) -> Option<Value> {
    let mut command = Command::new(tool(Tool::Python)?);
    command
        .arg(root().join("tests/peers/spiffe_client.py"))
        .args([socket, "demo", "other"])
        .env_remove("SPIFFE_ENDPOINT_SOCKET")
        .current_dir(folder);
    let output = finish(&mut command);
    assert!(output.status.success(), "{}", output.stderr);
    Some(serde_json::from_str(&output.stdout).expect("it is JSON"))
}

fn judge(document: &Value) {
    let x509_svid = json!({"spiffe_id": DEMO, "certificates": 2});
    assert_eq!(document["x509_svid"], x509_svid, "leaf and intermediate");
    assert_eq!(document["x509_bundles"], json!({"sidegate.local": 1}));

    let svid = &document["jwt_svid"];
    let text = svid["token"].as_str().expect("a token");
    let token = Token::new(text);
    assert_eq!(svid["spiffe_id"], DEMO);
    assert_eq!(svid["audience"], json!(["demo"]));
    assert_eq!(svid["expiry"], token.claims["exp"]);
    for other in ["selected", "validated", "validated_locally"] {
        assert_eq!(document[other], *svid, "{other}");
    }
    let key = token.header["kid"].as_str().expect("a key ID");
    let domains = document["jwt_bundles"].as_object().expect("bundles");
    assert_eq!(domains.len(), 1, "{domains:?}");
    assert_eq!(domains["sidegate.local"][key], "secp256r1");

    let expected = [
        ("fetch for another audience", "PERMISSION_DENIED"),
        ("fetch for both audiences", "PERMISSION_DENIED"),
        ("fetch for another workload", "PERMISSION_DENIED"),
        ("validate for another audience", "INVALID_ARGUMENT"),
        ("validate a cut token", "INVALID_ARGUMENT"),
        ("validate locally for another audience", "InvalidTokenError"),
    ];
    let refused = document["refused"].as_object().expect("refusals");
    assert_eq!(refused.len(), expected.len());
    for (what, expected) in expected {
        let said = refused[what].as_str();
        assert!(
            said.is_some_and(|said| said.contains(expected)),
            "{what}: {said:?}"
        );
    }
}
