//! Peers of other trust domains at a listener.

use std::path::Path;

use rustls::crypto::aws_lc_rs;
use sidegate_tests::{Sidegate, guest, until};

use super::{Foreign, OTHER, bundle, federating, set};
use crate::authorities::connections::Connections;
use crate::mtls::refusal;
use crate::support::{
    Authority, Client, Identity, Operator, access_line, counter, digest, folder, leaf, logged,
    write,
};

const THIRD: &str = "third.example";

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_client_is_let_in_where_the_listeners_entry_says_so_and_policy_sees_its_id() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let rego = format!(
        "package envoy.authz\nimport rego.v1\ndefault allow := false\n\
         allow if input.attributes.source.principal == \"{}\"\n",
        foreign.id()
    );
    write(folder.path(), "policy/policy.rego", rego);
    let listener = |name: &str| {
        format!(
            "[[listener]]\nname = \"{name}\"\nlisten = \"127.0.0.1:0\"\ncomponent = \"probe\"\n\
             spiffe_id = \"spiffe://sidegate.local/{name}\"\n"
        )
    };
    let closed = format!(
        "[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/closed\"\n\
         selectors = [\"component:digest:sha256:{}\"]\ndns_names = [\"localhost\"]\n",
        digest(&guest("probe"))
    );
    let configuration = federating(&[OTHER])
        .listener(&(listener("probe") + &listener("closed")))
        .rest(&(closed + "[policy]\npath = \"policy\"\n"));
    let gate = Sidegate::run(&configuration.write(folder.path()));
    let operator = Operator::of(&gate);
    let [open, closed] = gate.ready.listeners.as_slice() else {
        panic!("two listeners: {:?}", gate.ready);
    };
    let demo = folder.path().join("demo");
    let client = foreign.client(&open.address, &demo.join("bundle.pem"));
    let elsewhere = client.clone().at(&closed.address);
    let own = client.with(identity(&demo));

    is_refused(&client, &gate, "SG0161").await;
    foreign.is_known_to(&operator);
    let answer = client.get("/status/200").await;
    assert_eq!(answer.status, 200);
    let line = access_line(&gate, answer.header("x-request-id"));
    assert_eq!(line["peer"], foreign.id(), "{line}");
    // The bundle lets in whoever is of the trust domain; who may do what is for the policy to say.
    let other = foreign.authority();
    let other = other.issue(&leaf(&["spiffe://other.example/other"]));
    assert_eq!(client.with(other).get("/status/200").await.status, 403);
    assert_eq!(own.get("/status/200").await.status, 403);

    is_refused(&elsewhere, &gate, "SG0161").await;
    assert_eq!(own.at(&closed.address).get("/").await.status, 403);

    foreign.is_forgotten_by(&operator);
    is_refused(&client, &gate, "SG0161").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_vouches_for_its_own_trust_domain_only() {
    let folder = folder();
    let foreign = [OTHER, THIRD].map(Foreign::start);
    let (gate, own) = start(folder.path(), &[OTHER, THIRD]);
    for foreign in &foreign {
        foreign.is_known_to(&Operator::of(&gate));
    }
    let [other, third] = foreign.map(|foreign| foreign.authority());
    let ours = Authority::of(&gate.ready.state);
    let ids = [
        "spiffe://sidegate.local/demo",
        "spiffe://other.example/peer",
        "spiffe://third.example/peer",
    ];
    for (authority, may) in [(&ours, ids[0]), (&other, ids[1]), (&third, ids[2])] {
        for id in ids {
            let signed = [
                authority.issue(&leaf(&[id])),
                authority.issue_from_root(&leaf(&[id])),
            ];
            for identity in signed {
                let client = own.with(identity);
                if id == may {
                    assert_eq!(client.get("/status/200").await.status, 200, "{id}");
                } else {
                    is_refused(&client, &gate, "SG01").await;
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_its_bundle_or_its_root_live_connections_of_a_trust_domain_end_and_no_others() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let (gate, own) = start(folder.path(), &[OTHER]);
    let operator = Operator::of(&gate);
    let cut = || {
        let labels = ["listener=\"main\""];
        counter(&gate, "sidegate_connections_cut_total", &labels)
    };
    foreign.is_known_to(&operator);
    let client = foreign.client(&own.address, &folder.path().join("demo/bundle.pem"));
    let mut before = Connections::open(&client).await;
    let mut ours = Connections::open(&own).await;

    // What comes in addition cuts nothing, and what others lose neither.
    foreign.operator().ask(&["rotate", "x509"]);
    foreign.is_known_to(&operator);
    Foreign::start(THIRD).is_known_to(&operator);
    operator.ask(&["bundle", "delete", THIRD]);
    before.are_in_use().await;
    assert!(cut() < 0.5);

    let first = foreign.identity();
    foreign.operator().ask(&["taint", "x509"]);
    let second = until("the foreign files to be new", || {
        let identity = foreign.identity();
        (identity.chain != first.chain).then_some(identity)
    });
    let client = client.with(second);
    let mut after = Connections::open(&client).await;
    foreign.operator().ask(&["revoke", "x509"]);
    // Over there the root is revoked; here it is so with the next bundle.
    before.are_in_use().await;
    foreign.is_known_to(&operator);
    before.are_cut().await;
    logged(&gate, &["SG0309"]);
    after.are_in_use().await;
    ours.are_in_use().await;
    is_refused(&client.with(first), &gate, "SG0174").await;

    foreign.is_forgotten_by(&operator);
    after.are_cut().await;
    is_refused(&client, &gate, "SG0161").await;
    ours.are_in_use().await;
    assert!((cut() - 8.0).abs() < 0.5, "{}", cut());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_workload_knows_our_server_by_its_bundle_map() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let (gate, own) = start(folder.path(), &[OTHER]);
    let operator = Operator::of(&gate);
    foreign.is_known_to(&operator);
    let handed = write(
        folder.path(),
        "own.json",
        bundle(&operator, None).to_string(),
    );
    set(&foreign.operator(), "sidegate.local", &handed);
    let roots = until("our roots in the foreign bundle map", || {
        foreign.known_roots("sidegate.local")
    });
    let pem = roots
        .into_iter()
        .map(|root| pem::encode(&pem::Pem::new("CERTIFICATE", root)));
    let pem = write(folder.path(), "roots.pem", pem.collect::<String>());
    let client = foreign.client(&own.address, &pem);
    assert_eq!(client.get("/status/200").await.status, 200);
}

/// An instance that federates with these, serves whoever gets in, and cuts nothing by itself.
fn start(folder: &Path, with: &[&str]) -> (Sidegate, Client) {
    let rego = "package envoy.authz\nimport rego.v1\ndefault allow := true\n";
    write(folder, "policy/policy.rego", rego);
    federating(with)
        .component("request_deadline = \"60s\"\n")
        .timeouts("header_read = \"60s\"\nidle = \"60s\"\nrequest = \"60s\"\n")
        .rest("[policy]\npath = \"policy\"\n")
        .start(folder)
}

/// Panics unless the handshake fails with an alert, and with this code in the log.
async fn is_refused(client: &Client, gate: &Sidegate, code: &str) {
    let before = gate.process.stderr().len();
    let alert = refusal(client, client.tls(aws_lc_rs::default_provider())).await;
    assert!(alert.contains("alert"), "{alert}");
    until("why it is refused", || {
        let stderr = gate.process.stderr();
        let mut lines = stderr.get(before..)?.lines();
        let code = format!("code=\"{code}");
        lines.any(|line| line.contains(&code)).then_some(())
    });
}

fn identity(folder: &Path) -> Identity {
    Identity::read(&folder.join("svid.pem"), &folder.join("key.pem"))
}
