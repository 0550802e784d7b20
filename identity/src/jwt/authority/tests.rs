use std::collections::BTreeMap;

use super::*;
use crate::clock::{Clock, SystemClock};
use crate::entry::{Entry, EntryRequest};
use crate::jwt::{JwtCache, validate};
use crate::source::MintError;
use crate::spire::SpireError;

fn trust_domain() -> TrustDomain {
    TrustDomain::new("one.test").unwrap()
}

fn web() -> SpiffeId {
    SpiffeId::new("spiffe://one.test/web").unwrap()
}

fn open(directory: &tempfile::TempDir, now: SystemTime) -> Result<JwtAuthority, JwtError> {
    JwtAuthority::open(directory.path().join("jwt.json"), trust_domain(), now)
}

fn entry() -> Entry {
    let request = EntryRequest {
        spiffe_id: web().to_string(),
        selectors: vec!["unix:uid:1".to_owned()],
        ..EntryRequest::default()
    };
    Entry::new(request, &trust_domain()).unwrap()
}

fn audience(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn a_token_is_valid_for_its_audience_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    let authority = open(&directory, now).unwrap();
    let svid = authority
        .mint(&web(), &audience(&["a", "b"]), None, now)
        .unwrap();
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
        .mint(&web(), &audience(&["a"]), None, now - TOKEN_LIFETIME)
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
            .mint(&web(), &audience(&["a"]), None, now)
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

#[tokio::test]
async fn a_token_is_handed_out_again_until_half_of_its_life() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let authority = open(&directory, now).unwrap();
    let bundle = authority.bundle().unwrap();
    let cache = JwtCache::default();
    let entry = entry();
    let get = async |names: &[&str], now: SystemTime| {
        let audience = audience(names);
        let minted = authority.mint(&web(), &audience, entry.jwt_svid_ttl(), now);
        let mint = async { minted.map_err(MintError::from) };
        let token = cache.get(&entry, &audience, &bundle, now, mint).await;
        token.unwrap().token
    };
    let first = get(&["a"], now).await;
    assert_eq!(get(&["a"], now + TOKEN_LIFETIME / 3).await, first);
    assert_ne!(get(&["b"], now).await, first);
    assert_ne!(get(&["a"], now + TOKEN_LIFETIME / 2).await, first);
}

#[tokio::test]
async fn a_token_that_nobody_renews_is_handed_out_until_it_ends() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let authority = open(&directory, now).unwrap();
    let (bundle, cache, entry) = (authority.bundle().unwrap(), JwtCache::default(), entry());
    let audience = audience(&["a"]);
    let signed = authority.mint(&web(), &audience, entry.jwt_svid_ttl(), now);
    let signed = signed.map_err(MintError::from);
    let get = async |minted, now| {
        cache
            .get(&entry, &audience, &bundle, now, async { minted })
            .await
    };
    let first = get(signed, now).await.unwrap();
    let away = || Err(SpireError::Timeout("NewJWTSVID").into());
    for (at, serves) in [(TOKEN_LIFETIME / 4 * 3, true), (TOKEN_LIFETIME, false)] {
        let got = get(away(), now + at).await;
        assert_eq!(got.ok(), serves.then(|| first.clone()));
    }
}

#[tokio::test]
async fn a_token_of_a_tainted_key_is_valid_until_the_key_is_revoked_and_handed_out_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemClock.now();
    let authority = open(&directory, now).unwrap();
    let (cache, entry, audience) = (JwtCache::default(), entry(), audience(&["a"]));
    let get = async || {
        let minted = authority.mint(&web(), &audience, None, now);
        let mint = async { minted.map_err(MintError::from) };
        let bundle = authority.bundle().unwrap();
        let token = cache.get(&entry, &audience, &bundle, now, mint).await;
        token.unwrap()
    };
    let is_valid = |svid: &JwtSvid| {
        let own = trust_domain();
        let bundles = BTreeMap::from([(own.clone(), Arc::new(authority.bundle().unwrap()))]);
        validate(&svid.token, "a", &bundles, &own).is_ok()
    };
    let first = get().await;
    assert!(authority.prepare(now).unwrap());
    authority.activate().unwrap();
    assert_eq!(get().await, first, "an old key's token may be handed out");
    assert_eq!(authority.taint(None).unwrap(), first.key_id);
    assert_ne!(get().await.key_id, first.key_id);
    assert!(is_valid(&first));
    // What was said holds after a restart too.
    let reopened = open(&directory, now).unwrap();
    assert_eq!(reopened.status(), authority.status());
    assert_eq!(authority.revoke(None).unwrap(), first.key_id);
    assert!(!is_valid(&first));
    assert!(is_valid(&get().await));
}

#[test]
fn a_token_lives_as_long_as_its_entry_says() {
    let directory = tempfile::tempdir().unwrap();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let authority = open(&directory, now).unwrap();
    for (ttl, expected) in [(None, 300), (Some(60), 60), (Some(30 * 3600), 24 * 3600)] {
        let ttl = ttl.map(Duration::from_secs);
        let svid = authority.mint(&web(), &audience(&["a"]), ttl, now);
        let lifetime = svid.unwrap().validity.not_after.duration_since(now);
        assert_eq!(lifetime.unwrap().as_secs(), expected);
    }
}
