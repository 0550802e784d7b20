//! Tokens that are signed here, and what becomes of them.

use std::collections::BTreeMap;

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::encoding::PublicKeyX509Der;
use aws_lc_rs::hmac::{self, HMAC_SHA256};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use regorus::Value;

use super::*;

const SECRET: &str = "a secret";

fn encoded(header: &str, payload: &str) -> String {
    let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
    format!("{}.{}", encode(header), encode(payload))
}

/// A token signed with [`SECRET`].
fn token(header: &str, payload: &str) -> String {
    let signed = encoded(header, payload);
    let key = hmac::Key::new(HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

fn json(text: &str) -> Value {
    Value::from_json_str(text).unwrap()
}

/// Constraints with the secret and further members.
fn constraints(members: &str) -> Value {
    let mut all = BTreeMap::from([(Value::from("secret"), Value::from(SECRET))]);
    let further = json(&format!("{{{members}}}"));
    let further = further.as_object().unwrap().iter();
    all.extend(further.map(|(name, value)| (name.clone(), value.clone())));
    Value::from(all)
}

/// Whether the token is valid; `None` if that is undefined.
fn valid(token: &str, constraints: &Value) -> Option<bool> {
    let result = decode_verify(&[token.into(), constraints.clone()])?;
    Some(*result[0].as_bool().unwrap())
}

#[test]
fn claims_are_held_against_the_constraints() {
    // Payload, constraints, whether it is valid.
    let cases = [
        ("{}", "", Some(true)),
        (r#"{"iss": "a"}"#, r#""iss": "a""#, Some(true)),
        (r#"{"iss": "b"}"#, r#""iss": "a""#, Some(false)),
        ("{}", r#""iss": "a""#, Some(false)),
        (r#"{"iss": 1}"#, r#""iss": "a""#, None),
        (r#"{"aud": "a"}"#, r#""aud": "a""#, Some(true)),
        (r#"{"aud": "a"}"#, "", Some(false)),
        (r#"{"aud": ["a", "b"]}"#, r#""aud": "b""#, Some(true)),
        (r#"{"aud": [1]}"#, r#""aud": "b""#, Some(false)),
        ("{}", r#""aud": "b""#, Some(false)),
        (r#"{"exp": 10}"#, r#""time": 9999999999"#, Some(true)),
        (r#"{"exp": 10}"#, r#""time": 10000000000"#, Some(false)),
        (r#"{"exp": 10.5}"#, r#""time": 10400000000"#, Some(true)),
        (r#"{"exp": "10"}"#, r#""time": 1"#, None),
        (r#"{"exp": 10}"#, "", Some(false)),
        (r#"{"exp": 33000000000}"#, "", Some(true)),
        (r#"{"nbf": 10}"#, r#""time": 10000000000"#, Some(true)),
        (r#"{"nbf": 10}"#, r#""time": 9999999999"#, Some(false)),
        (r#"{"nbf": null}"#, r#""time": 1"#, None),
        (r#"{"nbf": 33000000000}"#, "", Some(false)),
        ("{}", r#""time": -1"#, None),
        ("{}", r#""time": "1""#, None),
        ("{}", r#""alg": "HS256""#, Some(true)),
        ("{}", r#""alg": "RS256""#, Some(false)),
        ("{}", r#""unknown": "a""#, None),
        ("{}", r#""secret": """#, None),
        ("{}", r#""secret": "another""#, Some(false)),
        ("{}", r#""cert": "{\"keys\": []}""#, None),
        (
            "{}",
            r#""secret": "", "cert": "{\"keys\": []}""#,
            Some(false),
        ),
        ("[]", "", None),
        ("no JSON", "", None),
    ];
    for (payload, given, expected) in cases {
        let token = token(r#"{"alg": "HS256"}"#, payload);
        assert_eq!(
            valid(&token, &constraints(given)),
            expected,
            "{payload} {given}"
        );
    }
}

#[test]
fn headers_decide_what_is_verified() {
    let cases = [
        (r#"{"alg": "HS256", "typ": "JWT", "kid": "k"}"#, Some(true)),
        ("{}", Some(false)),
        (r#"{"alg": "none"}"#, Some(false)),
        (r#"{"alg": "HS512"}"#, Some(false)),
        (r#"{"alg": 1}"#, None),
        (r#"{"alg": "HS256", "kid": 1}"#, None),
        (r#"{"alg": "HS256", "enc": "A"}"#, None),
        (r#"{"alg": "HS256", "crit": ["b64"]}"#, Some(true)),
        (
            r#"{"alg": "HS256", "crit": ["b64"], "b64": false}"#,
            Some(false),
        ),
        (r#"{"alg": "HS256", "crit": []}"#, None),
        (r#"{"alg": "HS256", "crit": "b64"}"#, None),
        (r#"{"alg": "HS512", "alg": "HS256"}"#, Some(true)),
        ("[]", None),
    ];
    for (header, expected) in cases {
        let token = token(header, "{}");
        assert_eq!(valid(&token, &constraints("")), expected, "{header}");
    }
}

#[test]
fn a_token_in_a_token_is_verified_too() {
    let inner = token(r#"{"alg": "HS256"}"#, r#"{"sub": "x"}"#);
    let outer = token(r#"{"alg": "HS256", "cty": "JWT"}"#, &inner);
    let verified = decode_verify(&[outer.as_str().into(), constraints("")]).unwrap();
    assert_eq!(verified[2], json(r#"{"sub": "x"}"#));
    let unsigned = format!("{}.AAAA", encoded(r#"{"alg": "HS256"}"#, "{}"));
    let outer = token(r#"{"alg": "HS256", "cty": "jwt"}"#, &unsigned);
    assert_eq!(valid(&outer, &constraints("")), Some(false));
    let quoted = token(r#"{"alg": "HS256", "cty": "JWT"}"#, &format!("\"{inner}\""));
    let decoded = decode(&[quoted.as_str().into()]).unwrap();
    assert_eq!(decoded[1], json(r#"{"sub": "x"}"#));
}

/// A JWK of a key pair on the curve P-256.
fn ec_jwk(pair: &EcdsaKeyPair, further: &str) -> String {
    let point = pair.public_key().as_ref();
    let (x, y) = (&point[1..33], &point[33..]);
    format!(
        r#"{{"kty": "EC", "crv": "P-256", "x": "{}", "y": "{}"{further}}}"#,
        URL_SAFE_NO_PAD.encode(x),
        URL_SAFE_NO_PAD.encode(y)
    )
}

fn ec_token(pair: &EcdsaKeyPair, header: &str) -> String {
    let signed = encoded(header, "{}");
    let signature = pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn keys_are_found_by_id_and_algorithm() {
    let generate = || EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let (ours, theirs) = (generate(), generate());
    let set = |keys: &[String]| format!(r#"{{"keys": [{}]}}"#, keys.join(", "));
    let der = ours.public_key().as_der().unwrap();
    let der: &PublicKeyX509Der<'_> = &der;
    let body = STANDARD.encode(der.as_ref());
    let pem = format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n");
    let secret = URL_SAFE_NO_PAD.encode(ours.public_key().as_ref());
    let plain = r#"{"alg": "ES256"}"#;
    let named = r#"{"alg": "ES256", "kid": "a"}"#;
    let cases = [
        ("a JWK", ec_jwk(&ours, ""), plain, Some(true)),
        ("another's", ec_jwk(&theirs, ""), plain, Some(false)),
        ("PEM", pem.clone(), plain, Some(true)),
        ("more than PEM", format!("{pem}\n"), plain, None),
        (
            "a set",
            set(&[ec_jwk(&theirs, ""), ec_jwk(&ours, "")]),
            plain,
            Some(true),
        ),
        (
            "the key that is named",
            set(&[
                ec_jwk(&theirs, r#", "kid": "b""#),
                ec_jwk(&ours, r#", "kid": "a""#),
            ]),
            named,
            Some(true),
        ),
        (
            "only the key that is named",
            set(&[
                ec_jwk(&theirs, r#", "kid": "a""#),
                ec_jwk(&ours, r#", "kid": "b""#),
            ]),
            named,
            Some(false),
        ),
        (
            "a key for the algorithm",
            ec_jwk(&ours, r#", "alg": "ES256""#),
            plain,
            Some(true),
        ),
        (
            "a key for another",
            ec_jwk(&ours, r#", "alg": "ES384""#),
            plain,
            Some(false),
        ),
        (
            "a key for none",
            ec_jwk(&ours, r#", "alg": "ECDH-ES""#),
            plain,
            Some(false),
        ),
        ("an empty set", set(&[]), plain, Some(false)),
        (
            "a set with a broken key",
            set(&[ec_jwk(&ours, ""), r#"{"kty": "EC"}"#.to_owned()]),
            plain,
            None,
        ),
        ("no key", "{}".to_owned(), plain, None),
        (
            "a secret",
            format!(r#"{{"kty": "oct", "k": "{secret}"}}"#),
            plain,
            Some(false),
        ),
    ];
    for (name, keys, header, expected) in cases {
        let token = ec_token(&ours, header);
        let arguments = [token.as_str().into(), keys.as_str().into()];
        let verified = verify_es256(&arguments);
        assert_eq!(verified, expected.map(Value::from), "{name}");
        let constraints = Value::from(BTreeMap::from([("cert".into(), keys.as_str().into())]));
        assert_eq!(valid(&token, &constraints), expected, "{name}");
        // The other algorithms want other keys.
        for other in [verify_es384, verify_rs256, verify_ps256, verify_eddsa] {
            let verified = other(&arguments);
            assert_eq!(verified, expected.map(|_| false.into()), "{name}");
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let key = ec_jwk(&pair, "");
    // The forger signs with what everybody knows.
    let signed = encoded(r#"{"alg": "HS256"}"#, "{}");
    let forged = hmac::sign(
        &hmac::Key::new(HMAC_SHA256, key.as_bytes()),
        signed.as_bytes(),
    );
    let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(forged));
    let constraints = Value::from(BTreeMap::from([("cert".into(), key.as_str().into())]));
    assert_eq!(valid(&token, &constraints), Some(false));
}

#[test]
fn signatures_of_ed25519_are_verified() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let key = format!(r#"{{"kty": "OKP", "crv": "Ed25519", "x": "{x}"}}"#);
    let signed = encoded(r#"{"alg": "EdDSA"}"#, "{}");
    let signature = URL_SAFE_NO_PAD.encode(pair.sign(signed.as_bytes()));
    let token = format!("{signed}.{signature}");
    let verified = verify_eddsa(&[token.into(), key.as_str().into()]);
    assert_eq!(verified, Some(true.into()));
    let other = format!("{}.{signature}", encoded(r#"{"alg": "EdDSA"}"#, "{ }"));
    assert_eq!(
        verify_eddsa(&[other.into(), key.into()]),
        Some(false.into())
    );
}

#[test]
fn broken_tokens_are_never_valid_and_never_panic() {
    let token = token(r#"{"alg": "HS256", "kid": "a"}"#, r#"{"sub": "x"}"#);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let last = token.len() - 1;
    for place in 0..token.len() {
        for replacement in ["", ".", "A", "-", "=", "\n", "é", "\u{0}"] {
            let broken = format!("{}{replacement}{}", &token[..place], &token[place + 1..]);
            // The bits after the last byte are nobody's, and line breaks are nothing.
            if broken.replace('\n', "") != token && place != last {
                assert_ne!(valid(&broken, &constraints("")), Some(true), "{broken}");
            }
            decode(&[broken.as_str().into()]);
            verify_hs256(&[broken.as_str().into(), SECRET.into()]);
            verify_rs256(&[broken.as_str().into(), "{\"keys\": []}".into()]);
        }
        decode(&[token[..place].into()]);
    }
    assert_eq!(valid(&format!("{signed}."), &constraints("")), Some(false));
    assert_eq!(
        valid(&format!("{token}.{signature}"), &constraints("")),
        None
    );
    let long = format!("{}.{signed}", "A".repeat(300_000));
    assert_eq!(decode(&[long.as_str().into()]), None);
    let deep = format!("{}{}", "[".repeat(50_000), "]".repeat(50_000));
    let deep = format!("{}.AAAA", encoded(&deep, &deep));
    assert_eq!(decode(&[deep.as_str().into()]), None);
}
