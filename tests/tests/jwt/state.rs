//! The keys of tokens in the state directory.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sidegate_tests::{Output, Sidegate};

use super::NO_ARGUMENTS;
use super::raw::{fetch_one, jwks, validate};
use crate::support::{finish, folder};

#[tokio::test]
async fn a_token_from_before_a_stop_or_a_kill_is_valid_after_it() {
    let state = folder();
    let file = state.path().join("jwt_keys.json");
    let mut gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let keys = jwks(&gate.ready.workload_socket).await;
    let content = fs::read(&file).expect("the keys are kept");
    let mode = fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);

    let mut tokens = Vec::new();
    for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGKILL] {
        tokens.push(fetch_one(&gate.ready.workload_socket, &["demo"]).await.svid);
        gate.process.signal(signal);
        gate.process.wait();
        gate = Sidegate::up(state.path(), NO_ARGUMENTS);
        let socket = &gate.ready.workload_socket;
        assert_eq!(jwks(socket).await, keys, "{signal}");
        assert_eq!(fs::read(&file).unwrap(), content, "{signal}");
        for token in &tokens {
            validate(socket, "demo", token).await.expect("it is valid");
        }
    }
}

#[test]
fn damaged_keys_are_refused_and_left_as_they_are() {
    let state = folder();
    let file = state.path().join("jwt_keys.json");
    Sidegate::up(state.path(), NO_ARGUMENTS).stop();
    let good = fs::read_to_string(&file).expect("the keys are kept");
    let document: Value = serde_json::from_str(&good).expect("it is JSON");
    let with = |change: &dyn Fn(&mut Value)| {
        let mut changed = document.clone();
        change(&mut changed);
        changed.to_string()
    };
    let mut cases = vec![
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "not JSON".to_owned(),
        "\0".repeat(good.len()),
        good[..good.len() / 2].to_owned(),
        format!("{good}{good}"),
        with(&|document| document["keys"] = json!([])),
        with(&|document| document["unknown"] = json!(1)),
        with(&|document| document["keys"][0]["unknown"] = json!(1)),
        with(&|document| document["keys"][0]["key"] = json!("AAAA")),
    ];
    // Each member of the document, and of a key, spoiled and missing.
    for (at, object) in [("", &document), ("/keys/0", &document["keys"][0])] {
        for member in object.as_object().expect("an object").keys() {
            cases.push(with(&|document| {
                document.pointer_mut(at).unwrap()[member] = json!({"spoiled": true});
            }));
            cases.push(with(&|document| {
                let object = document.pointer_mut(at).unwrap().as_object_mut();
                object.unwrap().remove(member);
            }));
        }
    }
    for content in cases {
        fs::write(&file, &content).unwrap();
        let output = start(state.path(), "sidegate.local");
        is_refused(&output, &file, &content);
        assert_eq!(fs::read_to_string(&file).unwrap(), content);
    }

    fs::write(&file, &good).unwrap();
    Sidegate::up(state.path(), NO_ARGUMENTS);
}

#[test]
fn the_keys_of_another_trust_domain_are_refused_and_left_as_they_are() {
    let (state, other) = (folder(), folder());
    let file = state.path().join("jwt_keys.json");
    Sidegate::up(state.path(), NO_ARGUMENTS).stop();
    Sidegate::up(other.path(), ["--trust-domain", "elsewhere"]).stop();
    let foreign = fs::read_to_string(other.path().join("jwt_keys.json")).unwrap();
    fs::write(&file, &foreign).unwrap();
    let output = start(state.path(), "sidegate.local");
    is_refused(&output, &file, "another trust domain");
    assert_eq!(fs::read_to_string(&file).unwrap(), foreign);
}

#[test]
fn keys_that_cannot_be_read_are_not_replaced() {
    let state = folder();
    let file = state.path().join("jwt_keys.json");
    Sidegate::up(state.path(), NO_ARGUMENTS).stop();
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    fs::set_permissions(&file, Permissions::from_mode(0o700)).unwrap();
    let output = start(state.path(), "sidegate.local");
    is_refused(&output, &file, "a folder");
    assert!(file.is_dir());
}

fn start(state: &Path, trust_domain: &str) -> Output {
    let mut command = Sidegate::command("up");
    command
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["--trust-domain", trust_domain, "--state"])
        .arg(state);
    finish(&mut command)
}

fn is_refused(output: &Output, file: &Path, what: &str) {
    assert_eq!(output.status.code(), Some(2), "{what}: {output:?}");
    assert!(output.stderr.contains("error[SG"), "{what}: {output:?}");
    let name = file.to_str().expect("the path is text");
    assert!(output.stderr.contains(name), "{what}: {output:?}");
    assert_eq!(output.stdout, "", "{what}");
}
