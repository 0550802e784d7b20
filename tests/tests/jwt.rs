//! JWT-SVIDs by the Workload API: by clients that others wrote, by bare gRPC calls, on the command
//! line, and across restarts.

mod command;
mod entries;
mod forged;
pub(crate) mod peer;
pub(crate) mod raw;
mod services;
mod state;
pub(crate) mod token;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use sidegate_tests::{Sidegate, Tool, skip, tool};
use spiffe::{JwtSvid, SpiffeId, TrustDomain, WorkloadApiClient};
use tonic::Code;

use crate::support::{finish, folder, now, write};
use raw::{Bundles, FetchRequest, HEADER, ValidateRequest, call, fetch, fetch_one, jwks, validate};
use token::{PublicKey, Token, der};

const NO_ARGUMENTS: [&str; 0] = [];
const DEMO: &str = "spiffe://sidegate.local/demo";
const FETCH: &str = "/SpiffeWorkloadAPI/FetchJWTSVID";
const BUNDLES: &str = "/SpiffeWorkloadAPI/FetchJWTBundles";
const VALIDATE: &str = "/SpiffeWorkloadAPI/ValidateJWTSVID";

#[tokio::test]
async fn the_demo_client_fetches_its_token_and_validates_it_there_and_by_itself() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let client = WorkloadApiClient::connect_to(&gate.ready.workload_socket)
        .await
        .expect("the Workload API answers");
    let demo = SpiffeId::new(DEMO).expect("a SPIFFE ID");
    let domain = TrustDomain::new("sidegate.local").expect("a trust domain");

    let svids = client.fetch_all_jwt_svids(["demo"], None).await;
    let [svid] = <[JwtSvid; 1]>::try_from(svids.expect("it is allowed")).expect("one");
    assert_eq!(*svid.spiffe_id(), demo);
    assert_eq!(svid.audience(), ["demo"]);
    let selected = client.fetch_jwt_svid(["demo"], Some(&demo)).await;
    assert_eq!(selected.expect("it is its own").spiffe_id(), &demo);

    let bundles = client.fetch_jwt_bundles().await.expect("there are bundles");
    assert_eq!(bundles.len(), 1);
    let bundle = bundles.get(&domain).expect("its bundle");
    assert!(bundle.find_jwt_authority(svid.key_id()).is_some());

    let there = client.validate_jwt_token("demo", svid.token()).await;
    assert_eq!(there.expect("it is valid").spiffe_id(), &demo);
    let here = JwtSvid::parse_and_validate(svid.token(), &bundles, &["demo"]);
    assert_eq!(here.expect("it is valid").spiffe_id(), &demo);
    client
        .validate_jwt_token("other", svid.token())
        .await
        .expect_err("it is for another audience");
}

#[tokio::test]
async fn a_token_says_what_the_specification_asks_for_and_nothing_else() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let before = now().unix_timestamp();
    let svid = fetch_one(&gate.ready.workload_socket, &["demo"]).await;
    let after = now().unix_timestamp();
    let token = Token::new(&svid.svid);
    assert_eq!(svid.spiffe_id, DEMO);

    assert_eq!(keys(&token.header), BTreeSet::from(["alg", "kid", "typ"]));
    assert_eq!(token.header["alg"], "ES256");
    assert_eq!(token.header["typ"], "JWT");

    let expected = BTreeSet::from(["aud", "exp", "iat", "iss", "jti", "sub"]);
    assert_eq!(keys(&token.claims), expected);
    assert_eq!(token.claims["sub"], DEMO);
    assert_eq!(token.claims["aud"], serde_json::json!(["demo"]));
    assert!(!token.claims["iss"].as_str().unwrap().is_empty());
    assert!(!token.claims["jti"].as_str().unwrap().is_empty());
    let issued = token.claims["iat"].as_i64().unwrap();
    let expires = token.claims["exp"].as_i64().unwrap();
    assert!((before..=after).contains(&issued), "{before} {issued}");
    assert_eq!(expires - issued, 300);
}

#[tokio::test]
async fn the_same_token_is_handed_out_again_and_each_audience_has_its_own() {
    let folder = folder();
    let gate = entries::gate(
        folder.path(),
        &[entries::own("/several", &["one", "two", "three"])],
    );
    let socket = &gate.ready.workload_socket;
    let mut tokens = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let cases: [&[&str]; 4] = [
        &["one"],
        &["two"],
        &["one", "two"],
        &["one", "two", "three"],
    ];
    for audience in cases {
        let first = fetch_one(socket, audience).await.svid;
        let second = fetch_one(socket, audience).await.svid;
        assert_eq!(first, second, "{audience:?}");
        let claims = Token::new(&first).claims;
        assert_eq!(claims["aud"], serde_json::json!(audience));
        for expected in audience {
            validate(socket, expected, &first)
                .await
                .expect("it is valid");
        }
        numbers.insert(claims["jti"].to_string());
        tokens.insert(first);
    }
    assert_eq!(tokens.len(), cases.len());
    assert_eq!(numbers.len(), cases.len());
}

#[tokio::test]
async fn openssl_verifies_the_signature_with_the_key_in_the_bundle() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let Some(openssl) = tool(Tool::Openssl) else {
        return skip("openssl_verifies_the_signature", Tool::Openssl);
    };
    let socket = &gate.ready.workload_socket;
    let token = Token::new(&fetch_one(socket, &["demo"]).await.svid);
    let jwks = jwks(socket).await;
    let key = jwks["keys"]
        .as_array()
        .expect("there are keys")
        .iter()
        .find(|key| key["kid"] == token.header["kid"])
        .expect("its key is there");
    let key = write(state.path(), "key.pem", PublicKey::new(key).pem);
    let signature = write(state.path(), "signature.der", der(&token.signature));
    let changed = token.signed.replacen('e', "f", 1);
    for (text, is_good) in [(&token.signed, true), (&changed, false)] {
        let text = write(state.path(), "text", text);
        let mut verify = Command::new(&openssl);
        verify
            .args(["dgst", "-sha256", "-verify"])
            .arg(&key)
            .arg("-signature")
            .arg(&signature)
            .arg(&text);
        let output = finish(&mut verify);
        assert_eq!(output.status.success(), is_good, "{output:?}");
    }
}

#[tokio::test]
async fn the_bundle_has_public_keys_on_p_256_with_key_ids_and_nothing_secret() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let jwks = jwks(&gate.ready.workload_socket).await;
    let keys = jwks["keys"].as_array().expect("there are keys");
    let mut ids = BTreeSet::new();
    for key in keys {
        assert!(key.get("d").is_none(), "the private key is there");
        assert!(key.get("k").is_none(), "a secret is there");
        PublicKey::new(key);
        let id = key["kid"].as_str().expect("a key ID");
        assert!(!id.is_empty());
        assert!(ids.insert(id), "{id} is there twice");
    }
    assert!(!ids.is_empty());
}

#[tokio::test]
async fn what_validation_returns_has_a_list_of_audiences() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = &gate.ready.workload_socket;
    let token = fetch_one(socket, &["demo"]).await.svid;
    let answer = validate(socket, "demo", &token).await.expect("it is valid");
    assert_eq!(answer.spiffe_id, DEMO);
    let claims = answer.claims.expect("there are claims").fields;
    let list = claims["aud"].list.as_ref().expect("a list");
    let audience: Vec<_> = list
        .values
        .iter()
        .map(|value| value.text.as_deref())
        .collect();
    assert_eq!(audience, [Some("demo")]);
    assert_eq!(claims["sub"].text.as_deref(), Some(DEMO));
    let expected = Token::new(&token).claims["exp"].as_f64();
    assert_eq!(claims["exp"].number, expected);
}

#[tokio::test]
async fn a_call_without_the_security_header_is_an_invalid_argument() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = &gate.ready.workload_socket;
    let token = fetch_one(socket, &["demo"]).await.svid;
    for header in [None, Some("false"), Some(""), HEADER] {
        let request = FetchRequest {
            audience: vec!["demo".to_owned()],
            spiffe_id: String::new(),
        };
        let fetched = call::<_, raw::FetchResponse>(socket, FETCH, header, request).await;
        let bundles = call::<_, Bundles>(socket, BUNDLES, header, FetchRequest::default()).await;
        let request = ValidateRequest {
            audience: "demo".to_owned(),
            svid: token.clone(),
        };
        let valid = call::<_, raw::ValidateResponse>(socket, VALIDATE, header, request).await;
        let codes = [
            fetched.map_or_else(|status| status.code(), |_| Code::Ok),
            bundles.map_or_else(|status| status.code(), |_| Code::Ok),
            valid.map_or_else(|status| status.code(), |_| Code::Ok),
        ];
        let expected = if header == HEADER {
            Code::Ok
        } else {
            Code::InvalidArgument
        };
        assert_eq!(codes, [expected; 3], "{header:?}");
    }
}

#[tokio::test]
async fn a_token_is_given_for_the_audiences_and_the_identity_of_the_caller_only() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let other = "spiffe://sidegate.local/other";
    let cases: [(&[&str], &str, Code); 13] = [
        (&["demo"], "", Code::Ok),
        (&["demo"], DEMO, Code::Ok),
        (&[], "", Code::InvalidArgument),
        (&[], DEMO, Code::InvalidArgument),
        (&["other"], "", Code::PermissionDenied),
        (&["Demo"], "", Code::PermissionDenied),
        (&["demo "], "", Code::PermissionDenied),
        (&["*"], "", Code::PermissionDenied),
        (&["demo", "other"], "", Code::PermissionDenied),
        (&["other", "demo"], DEMO, Code::PermissionDenied),
        (&["demo"], other, Code::PermissionDenied),
        // The component's own.
        (
            &["demo"],
            "spiffe://sidegate.local/hello",
            Code::PermissionDenied,
        ),
        (&["demo"], "spiffe://elsewhere/demo", Code::PermissionDenied),
    ];
    for (audience, id, expected) in cases {
        let code = fetch(&gate.ready.workload_socket, audience, id)
            .await
            .map_or_else(|status| status.code(), |_| Code::Ok);
        assert_eq!(code, expected, "{audience:?} {id}");
    }
    for id in ["demo", "https://sidegate.local/demo", "spiffe://", " "] {
        let refused = fetch(&gate.ready.workload_socket, &["demo"], id).await;
        let code = refused.expect_err("it is no SPIFFE ID").code();
        let is_refusal = [Code::InvalidArgument, Code::PermissionDenied].contains(&code);
        assert!(is_refusal, "{id}: {code}");
    }
    for audience in [&[""][..], &["demo", ""]] {
        let refused = fetch(&gate.ready.workload_socket, audience, "").await;
        let code = refused.expect_err("it is no audience").code();
        let is_refusal = [Code::InvalidArgument, Code::PermissionDenied].contains(&code);
        assert!(is_refusal, "{audience:?}: {code}");
    }
}

#[tokio::test]
async fn private_keys_and_tokens_are_not_in_the_logs() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = gate.ready.workload_socket.clone();
    let token = fetch_one(&socket, &["demo"]).await.svid;
    validate(&socket, "demo", &token)
        .await
        .expect("it is valid");
    validate(&socket, "other", &token)
        .await
        .expect_err("it is for another audience");
    let keys = fs::read_to_string(state.path().join("jwt_keys.json")).unwrap();
    let keys: Vec<_> = keys.split('"').filter(|part| part.len() > 40).collect();
    assert!(!keys.is_empty(), "a private key is a long text");
    let output = gate.stop();
    let signature = token.rsplit('.').next().unwrap();
    for text in [&output.stdout, &output.stderr] {
        assert!(!text.contains(signature), "{text}");
        for key in &keys {
            assert!(!text.contains(key), "a key is in the log");
        }
    }
}

fn keys(object: &serde_json::Value) -> BTreeSet<&str> {
    let object = object.as_object().expect("an object");
    object.keys().map(String::as_str).collect()
}
