use super::*;
use crate::entry::EntryRequest;

const NOON: Duration = Duration::from_secs(1_800_000_000);
const TTL: Duration = Duration::from_secs(3600);

fn noon() -> SystemTime {
    SystemTime::UNIX_EPOCH + NOON
}

fn trust_domain(name: &str) -> TrustDomain {
    TrustDomain::new(name).unwrap()
}

fn entry(ttl: Option<Duration>) -> Entry {
    let request = EntryRequest {
        spiffe_id: "spiffe://sidegate.local/web".into(),
        selectors: vec!["unix:uid:1".into()],
        dns_names: vec!["localhost".into()],
        ttl,
        ..EntryRequest::default()
    };
    Entry::new(request, &trust_domain("sidegate.local")).unwrap()
}

fn open(
    directory: &tempfile::TempDir,
    now: SystemTime,
) -> Result<EmbeddedAuthority, AuthorityError> {
    let path = directory.path().join("authority.pem");
    EmbeddedAuthority::open(path, trust_domain("sidegate.local"), TTL, now)
}

#[test]
fn the_root_survives_a_restart_and_only_its_owner_can_read_it() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let roots = || {
        open(&directory, noon())
            .unwrap()
            .bundle()
            .unwrap()
            .roots()
            .to_vec()
    };
    let first = roots();
    let second = roots();
    assert_eq!(first, second);
    let mode = std::fs::metadata(directory.path().join("authority.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn an_svid_lives_as_long_as_its_entry_says_and_never_longer_than_its_signer() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory, noon()).unwrap();
    for (ttl, now, expected) in [
        (None, noon(), TTL),
        (
            Some(Duration::from_secs(10)),
            noon(),
            Duration::from_secs(10),
        ),
        (
            Some(INTERMEDIATE_LIFETIME),
            noon() + Duration::from_secs(60),
            INTERMEDIATE_LIFETIME - Duration::from_secs(60),
        ),
    ] {
        let svid = authority.mint(&entry(ttl), now).unwrap();
        assert_eq!(svid.validity().not_after, now + expected);
        assert_eq!(svid.chain().len(), 2);
    }
}

#[test]
fn the_intermediate_is_renewed_at_half_life_under_the_same_root() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory, noon()).unwrap();
    let before = authority.mint(&entry(None), noon()).unwrap();
    assert!(
        !authority
            .renew_intermediate(noon() + INTERMEDIATE_LIFETIME / 3)
            .unwrap()
    );
    let later = noon() + INTERMEDIATE_LIFETIME / 2;
    assert!(authority.renew_intermediate(later).unwrap());
    let after = authority.mint(&entry(None), later).unwrap();
    assert_ne!(before.chain()[1], after.chain()[1]);
    let reopened = open(&directory, later).unwrap().bundle().unwrap();
    assert_eq!(authority.bundle().unwrap().roots(), reopened.roots());
}

#[test]
fn a_file_that_cannot_be_used_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("authority.pem");
    drop(open(&directory, noon()).unwrap());
    let good = std::fs::read_to_string(&path).unwrap();
    for content in ["", "nothing", &good[..good.len() / 2], &good.repeat(2)] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(open(&directory, noon()).err().unwrap().code(), "SG0121");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    std::fs::write(&path, &good).unwrap();
    let foreign = EmbeddedAuthority::open(path, trust_domain("other.example"), TTL, noon());
    assert_eq!(foreign.err().unwrap().code(), "SG0122");
    let expired = open(&directory, noon()).unwrap();
    let late = noon() + INTERMEDIATE_LIFETIME;
    assert_eq!(
        expired.mint(&entry(None), late).err().unwrap().code(),
        "SG0123"
    );
    let late = noon() + ROOT_LIFETIME;
    assert_eq!(open(&directory, late).err().unwrap().code(), "SG0123");
}
