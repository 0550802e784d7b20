//! JWT-SVIDs of other trust domains.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Value, json};
use sidegate_tests::{Output, Sidegate, sidegate};
use tonic::Code;

use super::{Foreign, OTHER, set, two_workloads};
use crate::jwt::raw::{fetch_one, validate};
use crate::jwt::token::{Token, encode};
use crate::support::{Operator, finish, folder, program, spiffe_id, write};

const THIRD: &str = "third.example";

#[tokio::test]
async fn a_foreign_token_is_valid_for_callers_whose_entries_federate_and_for_no_others() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = two_workloads(folder.path(), &[OTHER]);
    let operator = Operator::of(&gate);
    let token = fetch_one(&foreign.gate.ready.workload_socket, &["demo"]).await;
    assert_eq!(token.spiffe_id, foreign.id());
    let token = token.svid;
    assert_eq!(judged(&gate, &token).await, None);
    assert_eq!(by_another(&gate, &token).status.code(), Some(1));

    foreign.is_known_to(&operator);
    assert_eq!(judged(&gate, &token).await, Some(foreign.id()));
    assert_eq!(by_another(&gate, &token).status.code(), Some(1));
    let other_audience = validate(&gate.ready.workload_socket, "other", &token).await;
    assert_eq!(other_audience.unwrap_err().code(), Code::InvalidArgument);

    // The other program is as good as this one once its entry says so.
    let more = ["--federates-with", OTHER];
    let entry = operator.create("/more", &program(&sidegate()), &more);
    assert_eq!(by_another(&gate, &token).status.code(), Some(0));
    operator.delete(&entry);
    assert_eq!(by_another(&gate, &token).status.code(), Some(1));

    foreign.is_forgotten_by(&operator);
    assert_eq!(judged(&gate, &token).await, None);
}

#[tokio::test]
async fn a_foreign_key_that_is_revoked_and_handed_over_so_is_not_believed() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = two_workloads(folder.path(), &[OTHER]);
    let operator = Operator::of(&gate);
    let theirs = foreign.operator();
    let token = fetch_one(&foreign.gate.ready.workload_socket, &["demo"]).await;
    for (action, is_valid) in [("rotate", true), ("taint", true), ("revoke", false)] {
        theirs.ask(&[action, "jwt"]);
        foreign.is_known_to(&operator);
        let judged = judged(&gate, &token.svid).await;
        assert_eq!(judged, is_valid.then(|| foreign.id()), "{action}");
    }
    let token = fetch_one(&foreign.gate.ready.workload_socket, &["demo"]).await;
    assert_eq!(judged(&gate, &token.svid).await, Some(foreign.id()));
}

#[tokio::test]
async fn a_foreign_key_vouches_for_its_own_trust_domain_only() {
    let folder = folder();
    let gate = two_workloads(folder.path(), &[OTHER, THIRD]);
    let operator = Operator::of(&gate);
    let own_text = fetch_one(&gate.ready.workload_socket, &["demo"]).await.svid;
    let own = Token::new(&own_text);
    let kid = own.header["kid"].as_str().expect("a key id");
    // One of them gives its key the id that our own has.
    let keys = [(OTHER, "other"), (THIRD, kid)].map(|(domain, kid)| {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key");
        let bundle = json!({"keys": [jwk(&key, kid)]}).to_string();
        set(&operator, domain, &write(folder.path(), domain, bundle));
        (domain, kid, key)
    });
    let subjects =
        ["sidegate.local", OTHER, THIRD].map(|name| (name, format!("spiffe://{name}/a")));
    for (domain, kid, key) in &keys {
        for (of, subject) in &subjects {
            let changed = own.with(&[("kid", json!(kid))], &[("sub", json!(subject))]);
            let signature = key.sign(&SystemRandom::new(), changed.signed.as_bytes());
            let token = changed.signature(signature.expect("a signature").as_ref());
            let expected = (of == domain).then(|| subject.clone());
            let judged = judged(&gate, &token.text()).await;
            assert_eq!(judged, expected, "{subject} by {domain}");
        }
    }
    assert_eq!(judged(&gate, &own_text).await, Some(spiffe_id("/tests")));
}

/// Whose token it is by the word of the Workload API, if it is valid for us.
async fn judged(gate: &Sidegate, token: &str) -> Option<String> {
    match validate(&gate.ready.workload_socket, "demo", token).await {
        Ok(answer) => Some(answer.spiffe_id),
        Err(status) => {
            assert_eq!(status.code(), Code::InvalidArgument, "{status}");
            None
        }
    }
}

/// What the Workload API says to the program under test, which is another workload.
fn by_another(gate: &Sidegate, token: &str) -> Output {
    let mut command = Sidegate::command("svid");
    command
        .args(["validate", "--audience", "demo"])
        .args(["--socket", &gate.ready.workload_socket])
        .arg(token)
        .env_remove("SPIFFE_ENDPOINT_SOCKET");
    finish(&mut command)
}

fn jwk(key: &EcdsaKeyPair, kid: &str) -> Value {
    let point = key.public_key().as_ref();
    let (x, y) = point[1..].split_at(32);
    json!({
        "kty": "EC", "crv": "P-256", "use": "jwt-svid", "kid": kid,
        "x": encode(x), "y": encode(y),
    })
}
