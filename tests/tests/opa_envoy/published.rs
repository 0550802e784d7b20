//! Policies as OPA's documentation and its examples for Envoy have them, each with requests: both
//! allow and deny the same ones, with the same answer.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Method;
use serde_json::{Value, json};

use super::{Ask, Pair, Protocol};

const JSON: &str = "application/json";

/// Asks both everything; each request has its verdict.
fn check(test: &str, rego: &str, entrypoint: &str, requests: &[(Ask, bool)]) {
    let Some(pair) = Pair::start_at(test, rego, entrypoint) else {
        return;
    };
    let mut wrong = Vec::new();
    for (ask, allowed) in requests {
        for protocol in [Protocol::Http1, Protocol::Http2] {
            let outcomes = pair.ask(ask, protocol);
            let [theirs, ours] = &outcomes;
            let verdicts = [theirs, ours].map(|outcome| outcome.forwarded.is_some());
            let same = theirs.answer.status == ours.answer.status
                && theirs.answer.body == ours.answer.body;
            if verdicts != [*allowed; 2] || !same {
                wrong.push(format!("{ask:?}: {allowed}: {outcomes:#?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn post(target: &str) -> Ask {
    Ask::new(Method::POST, target)
}

fn authorized(ask: Ask, value: &str) -> Ask {
    ask.header("authorization", value.as_bytes())
}

#[test]
fn roles_by_basic_authentication() {
    let basic = |ask, user: &str| {
        let credentials = BASE64_URL_SAFE_NO_PAD.encode(format!("{user}:password"));
        authorized(ask, &format!("Basic {credentials}"))
    };
    let page = || Ask::get("/productpage");
    let products = "/api/v1/products";
    check(
        "roles_by_basic_authentication",
        include_str!("policies/roles.rego"),
        "envoy/authz/allow",
        &[
            (basic(page(), "alice"), true),
            (basic(page(), "bob"), true),
            (basic(page(), "carol"), false),
            (page(), false),
            (authorized(page(), "Basic"), false),
            (authorized(page(), "Basic ?"), false),
            (basic(Ask::get(products), "alice"), false),
            (basic(Ask::get(products), "bob"), true),
            (basic(post(products), "bob"), true),
            (basic(post(products), "alice"), false),
            (basic(Ask::new(Method::DELETE, products), "bob"), false),
        ],
    );
}

#[test]
fn roles_in_a_signed_token() {
    let bearer = |ask, token: &str| authorized(ask, &format!("Bearer {token}"));
    let guest = token("secret", &claims("guest"));
    let admin = token("secret", &claims("admin"));
    let forged = token("other", &claims("admin"));
    let mut old = claims("guest");
    old["exp"] = json!(1_500_000_000);
    let old = token("secret", &old);
    let people = || post("/people");
    let named = |name: &str| people().body(JSON, json!({ "firstname": name }).to_string());
    check(
        "roles_in_a_signed_token",
        include_str!("policies/tokens.rego"),
        "envoy/authz/allow",
        &[
            (bearer(Ask::get("/people"), &guest), true),
            (bearer(Ask::get("/people/1"), &guest), true),
            (bearer(Ask::get("/orders"), &guest), false),
            (bearer(Ask::get("/people"), &forged), false),
            (bearer(Ask::get("/people"), &old), false),
            (bearer(Ask::get("/people"), "a.b.c"), false),
            (bearer(Ask::get("/people"), ""), false),
            (Ask::get("/people"), false),
            (bearer(named("Zoe"), &guest), false),
            (bearer(named("Zoe"), &admin), true),
            (bearer(named("Alice"), &admin), false),
            (bearer(people(), &admin), false),
        ],
    );
}

#[test]
fn roles_in_the_payload_of_a_token() {
    let bearer = |ask, token: &str| authorized(ask, &format!("Bearer {token}"));
    let guest = token("any", &claims("guest"));
    let admin = token("any", &claims("admin"));
    check(
        "roles_in_the_payload_of_a_token",
        include_str!("policies/payload.rego"),
        "envoy/authz/allow",
        &[
            (bearer(Ask::get("/people"), &guest), true),
            (bearer(post("/people"), &guest), false),
            (bearer(post("/people"), &admin), true),
            (bearer(Ask::get("/people"), "a.b.c"), false),
            (bearer(Ask::get("/people"), "abc"), false),
            (authorized(Ask::get("/people"), &guest), false),
            (Ask::get("/people"), false),
        ],
    );
}

#[test]
fn an_answer_by_parts_under_another_entrypoint() {
    check(
        "an_answer_by_parts",
        include_str!("policies/edits.rego"),
        "envoy/authz/result",
        &[
            (Ask::get("/people").header("one-auth-header", b"1"), true),
            (Ask::get("/people/7?a=b"), true),
            (Ask::get("/orders"), false),
            (post("/people"), false),
        ],
    );
}

#[test]
fn an_answer_with_headers_for_either_verdict() {
    check(
        "an_answer_with_headers",
        include_str!("policies/response.rego"),
        "envoy/authz/allow",
        &[(Ask::get("/"), true), (post("/"), false)],
    );
}

#[test]
fn paths_by_segment_and_queries_by_parameter() {
    check(
        "paths_by_segment",
        include_str!("policies/paths.rego"),
        "envoy/authz/allow",
        &[
            (Ask::get("/"), true),
            (Ask::get("/?a=b"), true),
            (post("/"), false),
            (Ask::get("/users/zoe/orders?user=zoe"), true),
            (Ask::get("/users/zo%C3%AB/orders?user=zo%C3%AB"), true),
            (Ask::get("/users/zoe/orders?user=zo%65"), true),
            (Ask::get("/users/zoe/orders?user=zoe&user=bob"), false),
            (Ask::get("/users/zoe/orders"), false),
            (Ask::get("/users/zoe/orders/?user=zoe"), false),
            (Ask::get("/public/a.html"), true),
            (Ask::get("/public/a%2ehtml"), true),
            (Ask::get("/public/b/a.html"), false),
            (Ask::get("/search?lang=de&lang=en"), true),
            (Ask::get("/search?lang=de&lang=fr"), false),
            (Ask::get("/search"), false),
        ],
    );
}

#[test]
fn workloads_by_their_spiffe_id() {
    check(
        "workloads_by_their_spiffe_id",
        include_str!("policies/workloads.rego"),
        "envoy/authz/allow",
        &[
            (Ask::get("/principal"), true),
            (Ask::get("/trust-domain"), true),
            (Ask::get("/header"), true),
            (Ask::get("/connection"), true),
            (Ask::get("/other"), false),
            (
                Ask::get("/header").header(
                    "x-forwarded-client-cert",
                    b"URI=spiffe://sidegate.local/king",
                ),
                true,
            ),
        ],
    );
}

#[test]
fn methods_of_grpc_services() {
    let call = |method: &str| post(method).header("content-type", b"application/grpc");
    check(
        "methods_of_grpc_services",
        include_str!("policies/methods.rego"),
        "envoy/authz/allow",
        &[
            (call("/shop.Orders/Create"), false),
            (call("/shop.Orders/list"), false),
            (call("/shop.Orders/List/"), false),
            (post("/shop.Orders/List"), true),
            (post("/shop.Orders/Create"), false),
            (
                post("/shop.Orders/Create").header("x-tenant", b"blue"),
                true,
            ),
        ],
    );
}

#[test]
fn bodies_by_what_is_in_them() {
    let body = |document: &Value| post("/people").body(JSON, document.to_string());
    let clerk = |name: &str| json!({ "firstname": name, "roles": ["guard", "clerk"] });
    let mut large = clerk("Zoe");
    large["rest"] = json!("x".repeat(5_000));
    check(
        "bodies_by_what_is_in_them",
        include_str!("policies/bodies.rego"),
        "envoy/authz/allow",
        &[
            (body(&clerk("Zoe")), true),
            (body(&clerk("Charlie")), false),
            (body(&json!({ "firstname": "Zoe", "roles": [] })), false),
            (body(&json!([])), false),
            (body(&large), false),
            (
                post("/people").body("text/plain", clerk("Zoe").to_string()),
                false,
            ),
            (post("/people"), false),
        ],
    );
}

#[test]
fn the_certificate_itself() {
    check(
        "the_certificate_itself",
        include_str!("policies/certificate.rego"),
        "envoy/authz/allow",
        &[(Ask::get("/demo"), true), (Ask::get("/other"), false)],
    );
}

fn claims(role: &str) -> Value {
    json!({
        "role": role,
        "sub": BASE64_URL_SAFE_NO_PAD.encode("alice"),
        "nbf": 1_500_000_000,
        "exp": 9_000_000_000_u64,
    })
}

/// A JWT by HS256.
fn token(secret: &str, claims: &Value) -> String {
    let encode = |part: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(part);
    let header = json!({ "alg": "HS256", "typ": "JWT" }).to_string();
    let signed = format!(
        "{}.{}",
        encode(header.as_bytes()),
        encode(claims.to_string().as_bytes())
    );
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", encode(signature.as_ref()))
}
