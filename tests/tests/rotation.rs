//! SVIDs that live for ten seconds: nothing fails while they are replaced, and nothing outlives
//! them.

pub(crate) mod client;
pub(crate) mod load;

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use rcgen::KeyPair;
use sidegate_tests::{Sidegate, Tool, skip, tool, until};
use spiffe::{WorkloadApiClient, X509Context};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::envoy::{Bootstrap, Envoy};
use crate::support::{self, Configuration, folder};
use crate::workload_api::{belongs, serial, validity};
use client::{Client, Sender, handshake};
use load::{Report, Target};

/// How long the load lasts.
const LOAD: Duration = Duration::from_mins(2);
/// Of twenty-four rotations at half of ten seconds, how many each party must have seen at least: a
/// connection begins with the SVID of its moment and lasts for most of its lifetime.
const RENEWALS: usize = 10;
/// How late an end may be noticed on a busy machine.
const SLACK: time::Duration = time::Duration::seconds(2);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_in_two_minutes_of_rotation_directly_and_through_envoy() {
    let state = folder();
    let gate = Sidegate::up(state.path(), ["--svid-ttl", "10s"]);
    let client = Arc::new(Client::new(&gate.ready.workload_socket, address(&gate)).await);
    let mut targets = Vec::new();
    for (name, version) in [("HTTP/1.1", Version::HTTP_11), ("HTTP/2", Version::HTTP_2)] {
        let target = Target::Proxy(Arc::clone(&client), version);
        targets.extend([(name, target.clone()), (name, target)]);
    }
    let envoy = tool(Tool::Envoy).map(|binary| {
        let bootstrap = Bootstrap::example(&gate);
        tokio::task::block_in_place(|| Arc::new(Envoy::start(&binary, &bootstrap)))
    });
    match &envoy {
        Some(envoy) => {
            let target = Target::Envoy(envoy.application().to_owned());
            targets.extend([("Envoy", target.clone()), ("Envoy", target)]);
        }
        None => skip("no_request_fails_through_envoy", Tool::Envoy),
    }

    let certificates = envoy
        .clone()
        .map(|envoy| tokio::task::spawn_blocking(move || serials_of(&envoy)));
    let mut workers = JoinSet::new();
    for (name, target) in targets {
        workers.spawn(async move { (name, target.load(LOAD).await) });
    }
    let reports = workers.join_all().await;

    for (name, report) in &reports {
        check(name, report);
    }
    {
        let seen = client.seen.lock().expect("nobody panics with it");
        assert!(seen.own.len() >= RENEWALS, "our own: {seen:?}");
        assert!(seen.server.len() >= RENEWALS, "the server's: {seen:?}");
    }
    if let (Some(envoy), Some(certificates)) = (envoy, certificates) {
        let certificates = certificates.await.expect("Envoy showed its certificates");
        assert!(certificates.len() >= RENEWALS, "{certificates:?}");
        let connections = envoy_stat(&envoy, "upstream_cx_total").await;
        assert!(connections >= RENEWALS as u64, "{connections}");
        assert_eq!(envoy_stat(&envoy, "upstream_rq_retry").await, 0);
        assert_eq!(envoy_stat(&envoy, "upstream_cx_connect_fail").await, 0);
        assert_eq!(envoy_stat(&envoy, "ssl.fail_verify_error").await, 0);
    }
    // By our own account, too: each request has its line, and each line says 200.
    let log = gate.stop().stderr;
    let requests = log.lines().filter(|line| line.contains("\"request_id\""));
    let (good, others): (Vec<_>, Vec<_>) =
        requests.partition(|line| line.contains("\"status\":200,"));
    assert!(others.is_empty(), "{others:?}");
    let answered: usize = reports.iter().map(|(_, report)| report.answered).sum();
    assert_eq!(good.len(), answered);
}

#[test]
fn the_demo_files_belong_together_whenever_they_are_read_from_one_resolved_directory() {
    let state = folder();
    let gate = Sidegate::up(state.path(), ["--svid-ttl", "10s"]);
    let demo = gate.demo().svid.parent().expect("it is in a folder");

    let mut serials = BTreeSet::new();
    until("three sets of files", || {
        if let Some([svid, key, bundle]) = read_together(demo) {
            let certificates = pem::parse_many(svid).expect("certificates");
            let leaf = certificates.first().expect("a leaf").contents();
            let key = KeyPair::from_pem(&key).expect("a key");
            assert!(belongs(&key, leaf), "the key is of another certificate");
            assert!(bundle.contains("BEGIN CERTIFICATE"));
            assert!(
                OffsetDateTime::now_utc() < validity(leaf)[1],
                "it is expired"
            );
            serials.insert(serial(leaf));
        }
        (serials.len() >= 3).then_some(())
    });
}

#[tokio::test]
async fn a_response_that_still_streams_is_cut_when_the_clients_svid_expires() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let state = folder();
        let gate = probe(state.path());
        let context = context(&gate).await;
        let ends = expiry(&context);
        let mut sender = connect(&gate, &context, version).await;

        let response = sender.send(stall(version)).await.expect("a head");
        assert_eq!(response.status(), 200, "{version:?}");
        let body = timeout(Duration::from_secs(30), response.into_body().collect());
        let result = body.await.expect("it is cut some time");
        let now = OffsetDateTime::now_utc();
        assert!(
            result.is_err(),
            "{version:?}: the body did not end by itself"
        );
        let when = format!("{version:?}: expiry at {ends}, cut at {now}");
        assert!(now >= ends - time::Duration::seconds(1), "{when}");
        assert!(now <= ends + SLACK, "{when}");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_before_the_clients_svid_expires() {
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let state = folder();
        let gate = probe(state.path());
        let context = context(&gate).await;
        let ends = expiry(&context);
        let mut sender = connect(&gate, &context, version).await;
        assert!(sender.is_open().await, "{version:?}");

        let mut ticks = interval(Duration::from_millis(20));
        let closed = timeout(Duration::from_secs(30), async {
            while sender.is_open().await {
                ticks.tick().await;
            }
        });
        closed.await.expect("it is closed some time");
        let now = OffsetDateTime::now_utc();
        let when = format!("{version:?}: expiry at {ends}, closed at {now}");
        assert!(now >= ends - time::Duration::seconds(4), "{when}");
        assert!(now <= ends + SLACK, "{when}");
    }
}

fn check(name: &str, report: &Report) {
    let first: Vec<_> = report.failures.iter().take(5).collect();
    assert!(
        first.is_empty(),
        "{name}: {} failed: {first:?}",
        report.failures.len()
    );
    assert!(
        report.answered > 2000,
        "{name}: {} requests",
        report.answered
    );
    match name {
        // Envoy keeps the application's connection whatever happens behind it.
        "Envoy" => assert_eq!(report.connections, 1, "{name}"),
        "HTTP/2" => assert!(report.connections >= RENEWALS, "{name}: {report:?}"),
        // Here each end is announced by a header.
        _ => {
            assert!(report.connections >= RENEWALS, "{name}: {report:?}");
            let ended = report.connections - 1;
            let announced = report.announced;
            assert!(
                announced == ended || announced == ended + 1,
                "{name}: {report:?}"
            );
        }
    }
}

/// The serial numbers of all certificates that Envoy shows while the load lasts.
fn serials_of(envoy: &Envoy) -> BTreeSet<String> {
    let start = std::time::Instant::now();
    let mut serials = BTreeSet::new();
    while start.elapsed() < LOAD {
        serials.extend(envoy.serials());
        // Often enough for every certificate, seldom enough not to count as load.
        std::thread::park_timeout(Duration::from_secs(1));
    }
    serials
}

async fn envoy_stat(envoy: &Arc<Envoy>, name: &str) -> u64 {
    let envoy = Arc::clone(envoy);
    let name = format!("cluster.sidegate.{name}");
    let stat = tokio::task::spawn_blocking(move || envoy.stat(&name));
    stat.await.expect("Envoy tells")
}

/// The three files of one generation, unless that generation was just replaced.
pub(crate) fn read_together(folder: &Path) -> Option<[String; 3]> {
    let resolved = fs::canonicalize(folder.join("svid.pem")).ok()?;
    let resolved = resolved.parent().expect("it is in a folder");
    let read = |name: &str| match fs::read_to_string(resolved.join(name)) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => panic!("{name}: {error}"),
    };
    Some([read("svid.pem")?, read("key.pem")?, read("bundle.pem")?])
}

/// The probe component with limits that are longer than an SVID's lifetime.
fn probe(folder: &Path) -> Sidegate {
    let mut configuration = Configuration::new()
        .component("request_deadline = \"60s\"\n")
        .timeouts("header_read = \"60s\"\nidle = \"60s\"\nrequest = \"60s\"\n");
    configuration.entries.insert_str(0, "svid_ttl = \"10s\"\n");
    Sidegate::run(&configuration.write(folder))
}

async fn context(gate: &Sidegate) -> X509Context {
    let client = WorkloadApiClient::connect_to(&gate.ready.workload_socket).await;
    let client = client.expect("the Workload API answers");
    client.fetch_x509_context().await.expect("a context")
}

fn expiry(context: &X509Context) -> OffsetDateTime {
    let svid = context.default_svid().expect("an SVID");
    validity(svid.leaf().as_bytes())[1]
}

async fn connect(gate: &Sidegate, context: &X509Context, version: Version) -> Sender {
    let svid = context.default_svid().expect("an SVID");
    let bundle = context
        .bundle_set()
        .get(svid.spiffe_id().trust_domain())
        .expect("a bundle");
    let roots = bundle.authorities().iter();
    let roots = roots.map(|root| root.as_bytes().to_vec()).collect();
    let stream = handshake(address(gate), svid, roots, version).await;
    let stream = TokioIo::new(stream.expect("a handshake"));
    Sender::over(stream, version).await.expect("a connection")
}

/// A request whose response begins and never ends.
fn stall(version: Version) -> client::Head {
    let request = if version == Version::HTTP_2 {
        Request::get("https://localhost/stall")
    } else {
        Request::get("/stall").header("host", "localhost")
    };
    request.body(Empty::new()).expect("a request")
}

fn address(gate: &Sidegate) -> SocketAddr {
    support::address(gate).parse().expect("an address")
}
