use std::time::Duration;

use super::*;

const NOW: Duration = Duration::from_secs(1_800_000_000);

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOW
}

fn trust_domain() -> TrustDomain {
    TrustDomain::new("one.test").unwrap()
}

fn request(name: &str, uid: u32) -> EntryRequest {
    EntryRequest {
        spiffe_id: format!("spiffe://one.test/{name}"),
        selectors: vec![format!("unix:uid:{uid}")],
        x509_svid_ttl: Some(Duration::from_secs(60)),
        audiences: vec!["a".to_owned()],
        federates_with: vec!["two.test".to_owned()],
        ..EntryRequest::default()
    }
}

fn configured() -> Vec<Entry> {
    vec![Entry::new(request("configured", 1), &trust_domain()).unwrap()]
}

fn open(
    directory: &tempfile::TempDir,
    configured: Vec<Entry>,
) -> Result<EntryRegistry, RegistryError> {
    let path = directory.path().join("entries.json");
    EntryRegistry::open(path, trust_domain(), configured, now())
}

fn create(registry: &mut EntryRegistry, id: &str, name: &str) -> Result<(), RegistryError> {
    let registration = registry.examine(Some(id.to_owned()), request(name, 2), now())?;
    registry.insert(registration)
}

fn ids(registry: &EntryRegistry) -> Vec<&str> {
    registry
        .all()
        .iter()
        .map(|known| known.id.as_str())
        .collect()
}

#[test]
fn entries_survive_a_restart_behind_those_of_the_configuration() {
    let directory = tempfile::tempdir().unwrap();
    let mut registry = open(&directory, configured()).unwrap();
    for id in ["b", "a", "c"] {
        create(&mut registry, id, id).unwrap();
    }
    registry.remove("a").unwrap();
    let reopened = open(&directory, configured()).unwrap();
    assert_eq!(ids(&reopened), ["configuration-1", "b", "c"]);
    assert_eq!(reopened.all(), registry.all());
}

#[test]
fn what_cannot_be_done_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let mut registry = open(&directory, configured()).unwrap();
    create(&mut registry, "a", "a").unwrap();
    let twin_of_configured = registry.examine(None, request("configured", 1), now());
    assert_eq!(twin_of_configured.unwrap_err().code(), "SG0112");
    for (id, name, code) in [
        ("a", "other", "SG0117"),
        ("b", "a", "SG0112"),
        ("", "b", "SG0117"),
        ("a/b", "b", "SG0117"),
        ("configuration-7", "b", "SG0117"),
    ] {
        let refused = create(&mut registry, id, name).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    let code = |outcome: Result<Registration, RegistryError>| outcome.unwrap_err().code();
    assert_eq!(code(registry.remove("b")), "SG0115");
    assert_eq!(code(registry.remove("configuration-1")), "SG0116");
    let path = directory.path().to_owned();
    drop(directory);
    assert!(!path.exists());
    assert_eq!(code(registry.remove("a")), "SG0136");
    assert_eq!(
        create(&mut registry, "b", "b").unwrap_err().code(),
        "SG0136"
    );
    assert_eq!(ids(&registry), ["configuration-1", "a"]);
}

#[test]
fn an_entry_that_is_configured_now_counts_once() {
    let directory = tempfile::tempdir().unwrap();
    let mut registry = open(&directory, Vec::new()).unwrap();
    create(&mut registry, "other", "other").unwrap();
    let request = request("configured", 1);
    let registration = registry.examine(Some("twin".to_owned()), request, now());
    registry.insert(registration.unwrap()).unwrap();
    let mut reopened = open(&directory, configured()).unwrap();
    assert_eq!(ids(&reopened), ["configuration-1", "other"]);
    // It is there again when it stands in the configuration no more.
    reopened.remove("other").unwrap();
    assert_eq!(ids(&open(&directory, Vec::new()).unwrap()), ["twin"]);
}

#[test]
fn a_file_that_does_not_hold_valid_entries_is_refused_whole() {
    let directory = tempfile::tempdir().unwrap();
    let mut registry = open(&directory, Vec::new()).unwrap();
    create(&mut registry, "a", "a").unwrap();
    let path = directory.path().join("entries.json");
    let good = std::fs::read_to_string(&path).unwrap();
    for (from, to) in [
        ("", "x"),
        ("\"format\": 1", "\"format\": 2"),
        (
            "\"trust_domain\": \"one.test\"",
            "\"trust_domain\": \"two.test\"",
        ),
        ("unix:uid:2", "unix:nothing:2"),
        ("spiffe://one.test/a", "spiffe://one.test/spire/a"),
        ("\"created_at\"", "\"made_at\""),
        ("\"hint\"", "\"unknown\""),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        std::fs::write(&path, &bad).unwrap();
        assert_eq!(
            open(&directory, Vec::new()).unwrap_err().code(),
            "SG0137",
            "{to}"
        );
        assert_eq!(std::fs::read_to_string(&path).unwrap(), bad);
    }
}
