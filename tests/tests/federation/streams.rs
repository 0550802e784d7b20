//! Foreign bundles by the Workload API.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;
use sidegate_tests::{Sidegate, sidegate, until};

use super::{Foreign, OTHER, ourselves, two_workloads};
use crate::entries::stream::{JwtBundles, Stream, Svids, X509Bundles, roots};
use crate::support::{Operator, finish, folder, program};

const THIRD: &str = "third.example";
const OWN_KEY: &str = "spiffe://sidegate.local";
const OTHER_KEY: &str = "spiffe://other.example";

/// The three streams of a workload that carry bundles.
struct Streams {
    svids: Stream<Svids>,
    x509: Stream<X509Bundles>,
    jwt: Stream<JwtBundles>,
}

/// What one update of each of them says of trust domains that are not the own.
#[derive(Debug, PartialEq)]
struct Known {
    /// With the SVIDs: root key identifiers by trust domain.
    with_svids: Vec<(String, BTreeSet<String>)>,
    x509: Vec<(String, BTreeSet<String>)>,
    /// Key ids by trust domain.
    jwt: Vec<(String, BTreeSet<String>)>,
}

#[tokio::test]
async fn a_foreign_bundle_reaches_those_whose_entries_federate_and_no_others() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    // The program of the tests federates, the one under test does not.
    let gate = two_workloads(folder.path(), &[OTHER]);
    let operator = Operator::of(&gate);
    let mut streams = Streams::open(&gate).await;
    assert_eq!(streams.known().await, Known::nobody());
    assert_eq!(asked_by_another(&gate), ["sidegate.local"]);

    Foreign::start(THIRD).is_known_to(&operator);
    foreign.is_known_to(&operator);
    let first = foreign.operator().authority("x509", "active");
    let key = foreign.operator().authority("jwt", "active");
    let expected = |roots: &[&String], keys: &[&String]| {
        let named = |ids: &[&String]| {
            let ids = ids.iter().map(|id| (*id).clone());
            vec![(OTHER_KEY.to_owned(), ids.collect())]
        };
        Known {
            with_svids: named(roots),
            x509: named(roots),
            jwt: named(keys),
        }
    };
    // The third trust domain is no update for anybody.
    assert_eq!(streams.known().await, expected(&[&first], &[&key]));
    assert_eq!(asked_by_another(&gate), ["sidegate.local"]);

    for kind in ["x509", "jwt"] {
        foreign.operator().ask(&["rotate", kind, "--prepare-only"]);
    }
    foreign.is_known_to(&operator);
    let second = foreign.operator().authority("x509", "prepared");
    let second_key = foreign.operator().authority("jwt", "prepared");
    let both = expected(&[&first, &second], &[&key, &second_key]);
    assert_eq!(streams.known().await, both);

    foreign.is_forgotten_by(&operator);
    let left = streams.known().await;
    let left = [left.with_svids, left.x509, left.jwt];
    for bundles in left {
        // A bundle that is gone is not there, or there with nothing in it.
        let roots = bundles.into_iter().flat_map(|(_, roots)| roots);
        assert_eq!(Vec::from_iter(roots), [] as [String; 0]);
    }
    assert_eq!(asked_by_another(&gate), ["sidegate.local"]);
}

#[tokio::test]
async fn the_same_bundle_again_is_no_update() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = two_workloads(folder.path(), &[OTHER]);
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    let mut streams = Streams::open(&gate).await;
    let before = streams.known().await;
    assert_ne!(before, Known::nobody());
    foreign.is_known_to(&operator);
    // What comes next is already that it is gone.
    foreign.is_forgotten_by(&operator);
    assert_ne!(streams.known().await, before);
}

#[tokio::test]
async fn an_entry_that_federates_brings_the_foreign_bundle_and_takes_it_with_it() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = two_workloads(folder.path(), &[]);
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    let mut streams = Streams::open(&gate).await;
    assert_eq!(streams.known().await, Known::nobody());
    let more = ["--federates-with", OTHER];
    let entry = operator.create("/more", &program(&ourselves()), &more);
    let known = streams.known().await;
    for bundles in [&known.with_svids, &known.x509, &known.jwt] {
        let [(domain, ids)] = &bundles[..] else {
            panic!("one foreign trust domain: {known:?}");
        };
        assert_eq!((domain.as_str(), ids.len()), (OTHER_KEY, 1), "{known:?}");
    }
    assert_eq!(asked_by_another(&gate), ["sidegate.local"]);
    operator.delete(&entry);
    assert_eq!(streams.known().await, Known::nobody());
}

#[test]
fn svid_bundle_and_svid_fetch_name_the_foreign_trust_domain() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = two_workloads(folder.path(), &[]);
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    operator.create("/more", &program(&sidegate()), &["--federates-with", OTHER]);
    assert_eq!(asked_by_another(&gate), [OTHER, "sidegate.local"]);
    let mut command = svid(&gate, &["bundle", "--format", "spiffe"]);
    command.args(["--trust-domain", OTHER]);
    let output = finish(&mut command);
    let printed: Value = serde_json::from_str(&output.stdout).expect("it is JSON");
    assert_eq!(printed["keys"], foreign.bundle()["keys"]);

    let written = folder.path().join("written");
    let fetch = || {
        let mut command = svid(&gate, &["fetch", "x509"]);
        command.arg("--write").arg(&written);
        command
    };
    let output = finish(&mut fetch());
    assert!(output.status.success(), "{output:?}");
    let file =
        || pem::parse_many(std::fs::read(written.join("federated_bundle.0.0.pem")).ok()?).ok();
    let der = file().expect("it is written").remove(0).into_contents();
    let root = foreign.operator().authority("x509", "active");
    assert_eq!(roots(&der), BTreeSet::from([root]));

    foreign.is_forgotten_by(&operator);
    until("the file to be gone", || {
        finish(&mut fetch());
        file().is_none_or(|roots| roots.is_empty()).then_some(())
    });
}

impl Streams {
    async fn open(gate: &Sidegate) -> Self {
        let socket = &gate.ready.workload_socket;
        let x509 = Stream::open(socket, "FetchX509Bundles").await;
        let jwt = Stream::open(socket, "FetchJWTBundles").await;
        Self {
            svids: Stream::svids(socket).await,
            x509: x509.expect("a stream"),
            jwt: jwt.expect("a stream"),
        }
    }

    /// The next update of each.
    async fn known(&mut self) -> Known {
        let with_svids = self.svids.update().await.federated_bundles;
        let mut x509 = self.x509.next().await.expect("it goes on").bundles;
        let mut jwt = self.jwt.next().await.expect("it goes on").bundles;
        assert!(x509.remove(OWN_KEY).is_some_and(|own| !own.is_empty()));
        assert!(jwt.remove(OWN_KEY).is_some_and(|own| !own.is_empty()));
        let of_roots = |(domain, bundle): (String, Vec<u8>)| (domain, roots(&bundle));
        Known {
            with_svids: with_svids.into_iter().map(of_roots).collect(),
            x509: x509.into_iter().map(of_roots).collect(),
            jwt: jwt
                .into_iter()
                .map(|(domain, bundle)| (domain, key_ids(&bundle)))
                .collect(),
        }
    }
}

impl Known {
    fn nobody() -> Self {
        Self {
            with_svids: Vec::new(),
            x509: Vec::new(),
            jwt: Vec::new(),
        }
    }
}

fn key_ids(bundle: &[u8]) -> BTreeSet<String> {
    let bundle: Value = serde_json::from_slice(bundle).expect("it is JSON");
    let keys = bundle["keys"].as_array().expect("there are keys").iter();
    keys.map(|key| key["kid"].as_str().expect("a key ID").to_owned())
        .collect()
}

/// The trust domains that the program under test is told of, which is another workload.
fn asked_by_another(gate: &Sidegate) -> Vec<String> {
    let output = finish(&mut svid(gate, &["bundle", "-o", "json"]));
    assert!(output.status.success(), "{output:?}");
    let map: Value = serde_json::from_str(&output.stdout).expect("it is JSON");
    super::members(&map["trust_domains"])
        .keys()
        .cloned()
        .collect()
}

fn svid(gate: &Sidegate, arguments: &[&str]) -> Command {
    let mut command = Sidegate::command("svid");
    command
        .args(arguments)
        .args(["--socket", &gate.ready.workload_socket])
        .env_remove("SPIFFE_ENDPOINT_SOCKET");
    command
}
