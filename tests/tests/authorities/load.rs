//! Requests that go on while one root follows another, with Envoy on both sides.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Version;
use serde_json::Value;
use sidegate_tests::{Sidegate, Tool, guest, root, skip, tool, until};
use tokio::task::JoinSet;

use crate::entries::stream::{Stream, signer};
use crate::envoy::{Bootstrap, Envoy};
use crate::rotation::client::Client;
use crate::rotation::load::Target;
use crate::support::{
    self, Operator, counter, digest, folder, identity_only, own_entry, spiffe_id, write,
};

/// How many roots follow the first: what fails with one of them may succeed with another by chance.
const ROOTS: usize = 4;

/// A listener with the SVID of the Envoy, which takes any peer of the trust domain and answers by
/// itself what the load looks for.
const SERVER: &str = r#"    - name: server
      address:
        socket_address: { address: 127.0.0.1, port_value: 0 }
      filter_chains:
        - transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              require_client_certificate: true
              common_tls_context:
                alpn_protocols: [h2, http/1.1]
                tls_certificate_sds_secret_configs:
                  - name: default
                    sds_config: &for_the_server
                      resource_api_version: V3
                      api_config_source:
                        api_type: GRPC
                        transport_api_version: V3
                        grpc_services:
                          - envoy_grpc: { cluster_name: workload_api }
                validation_context_sds_secret_config:
                  name: ROOTCA
                  sds_config: *for_the_server
          filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: server
                route_config:
                  virtual_hosts:
                    - name: all
                      domains: ["*"]
                      routes:
                        - match: { prefix: "/" }
                          direct_response:
                            status: 200
                            body: { inline_string: "You are spiffe://sidegate.local/demo" }
                http_filters:
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router

"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_roots_are_rotated_and_tainted() {
    no_request_fails("while_rotated_and_tainted", &["rotate", "taint"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_roots_are_rotated_tainted_and_revoked() {
    no_request_fails("while_revoked", &["rotate", "taint", "revoke"]).await;
}

/// Lets several roots follow each other under load, each by all of these actions.
async fn no_request_fails(test: &str, actions: &[&str]) {
    let Some(binary) = tool(Tool::Envoy) else {
        return skip(&format!("no_request_fails_{test}"), Tool::Envoy);
    };
    let folder = folder();
    let gate = start(folder.path());
    let socket = gate.ready.workload_socket.clone();
    let bootstrap = Bootstrap::example(&gate).replace(
        "\n  clusters:\n    # Sidegate's",
        &format!("\n{SERVER}  clusters:\n    # Sidegate's"),
    );
    let envoy = tokio::task::block_in_place(|| Envoy::start(&binary, &bootstrap));
    let server = tokio::task::block_in_place(|| envoy.listener("server"));
    let proxy = support::address(&gate).parse().expect("an address");
    let server = server.parse().expect("an address");
    let to_proxy = Arc::new(Client::new(&socket, proxy).await);
    let to_envoy = Arc::new(Client::new(&socket, server).await);
    let mut targets = Vec::new();
    for _ in 0..3 {
        let application = envoy.application().to_owned();
        targets.push(("Envoy as client", Target::Envoy(application)));
    }
    for version in [Version::HTTP_11, Version::HTTP_2] {
        let target = Target::Proxy(Arc::clone(&to_envoy), version);
        targets.push(("Envoy as server", target));
        let target = Target::Proxy(Arc::clone(&to_proxy), version);
        targets.push(("our own client", target));
    }
    let goes_on = Arc::new(AtomicBool::new(true));
    let mut workers = JoinSet::new();
    for (name, target) in targets {
        let goes_on = Arc::clone(&goes_on);
        let goes_on = move || goes_on.load(Ordering::Relaxed);
        workers.spawn(async move { (name, target.load_while(goes_on).await) });
    }

    let operator = Operator::of(&gate);
    let shown = tokio::task::block_in_place(|| envoy.serials());
    let mut serials = BTreeSet::from_iter(shown);
    for _ in 0..ROOTS {
        let old = operator.authority("x509", "active");
        for action in actions {
            tokio::task::block_in_place(|| operator.ask(&[action, "x509"]));
            if *action == "taint" {
                // All peers get what leads to the new root before the old one is revoked.
                tokio::task::block_in_place(|| envoy_is_renewed(&envoy, &mut serials));
                leads_elsewhere(&to_proxy, &old).await;
                leads_elsewhere(&to_envoy, &old).await;
            }
            // And have time to use it: no connection need hang on the old one any more.
            tokio::task::block_in_place(|| {
                let answered = || counter(&gate, "http_server_request_duration_seconds_count", &[]);
                let enough = answered() + 500.0;
                until("more requests", || (answered() > enough).then_some(()));
            });
        }
    }
    goes_on.store(false, Ordering::Relaxed);
    let mut failed = Vec::new();
    for (name, report) in workers.join_all().await {
        assert!(report.answered > 100, "{name}: {}", report.answered);
        let first: Vec<_> = report.failures.iter().take(3).collect();
        if !first.is_empty() {
            failed.push(format!("{name}: {} {first:?}", report.failures.len()));
        }
    }
    let log = gate.process.stdout();
    let others = log
        .lines()
        .filter(|line| line.contains("\"request_id\"") && !line.contains("\"status\":200,"));
    assert!(
        failed.is_empty(),
        "{failed:#?} {:#?}",
        Vec::from_iter(others)
    );
    let update = Stream::svids(&socket).await.update().await;
    let active = operator.authority("x509", "active");
    assert_eq!(update.signer(&spiffe_id("/demo")), active);
    let kept = if actions.contains(&"revoke") {
        0
    } else {
        ROOTS
    };
    assert_eq!(update.roots().len(), kept + 1);
}

/// Waits until Envoy shows only SVIDs that it has not shown before.
fn envoy_is_renewed(envoy: &Envoy, before: &mut BTreeSet<String>) {
    let shown = until("Envoy's new SVID", || {
        let shown = envoy.serials();
        let is_new = !shown.is_empty() && !shown.iter().any(|serial| before.contains(serial));
        is_new.then_some(shown)
    });
    before.extend(shown);
}

/// Waits until a client's SVID does not hang on a root any more.
async fn leads_elsewhere(client: &Client, root: &str) {
    let mut updates = client.source.updated();
    loop {
        let svid = client.source.svid().expect("it has one");
        let last = svid.cert_chain().last().expect("a certificate");
        if signer(last.as_bytes()) != root {
            return;
        }
        let changed = tokio::time::timeout(Duration::from_secs(30), updates.changed());
        changed.await.expect("it is replaced").expect("it goes on");
    }
}

fn start(folder: &Path) -> Sidegate {
    let hello = guest("hello");
    let demo = own_entry("/demo") + "dns_names = [\"localhost\"]\n";
    let sections = format!(
        r#"
{demo}
[[identity.entry]]
spiffe_id = "spiffe://sidegate.local/hello"
selectors = ["component:digest:sha256:{}"]
dns_names = ["localhost"]

[[component]]
name = "hello"
path = {}

[[listener]]
name = "main"
listen = "127.0.0.1:0"
component = "hello"
"#,
        digest(&hello),
        Value::from(hello.to_str().expect("it is text")),
    );
    // On a busy machine a decision may take longer than it may by default.
    let rego = fs::read(root().join("policies/rego/ingress.rego")).expect("it is there");
    write(folder, "policy/ingress.rego", rego);
    let policy = "[policy]\npath = \"policy\"\ntimeout = \"5s\"\n";
    Sidegate::run(&identity_only(folder, &(sections + policy)))
}
