use std::collections::BTreeMap;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::jwt::{JwtCache, validate};

fn trust_domain() -> TrustDomain {
    TrustDomain::new("one.test").unwrap()
}

fn web() -> SpiffeId {
    SpiffeId::new("spiffe://one.test/web").unwrap()
}

fn open(directory: &tempfile::TempDir, now: SystemTime) -> Result<JwtAuthority, JwtError> {
    JwtAuthority::open(directory.path().join("jwt.json"), trust_domain(), now)
}

fn audience(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn a_token_is_valid_for_its_audience_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    let authority = open(&directory, now).unwrap();
    let svid = authority.mint(&web(), &audience(&["a", "b"]), now).unwrap();
    let own = trust_domain();
    let bundles = BTreeMap::from([(own.clone(), Arc::new(authority.bundle().unwrap()))]);
    for name in ["a", "b"] {
        let valid = validate(&svid.token, name, &bundles, &own).unwrap();
        assert_eq!(valid.spiffe_id, web());
        let mut claims: Vec<_> = valid.claims.keys().map(String::as_str).collect();
        claims.sort_unstable();
        assert_eq!(claims, ["aud", "exp", "iat", "iss", "jti", "sub"]);
    }
    assert!(validate(&svid.token, "c", &bundles, &own).is_err());
    assert!(validate(&svid.token, "a", &BTreeMap::new(), &own).is_err());
    let cut = &svid.token[..svid.token.len() - 4];
    assert!(validate(cut, "a", &bundles, &own).is_err());
    // Of another trust domain's token only what the standard defines is told.
    let foreign = validate(
        &svid.token,
        "a",
        &bundles,
        &TrustDomain::new("two.test").unwrap(),
    );
    assert_eq!(foreign.unwrap().claims.len(), 3);
}

#[test]
fn an_expired_token_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    let authority = open(&directory, now - TOKEN_LIFETIME).unwrap();
    let svid = authority
        .mint(&web(), &audience(&["a"]), now - TOKEN_LIFETIME)
        .unwrap();
    let own = trust_domain();
    let bundles = BTreeMap::from([(own.clone(), Arc::new(authority.bundle().unwrap()))]);
    assert!(validate(&svid.token, "a", &bundles, &own).is_err());
}

#[test]
fn keys_survive_a_restart_and_are_published_before_they_sign() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let first = open(&directory, now).unwrap();
    let signer = |authority: &JwtAuthority, now| {
        authority
            .mint(&web(), &audience(&["a"]), now)
            .unwrap()
            .key_id
    };
    let old = signer(&first, now);
    assert_eq!(signer(&open(&directory, now).unwrap(), now), old);
    assert!(first.advance(now + KEY_LIFETIME / 2).unwrap());
    assert_eq!(
        first.bundle().unwrap().parsed().jwt_authorities().count(),
        2
    );
    assert_eq!(signer(&first, now + KEY_LIFETIME / 2), old);
    let late = now + KEY_LIFETIME * 9 / 10;
    let reopened = open(&directory, late).unwrap();
    let new = signer(&reopened, late);
    assert_ne!(new, old);
    assert!(
        reopened
            .bundle()
            .unwrap()
            .parsed()
            .find_jwt_authority(&old)
            .is_some()
    );
    assert!(
        first
            .bundle()
            .unwrap()
            .parsed()
            .find_jwt_authority(&new)
            .is_some()
    );
}

#[test]
fn a_file_that_cannot_be_used_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    drop(open(&directory, now).unwrap());
    let path = directory.path().join("jwt.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for content in [
        "",
        "{}",
        &good[..good.len() / 2],
        &good.replace("active", "old"),
        &good.replace("\"format\": 1", "\"format\": 2"),
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(
            open(&directory, now).err().unwrap().code(),
            "SG0127",
            "{content}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    std::fs::write(&path, good.replace("one.test", "two.test")).unwrap();
    assert_eq!(open(&directory, now).err().unwrap().code(), "SG0128");
}

#[test]
fn a_token_is_handed_out_again_until_half_of_its_life() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let authority = open(&directory, now).unwrap();
    let bundle = authority.bundle().unwrap();
    let cache = JwtCache::default();
    let get = |names: &[&str], now| {
        let audience = audience(names);
        let mint = || authority.mint(&web(), &audience, now);
        cache
            .get(&web(), &audience, &bundle, now, mint)
            .unwrap()
            .token
    };
    let first = get(&["a"], now);
    assert_eq!(get(&["a"], now + TOKEN_LIFETIME / 3), first);
    assert_ne!(get(&["b"], now), first);
    assert_ne!(get(&["a"], now + TOKEN_LIFETIME / 2), first);
}
