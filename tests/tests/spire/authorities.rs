//! The server's authorities are rotated, tainted and revoked under a running agent.

use std::collections::BTreeSet;

use serde_json::Value;
use sidegate_tests::Sidegate;

use super::gate::{Machine, context, eventually, is_up, shown_leaf};
use super::server::{Kind, Options, SpireServer};
use crate::jwt::raw::{fetch_one, jwks};
use crate::jwt::token::Token;
use crate::support::logged;
use crate::workload_api::serial;

scenarios! {
    an_x509_authority_is_followed_from_its_activation_to_its_revocation(Options::default());
    a_jwt_authority_is_followed_from_its_activation_to_its_revocation(Options::default());
}

async fn an_x509_authority_is_followed_from_its_activation_to_its_revocation<S: SpireServer>(
    server: S,
) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    let old = machine.client(&gate).await;
    let first = shown_leaf(&old).await.expect("an SVID");
    let [old_root] = <[_; 1]>::try_from(Vec::from_iter(roots(&gate).await)).expect("one");

    server.rotate(Kind::X509);
    eventually("both authorities", async || {
        (roots(&gate).await.len() == 2).then_some(())
    })
    .await;
    assert_eq!(old.get("/hello").await.status, 200);
    // What is good is kept.
    assert_eq!(shown_leaf(&old).await, Some(first.clone()));

    server.taint(Kind::X509);
    let client = eventually("SVIDs of the other authority", async || {
        let client = machine.client(&gate).await;
        let leaf = shown_leaf(&client).await?;
        let is_new = serial(&leaf) != serial(&first);
        let is_own_new = client.identity.chain[0] != old.identity.chain[0];
        (is_new && is_own_new).then_some(client)
    })
    .await;
    assert_eq!(client.get("/hello").await.status, 200);
    // Both still vouch, so that nobody is cut off before he has another.
    assert_eq!(roots(&gate).await.len(), 2);
    let mut mixed = client.clone();
    mixed.identity = old.identity.clone();
    assert_eq!(mixed.get("/hello").await.status, 200);

    // A connection that hangs on the old authority is held.
    let mut held = mixed.http2().await;
    held.ready().await.expect("it is open");
    server.revoke(Kind::X509);
    eventually("one authority", async || {
        let roots = roots(&gate).await;
        (roots.len() == 1 && !roots.contains(&old_root)).then_some(())
    })
    .await;
    assert_eq!(client.get("/hello").await.status, 200);
    eventually("the end of the old connection", async || {
        (held.is_closed() || held.ready().await.is_err()).then_some(())
    })
    .await;
    // Who has nothing else is not trusted any more.
    tokio::spawn(async move { mixed.get("/hello").await })
        .await
        .expect_err("the handshake breaks off");
    logged(&gate, &["SG0174"]);
    is_up(&gate);
    // The agent itself is below the authority that is left.
    gate.stop();
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
    assert_eq!(server.agents(), [machine.agent.as_str()]);
}

async fn a_jwt_authority_is_followed_from_its_activation_to_its_revocation<S: SpireServer>(
    server: S,
) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    let socket = &gate.ready.workload_socket;
    let key_of = async || {
        let svid = fetch_one(socket, &["shop"]).await;
        Token::new(&svid.svid).header["kid"].clone()
    };
    let old = key_of().await;
    assert!(ids(&jwks(socket).await).contains(&old.to_string()));
    server.rotate(Kind::Jwt);
    eventually("both authorities", async || {
        (ids(&jwks(socket).await).len() == 2).then_some(())
    })
    .await;
    server.taint(Kind::Jwt);
    let new = eventually("a token of the other authority", async || {
        let key = key_of().await;
        (key != old).then_some(key)
    })
    .await;
    server.revoke(Kind::Jwt);
    eventually("one authority", async || {
        (ids(&jwks(socket).await) == BTreeSet::from([new.to_string()])).then_some(())
    })
    .await;
    is_up(&gate);
}

/// The serial numbers of the authorities in the bundle of the Workload API.
async fn roots(gate: &Sidegate) -> BTreeSet<String> {
    let context = context(gate).await;
    let svid = context.default_svid().expect("an SVID");
    let bundle = context.bundle_set().get(svid.spiffe_id().trust_domain());
    let bundle = bundle.expect("its own");
    let authorities = bundle.authorities().iter();
    authorities.map(|root| serial(root.as_bytes())).collect()
}

fn ids(jwks: &Value) -> BTreeSet<String> {
    let keys = jwks["keys"].as_array().expect("keys").iter();
    keys.map(|key| key["kid"].to_string()).collect()
}
