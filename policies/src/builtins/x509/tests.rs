//! Certificates, and what Go says of them.
//!
//! `certificates.json` was written by a program in Go: certificates by name,
//! in PEM and as the JSON of `x509.Certificate`, and chains with the subjects
//! of what `Certificate.Verify` made of them. Numbers that no JSON parser here
//! takes are texts in it: `number 123`.

use std::collections::BTreeMap;
use std::slice::from_ref;

use regorus::Value;

use super::{
    parse_and_verify, parse_and_verify_with_options, parse_certificate_request, parse_certificates,
};
use crate::builtins::values::{base64, member, text};

fn golden() -> Value {
    Value::from_json_str(include_str!("certificates.json")).unwrap()
}

fn pem<'a>(golden: &'a Value, name: &str) -> &'a str {
    text(member(member(golden, name).unwrap(), "pem").unwrap()).unwrap()
}

fn names() -> Vec<String> {
    let golden = golden();
    let names = golden.as_object().unwrap().keys_sorted();
    let names = names.map(|name| text(name).unwrap().to_owned());
    names
        .filter(|name| name.starts_with("ca-") || name.starts_with("leaf-"))
        .collect()
}

/// A document with large numbers as texts.
fn readable(value: &Value) -> Value {
    match value {
        Value::Number(number) if number.as_i64().is_none() => {
            format!("number {}", number.format_decimal()).into()
        }
        Value::Array(items) => Value::from(items.iter().map(readable).collect::<Vec<Value>>()),
        Value::Object(items) => {
            let items = items
                .iter()
                .map(|(key, item)| (key.clone(), readable(item)));
            Value::from(items.collect::<BTreeMap<Value, Value>>())
        }
        other => other.clone(),
    }
}

/// The members that differ, so that a failure can be read.
fn differing(found: &Value, expected: &Value) -> Vec<String> {
    let (found, expected) = (found.as_object().unwrap(), expected.as_object().unwrap());
    let absent = found.keys().filter(|key| !expected.contains_key(key));
    let absent = absent.map(|key| format!("{key} is no field"));
    let differing = expected
        .iter()
        .filter(|(key, value)| found.get(key) != Some(value));
    let differing =
        differing.map(|(key, value)| format!("{key}: {:?}, not {value}", found.get(key)));
    absent.chain(differing).collect()
}

#[test]
fn certificates_have_the_fields_that_go_gives_them() {
    let golden = golden();
    assert_eq!(names().len(), 6);
    for name in names() {
        let expected = member(member(&golden, &name).unwrap(), "json").unwrap();
        let found = readable(&parse_certificates(&[pem(&golden, &name).into()]).unwrap());
        assert_eq!(differing(&found[0], &expected[0]), [""; 0], "{name}");
        assert_eq!(&found, expected);
    }
}

#[test]
fn requests_have_the_fields_that_go_gives_them_but_for_their_attributes() {
    let golden = golden();
    let mut expected = member(&golden, "request").unwrap()["json"].clone();
    expected
        .as_object_mut()
        .unwrap()
        .remove(&"Attributes".into());
    let pem = pem(&golden, "request");
    let found = parse_certificate_request(&[pem.into()]).unwrap();
    assert_eq!(differing(&readable(&found), &expected), [""; 0]);
    let encoded = parse_certificate_request(&[base64(pem.as_bytes())]);
    assert_eq!(encoded, Some(found));
    assert_eq!(parse_certificates(&[pem.into()]), None);
}

#[test]
fn certificates_are_read_from_pem_and_from_base64() {
    let golden = golden();
    let (first, second) = (pem(&golden, "leaf-bare"), pem(&golden, "leaf-spiffe"));
    let both = format!("{first}{second}");
    let parsed = parse_certificates(&[both.as_str().into()]).unwrap();
    assert_eq!(parsed.as_array().unwrap().len(), 2);
    let contents = super::pem_contents(&both).unwrap();
    for given in [
        base64(both.as_bytes()),
        base64(&contents),
        format!("{first}\nnothing of interest\n{second}").into(),
        both.replace('\n', "\r\n").into(),
    ] {
        assert_eq!(
            parse_certificates(from_ref(&given)),
            Some(parsed.clone()),
            "{given}"
        );
    }
    for given in ["", "-----BEGIN CERTIFICATE-----\n"] {
        assert_eq!(
            parse_certificates(&[given.into()]),
            Some(Value::new_array())
        );
    }
    let half = first.len() / 2;
    for given in [
        "AAAA",
        "no base64",
        &first.replace("CERTIFICATE", "KEY"),
        &first[1..half],
    ] {
        assert_eq!(parse_certificates(&[given.into()]), None, "{given}");
    }
}

/// Chains that Go finds valid, but that are refused here: the verifier takes no
/// authority for a leaf.
const REFUSED: &[&str] = &["a leaf that is an authority", "a root alone with itself"];

#[test]
fn chains_are_valid_where_go_finds_them_valid() {
    let golden = golden();
    let chains = member(&golden, "chains").unwrap().as_array().unwrap();
    assert!(chains.len() > 20);
    for case in chains.iter() {
        let name = text(&case["Name"]).unwrap();
        let result =
            parse_and_verify_with_options(&[case["PEM"].clone(), case["Options"].clone()]).unwrap();
        let found: Vec<&Value> = result[1]
            .as_array()
            .unwrap()
            .iter()
            .map(|certificate| &certificate["Subject"]["CommonName"])
            .collect();
        let mut expected: Vec<&Value> = case["Chain"].as_array().unwrap().iter().collect();
        if REFUSED.contains(&name) {
            assert!(!expected.is_empty(), "{name}");
            expected.clear();
        }
        assert_eq!(found, expected, "{name}");
        assert_eq!(result[0], Value::from(!expected.is_empty()), "{name}");
    }
}

#[test]
fn chains_are_verified_now_unless_another_time_is_given() {
    let golden = golden();
    let case = &member(&golden, "chains").unwrap()[0];
    // Valid until 2074.
    let result = parse_and_verify(&[case["PEM"].clone()]).unwrap();
    assert_eq!(result[0], Value::from(true));
    assert_eq!(result[1][0]["URIStrings"], Value::Null);
    let result = parse_and_verify_with_options(&[case["PEM"].clone(), Value::new_object()]);
    assert_eq!(result.unwrap()[0], Value::from(true));
}

#[test]
fn unknown_options_are_errors() {
    let golden = golden();
    let pem = &member(&golden, "chains").unwrap()[0]["PEM"];
    for options in [
        r#"{"Unknown": 1}"#,
        r#"{"DNSName": 1}"#,
        r#"{"CurrentTime": "now"}"#,
        r#"{"CurrentTime": -1}"#,
        r#"{"KeyUsages": ["KeyUsageUnknown"]}"#,
        r#"{"KeyUsages": "KeyUsageAny"}"#,
        "[]",
    ] {
        let options = Value::from_json_str(options).unwrap();
        let result = parse_and_verify_with_options(&[pem.clone(), options.clone()]);
        assert_eq!(result, None, "{options}");
    }
}

#[test]
fn broken_certificates_are_refused_without_panic() {
    let golden = golden();
    let mut state = 7_u64;
    let mut random = move |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 33).unwrap() % below
    };
    let mut parsed = 0;
    for name in names().iter().map(String::as_str).chain(["request"]) {
        let block = crate::builtins::pem::first_block(pem(&golden, name)).unwrap();
        for round in 0..2_000 {
            let mut der = block.contents.clone();
            for _ in 0..=random(3) {
                let place = random(der.len());
                der[place] = u8::try_from(random(256)).unwrap();
            }
            if round % 5 == 0 {
                der.truncate(random(der.len()));
            }
            let given = base64(&der);
            parsed += usize::from(parse_certificates(from_ref(&given)).is_some());
            parse_and_verify(from_ref(&given));
            parse_certificate_request(&[given]);
        }
    }
    // Not all changes are seen: a signature or a key is any number.
    assert!(parsed > 0);
}
