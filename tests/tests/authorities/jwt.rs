//! JWT-SVIDs under a key that is rotated, tainted and revoked.

use std::collections::BTreeSet;

use nix::sys::signal::Signal;
use sidegate_tests::{Sidegate, Tool, skip};
use spiffe::{JwtSvid, WorkloadApiClient};
use tonic::Code;

use super::start;
use crate::entries::stream::{JwtBundles, Stream};
use crate::jwt::peer;
use crate::jwt::raw::{fetch_one, jwks, validate};
use crate::jwt::token::Token;
use crate::support::{Operator, folder, spiffe_id};

#[tokio::test]
async fn a_token_of_a_tainted_key_is_valid_but_not_given_out_and_of_a_revoked_one_is_neither() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    let socket = &gate.ready.workload_socket;
    let first = operator.authority("jwt", "active");
    let old = fetch_one(socket, &["demo"]).await.svid;
    assert_eq!(key(&old), first);

    operator.ask(&["rotate", "jwt"]);
    let second = operator.authority("jwt", "active");
    assert_eq!(judged(&gate, &old).await, [true, true], "rotated");

    operator.ask(&["taint", "jwt"]);
    let new = fetch_one(socket, &["demo"]).await.svid;
    assert_eq!(key(&new), second, "the old one is not given out again");
    assert_eq!(judged(&gate, &old).await, [true, true], "tainted");
    assert_eq!(judged(&gate, &new).await, [true, true]);

    operator.ask(&["revoke", "jwt"]);
    assert_eq!(judged(&gate, &old).await, [false, false], "revoked");
    assert_eq!(judged(&gate, &new).await, [true, true]);
    let again = fetch_one(socket, &["demo"]).await.svid;
    assert_eq!(again, new, "the good one is still given out");
}

#[tokio::test]
async fn a_successor_is_in_the_bundle_before_it_signs_and_a_revoked_key_leaves_it() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    let socket = &gate.ready.workload_socket;
    let first = operator.authority("jwt", "active");
    let bundles = Stream::<JwtBundles>::open(socket, "FetchJWTBundles").await;
    let mut bundles = bundles.expect("a stream");
    assert_eq!(keys(&mut bundles).await, set(&[&first]));

    operator.ask(&["rotate", "jwt", "--prepare-only"]);
    let second = operator.authority("jwt", "prepared");
    assert_eq!(keys(&mut bundles).await, set(&[&first, &second]));
    assert_eq!(key(&fetch_one(socket, &["demo"]).await.svid), first);

    // Neither of these changes the bundle.
    operator.ask(&["rotate", "jwt"]);
    operator.ask(&["taint", "jwt"]);
    operator.ask(&["revoke", "jwt"]);
    assert_eq!(keys(&mut bundles).await, set(&[&second]));
    let kids = jwks(socket).await;
    assert_eq!(kids["keys"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn after_a_kill_a_tainted_key_signs_nothing_and_a_revoked_one_is_not_believed() {
    let folder = folder();
    let mut gate = start(folder.path());
    let old = fetch_one(&gate.ready.workload_socket, &["demo"]).await.svid;
    for (action, is_valid) in [("rotate", true), ("taint", true), ("revoke", false)] {
        let operator = Operator::of(&gate);
        operator.ask(&[action, "jwt"]);
        let second = operator.authority("jwt", "active");
        gate.process.signal(Signal::SIGKILL);
        gate.process.wait();
        gate = start(folder.path());
        let new = fetch_one(&gate.ready.workload_socket, &["demo"]).await.svid;
        assert_eq!(key(&new), second, "{action}");
        assert_eq!(judged(&gate, &old).await, [is_valid; 2], "{action}");
        assert_eq!(judged(&gate, &new).await, [true; 2], "{action}");
    }
}

#[tokio::test]
async fn py_spiffe_believes_the_keys_of_the_moment() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    for (action, count) in [("rotate", 2), ("taint", 2), ("revoke", 1)] {
        operator.ask(&[action, "jwt"]);
        let Some(document) = peer::ask(folder.path(), &gate.ready.workload_socket) else {
            return skip("py_spiffe_believes_the_keys_of_the_moment", Tool::Python);
        };
        let svid = &document["jwt_svid"];
        assert_eq!(svid["spiffe_id"], spiffe_id("/demo"), "{action}");
        assert_eq!(document["validated"], *svid, "{action}");
        assert_eq!(document["validated_locally"], *svid, "{action}");
        let keys = document["jwt_bundles"]["sidegate.local"].as_object();
        assert_eq!(keys.map(serde_json::Map::len), Some(count), "{action}");
        let token = svid["token"].as_str().expect("a token");
        let active = operator.authority("jwt", "active");
        assert_eq!(key(token), active, "{action}");
    }
}

/// Whether a token is valid by the Workload API, and by its bundle.
async fn judged(gate: &Sidegate, token: &str) -> [bool; 2] {
    let there = validate(&gate.ready.workload_socket, "demo", token).await;
    if let Err(status) = &there {
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
    }
    let client = WorkloadApiClient::connect_to(&gate.ready.workload_socket).await;
    let client = client.expect("the Workload API answers");
    let bundles = client.fetch_jwt_bundles().await.expect("there are bundles");
    let here = JwtSvid::parse_and_validate(token, &bundles, &["demo"]);
    [there.is_ok(), here.is_ok()]
}

/// The key that signed a token.
fn key(token: &str) -> String {
    let header = Token::new(token).header;
    header["kid"].as_str().expect("a key ID").to_owned()
}

/// The keys in the next response.
async fn keys(bundles: &mut Stream<JwtBundles>) -> BTreeSet<String> {
    let next = bundles.next().await.expect("the stream goes on");
    let [bundle] = Vec::from_iter(next.bundles.values())[..] else {
        panic!("one bundle");
    };
    let bundle: serde_json::Value = serde_json::from_slice(bundle).expect("it is JSON");
    let keys = bundle["keys"].as_array().expect("there are keys").iter();
    keys.map(|key| key["kid"].as_str().expect("a key ID").to_owned())
        .collect()
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}
