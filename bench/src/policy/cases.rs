//! Policies and the requests that they are asked about.

use anyhow::{Result, anyhow};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use serde_json::{Value, json};
use sidegate_policy::PolicySources;

use super::told::Told;

/// How many paths requests cycle through.
pub(crate) const PATHS: usize = 1_000;
/// How many identities they come from.
pub(crate) const IDENTITIES: usize = 16;

/// A policy, and kinds of requests.
pub(super) struct Case {
    pub(super) name: String,
    pub(super) sources: PolicySources,
    pub(super) kinds: Vec<Kind>,
    /// The value of `authorization`, where requests have one.
    pub(super) authorization: Option<String>,
    /// What the slowest kind should take at most.
    pub(super) goal_ns: Option<f64>,
    /// By whom else it is measured, under which names.
    pub(super) told: &'static [(&'static str, Told)],
}

/// Requests that a policy treats alike.
pub(super) struct Kind {
    pub(super) name: &'static str,
    pub(super) method: &'static str,
    pub(super) path: fn(usize) -> String,
    pub(super) allowed: bool,
}

/// The caller of this number.
pub(crate) fn identity(number: usize) -> String {
    format!("spiffe://bench.test/ns/shop/sa/service-{number}")
}

pub(super) fn all() -> Result<Vec<Case>> {
    Ok(vec![ten_rule(1_000)?, rbac()?, thousand_rule()?, jwt()?])
}

/// The modules of [`ten_rule`].
pub(crate) const TEN_RULE: [(&str, &str); 2] = [
    ("ten_rule.rego", include_str!("ten_rule.rego")),
    ("ten_rule_test.rego", include_str!("ten_rule_test.rego")),
];

/// What the ten rules look up, with as many role bindings as are told.
pub(crate) fn ten_rule_data(bindings: usize) -> Value {
    let bindings: serde_json::Map<String, Value> = (0..bindings)
        .map(|number| {
            let role = format!("role-{}", number % 20);
            (identity(number), json!(["reader", role]))
        })
        .collect();
    let roles: serde_json::Map<String, Value> = (0..20)
        .map(|number| {
            let grant = json!({"methods": ["GET", "POST"], "path": format!("/orders/{number}/**")});
            (format!("role-{number}"), json!([grant]))
        })
        .chain([(
            "reader".to_owned(),
            json!([{"methods": ["GET"], "path": "/catalog/*/items"}]),
        )])
        .collect();
    let teams: serde_json::Map<String, Value> = (0..1_000)
        .map(|number| (identity(number), json!(format!("team-{}", number % 50))))
        .collect();
    json!({
        "bindings": bindings,
        "roles": roles,
        "teams": teams,
        "suspended": {"spiffe://bench.test/suspended": true},
    })
}

/// The ten rules over as many role bindings as are told.
pub(super) fn ten_rule(bindings: usize) -> Result<Case> {
    let sources = sources(&TEN_RULE, &ten_rule_data(bindings))?;
    Ok(Case {
        name: "ten-rule".to_owned(),
        sources,
        kinds: vec![
            Kind {
                name: "first-rule",
                method: "GET",
                path: |number| format!("/public/pages/{number}"),
                allowed: true,
            },
            Kind {
                name: "role-glob",
                method: "GET",
                path: |number| format!("/catalog/{number}/items"),
                allowed: true,
            },
            Kind {
                name: "deny",
                method: "POST",
                path: |number| format!("/internal/jobs/{number}"),
                allowed: false,
            },
        ],
        authorization: None,
        goal_ns: Some(10_000.0),
        told: &[("logged", Told::Log), ("shadowed", Told::Shadow)],
    })
}

fn rbac() -> Result<Case> {
    let callers: serde_json::Map<String, Value> = (0..IDENTITIES)
        .map(|number| (identity(number), json!(["GET", "POST"])))
        .collect();
    Ok(Case {
        name: "rbac".to_owned(),
        sources: sources(
            &[
                ("rbac.rego", include_str!("rbac.rego")),
                ("rbac_test.rego", include_str!("rbac_test.rego")),
            ],
            &json!({ "callers": callers }),
        )?,
        kinds: vec![
            Kind {
                name: "allow",
                method: "GET",
                path: |number| format!("/orders/{number}"),
                allowed: true,
            },
            Kind {
                name: "deny",
                method: "DELETE",
                path: |number| format!("/orders/{number}"),
                allowed: false,
            },
        ],
        authorization: None,
        goal_ns: Some(2_000.0),
        told: &[],
    })
}

/// Claims of a token that is verified for each decision that is not remembered.
fn jwt() -> Result<Case> {
    let failed = |_| anyhow!("no token can be signed");
    let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(failed)?;
    let encoded = |json: Value| BASE64_URL_SAFE_NO_PAD.encode(json.to_string());
    let head = encoded(json!({"alg": "ES256", "typ": "JWT"}));
    let claims = encoded(json!({"iss": "bench", "sub": "alice", "roles": ["reader", "writer"]}));
    let signed = format!("{head}.{claims}");
    let signature = key.sign(&SystemRandom::new(), signed.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(signature.map_err(failed)?);
    let public: PublicKeyX509Der<'_> = key.public_key().as_der().map_err(failed)?;
    let public = BASE64_STANDARD.encode(public.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{public}\n-----END PUBLIC KEY-----\n");
    Ok(Case {
        name: "jwt".to_owned(),
        sources: sources(
            &[("jwt.rego", include_str!("jwt.rego"))],
            &json!({"key": pem, "trusted": {"issuer": "bench"}}),
        )?,
        kinds: vec![Kind {
            name: "claims",
            method: "GET",
            path: |number| format!("/orders/{number}"),
            allowed: true,
        }],
        authorization: Some(format!("Bearer {signed}.{signature}")),
        goal_ns: None,
        told: &[],
    })
}

/// A thousand rules, each for one path and caller, as a generator would write them.
fn thousand_rule() -> Result<Case> {
    let mut policy = "package envoy.authz\n\ndefault allow := false\n".to_owned();
    let mut tests = "package envoy.authz_test\n\nimport data.envoy.authz\n".to_owned();
    for number in 0..1_000 {
        let caller = identity(number % IDENTITIES);
        policy.push_str(&format!(
            "\nallow if {{\n\tinput.source_principal == \"{caller}\"\n\tinput.parsed_path == [\"orders\", \"{number}\"]\n}}\n"
        ));
        tests.push_str(&format!(
            "\ntest_{number} if authz.allow with input as {{\"source_principal\": \"{caller}\", \"parsed_path\": [\"orders\", \"{number}\"]}}\n"
        ));
    }
    Ok(Case {
        name: "thousand-rule".to_owned(),
        sources: sources(
            &[("rules.rego", &policy), ("rules_test.rego", &tests)],
            &json!({}),
        )?,
        kinds: vec![Kind {
            name: "deny",
            method: "GET",
            path: |number| format!("/other/{number}"),
            allowed: false,
        }],
        authorization: None,
        goal_ns: None,
        told: &[],
    })
}

fn sources(modules: &[(&str, &str)], data: &Value) -> Result<PolicySources> {
    let modules = modules
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()));
    let data = ("data.json".to_owned(), data.to_string());
    Ok(PolicySources::from_files(modules.chain([data]))?)
}
