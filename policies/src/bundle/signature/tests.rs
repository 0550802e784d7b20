use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
    ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use serde_json::{Value, json};

use super::super::contents::Bundle;
use super::super::files::Limits;
use super::super::keys::SignatureAlgorithm;
use super::super::testing::{ALLOW, tarball};
use super::*;

const POLICY_HASH: &str = "7fb2ab0cd3fcc4ae1a9b1e1f6ff0f2d0e6d1ea5c7b5b54a0a8f9fdd0b0f0d2c1";

fn secret(content: &[u8]) -> VerificationKey {
    VerificationKey::new("HS256".parse().unwrap(), content).unwrap()
}

fn encode(value: &Value) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(value.to_string())
}

fn token(header: &Value, payload: &Value, sign: impl FnOnce(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encode(header), encode(payload));
    let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn by_secret(header: &Value, payload: &Value) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
    token(header, payload, |message| {
        hmac::sign(&key, message).as_ref().to_vec()
    })
}

fn sha256(content: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&SHA256, content.as_bytes());
    let bytes = digest.as_ref().iter();
    bytes.map(|byte| format!("{byte:02x}")).collect()
}

/// As `opa sign` lists them, for the files of [`files`].
fn payload() -> Value {
    let file = |name: &str, content: &str| json!({"name": name, "hash": sha256(content), "algorithm": "SHA-256"});
    json!({"files": [
        file("policy.rego", ALLOW),
        file("data.json", r#"{"a":[1,2.0]}"#),
        file(".manifest", r#"{"revision":"1"}"#),
    ]})
}

fn files(signatures: &str) -> Vec<u8> {
    tarball(&[
        ("/policy.rego", ALLOW),
        ("/data.json", "{ \"a\": [1, 2.0] }\n"),
        ("/.manifest", "{ \"revision\" : \"1\" }"),
        ("/.signatures.json", signatures),
    ])
}

fn read(archive: &[u8], verification: Option<&Verification>) -> Result<(), (&'static str, String)> {
    let read = Bundle::read(archive, &Limits::default(), verification);
    read.map(|_| ())
        .map_err(|error| (error.code(), error.to_string()))
}

fn signed(token: &str) -> Vec<u8> {
    files(&json!({"signatures": [token]}).to_string())
}

fn header() -> Value {
    json!({"alg": "HS256", "typ": "JWT"})
}

#[test]
fn a_bundle_is_signed_exactly_if_it_must_be() {
    let verification = Verification::new(secret(b"secret"));
    let other = Verification::new(secret(b"other"));
    let signed = signed(&by_secret(&header(), &payload()));
    let unsigned = tarball(&[("/policy.rego", ALLOW)]);
    let code = |archive: &[u8], verification: Option<&Verification>| {
        read(archive, verification).err().map(|(code, _)| code)
    };
    assert_eq!(code(&signed, Some(&verification)), None);
    assert_eq!(code(&signed, Some(&other)), Some("SG0242"));
    assert_eq!(code(&signed, None), Some("SG0241"));
    assert_eq!(code(&unsigned, Some(&verification)), Some("SG0240"));
    assert_eq!(code(&unsigned, None), None);
    // No token is no signature, and no way around one either.
    for nothing in ["{}", r#"{"signatures": []}"#] {
        assert_eq!(code(&files(nothing), Some(&verification)), Some("SG0242"));
        assert_eq!(code(&files(nothing), None), Some("SG0241"));
    }
}

#[test]
fn every_algorithm_verifies_its_own_signatures_and_no_others() {
    let random = SystemRandom::new();
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa_public = rsa.public_key().as_der().unwrap();
    let sign_rsa = |padding: &'static dyn RsaEncoding, message: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(padding, &random, message, &mut signature).unwrap();
        signature
    };
    let ecdsa =
        |algorithm: &'static EcdsaSigningAlgorithm| EcdsaKeyPair::generate(algorithm).unwrap();
    let (p256, p384, p521) = (
        ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING),
        ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING),
        ecdsa(&ECDSA_P521_SHA512_FIXED_SIGNING),
    );
    let pem = |der: &[u8]| pem::encode(&pem::Pem::new("PUBLIC KEY", der)).into_bytes();
    let hmac = |algorithm, message: &[u8]| {
        let key = hmac::Key::new(algorithm, b"secret");
        hmac::sign(&key, message).as_ref().to_vec()
    };
    type Sign<'a> = Box<dyn Fn(&[u8]) -> Vec<u8> + 'a>;
    let ec = |pair: &EcdsaKeyPair, message: &[u8]| {
        pair.sign(&random, message).unwrap().as_ref().to_vec()
    };
    let ec_pem = |pair: &EcdsaKeyPair| pem(pair.public_key().as_der().unwrap().as_ref());
    let cases: Vec<(&str, Vec<u8>, Sign<'_>)> = vec![
        (
            "RS256",
            pem(rsa_public.as_ref()),
            Box::new(|it| sign_rsa(&RSA_PKCS1_SHA256, it)),
        ),
        (
            "RS384",
            pem(rsa_public.as_ref()),
            Box::new(|it| sign_rsa(&RSA_PKCS1_SHA384, it)),
        ),
        (
            "RS512",
            pem(rsa_public.as_ref()),
            Box::new(|it| sign_rsa(&RSA_PKCS1_SHA512, it)),
        ),
        (
            "PS256",
            pem(rsa_public.as_ref()),
            Box::new(|it| sign_rsa(&RSA_PSS_SHA256, it)),
        ),
        (
            "PS384",
            pem(rsa_public.as_ref()),
            Box::new(|it| sign_rsa(&RSA_PSS_SHA384, it)),
        ),
        (
            "PS512",
            pem(rsa_public.as_ref()),
            Box::new(|it| sign_rsa(&RSA_PSS_SHA512, it)),
        ),
        ("ES256", ec_pem(&p256), Box::new(|it| ec(&p256, it))),
        ("ES384", ec_pem(&p384), Box::new(|it| ec(&p384, it))),
        ("ES512", ec_pem(&p521), Box::new(|it| ec(&p521, it))),
        (
            "HS256",
            b"secret".to_vec(),
            Box::new(|it| hmac(hmac::HMAC_SHA256, it)),
        ),
        (
            "HS384",
            b"secret".to_vec(),
            Box::new(|it| hmac(hmac::HMAC_SHA384, it)),
        ),
        (
            "HS512",
            b"secret".to_vec(),
            Box::new(|it| hmac(hmac::HMAC_SHA512, it)),
        ),
    ];
    for (name, key, _) in &cases {
        let key = VerificationKey::new(name.parse().unwrap(), key).expect(name);
        let verification = Verification::new(key);
        for (other, _, sign) in &cases {
            // Even where the token claims to be by the right one.
            let archive = signed(&token(&json!({"alg": name}), &payload(), sign));
            let result = read(&archive, Some(&verification));
            assert_eq!(result.is_ok(), name == other, "{name}, {other}: {result:?}");
        }
    }
}

#[test]
fn a_key_file_must_hold_a_key_for_its_algorithm() {
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
    let rsa = rsa.public_key().as_der().unwrap();
    let rsa = pem::encode(&pem::Pem::new("PUBLIC KEY", rsa.as_ref()));
    for (algorithm, content, message) in [
        ("ES256", rsa.as_str(), "not a key for ES256"),
        ("RS256", "", "cannot be used"),
        (
            "RS256",
            "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "`PRIVATE KEY`",
        ),
        (
            "RS256",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "cannot be used",
        ),
        ("HS256", "", "empty"),
    ] {
        let error = VerificationKey::new(algorithm.parse().unwrap(), content.as_bytes());
        let error = error.expect_err(message);
        assert_eq!(error.code(), "SG0244");
        assert!(error.to_string().contains(message), "{error}");
    }
    for unknown in ["none", "rs256", "EdDSA", ""] {
        assert!(unknown.parse::<SignatureAlgorithm>().is_err(), "{unknown}");
    }
}

#[test]
fn what_the_token_says_must_be_what_is_expected() {
    let verification = || Verification::new(secret(b"secret"));
    let with = |key: &str, value: Value| {
        let mut payload = payload();
        payload[key] = value;
        payload
    };
    let claims = json!({"iat": 1, "iss": "me", "exp": 1, "more": []});
    let mut claimed = payload();
    claimed
        .as_object_mut()
        .unwrap()
        .extend(claims.as_object().unwrap().clone());
    let kid = json!({"alg": "HS256", "kid": "one"});
    for (header, payload, verification, refusal) in [
        // Other claims count for nothing.
        (header(), claimed, verification(), None),
        (
            header(),
            with("scope", json!("read")),
            verification().scope("read"),
            None,
        ),
        (
            header(),
            with("scope", json!("read")),
            verification(),
            Some("scope is `read`"),
        ),
        (
            header(),
            payload(),
            verification().scope("read"),
            Some("scope is ``"),
        ),
        (
            kid.clone(),
            payload(),
            verification().key_id(Some("one".into())),
            None,
        ),
        (kid.clone(), payload(), verification(), None),
        (
            header(),
            payload(),
            verification().key_id(Some("one".into())),
            None,
        ),
        (
            header(),
            with("keyid", json!("one")),
            verification().key_id(Some("one".into())),
            None,
        ),
        (
            kid.clone(),
            payload(),
            verification().key_id(Some("two".into())),
            Some("key `one`"),
        ),
        // The header counts, as in OPA.
        (
            kid,
            with("keyid", json!("two")),
            verification().key_id(Some("two".into())),
            Some("key `one`"),
        ),
        (
            json!({"alg": "none"}),
            payload(),
            verification(),
            Some("by none"),
        ),
        (
            json!({"alg": "RS256"}),
            payload(),
            verification(),
            Some("by RS256"),
        ),
        (
            json!({"alg": "HS256", "crit": ["b64"]}),
            payload(),
            verification(),
            Some("critical"),
        ),
        (json!({}), payload(), verification(), Some("header")),
        (header(), json!({}), verification(), Some("payload")),
        (
            header(),
            json!({"files": [{"name": "a"}]}),
            verification(),
            Some("payload"),
        ),
    ] {
        let result = read(&signed(&by_secret(&header, &payload)), Some(&verification));
        match (refusal, result) {
            (None, Ok(())) => {}
            (Some(refusal), Err((code, text))) => {
                assert_eq!(code, "SG0242", "{text}");
                assert!(text.contains(refusal), "{text}");
            }
            (refusal, result) => panic!("{header} {payload}: {refusal:?} {result:?}"),
        }
    }
    let good = by_secret(&header(), &payload());
    let two = json!({"signatures": [good, good]}).to_string();
    let plugin = json!({"signatures": [good], "plugin": "other"}).to_string();
    let padded = json!({"signatures": [format!("{good}=")]}).to_string();
    for signatures in [
        two.as_str(),
        &plugin,
        &padded,
        r#"{"signatures": ["a.b"]}"#,
        r#"{"signatures": ["..."]}"#,
    ] {
        let (code, _) = read(&files(signatures), Some(&verification())).unwrap_err();
        assert_eq!(code, "SG0242", "{signatures}");
    }
    for signatures in ["", "[", r#"{"signature": []}"#, r#"{"signatures": [1]}"#] {
        let (code, _) = read(&files(signatures), Some(&verification())).unwrap_err();
        assert_eq!(code, "SG0237", "{signatures}");
    }
}

#[test]
fn the_files_are_exactly_those_that_were_signed() {
    let verification = Verification::new(secret(b"secret"));
    let excluding = verification.clone().exclude(["*.rego", "docs/*"]).unwrap();
    let change = |index: usize, key: &str, value: &str| {
        let mut payload = payload();
        payload["files"][index][key] = json!(value);
        payload
    };
    let more = |name: &str| {
        let mut payload = payload();
        let file = json!({"name": name, "hash": "", "algorithm": "SHA-256"});
        payload["files"].as_array_mut().unwrap().push(file);
        payload
    };
    let mut fewer = payload();
    fewer["files"].as_array_mut().unwrap().remove(0);
    for (payload, refusal) in [
        (change(0, "name", "/policy.rego"), None),
        (change(0, "hash", &sha256(ALLOW).to_uppercase()), None),
        (
            change(0, "hash", POLICY_HASH),
            Some("policy.rego is not the file"),
        ),
        (
            change(1, "hash", POLICY_HASH),
            Some("data.json is not the file"),
        ),
        (change(2, "hash", ""), Some(".manifest is not the file")),
        (change(0, "algorithm", "MD5"), Some("\"MD5\" hash")),
        (change(0, "algorithm", "SHA-1"), Some("\"SHA-1\" hash")),
        (change(0, "algorithm", ""), Some("\"\" hash")),
        (
            more("absent.rego"),
            Some("absent.rego is signed, and is not in"),
        ),
        (
            more("policy.rego"),
            Some("policy.rego is in the bundle's signature twice"),
        ),
        (
            fewer.clone(),
            Some("policy.rego is not in the bundle's signature"),
        ),
    ] {
        let archive = signed(&by_secret(&header(), &payload));
        match (refusal, read(&archive, Some(&verification))) {
            (None, Ok(())) => {}
            (Some(refusal), Err((code, text))) => {
                assert_eq!(code, "SG0243", "{text}");
                assert!(text.contains(refusal), "{text}");
            }
            (refusal, result) => panic!("{payload}: {refusal:?} {result:?}"),
        }
    }
    let excluded =
        |payload: &Value| read(&signed(&by_secret(&header(), payload)), Some(&excluding));
    assert_eq!(excluded(&fewer), Ok(()));
    assert_eq!(excluded(&change(0, "hash", "")), Ok(()));
    // What is signed must be there, excluded or not.
    assert_eq!(excluded(&more("docs/a.md")).unwrap_err().0, "SG0243");
    for pattern in ["**", "{a,b}", "[a"] {
        assert!(
            verification.clone().exclude([pattern]).is_err(),
            "{pattern}"
        );
    }
    let deep = verification.exclude(["*"]).unwrap();
    let mut files = Files::from([
        ("a/policy.rego".to_owned(), Vec::new()),
        (
            SIGNATURES.to_owned(),
            json!({"signatures": [by_secret(&header(), &json!({"files": []}))]})
                .to_string()
                .into_bytes(),
        ),
    ]);
    // `*` ends at a `/`.
    assert_eq!(
        verify(&mut files, Some(&deep)).unwrap_err().code(),
        "SG0243"
    );
}

#[test]
fn all_hashes_that_cannot_be_forged_are_taken() {
    let verification = Verification::new(secret(b"secret"));
    for (name, algorithm) in [
        ("SHA-224", &SHA224),
        ("SHA-256", &SHA256),
        ("SHA-384", &SHA384),
        ("SHA-512", &SHA512),
        ("SHA-512-256", &SHA512_256),
    ] {
        let digest = aws_lc_rs::digest::digest(algorithm, ALLOW.as_bytes());
        let hash: String = digest
            .as_ref()
            .iter()
            .map(|it| format!("{it:02x}"))
            .collect();
        let mut payload = payload();
        payload["files"][0]["hash"] = json!(hash);
        payload["files"][0]["algorithm"] = json!(name);
        let archive = signed(&by_secret(&header(), &payload));
        assert_eq!(read(&archive, Some(&verification)), Ok(()), "{name}");
    }
}
