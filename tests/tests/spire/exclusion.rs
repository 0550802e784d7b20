//! Agents that are banned, and agents that are sent to attest again.

use std::fs;
use std::sync::LazyLock;

use rcgen::PKCS_ECDSA_P256_SHA256;

use super::gate::{Machine, Possession, eventually, given, is_down, is_up, readiness, shown_id};
use super::played::Played;
use super::server::{Options, SpireServer, joined};
use crate::support::{counter, write};

static POSSESSION: LazyLock<Possession> =
    LazyLock::new(|| Possession::new(&PKCS_ECDSA_P256_SHA256));

scenarios! {
    a_banned_agent_serves_nothing_until_it_is_allowed_back(attestors());
    an_evicted_agent_with_a_certificate_comes_back_by_itself(attestors());
    an_evicted_agent_with_a_token_says_that_it_needs_another(Options::default());
}

fn attestors() -> Options {
    Options {
        attestors: Some(POSSESSION.authority.clone()),
        ..Options::default()
    }
}

async fn a_banned_agent_serves_nothing_until_it_is_allowed_back<S: SpireServer>(server: S) {
    let machine = Machine::possessing(&server, &POSSESSION);
    machine.register(&server);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    server.ban(&machine.agent);
    let text = readiness(&gate, "its ban", |status, text| {
        status == 503 && text.contains("SG0197")
    });
    assert!(text.contains("banned"), "{text}");
    assert!(given(&gate).await.is_empty());
    assert_eq!(shown_id(&client).await, None);
    assert!(counter(&gate, "sidegate_identity_source_up", &[]) < 0.5);
    let checked = machine.check();
    assert_eq!(checked.status.code(), Some(1), "{checked:?}");
    assert!(checked.stdout.contains("SG0197"), "{}", checked.stdout);
    gate.stop();
    // Neither a restart helps, nor to have forgotten everything.
    machine.is_refused(&["error[SG", "banned"]);
    fs::remove_dir_all(machine.state()).expect("it was kept");
    machine.is_refused(&["error[SG", "banned"]);
    server.evict(&machine.agent);
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
}

async fn an_evicted_agent_with_a_certificate_comes_back_by_itself<S: SpireServer>(server: S) {
    let machine = Machine::possessing(&server, &POSSESSION);
    machine.register(&server);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    server.evict(&machine.agent);
    eventually("its return", async || {
        assert_eq!(client.get("/hello").await.status, 200);
        (server.agents() == [machine.agent.as_str()]).then_some(())
    })
    .await;
    is_up(&gate);
}

async fn an_evicted_agent_with_a_token_says_that_it_needs_another<S: SpireServer>(server: S) {
    let mut machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    server.evict(&machine.agent);
    let text = is_down(&gate);
    assert!(
        text.contains("[SG0195]") && text.contains("token"),
        "{text}"
    );
    assert_eq!(client.get("/hello").await.status, 200);
    gate.stop();
    machine.is_refused(&["error[SG", "token"]);
    let token = server.join_token(None);
    write(machine.folder.path(), "token", &token);
    machine.agent = joined(&token);
    machine.register(&server);
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_evicted_agent_with_a_certificate_attests_once_more_and_only_once() {
    let server = Played::start("", &attestors()).expect("it needs nothing");
    let machine = Machine::possessing(&server, &POSSESSION);
    machine.register(&server);
    let gate = machine.run();
    server.evict(&machine.agent);
    eventually("its return", async || {
        (!server.agents().is_empty()).then_some(())
    })
    .await;
    let before = server.calls("SyncAuthorizedEntries");
    eventually("more of the same", async || {
        (server.calls("SyncAuthorizedEntries") > before + 3).then_some(())
    })
    .await;
    assert_eq!(server.seen().attested.len(), 2);
    is_up(&gate);
}
