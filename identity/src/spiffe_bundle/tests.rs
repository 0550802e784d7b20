use rcgen::{
    BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize, SignatureAlgorithm,
};
use serde_json::json;
use spiffe::JwtBundle;

use super::*;

const X: &str = "ngLYQnlfF6GsojUwqtcEE3WgTNG2RUlsGhK73RNEl5k";
const Y: &str = "tKbiDSUSsQ3F1P7wteeHNXIcU-cx6CgSbroeQrQHTLM";

fn root_of(key: &KeyPair) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(key).unwrap().der().clone()
}

fn root(algorithm: &'static SignatureAlgorithm) -> CertificateDer<'static> {
    root_of(&KeyPair::generate_for(algorithm).unwrap())
}

fn jwt_key(id: &str) -> Value {
    json!({"kty": "EC", "use": "jwt-svid", "kid": id, "crv": "P-256", "x": X, "y": Y})
}

/// An `x509-svid` key as this module writes it.
fn x509_key() -> Value {
    jwk::of_certificate(&root(&PKCS_ECDSA_P256_SHA256)).unwrap()
}

fn parse(document: &Value) -> Result<SpiffeBundle, SpiffeBundleError> {
    SpiffeBundle::parse(document.to_string().as_bytes())
}

/// `change`d members; null removes one.
fn with(key: &Value, changes: Value) -> Value {
    let mut key = key.as_object().unwrap().clone();
    for (name, value) in changes.as_object().unwrap() {
        key.remove(name);
        if !value.is_null() {
            key.insert(name.clone(), value.clone());
        }
    }
    key.into()
}

#[test]
fn a_bundle_is_the_same_after_it_was_written_and_read() {
    let rsa = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
    let bundle = SpiffeBundle {
        x509_authorities: vec![
            root(&PKCS_ECDSA_P256_SHA256),
            root(&PKCS_ECDSA_P384_SHA384),
            root_of(&rsa),
        ],
        jwt_authorities: ["one", "two"]
            .map(|id| {
                JwtKey::parse(jwt_key(id).to_string().as_bytes())
                    .unwrap()
                    .unwrap()
            })
            .to_vec(),
        sequence: Some(u64::MAX),
        refresh_hint: Some(Duration::from_secs(300)),
    };
    let json = bundle.to_json();
    assert_eq!(SpiffeBundle::parse(json.as_bytes()).unwrap(), bundle);

    let document: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(document["spiffe_sequence"], u64::MAX);
    assert_eq!(document["spiffe_refresh_hint"], 300);
    let keys = document["keys"].as_array().unwrap();
    let kinds: Vec<_> = keys
        .iter()
        .map(|key| format!("{} {} {}", key["use"], key["kty"], key["crv"]).replace('"', ""))
        .collect();
    assert_eq!(
        kinds,
        [
            "x509-svid EC P-256",
            "x509-svid EC P-384",
            "x509-svid RSA null",
            "jwt-svid EC P-256",
            "jwt-svid EC P-256",
        ]
    );
    assert_eq!(keys[2]["e"], "AQAB");
    for key in &keys[..3] {
        assert_eq!(key["x5c"].as_array().unwrap().len(), 1);
        assert!(key.get("kid").is_none(), "{key}");
    }
}

#[test]
fn the_jwk_of_a_certificate_has_the_coordinates_of_its_key() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    for (algorithm, length) in [(&PKCS_ECDSA_P256_SHA256, 32), (&PKCS_ECDSA_P384_SHA384, 48)] {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let value = jwk::of_certificate(&root_of(&key)).unwrap();
        let mut point = vec![4];
        for name in ["x", "y"] {
            let bytes = URL_SAFE_NO_PAD.decode(value[name].as_str().unwrap());
            point.extend(bytes.unwrap());
        }
        assert_eq!(point.len(), 1 + 2 * length);
        assert_eq!(point, key.public_key_raw());
    }
}

#[test]
fn the_jwk_set_of_the_jwt_keys_is_what_the_spiffe_crate_reads() {
    let bundle = parse(&json!({"keys": [x509_key(), jwt_key("one"), jwt_key("two")]})).unwrap();
    let trust_domain = TrustDomain::new("one.test").unwrap();
    let read = JwtBundle::from_jwt_authorities(trust_domain, bundle.jwks().as_bytes()).unwrap();
    assert_eq!(read.jwt_authorities().count(), 2);
    for authority in read.jwt_authorities() {
        let key = JwtKey::parse(authority.jwk_json()).unwrap().unwrap();
        assert_eq!(key.id(), authority.key_id());
        assert!(bundle.jwt_authorities.contains(&key));
    }
}

#[test]
fn an_empty_bundle_is_one() {
    for document in [
        json!({"keys": []}),
        json!({"keys": [], "spiffe_sequence": null, "other": {"any": [1.5, true]}}),
    ] {
        assert_eq!(parse(&document).unwrap(), SpiffeBundle::default());
    }
    let empty = SpiffeBundle::default();
    assert_eq!(empty.to_json(), r#"{"keys":[]}"#);
    assert_eq!(empty.jwks(), r#"{"keys":[]}"#);
}

#[test]
fn what_the_standard_says_to_ignore_is_ignored() {
    let (x509, jwt) = (x509_key(), jwt_key("one"));
    for key in [
        json!({"kty": "AKP", "use": "jwt-svid", "x": 7}),
        json!({"kty": "OKP", "use": "x509-svid", "crv": "Ed25519", "x": X}),
        json!({"kty": "oct", "use": "jwt-svid", "kid": "secret", "k": "AAAA"}),
        json!({"kty": "EC", "use": "wit-svid", "kid": 7}),
        json!({"kty": "EC"}),
        with(&jwt, json!({"use": null})),
        with(&jwt, json!({"use": "sig"})),
        with(&jwt, json!({"use": "JWT-SVID"})),
        with(&jwt, json!({"crv": "secp256k1"})),
        with(&x509, json!({"x5c": null})),
        with(&x509, json!({"x5c": []})),
    ] {
        let bundle = parse(&json!({"keys": [key, x509, jwt]})).unwrap();
        let found = (bundle.x509_authorities.len(), bundle.jwt_authorities.len());
        assert_eq!(found, (1, 1), "{key}");
    }
}

#[test]
fn of_several_certificates_only_the_first_is_taken() {
    let key = x509_key();
    let several = json!({"x5c": [key["x5c"][0], "not even base64"]});
    let bundle = parse(&json!({"keys": [with(&key, several)]})).unwrap();
    assert_eq!(bundle, parse(&json!({"keys": [key]})).unwrap());
}

#[test]
fn a_private_member_is_not_passed_on() {
    let key = with(&jwt_key("one"), json!({"d": "c2VjcmV0", "other": 1}));
    let bundle = parse(&json!({"keys": [key]})).unwrap();
    let written: Value = serde_json::from_str(&bundle.to_json()).unwrap();
    assert_eq!(written, json!({"keys": [jwt_key("one")]}));
}

#[test]
fn an_authority_that_no_jwk_can_carry_is_left_out() {
    let bundle = SpiffeBundle {
        x509_authorities: vec![root(&PKCS_ED25519)],
        ..SpiffeBundle::default()
    };
    assert_eq!(bundle.to_json(), r#"{"keys":[]}"#);
}

#[test]
fn a_key_that_is_damaged_refuses_the_whole_bundle() {
    let (x509, jwt, other) = (x509_key(), jwt_key("two"), x509_key());
    let rsa = json!({"kty": "RSA", "use": "jwt-svid", "kid": "two", "n": "AQAB", "e": "AQAB"});
    parse(&json!({"keys": [jwt_key("one"), rsa, x509]})).expect("it is good undamaged");
    let with_trailing = {
        use base64::Engine;
        use base64::engine::general_purpose::STANDARD;
        let mut der = STANDARD.decode(x509["x5c"][0].as_str().unwrap()).unwrap();
        der.push(0);
        STANDARD.encode(der)
    };
    for key in [
        json!(7),
        json!([]),
        json!({"use": "jwt-svid"}),
        json!({"kty": 1, "use": "jwt-svid"}),
        with(&jwt, json!({"kid": null})),
        with(&jwt, json!({"kid": ""})),
        with(&jwt, json!({"kid": 7})),
        with(&jwt, json!({"kid": "one"})),
        with(&jwt, json!({"alg": 7})),
        with(&jwt, json!({"use": 7})),
        with(&jwt, json!({"crv": null})),
        with(&jwt, json!({"crv": "P-384"})),
        with(&jwt, json!({"x": null})),
        with(&jwt, json!({"y": null})),
        with(&jwt, json!({"x": ""})),
        with(&jwt, json!({"x": format!("{X}=")})),
        with(&jwt, json!({"y": "words and words"})),
        with(&rsa, json!({"n": null})),
        with(&rsa, json!({"n": "AAAA"})),
        with(&rsa, json!({"e": ""})),
        with(&x509, json!({"x5c": "AAAA"})),
        with(&x509, json!({"x5c": [7]})),
        with(&x509, json!({"x5c": ["AAAA"]})),
        with(&x509, json!({"x5c": ["-"]})),
        with(&x509, json!({"x5c": [with_trailing]})),
        with(&x509, json!({"x5c": other["x5c"]})),
        with(&x509, json!({"x": null})),
    ] {
        let error = parse(&json!({"keys": [jwt_key("one"), key]})).expect_err(&key.to_string());
        assert_eq!(error.code(), "SG0192", "{key}: {error}");
        assert!(error.to_string().contains("key 1"), "{key}: {error}");
    }
}

#[test]
fn what_is_no_bundle_is_refused() {
    let twice = r#"{"keys": [], "keys": []}"#;
    let deep_twice = r#"{"keys": [], "other": [{"a": 1, "b": {"c": 1, "c": 1}}]}"#;
    let nested = format!(
        r#"{{"keys": [], "a": {}{}}}"#,
        "[".repeat(500),
        "]".repeat(500)
    );
    for (text, code) in [
        ("", "SG0190"),
        ("words", "SG0190"),
        (r#"{"keys": []"#, "SG0190"),
        (r#"{"keys": []} {"keys": []}"#, "SG0190"),
        ("\u{feff}{\"keys\": []}", "SG0190"),
        (twice, "SG0190"),
        (deep_twice, "SG0190"),
        (&nested, "SG0190"),
        ("null", "SG0191"),
        ("[]", "SG0191"),
        ("{}", "SG0191"),
        (r#"{"keys": null}"#, "SG0191"),
        (r#"{"keys": {}}"#, "SG0191"),
        (r#"{"trust_domains": {}}"#, "SG0191"),
        (r#"{"keys": [], "spiffe_sequence": -1}"#, "SG0191"),
        (r#"{"keys": [], "spiffe_sequence": 1.5}"#, "SG0191"),
        (r#"{"keys": [], "spiffe_sequence": "1"}"#, "SG0191"),
        (
            r#"{"keys": [], "spiffe_sequence": 18446744073709551616}"#,
            "SG0191",
        ),
        (r#"{"keys": [], "spiffe_refresh_hint": -1}"#, "SG0191"),
    ] {
        let error = SpiffeBundle::parse(text.as_bytes()).expect_err(text);
        assert_eq!(error.code(), code, "{text}: {error}");
    }
}

#[test]
fn a_bundle_map_is_the_same_after_it_was_written_and_read() {
    let bundles: BTreeMap<_, _> = ["one.test", "two.test"]
        .map(|name| {
            let keys = json!({"keys": [x509_key(), jwt_key(name)], "spiffe_sequence": 1});
            (TrustDomain::new(name).unwrap(), parse(&keys).unwrap())
        })
        .into();
    let json = bundle_map_json(&bundles);
    assert_eq!(parse_bundle_map(json.as_bytes()).unwrap(), bundles);
    let none = parse_bundle_map(br#"{"trust_domains": {}}"#).unwrap();
    assert_eq!(none, BTreeMap::new());
}

#[test]
fn what_is_no_bundle_map_is_refused() {
    for (text, code) in [
        (
            r#"{"trust_domains": {"a": {"keys": []}, "a": {"keys": []}}}"#,
            "SG0190",
        ),
        (r#"{"trust_domains": {}, "trust_domains": {}}"#, "SG0190"),
        (r#"{"keys": []}"#, "SG0191"),
        (r#"{"trust_domains": []}"#, "SG0191"),
        (r#"{"trust_domains": {"a": {}}}"#, "SG0191"),
        (r#"{"trust_domains": {"a": {"keys": [1]}}}"#, "SG0192"),
        (r#"{"trust_domains": {"A": {"keys": []}}}"#, "SG0193"),
        (
            r#"{"trust_domains": {"spiffe://a": {"keys": []}}}"#,
            "SG0193",
        ),
        (r#"{"trust_domains": {"a/b": {"keys": []}}}"#, "SG0193"),
        (r#"{"trust_domains": {"": {"keys": []}}}"#, "SG0193"),
    ] {
        let error = parse_bundle_map(text.as_bytes()).expect_err(text);
        assert_eq!(error.code(), code, "{text}: {error}");
    }
}
