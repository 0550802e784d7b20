use std::sync::Arc;
use std::time::{Duration, SystemTime};

use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::Secret;
use envoy_types::pb::google::rpc::Status;
use prost::Message;
use sidegate_identity::TrustDomain;
use sidegate_identity::authority::{EmbeddedAuthority, Lifetimes};
use sidegate_identity::clock::SystemClock;
use sidegate_identity::embedded::EmbeddedSource;
use sidegate_identity::entry::{Entry, EntryRequest};
use sidegate_identity::federation::FederatedBundles;
use sidegate_identity::jwt::JwtAuthority;
use sidegate_identity::metrics::IdentityMetrics;
use sidegate_identity::registry::EntryRegistry;
use sidegate_identity::source::SvidSource;

use super::*;

/// One generation with the SVIDs `/a` for uid 1 and `/b` for uid 2.
fn identities() -> Arc<Identities> {
    let directory = tempfile::tempdir().unwrap();
    let trust_domain = TrustDomain::new("one.test").unwrap();
    let entry = |path: &str, uid: &str| {
        let request = EntryRequest {
            spiffe_id: format!("spiffe://one.test{path}"),
            selectors: vec![format!("unix:uid:{uid}")],
            ..EntryRequest::default()
        };
        Entry::new(request, &trust_domain).unwrap()
    };
    let entries = vec![entry("/a", "1"), entry("/b", "2")];
    let path = directory.path().join("authority.pem");
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let lifetimes = Lifetimes {
        root: Duration::from_secs(3600),
        svid: Duration::from_secs(60),
    };
    let authority = EmbeddedAuthority::open(path, trust_domain.clone(), lifetimes, now).unwrap();
    let clock = Arc::new(SystemClock);
    let path = directory.path().join("jwt_keys.json");
    let jwt_authority = JwtAuthority::open(path, trust_domain.clone(), now).unwrap();
    let metrics = IdentityMetrics::default();
    let path = directory.path().join("entries.json");
    let registry = EntryRegistry::open(path, trust_domain.clone(), entries, now).unwrap();
    let path = directory.path().join("bundles.json");
    let federated = FederatedBundles::open(path, trust_domain.clone()).unwrap();
    let source = EmbeddedSource::new(
        authority,
        jwt_authority,
        registry,
        federated,
        clock,
        metrics,
    );
    Arc::clone(&source.unwrap().watch().borrow())
}

fn caller() -> Vec<Selector> {
    vec!["unix:uid:1".parse().unwrap()]
}

fn request(names: &[&str]) -> DiscoveryRequest {
    DiscoveryRequest {
        resource_names: names.iter().map(|&name| name.to_owned()).collect(),
        type_url: SECRET.to_owned(),
        ..DiscoveryRequest::default()
    }
}

fn names(response: Option<DiscoveryResponse>) -> Vec<String> {
    let resources = response
        .map(|response| response.resources)
        .unwrap_or_default();
    let secrets = resources
        .iter()
        .map(|any| Secret::decode(any.value.as_slice()).unwrap());
    secrets.map(|secret| secret.name).collect()
}

/// Requests on one stream, in order, each with the names that must be answered.
fn check(steps: &[(&[&str], &[&str])]) {
    let identities = identities();
    let mut subscription = Subscription::default();
    for (index, (asked, answered)) in steps.iter().enumerate() {
        subscription.receive(request(asked));
        let found = names(subscription.respond(&identities, &caller()));
        assert_eq!(found, *answered, "step {index}");
    }
}

#[test]
fn the_names_of_spire_are_answered() {
    check(&[(&["default"], &["default"])]);
    check(&[(&["ROOTCA", "ALL", "ROOTCA"], &["ALL", "ROOTCA"])]);
    check(&[(&["spiffe://one.test/a"], &["spiffe://one.test/a"])]);
    check(&[(&["spiffe://one.test"], &["spiffe://one.test"])]);
    check(&[(&[], &["spiffe://one.test/a", "spiffe://one.test"])]);
}

#[test]
fn a_name_that_is_not_the_callers_is_left_unanswered_and_harms_no_other() {
    check(&[(
        &[
            "file-root:system",
            "default",
            "spiffe://one.test/b",
            "spiffe://two.test",
        ],
        &["default"],
    )]);
}

#[test]
fn an_acknowledgement_is_not_answered_and_a_new_name_is() {
    check(&[
        (&["default"], &["default"]),
        (&["default"], &[]),
        (&["default", "ROOTCA"], &["ROOTCA"]),
        (&["ROOTCA"], &[]),
        (&["default", "ROOTCA"], &["default"]),
    ]);
}

#[test]
fn no_names_after_some_means_none_and_not_everything() {
    check(&[(&["default"], &["default"]), (&[], &[])]);
}

#[test]
fn a_refused_secret_is_not_sent_again_before_it_changes() {
    let current = identities();
    let mut subscription = Subscription::default();
    subscription.receive(request(&["default"]));
    assert_eq!(
        names(subscription.respond(&current, &caller())),
        ["default"]
    );
    subscription.receive(DiscoveryRequest {
        error_detail: Some(Status::default()),
        ..request(&["default"])
    });
    assert_eq!(subscription.respond(&current, &caller()), None);
    let renewed = identities();
    assert_eq!(
        names(subscription.respond(&renewed, &caller())),
        ["default"]
    );
}
