//! X.509-SVIDs under a root that is rotated, tainted and revoked.

use std::collections::BTreeSet;
use std::path::Path;

use nix::sys::signal::Signal;
use sidegate_tests::{Tool, skip, tool, until};

use super::start;
use crate::entries::stream::{Stream, Svids, X509Bundles, roots, roots_of, signer};
use crate::go_spiffe::client::{GoClient, documents};
use crate::support::{
    Client, Configuration, Operator, certificates, folder, logged, own_uid, spiffe_id,
};

#[tokio::test]
async fn a_successor_is_in_the_bundle_before_it_signs_and_a_root_leaves_after_its_svids() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    let first = operator.authority("x509", "active");
    let socket = &gate.ready.workload_socket;
    let mut svids = Stream::svids(socket).await;
    let bundles = Stream::<X509Bundles>::open(socket, "FetchX509Bundles").await;
    let mut bundles = bundles.expect("a stream");
    assert_eq!(signed(&mut svids).await, (set(&[&first]), first.clone()));
    assert_eq!(bundle(&mut bundles).await, set(&[&first]));

    operator.ask(&["rotate", "x509"]);
    let second = operator.authority("x509", "active");
    let both = set(&[&first, &second]);
    assert_eq!(signed(&mut svids).await, (both.clone(), first.clone()));
    assert_eq!(bundle(&mut bundles).await, both);
    operator.ask(&["taint", "x509"]);
    assert_eq!(signed(&mut svids).await, (both, second.clone()));
    operator.ask(&["revoke", "x509"]);
    assert_eq!(signed(&mut svids).await, (set(&[&second]), second.clone()));
    assert_eq!(bundle(&mut bundles).await, set(&[&second]));
}

#[tokio::test]
async fn a_taint_replaces_what_leads_to_the_tainted_root_and_nothing_else() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    let first = operator.authority("x509", "active");
    operator.ask(&["rotate", "x509"]);
    let second = operator.authority("x509", "active");
    operator.create("/after", &own_uid(), &[]);
    let mut svids = Stream::svids(&gate.ready.workload_socket).await;
    let before = svids.update().await;
    assert_eq!(before.signer(&spiffe_id("/demo")), first);
    assert_eq!(before.signer(&spiffe_id("/after")), second);

    operator.ask(&["taint", "x509"]);
    let after = svids.update().await;
    for path in ["/demo", "/after"] {
        assert_eq!(after.signer(&spiffe_id(path)), second, "{path}");
    }
    let serial = |svids: &Svids, path: &str| svids.serials()[&spiffe_id(path)].clone();
    assert_ne!(serial(&after, "/demo"), serial(&before, "/demo"));
    assert_eq!(serial(&after, "/after"), serial(&before, "/after"));
}

#[tokio::test]
async fn after_a_kill_nothing_is_signed_by_a_tainted_root_and_a_revoked_one_stays_away() {
    let folder = folder();
    let mut gate = start(folder.path());
    let mut revoked = BTreeSet::new();
    for action in ["rotate", "taint", "revoke"] {
        let operator = Operator::of(&gate);
        let old = operator.authorities("x509").remove(0).1;
        operator.ask(&[action, "x509"]);
        let second = operator.authority("x509", "active");
        if action == "revoke" {
            revoked.insert(old.clone());
        }
        gate.process.signal(Signal::SIGKILL);
        gate.process.wait();
        gate = start(folder.path());
        let svids = Stream::svids(&gate.ready.workload_socket)
            .await
            .update()
            .await;
        assert_eq!(svids.signer(&spiffe_id("/demo")), second, "{action}");
        let expected = if action == "revoke" {
            set(&[&second])
        } else {
            set(&[&old, &second])
        };
        assert_eq!(svids.roots(), expected, "{action}");
        assert!(svids.roots().is_disjoint(&revoked), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_of_a_tainted_root_is_let_in_until_the_root_is_revoked() {
    let folder = folder();
    let (gate, old) = Configuration::new().start(folder.path());
    let operator = Operator::of(&gate);
    let first = operator.authority("x509", "active");
    assert_eq!(old.get("/status/200").await.status, 200);
    operator.ask(&["rotate", "x509"]);
    assert_eq!(old.get("/status/200").await.status, 200);
    operator.ask(&["taint", "x509"]);
    // The files of the same identity are new; it is still let in with the old ones, but only by a
    // client that trusts the new root.
    let new = renewed(&folder, &old, &first);
    assert_eq!(new.get("/status/200").await.status, 200);
    let kept = new.with(old.identity.clone());
    assert_eq!(kept.get("/status/200").await.status, 200);

    operator.ask(&["revoke", "x509"]);
    let alert = crate::mtls::refusal(
        &kept,
        kept.tls(rustls::crypto::aws_lc_rs::default_provider()),
    )
    .await;
    assert!(alert.contains("UnknownCA"), "{alert}");
    logged(&gate, &["SG0174"]);
    assert_eq!(new.get("/status/200").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn svid_files_follow_the_bundle_so_that_a_revoked_root_is_trusted_by_no_file() {
    let folder = folder();
    let (gate, _) = Configuration::new().start(folder.path());
    let operator = Operator::of(&gate);
    let file = folder.path().join("demo/bundle.pem");
    let in_file = || roots_of(&certificates(&file));
    let first = operator.authority("x509", "active");
    assert_eq!(in_file(), set(&[&first]));
    operator.ask(&["rotate", "x509"]);
    let second = operator.authority("x509", "active");
    until("the new root in bundle.pem", || {
        (in_file() == set(&[&first, &second])).then_some(())
    });
    operator.ask(&["taint", "x509"]);
    operator.ask(&["revoke", "x509"]);
    until("the old root to leave bundle.pem", || {
        (in_file() == set(&[&second])).then_some(())
    });
}

#[test]
fn go_verifies_every_update_while_one_root_follows_another() {
    let folder = folder();
    let gate = start(folder.path());
    let Some(client) = GoClient::of(&gate, "go_verifies_every_update") else {
        return;
    };
    let operator = Operator::of(&gate);
    let mut watch = client.start(&["watch"]);
    let mut updates = |count: usize| {
        until(&format!("{count} updates"), || {
            assert!(watch.is_running(), "{}", watch.stderr());
            let stdout = watch.stdout();
            let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines = documents(whole);
            (lines.len() >= count).then_some(lines)
        })
    };
    updates(1);
    for (count, action) in [(2, "rotate"), (3, "taint"), (4, "revoke")] {
        operator.ask(&[action, "x509"]);
        updates(count);
    }
    let updates = updates(4);
    let roots: Vec<_> = updates
        .iter()
        .map(|update| {
            update["bundles"]["sidegate.local"]
                .as_u64()
                .expect("a number")
        })
        .collect();
    assert_eq!(roots, [1, 2, 2, 1]);
    for update in updates {
        assert_eq!(
            update["svids"][0]["verified"],
            spiffe_id("/demo"),
            "{update}"
        );
    }
}

#[test]
fn py_spiffe_takes_every_update_while_one_root_follows_another() {
    let folder = folder();
    let gate = start(folder.path());
    let Some(python) = tool(Tool::Python) else {
        return skip("py_spiffe_takes_every_update", Tool::Python);
    };
    let mut command = std::process::Command::new(python);
    command
        .arg(sidegate_tests::root().join("tests/peers/spiffe_watch.py"))
        .arg(&gate.ready.workload_socket);
    let watch = sidegate_tests::Running::start(&mut command);
    let updates = |count: usize| {
        until(&format!("{count} updates"), || {
            let stdout = watch.stdout();
            let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines = documents(whole);
            (lines.len() >= count).then_some(lines)
        })
    };
    updates(1);
    let operator = Operator::of(&gate);
    for (count, action) in [(2, "rotate"), (3, "taint"), (4, "revoke")] {
        operator.ask(&[action, "x509"]);
        updates(count);
    }
    let roots = updates(4);
    let roots: Vec<_> = roots
        .iter()
        .map(|update| update["bundles"]["sidegate.local"].as_u64())
        .collect();
    assert_eq!(roots, [1, 2, 2, 1].map(Some));
}

/// The client with the files as they are now, once they do not hang on a root any more.
pub(super) fn renewed(folder: &tempfile::TempDir, client: &Client, root: &str) -> Client {
    renewed_in(&folder.path().join("demo"), client, root)
}

/// The same of files in another folder.
pub(crate) fn renewed_in(demo: &Path, client: &Client, root: &str) -> Client {
    until("the files to be new", || {
        let chain = certificates(&demo.join("svid.pem"));
        let last = chain.last().expect("a certificate");
        (signer(last) != root).then_some(())
    });
    let file = |name: &str| demo.join(name);
    Client::new(
        &client.address,
        &file("bundle.pem"),
        &file("svid.pem"),
        &file("key.pem"),
    )
}

/// The roots in the next update, and the one above the SVID.
async fn signed(svids: &mut Stream<Svids>) -> (BTreeSet<String>, String) {
    let update = svids.update().await;
    (update.roots(), update.signer(&spiffe_id("/demo")))
}

async fn bundle(bundles: &mut Stream<X509Bundles>) -> BTreeSet<String> {
    let next = bundles.next().await.expect("the stream goes on");
    let [bundle] = Vec::from_iter(next.bundles.values())[..] else {
        panic!("one bundle");
    };
    roots(bundle)
}

fn set(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|&id| id.to_owned()).collect()
}
