//! Bundles of other trust domains come with the entries that federate with them.

use spiffe::TrustDomain;

use super::gate::{DEMO, GREETER, Machine, component, context, eventually, is_up, shown_id};
use super::server::{Entry, Options, SpireServer, id};
use crate::federation::{Foreign, OTHER};
use crate::support::{address, own_uid};
use crate::workload_api::serial;

scenarios! {
    a_foreign_bundle_reaches_the_workloads_and_listeners_that_federate(Options::default());
}

async fn a_foreign_bundle_reaches_the_workloads_and_listeners_that_federate<S: SpireServer>(
    server: S,
) {
    let foreign = tokio::task::block_in_place(|| Foreign::start(OTHER));
    let machine = Machine::joining(&server);
    let [_, demo] = machine.register(&server);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    assert_eq!(shown_id(&client).await, Some(id(GREETER)));
    let roots = machine.folder.path().join("client/bundle.pem");
    let peer = foreign.client(address(&gate), &roots);
    // No request of a stranger comes through.
    let refused = async |peer: &crate::support::Client| {
        let peer = peer.clone();
        tokio::spawn(async move { peer.get("/hello").await })
            .await
            .is_err()
    };
    assert!(refused(&peer).await);

    let theirs = root(&foreign);
    server.set_bundle(
        OTHER,
        &pem::encode(&pem::Pem::new("CERTIFICATE", theirs.clone())),
    );
    let federating = |path: &str, selector: &str| Entry {
        federates_with: vec![OTHER.to_owned()],
        ..Entry::new(&machine.agent, path, &[selector])
    };
    server.update(&demo, &federating(DEMO, &own_uid()));
    let domain = TrustDomain::new(OTHER).expect("a trust domain");
    let known = eventually("the foreign bundle", async || {
        let context = context(&gate).await;
        let bundle = context.bundle_set().get(&domain)?;
        let roots = bundle.authorities().iter();
        Some(Vec::from_iter(roots.map(|root| serial(root.as_bytes()))))
    })
    .await;
    assert_eq!(known, [serial(&theirs)]);
    // The listener's own entry does not federate.
    assert!(refused(&peer).await);
    gate.stop();

    let other = Machine::joining(&server);
    server.create(&Entry {
        parent: other.agent.clone(),
        ..federating(GREETER, &component())
    });
    server.create(&Entry::new(&other.agent, DEMO, &[&own_uid()]));
    let gate = other.run();
    is_up(&gate);
    let peer = foreign.client(address(&gate), &roots);
    // Whoever is let in is known; the stock policy has nothing for foreigners.
    let answer = eventually("an answer", async || {
        let peer = peer.clone();
        tokio::spawn(async move { peer.get("/hello").await })
            .await
            .ok()
    })
    .await;
    assert_eq!(answer.status, 403);
    // A bundle that no entry of the workload's wants is none of its.
    let context = context(&gate).await;
    assert!(context.bundle_set().get(&domain).is_none());
}

/// The root of a trust domain, DER.
fn root(foreign: &Foreign) -> Vec<u8> {
    use base64::Engine;
    let bundle = foreign.bundle();
    let keys = bundle["keys"].as_array().expect("keys").iter();
    let mut certificates = keys.filter_map(|key| key["x5c"][0].as_str());
    let text = certificates.next().expect("a root");
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .expect("it is base64")
}
