use super::*;
use crate::entry::EntryRequest;

mod brought;

const NOON: Duration = Duration::from_secs(1_800_000_000);
const TTL: Duration = Duration::from_secs(3600);
const ROOT_LIFETIME: Duration = Duration::from_secs(365 * 24 * 3600);
const LIFETIMES: Lifetimes = Lifetimes {
    root: ROOT_LIFETIME,
    svid: TTL,
};

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
        x509_svid_ttl: ttl,
        ..EntryRequest::default()
    };
    Entry::new(request, &trust_domain("sidegate.local")).unwrap()
}

fn open(
    directory: &tempfile::TempDir,
    now: SystemTime,
) -> Result<EmbeddedAuthority, AuthorityError> {
    let path = directory.path().join("authority.pem");
    EmbeddedAuthority::open(path, trust_domain("sidegate.local"), LIFETIMES, now)
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
            Some(TTL),
            noon() + INTERMEDIATE_LIFETIME - Duration::from_secs(60),
            Duration::from_secs(60),
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
    let roots = authority.bundle().unwrap().roots().to_vec();
    let before = authority.mint(&entry(None), noon()).unwrap();
    let later = noon() + INTERMEDIATE_LIFETIME / 2;
    for (now, renewed) in [(noon() + INTERMEDIATE_LIFETIME / 3, false), (later, true)] {
        assert!(!authority.advance(now).unwrap(), "the bundle stays");
        let after = authority.mint(&entry(None), now).unwrap();
        assert_eq!(before.chain()[1] != after.chain()[1], renewed);
    }
    for authority in [authority, open(&directory, later).unwrap()] {
        assert_eq!(authority.bundle().unwrap().roots(), roots);
    }
}

#[test]
fn a_root_is_published_before_it_signs_and_stays_published_for_what_it_signed() {
    let directory = tempfile::tempdir().unwrap();
    let authority = open(&directory, noon()).unwrap();
    let count = |authority: &EmbeddedAuthority| authority.bundle().unwrap().roots().len();
    let issuer = |authority: &EmbeddedAuthority, now| {
        let chain = authority.mint(&entry(None), now).unwrap().chain().to_vec();
        let (_, intermediate) = x509_parser::parse_x509_certificate(&chain[1]).unwrap();
        intermediate.issuer().to_string()
    };
    let first = issuer(&authority, noon());
    let half = noon() + ROOT_LIFETIME / 2;
    assert!(authority.advance(half).unwrap());
    assert_eq!(
        (count(&authority), issuer(&authority, half)),
        (2, first.clone())
    );
    // What is prepared is so after a restart too.
    let reopened = open(&directory, half).unwrap();
    assert_eq!(
        (count(&reopened), issuer(&reopened, half)),
        (2, first.clone())
    );
    let last = noon() + ROOT_LIFETIME * 11 / 12;
    assert!(reopened.advance(last).unwrap());
    assert_eq!(count(&reopened), 2);
    let second = issuer(&reopened, last);
    assert_ne!(second, first);
    let reopened = open(&directory, last).unwrap();
    assert_eq!(
        (count(&reopened), issuer(&reopened, last)),
        (2, second.clone())
    );
    let over = noon() + ROOT_LIFETIME + TTL;
    assert!(reopened.advance(over).unwrap());
    assert_eq!(issuer(&reopened, over), second);
}

#[test]
fn an_authority_that_expired_while_stopped_is_replaced() {
    let directory = tempfile::tempdir().unwrap();
    let before = open(&directory, noon()).unwrap().bundle().unwrap();
    let late = noon() + ROOT_LIFETIME;
    let after = open(&directory, late).unwrap();
    assert_ne!(after.bundle().unwrap().roots(), before.roots());
    assert!(after.mint(&entry(None), late).is_ok());
}

#[test]
fn a_file_that_cannot_be_used_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("authority.pem");
    drop(open(&directory, noon()).unwrap());
    let good = std::fs::read_to_string(&path).unwrap();
    for content in [
        "",
        "nothing",
        &good[..good.len() / 2],
        &good[..good.len() * 3 / 4],
    ] {
        std::fs::write(&path, content).unwrap();
        assert_eq!(open(&directory, noon()).err().unwrap().code(), "SG0121");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
    }
    std::fs::write(&path, &good).unwrap();
    let foreign = EmbeddedAuthority::open(path, trust_domain("other.example"), LIFETIMES, noon());
    assert_eq!(foreign.err().unwrap().code(), "SG0122");
    let expired = open(&directory, noon()).unwrap();
    let late = noon() + INTERMEDIATE_LIFETIME;
    assert_eq!(
        expired.mint(&entry(None), late).err().unwrap().code(),
        "SG0123"
    );
}
