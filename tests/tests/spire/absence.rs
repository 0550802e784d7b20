//! The server is away, or another one is in its place.

use std::fs;
use std::sync::LazyLock;
use std::time::Duration;

use rcgen::PKCS_ECDSA_P256_SHA256;

use super::gate::{Machine, Possession, eventually, is_down, is_up, readiness, shown_leaf};
use super::server::{Entry, Options, SpireServer};
use crate::jwt::raw::fetch_one;
use crate::support::{own_uid, write};

static POSSESSION: LazyLock<Possession> =
    LazyLock::new(|| Possession::new(&PKCS_ECDSA_P256_SHA256));

scenarios! {
    a_server_that_is_away_is_missed_only_when_svids_expire(brief());
    a_start_without_a_server_says_so(Options::default());
    another_server_in_its_place_is_not_believed_until_the_operator_says_so(attestors());
}

/// SVIDs of workloads expire soon, the agent's own does not.
fn brief() -> Options {
    Options {
        svid_ttl: Duration::from_secs(24),
        ..Options::default()
    }
}

fn attestors() -> Options {
    Options {
        attestors: Some(POSSESSION.authority.clone()),
        ..Options::default()
    }
}

async fn a_server_that_is_away_is_missed_only_when_svids_expire<S: SpireServer>(mut server: S) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    let first = shown_leaf(&client).await.expect("an SVID");
    let token = fetch_one(&gate.ready.workload_socket, &["shop"]).await.svid;
    server.stop();
    let text = is_down(&gate);
    assert!(text.contains("[SG0194]"), "{text}");
    assert_eq!(client.get("/hello").await.status, 200);
    // A token that is not half through its life needs no server.
    let again = fetch_one(&gate.ready.workload_socket, &["shop"]).await.svid;
    assert_eq!(again, token);
    let checked = machine.check();
    assert!(checked.stdout.contains("SG0194"), "{}", checked.stdout);
    server.start_again();
    is_up(&gate);
    let after = eventually("another SVID", async || {
        let client = machine.client(&gate).await;
        let leaf = shown_leaf(&client).await?;
        (leaf != first).then_some(client)
    })
    .await;
    assert_eq!(after.get("/hello").await.status, 200);

    server.stop();
    readiness(&gate, "the end of the last SVID", |status, text| {
        status == 503 && text.contains("has expired")
    });
    server.start_again();
    is_up(&gate);
    let client = machine.client(&gate).await;
    assert_eq!(client.get("/hello").await.status, 200);
}

async fn a_start_without_a_server_says_so<S: SpireServer>(mut server: S) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    server.stop();
    machine.is_refused(&["error[SG0194]", server.address()]);
    server.start_again();
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
}

async fn another_server_in_its_place_is_not_believed_until_the_operator_says_so<S: SpireServer>(
    mut server: S,
) {
    let machine = Machine::possessing(&server, &POSSESSION);
    machine.register(&server);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    server.stop();
    server.forget();
    server.start_again();
    machine.register(&server);
    server.create(&Entry::new(&machine.agent, "/theirs", &[&own_uid()]));
    let text = is_down(&gate);
    assert!(text.contains("[SG0194]"), "{text}");
    assert_eq!(client.get("/hello").await.status, 200);
    assert!(server.agents().is_empty());
    gate.stop();
    machine.is_refused(&["error[SG0194]"]);
    write(machine.folder.path(), "bundle.pem", server.bundle_pem());
    machine.is_refused(&["error[SG0194]"]);
    fs::remove_file(machine.state().join("spire_bundle.json")).expect("it was kept");
    let gate = machine.run();
    let after = machine.client(&gate).await;
    assert_eq!(after.get("/hello").await.status, 200);
    assert_eq!(server.agents(), [machine.agent.as_str()]);
}
