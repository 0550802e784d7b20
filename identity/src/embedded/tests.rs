//! The source under a clock of the test's own.

use std::path::Path;

use super::*;
use crate::authority::Lifetimes;
use crate::entry::EntryRequest;
use crate::tls::verify_chain;

const HOUR: Duration = Duration::from_secs(3600);
const SVID_LIFETIME: Duration = Duration::from_secs(6 * 3600);
const ROOT_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug)]
struct TestClock(Mutex<SystemTime>);

impl Clock for TestClock {
    fn now(&self) -> SystemTime {
        *self.0.lock().unwrap()
    }
}

struct Stage {
    directory: tempfile::TempDir,
    clock: Arc<TestClock>,
    source: EmbeddedSource,
}

impl Stage {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let clock = Arc::new(TestClock(Mutex::new(noon)));
        let source = open(directory.path(), &clock);
        Self {
            directory,
            clock,
            source,
        }
    }

    fn pass(&self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
        self.source.rotate();
    }

    fn identities(&self) -> Arc<Identities> {
        Arc::clone(&self.source.sender.borrow())
    }

    fn svid(&self) -> Arc<X509Svid> {
        Arc::clone(&self.identities().issued()[0].svid)
    }

    /// Whether an SVID verifies now, as a peer sees it.
    fn is_good(&self, svid: &X509Svid) -> bool {
        let identities = self.identities();
        let bundle = identities.own_bundle().unwrap();
        verify_chain(svid.chain(), bundle, self.clock.now()).is_ok()
    }

    /// Keeps the authorities from being written.
    fn block(&self) {
        for name in ["authority.pem.new", "jwt_keys.json.new"] {
            std::fs::create_dir(self.directory.path().join(name)).unwrap();
        }
    }

    fn unblock(&self) {
        for name in ["authority.pem.new", "jwt_keys.json.new"] {
            std::fs::remove_dir(self.directory.path().join(name)).unwrap();
        }
    }
}

fn open(directory: &Path, clock: &Arc<TestClock>) -> EmbeddedSource {
    let own = TrustDomain::new("one.test").unwrap();
    let lifetimes = Lifetimes {
        root: ROOT_LIFETIME,
        svid: SVID_LIFETIME,
    };
    let now = clock.now();
    let file = |name: &str| directory.join(name);
    let authority = EmbeddedAuthority::open(file("authority.pem"), own.clone(), lifetimes, now);
    let jwt_authority = JwtAuthority::open(file("jwt_keys.json"), own.clone(), now);
    let configured = vec![Entry::new(request("configured", 1), &own).unwrap()];
    let registry = EntryRegistry::open(file("entries.json"), own.clone(), configured, now);
    let federated = FederatedBundles::open(file("bundles.json"), own);
    EmbeddedSource::new(
        authority.unwrap(),
        jwt_authority.unwrap(),
        registry.unwrap(),
        federated.unwrap(),
        Arc::clone(clock) as Arc<dyn Clock>,
        IdentityMetrics::default(),
    )
    .unwrap()
}

fn request(name: &str, uid: u32) -> EntryRequest {
    EntryRequest {
        spiffe_id: format!("spiffe://one.test/{name}"),
        selectors: vec![format!("unix:uid:{uid}")],
        ..EntryRequest::default()
    }
}

#[test]
fn svids_are_good_at_all_times_of_three_roots() {
    let stage = Stage::new();
    let steps = 3 * ROOT_LIFETIME.as_secs() / (SVID_LIFETIME / 2).as_secs();
    for step in 0..steps {
        // What is handed out is good until it is replaced, over each change of a root too.
        let before = stage.svid();
        stage.pass(SVID_LIFETIME / 2);
        assert!(stage.is_good(&before), "step {step}");
        assert!(stage.is_good(&stage.svid()), "step {step}");
    }
    assert!(stage.source.failing().is_empty());
}

#[test]
fn a_clock_that_stands_at_or_past_an_expiry_ends_in_good_svids() {
    let week = 7 * 24 * HOUR;
    for lifetime in [SVID_LIFETIME, week, ROOT_LIFETIME, 10 * ROOT_LIFETIME] {
        let stage = Stage::new();
        let before = stage.svid();
        // A certificate counts up to and including the second of its end (RFC 5280).
        stage.pass(lifetime);
        assert!(stage.is_good(&stage.svid()), "{lifetime:?}");
        stage.pass(Duration::from_secs(1));
        assert!(!stage.is_good(&before), "{lifetime:?}");
        assert!(stage.is_good(&stage.svid()), "{lifetime:?}");
        let restarted = open(stage.directory.path(), &stage.clock);
        let svid = Arc::clone(&restarted.sender.borrow().issued()[0].svid);
        assert!(stage.is_good(&svid), "{lifetime:?}, after a restart");
    }
}

#[test]
fn a_clock_that_is_set_back_ends_in_good_svids() {
    let stage = Stage::new();
    *stage.clock.0.lock().unwrap() -= Duration::from_secs(5);
    stage.source.rotate();
    assert!(stage.is_good(&stage.svid()));
}

#[test]
fn an_authority_that_cannot_be_written_signs_until_it_expires_and_recovers() {
    let stage = Stage::new();
    stage.block();
    // The intermediate is due after half a week, and counts for a whole one.
    for _ in 0..13 {
        stage.pass(12 * HOUR);
        assert!(stage.is_good(&stage.svid()));
    }
    assert!(stage.source.failing()[0].contains("SG0120"));
    let last = stage.svid();
    stage.pass(24 * HOUR);
    assert!(!stage.is_good(&stage.svid()));
    assert!(Arc::ptr_eq(&last, &stage.svid()), "nothing else is there");
    let refused = stage.source.create_entry(None, request("more", 2));
    assert_eq!(refused.unwrap_err().code(), "SG0123");
    stage.unblock();
    stage.pass(RETRY);
    assert!(stage.is_good(&stage.svid()));
    assert!(stage.source.failing().is_empty());
}

#[test]
fn an_authority_that_cannot_be_written_is_opened_while_it_can_sign() {
    let stage = Stage::new();
    stage.block();
    // Within the time of the JWT key, past half of it.
    *stage.clock.0.lock().unwrap() += 13 * HOUR;
    let restarted = open(stage.directory.path(), &stage.clock);
    let svid = Arc::clone(&restarted.sender.borrow().issued()[0].svid);
    assert!(stage.is_good(&svid));
}

#[test]
fn an_entry_has_its_svid_as_long_as_it_is_there() {
    let stage = Stage::new();
    let mut watch = stage.source.watch();
    let created = stage.source.create_entry(None, request("more", 2)).unwrap();
    assert!(watch.has_changed().unwrap());
    let identities = Arc::clone(&watch.borrow_and_update());
    let svid = identities.svid(created.entry.spiffe_id()).unwrap();
    assert!(stage.is_good(svid));
    let twin = stage.source.create_entry(None, request("more", 2));
    assert_eq!(twin.unwrap_err().blame(), Blame::Conflict);
    assert!(!watch.has_changed().unwrap());
    stage.source.delete_entry(&created.id).unwrap();
    let identities = Arc::clone(&watch.borrow_and_update());
    assert!(identities.svid(created.entry.spiffe_id()).is_none());
    let gone = stage.source.delete_entry(&created.id).unwrap_err();
    assert_eq!(gone.blame(), Blame::Absent);
}

#[test]
fn a_root_is_given_up_step_by_step() {
    let stage = Stage::new();
    let (kind, first) = (AuthorityKind::X509, stage.svid());
    assert!(stage.source.taint(kind, None).is_err(), "it still signs");
    assert!(stage.source.prepare(kind).unwrap());
    assert!(!stage.source.prepare(kind).unwrap());
    stage.source.activate(kind).unwrap();
    stage.pass(Duration::from_secs(1));
    assert!(Arc::ptr_eq(&first, &stage.svid()), "it stays in use");
    assert!(stage.source.revoke(kind, None).is_err(), "not tainted yet");
    stage.source.taint(kind, None).unwrap();
    let second = stage.svid();
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(stage.is_good(&first) && stage.is_good(&second));
    stage.source.revoke(kind, None).unwrap();
    assert!(!stage.is_good(&first) && stage.is_good(&second));
    let restarted = open(stage.directory.path(), &stage.clock);
    assert_eq!(restarted.authorities(), stage.source.authorities());
}

#[test]
fn what_cannot_be_kept_is_not_done() {
    let stage = Stage::new();
    stage.source.prepare(AuthorityKind::X509).unwrap();
    stage.source.activate(AuthorityKind::X509).unwrap();
    stage.block();
    let before = stage.source.authorities();
    let generation = stage.identities().generation;
    for kind in [AuthorityKind::X509, AuthorityKind::Jwt] {
        assert!(stage.source.prepare(kind).is_err());
    }
    let refused = stage.source.taint(AuthorityKind::X509, None).unwrap_err();
    assert_eq!(refused.blame(), Blame::Ourselves);
    assert_eq!(stage.source.authorities(), before);
    assert_eq!(stage.identities().generation, generation);
}
