//! A state directory on a disk that fills up, and is freed again.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::KeyPair;
use sidegate_tests::{Sidegate, until};
use spiffe::{WorkloadApiClient, X509Context};
use tempfile::TempDir;
use time::Duration;

use super::disk::Disk;
use super::load::{Load, greet};
use super::old_state::{Age, authorities};
use super::setup::Setup;
use crate::rotation::client::Client;
use crate::rotation::read_together;
use crate::support::{address, admin, folder, logged, now};
use crate::workload_api::{belongs, serial, validity};

/// What is left when it is full: the files of an SVID do not fit, and of the authority's file, which
/// has several roots, a part does.
const PAGES_LEFT: u64 = 2;
const OLD_ROOTS: usize = 4;

/// A `sidegate` whose state and SVID files are on a disk of their own.
struct Gate {
    config: PathBuf,
    /// The authority's file.
    authority: PathBuf,
    /// The SVID's files.
    demo: PathBuf,
    // Dropped in this order: what is mounted goes before the folder that it is in.
    disk: Disk,
    _folder: TempDir,
}

impl Gate {
    /// Prepares one whose intermediate is of such an age; `None` where that cannot be had.
    fn prepare(test: &str, intermediate: Age) -> Option<Self> {
        let folder = folder();
        let disk = Disk::mount(folder.path().join("disk"), test)?;
        let mut setup = Setup::with_hello().identity("svid_ttl = \"10s\"\n");
        (setup.state, setup.demo) = ("disk/state", "disk/demo");
        let gate = Self {
            config: setup.write(folder.path()),
            authority: folder.path().join("disk/state/authority.pem"),
            demo: folder.path().join("disk/demo"),
            disk,
            _folder: folder,
        };
        drop(gate.start());
        let authorities = with_old_roots(intermediate);
        fs::write(&gate.authority, authorities).expect("it is written");
        Some(gate)
    }

    fn start(&self) -> Sidegate {
        Sidegate::run(&self.config)
    }

    fn authority(&self) -> Vec<u8> {
        fs::read(&self.authority).expect("it is there")
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_is_full_svids_are_renewed_and_afterwards_all_is_written() {
    let test = "while_the_disk_is_full_svids_are_renewed";
    // Due for renewal in ten seconds, and necessary for seventy more.
    let Some(gate) = Gate::prepare(test, age(60, 80)) else {
        return;
    };
    let running = gate.start();
    let before = gate.authority();
    let client = Arc::new(client(&running).await);
    let load = Load::start(&client, 1);
    gate.disk.fill(PAGES_LEFT);
    logged(&running, &["ERROR", "SG0120"]);
    logged(&running, &["ERROR", "SG0141"]);
    for _ in 0..2 {
        let old = newest(&client);
        until("a new SVID", || (newest(&client) != old).then_some(()));
    }
    assert_eq!(gate.authority(), before);
    let stale = svid_file(&gate.demo);

    gate.disk.free();
    until("the authority is written", || {
        (gate.authority() != before).then_some(())
    });
    until("the SVID is written", || {
        (svid_file(&gate.demo) != stale).then_some(())
    });
    assert!(!gate.authority.with_added_extension("new").exists());
    assert_eq!(roots(&gate.authority()), roots(&before));
    let tally = load.stop().await;
    assert!(tally.own.len() > 3, "{tally:?}");
    let old = client.source.x509_context().expect("a context");
    drop(running);

    // A start opens what was written, and whoever has the old bundle is served.
    let running = gate.start();
    let client = self::client(&running).await;
    greet(&client, &old, 0).await.expect("it is served");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_expired_svid_is_handed_out_when_the_disk_is_full_for_too_long() {
    let test = "no_expired_svid_is_handed_out";
    // Due for renewal in ten seconds, and necessary fifteen later.
    let Some(gate) = Gate::prepare(test, age(5, 25)) else {
        return;
    };
    let running = gate.start();
    let client = client(&running).await;
    let last = client.source.x509_context().expect("a context");
    greet(&client, &last, 0).await.expect("it is served");
    gate.disk.fill(PAGES_LEFT);
    until("SVIDs expire", || {
        let (status, text) = admin(&running, "/readyz").expect("it answers");
        (status == 503 && text.contains("expired")).then_some(())
    });

    let greeted = greet(&client, &last, 0).await;
    assert!(greeted.is_err(), "expired SVIDs are of no use: {greeted:?}");
    let expired = fetch(&running).await.filter(is_expired).is_some();

    // Whatever it did, it goes on by itself.
    gate.disk.free();
    until("it is ready", || {
        admin(&running, "/readyz").filter(|(status, _)| *status == 200)
    });
    let fresh = fetch(&running).await.expect("we are served");
    greet(&client, &fresh, 0).await.expect("it is served");
    assert_eq!(roots(&gate.authority()).len(), 1 + OLD_ROOTS);
    assert!(!expired, "an expired SVID was handed out");
}

/// A root with an intermediate of such an age, and old roots beside it.
fn with_old_roots(intermediate: Age) -> String {
    let root = age(300, 36000);
    let old = age(36000, 3600);
    let mut ages = vec![(root, intermediate)];
    ages.resize(1 + OLD_ROOTS, (old, old));
    authorities(&ages)
}

/// In seconds.
fn age(since: i64, left: i64) -> Age {
    Age {
        since: Duration::seconds(since),
        left: Duration::seconds(left),
    }
}

async fn client(gate: &Sidegate) -> Client {
    let server = address(gate).parse().expect("an address");
    Client::new(&gate.ready.workload_socket, server).await
}

/// What a new call is answered with, unless it is refused.
async fn fetch(gate: &Sidegate) -> Option<X509Context> {
    let client = WorkloadApiClient::connect_to(&gate.ready.workload_socket).await;
    let client = client.expect("the socket is there");
    client.fetch_x509_context().await.ok()
}

fn is_expired(context: &X509Context) -> bool {
    let mut svids = context.svids().iter();
    svids.any(|svid| validity(svid.leaf().as_bytes())[1] <= now())
}

fn newest(client: &Client) -> String {
    let svid = client.source.svid().expect("there is an SVID");
    serial(svid.leaf().as_bytes())
}

/// The serial number of the SVID in the files, which belong together.
fn svid_file(demo: &Path) -> String {
    let files = until("a whole set of files", || read_together(demo));
    let [svid, key, bundle] = files;
    let svid = pem::parse_many(svid).expect("certificates");
    let key = KeyPair::from_pem(&key).expect("a key");
    let leaf = svid.first().expect("a leaf").contents();
    assert!(belongs(&key, leaf), "the key is of another certificate");
    let bundle = pem::parse_many(bundle).expect("certificates");
    assert_eq!(bundle.len(), 1 + OLD_ROOTS);
    serial(leaf)
}

/// The roots in the authority's file.
fn roots(file: &[u8]) -> Vec<Vec<u8>> {
    let blocks = pem::parse_many(file).expect("it is PEM");
    let authorities = blocks.chunks(4);
    authorities
        .map(|authority| authority[0].contents().to_vec())
        .collect()
}
