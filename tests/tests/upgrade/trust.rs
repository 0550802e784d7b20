//! What ends a tunnel: trust in its client is gone, and in no other.

use std::path::Path;

use serde_json::Value;
use sidegate_tests::Sidegate;
use tokio_tungstenite::tungstenite::Message;

use super::ends::is_cut;
use super::server::Server;
use super::{Socket, echoes, open, run};
use crate::authorities::svids::renewed_in;
use crate::federation::{Foreign, OTHER};
use crate::support::{Client, Configuration, Operator, access_line, counter, folder, write};

/// A tunnel that was used, and the id of its request.
async fn used(client: &Client) -> (Socket, String) {
    let (mut socket, head) = open(client, "/").await.unwrap();
    echoes(&mut socket, Message::text("before")).await;
    let id = head.headers()["x-request-id"].to_str().unwrap().to_owned();
    (socket, id)
}

/// One is cut for want of trust, and the other is not.
async fn only_one_is_cut(gate: &Sidegate, cut: (Socket, String), mut stays: Socket) {
    let (mut socket, id) = cut;
    is_cut(&mut socket).await;
    let line: Value = access_line(gate, &id);
    assert_eq!(line["error"], "trust_gone", "{line}");
    assert_eq!(line["code"], "SG0309", "{line}");
    assert_eq!(line["status"], 101, "{line}");
    echoes(&mut stays, Message::text("after")).await;
    let count = counter(
        gate,
        "sidegate_connections_cut_total",
        &["listener=\"main\""],
    );
    assert_eq!(count as u64, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_root_that_is_revoked_ends_the_tunnels_that_hang_on_it_and_no_others() {
    let folder = folder();
    let server = Server::start().await;
    let (gate, old) = run(&folder, &server.url, "", "");
    let operator = Operator::of(&gate);
    let first = operator.authority("x509", "active");
    let before = used(&old).await;
    operator.ask(&["rotate", "x509"]);
    operator.ask(&["taint", "x509"]);
    let new = renewed_in(&folder.path().join("demo"), &old, &first);
    let (after, _) = used(&new).await;
    operator.ask(&["revoke", "x509"]);
    only_one_is_cut(&gate, before, after).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_is_deleted_ends_the_tunnels_of_its_trust_domain_and_no_others() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let server = Server::start().await;
    let (gate, own) = federating(folder.path(), &server.url);
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    let client = foreign.client(&own.address, &folder.path().join("demo/bundle.pem"));
    let theirs = used(&client).await;
    let (ours, _) = used(&own).await;
    foreign.is_forgotten_by(&operator);
    only_one_is_cut(&gate, theirs, ours).await;
}

/// A listener in front of a server that lets the other trust domain in.
fn federating(folder: &Path, url: &str) -> (Sidegate, Client) {
    let allows = "package envoy.authz\nallow := true\n";
    write(folder, "policy/policy.rego", allows);
    let mut configuration = Configuration::before(url, "");
    let line = "dns_names = [\"localhost\"]\n";
    let lines = format!("{line}federates_with = [\"{OTHER}\"]\n");
    configuration.listener = configuration.listener.replace(line, &lines);
    configuration.start(folder)
}
