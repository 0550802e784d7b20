//! Tokens that are not ours.

use aws_lc_rs::digest::{SHA256, digest};
use serde_json::json;
use sidegate_tests::Sidegate;
use spiffe::{JwtSvid, WorkloadApiClient};
use tonic::Code;

use super::raw::{fetch_one, jwks, validate};
use super::token::{PublicKey, Token, der, encode};
use super::{DEMO, NO_ARGUMENTS};
use crate::support::folder;

#[tokio::test]
async fn a_token_that_was_tampered_with_is_not_valid() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = &gate.ready.workload_socket;
    let text = fetch_one(socket, &["demo"]).await.svid;
    let good = Token::new(&text);
    let expires = good.claims["exp"].as_i64().unwrap();
    let public = PublicKey::new(&jwks(socket).await["keys"][0]);
    let strangers_key = json!(encode(digest(&SHA256, b"stranger").as_ref()));
    let half = &good.signature[..32];
    let mut flipped = good.signature.clone();
    flipped[63] ^= 1;

    let none = |name: &str| good.with(&[("alg", json!(name))], &[]);
    let hmac = good.with(&[("alg", json!("HS256"))], &[]);
    let cases = [
        ("alg none, no signature", none("none").signature(&[])),
        ("alg None, no signature", none("None").signature(&[])),
        ("alg none, old signature", none("none")),
        ("no alg", good.with(&[("alg", json!(null))], &[])),
        ("alg ES384", none("ES384")),
        ("alg RS256", none("RS256")),
        (
            "HS256 with the point",
            hmac.clone().authenticated(&public.point),
        ),
        (
            "HS256 with the PEM",
            hmac.clone().authenticated(public.pem.as_bytes()),
        ),
        ("HS256 with nothing", hmac.authenticated(b"")),
        (
            "another kid",
            good.with(&[("kid", strangers_key.clone())], &[]),
        ),
        ("no kid", good.with(&[("kid", json!(null))], &[])),
        ("empty kid", good.with(&[("kid", json!(""))], &[])),
        (
            "kid is a list",
            good.with(&[("kid", json!([good.header["kid"]]))], &[]),
        ),
        (
            "another's key and kid",
            good.with(&[("kid", strangers_key)], &[]).signed(),
        ),
        ("another's key, our kid", good.clone().signed()),
        (
            "another subject",
            good.with(&[], &[("sub", json!("spiffe://sidegate.local/root"))]),
        ),
        (
            "another domain",
            good.with(&[], &[("sub", json!("spiffe://elsewhere/demo"))])
                .signed(),
        ),
        ("no subject", good.with(&[], &[("sub", json!(null))])),
        (
            "later end",
            good.with(&[], &[("exp", json!(expires + 3600))]),
        ),
        ("no end", good.with(&[], &[("exp", json!(null))])),
        (
            "another audience",
            good.with(&[], &[("aud", json!(["demo", "other"]))]),
        ),
        ("typ", good.with(&[("typ", json!("at+jwt"))], &[])),
        (
            "crit",
            good.with(&[("crit", json!(["x"])), ("x", json!(1))], &[]),
        ),
        ("zeros", good.signature(&[0; 64])),
        ("no signature", good.signature(&[])),
        ("half a signature", good.signature(half)),
        (
            "signature and more",
            good.signature(&[&good.signature, half].concat()),
        ),
        ("signature in DER", good.signature(&der(&good.signature))),
        ("a bit of the signature", good.signature(&flipped)),
    ];
    for (what, forged) in cases {
        is_invalid(socket, what, "demo", &forged.text()).await;
    }

    let (signed, signature) = text.rsplit_once('.').unwrap();
    let (header, claims) = signed.split_once('.').unwrap();
    let texts = [
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
        ("words", "not a token".to_owned()),
        ("a shorter signature", text[..text.len() - 1].to_owned()),
        ("unused bits", with_unused_bits(&text)),
        ("two parts", signed.to_owned()),
        ("two parts and a dot", format!("{signed}.")),
        ("four parts", format!("{text}.{signature}")),
        ("padding", format!("{text}==")),
        ("parts swapped", format!("{claims}.{header}.{signature}")),
        (
            "JSON",
            json!({"payload": claims, "protected": header, "signature": signature}).to_string(),
        ),
        ("zero", format!("{text}\0")),
        ("long", "a".repeat(60_000)),
    ];
    for (what, forged) in texts {
        is_invalid(socket, what, "demo", &forged).await;
    }
    let endless = "a".repeat(1 << 20);
    for forged in [endless.clone(), format!("{text}{endless}")] {
        let refused = validate(socket, "demo", &forged).await;
        refused.expect_err("it is too long for a token");
    }
    validate(socket, "demo", &text)
        .await
        .expect("the true one is valid");
}

#[tokio::test]
async fn a_token_is_not_valid_for_another_audience() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = &gate.ready.workload_socket;
    let text = fetch_one(socket, &["demo"]).await.svid;
    for audience in ["other", "", "Demo", "dem", "demo ", "demo,other", "*", DEMO] {
        is_invalid(socket, "another audience", audience, &text).await;
    }
}

#[tokio::test]
async fn a_token_of_another_sidegate_with_the_same_trust_domain_is_not_valid() {
    let (one, two) = (folder(), folder());
    let gates = [&one, &two].map(|state| Sidegate::up(state.path(), NO_ARGUMENTS));
    for (gate, other) in [(&gates[0], &gates[1]), (&gates[1], &gates[0])] {
        let socket = &gate.ready.workload_socket;
        let foreign = fetch_one(&other.ready.workload_socket, &["demo"]).await;
        assert_eq!(foreign.spiffe_id, DEMO);
        is_invalid(socket, "foreign", "demo", &foreign.svid).await;

        // Nor with the key ID of ours.
        let own = Token::new(&fetch_one(socket, &["demo"]).await.svid);
        let renamed = Token::new(&foreign.svid).with(&[("kid", own.header["kid"].clone())], &[]);
        is_invalid(socket, "renamed", "demo", &renamed.text()).await;

        let client = WorkloadApiClient::connect_to(socket)
            .await
            .expect("it answers");
        let bundles = client.fetch_jwt_bundles().await.expect("there are bundles");
        JwtSvid::parse_and_validate(&foreign.svid, &bundles, &["demo"])
            .expect_err("the bundle has no such key");
    }
}

/// The same signature for whoever ignores the bits of its last character that mean nothing.
fn with_unused_bits(text: &str) -> String {
    let last = text.chars().next_back().expect("it is not empty");
    let other = char::from_u32(u32::from(last) + 1).expect("it is ASCII");
    assert!("AQgw".contains(last), "four bits are unused: {text}");
    format!("{}{other}", &text[..text.len() - 1])
}

async fn is_invalid(socket: &str, what: &str, audience: &str, text: &str) {
    match validate(socket, audience, text).await {
        Ok(answer) => panic!("{what}, {audience}: {answer:?}"),
        Err(status) => assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status}"),
    }
}
