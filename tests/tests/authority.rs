//! Roots that live for a minute: a successor is known before it signs, and nothing fails when it
//! does.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use sidegate_tests::{Sidegate, Tool, guest, skip, tool, until};
use spiffe::{TrustDomain, WorkloadApiClient, X509Context};
use tokio::task::JoinSet;
use x509_parser::parse_x509_certificate;

use crate::envoy::{Bootstrap, Envoy};
use crate::rotation::client::Client;
use crate::rotation::load::Target;
use crate::support::{self, folder, write};

/// Beyond the last sixth of the first root's minute, and its end.
const LOAD: Duration = Duration::from_secs(75);

fn start(folder: &Path) -> Sidegate {
    let component = guest("hello");
    let config = format!(
        r#"
[identity]
trust_domain = "sidegate.local"
state = "state"
svid_ttl = "10s"

[identity.embedded]
root_ttl = "60s"

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/hello"
selectors = ["component:digest:sha256:{digest}"]
dns_names = ["localhost"]

[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/demo"
selectors = ["unix:uid:{uid}"]

[workload_api]
socket = "workload.sock"

[admin]
listen = "127.0.0.1:0"

[[component]]
name = "hello"
path = "{path}"

[[listener]]
name = "main"
listen = "127.0.0.1:0"
component = "hello"
"#,
        digest = support::digest(&component),
        uid = nix::unistd::getuid(),
        path = component.display(),
    );
    Sidegate::run(&write(folder, "sidegate.toml", config))
}

async fn context(gate: &Sidegate) -> X509Context {
    let client = WorkloadApiClient::connect_to(&gate.ready.workload_socket).await;
    client.unwrap().fetch_x509_context().await.unwrap()
}

/// The roots of the bundle, DER.
fn roots(context: &X509Context) -> BTreeSet<Vec<u8>> {
    let trust_domain = TrustDomain::new("sidegate.local").unwrap();
    let bundle = context.bundle_set().get(&trust_domain).unwrap();
    let roots = bundle.authorities().iter();
    roots.map(|root| root.as_bytes().to_vec()).collect()
}

/// The name of the root that signed the SVID's intermediate.
fn signer(context: &X509Context) -> String {
    let svid = context.default_svid().unwrap();
    let intermediate = svid.cert_chain()[1].as_bytes();
    let (_, intermediate) = parse_x509_certificate(intermediate).unwrap();
    intermediate.issuer().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_one_root_follows_another() {
    let folder = folder();
    let gate = start(folder.path());
    let first = context(&gate).await;
    assert_eq!(roots(&first).len(), 1);

    let address = support::address(&gate).parse().unwrap();
    let client = Arc::new(Client::new(&gate.ready.workload_socket, address).await);
    let mut targets = vec![
        (
            "HTTP/1.1",
            Target::Proxy(Arc::clone(&client), Version::HTTP_11),
        ),
        ("HTTP/2", Target::Proxy(client, Version::HTTP_2)),
    ];
    let envoy = tool(Tool::Envoy).map(|binary| {
        let bootstrap = Bootstrap::example(&gate);
        tokio::task::block_in_place(|| Envoy::start(&binary, &bootstrap))
    });
    match &envoy {
        Some(envoy) => targets.push(("Envoy", Target::Envoy(envoy.application().to_owned()))),
        None => skip(
            "no_request_fails_through_envoy_while_one_root_follows_another",
            Tool::Envoy,
        ),
    }
    let mut workers = JoinSet::new();
    for (name, target) in targets {
        workers.spawn(async move { (name, target.load(LOAD).await) });
    }
    for (name, report) in workers.join_all().await {
        let failures: Vec<_> = report.failures.iter().take(5).collect();
        assert!(failures.is_empty(), "{name}: {failures:?}");
        assert!(report.answered > 1000, "{name}: {}", report.answered);
    }

    let last = context(&gate).await;
    assert_ne!(signer(&last), signer(&first), "another root signs");
    assert!(
        roots(&last).is_disjoint(&roots(&first)),
        "the first root has expired"
    );
}

#[test]
fn a_successor_that_is_published_is_still_so_after_a_kill() {
    let folder = folder();
    let authority = folder.path().join("state/authority.pem");
    let count = || {
        let text = std::fs::read_to_string(&authority).unwrap();
        text.matches("BEGIN CERTIFICATE").count() / 2
    };
    let gate = start(folder.path());
    until("the next root is prepared", || (count() == 2).then_some(()));
    let before = std::fs::read(&authority).unwrap();
    gate.process.signal(nix::sys::signal::Signal::SIGKILL);
    drop(gate);
    let _again = start(folder.path());
    let after = std::fs::read(&authority).unwrap();
    let roots = |file: &[u8]| -> BTreeSet<Vec<u8>> {
        let blocks = pem::parse_many(file).unwrap();
        blocks
            .chunks(4)
            .map(|authority| authority[0].contents().to_vec())
            .collect()
    };
    assert_eq!(roots(&after), roots(&before));
}
