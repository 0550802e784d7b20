//! How the agent stays one: renewals, denials, outages.

use rcgen::{CertificateParams, KeyPair, KeyUsagePurpose};
use tokio_util::sync::CancellationToken;

use super::authority::Authority;
use super::world::{Fault, Node};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

/// A stage whose node can be attested again, with one entry whose SVID outlives everything.
async fn repeatable() -> Stage {
    let mut stage = Stage::new().await;
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let (certificates, private_key) = (stage.file("node.pem"), stage.file("node.key"));
    std::fs::write(&certificates, params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(&private_key, key.serialize_pem()).unwrap();
    stage.config.attestation = NodeAttestation::X509Pop {
        certificates,
        private_key,
    };
    stage.world().add("web", 1);
    stage.world().svid_life = 24 * HOUR;
    stage
}

fn with_node(stage: &Stage, change: impl FnOnce(&mut Node)) {
    change(stage.world().agents.values_mut().next().unwrap());
}

/// An agent of a server that ends connections all the time: one that ends in the middle of the
/// attestation costs the token.
async fn attested(stage: &Stage) -> SpireAgent {
    let mut agent = stage.agent();
    while agent.step().await.is_err() {
        stage.world().tokens.insert("token".to_owned());
        agent = stage.agent();
    }
    agent
}

#[tokio::test]
async fn the_agents_svid_is_renewed_and_the_old_one_kept_until_the_new_one_is_accepted() {
    let stage = repeatable().await;
    let agent = stage.agent();
    agent.step().await.unwrap();
    let first = agent.status().agent_expires.unwrap();
    stage.pass(HOUR.mul_f64(0.6));
    agent.step().await.unwrap();
    assert_eq!(stage.world().count("RenewAgent"), 1);
    assert!(agent.status().agent_expires.unwrap() > first);
    assert_eq!(stage.kept(), 1);
    // Now the server is gone right after it has renewed.
    stage.pass(HOUR.mul_f64(0.6));
    stage.world().fault = Fault::EmptyBundle;
    agent.step().await.unwrap_err();
    assert_eq!(stage.world().count("RenewAgent"), 2);
    assert_eq!(stage.kept(), 2);
    drop(agent);
    // After a restart, the new one is shown first.
    stage.world().fault = Fault::None;
    let agent = stage.agent();
    agent.step().await.unwrap();
    assert_eq!(stage.kept(), 1);
    assert_eq!(stage.world().count("RenewAgent"), 2);
    assert_eq!(stage.world().count("AttestAgent"), 1);
}

#[tokio::test]
async fn a_new_agent_svid_that_is_denied_gives_way_to_the_old_one() {
    let stage = repeatable().await;
    let agent = stage.agent();
    agent.step().await.unwrap();
    stage.pass(HOUR.mul_f64(0.6));
    // The server renews, and then forgets what it has renewed before it was used.
    stage.world().forgets_renewed = true;
    agent.step().await.unwrap();
    assert_eq!(stage.world().count("RenewAgent"), 1);
    assert_eq!(stage.world().count("AttestAgent"), 1);
    assert_eq!(stage.kept(), 1);
    // The next one counts again.
    stage.world().forgets_renewed = false;
    stage.pass(SYNC_INTERVAL);
    let before = agent.status().agent_expires;
    agent.step().await.unwrap();
    assert_eq!(stage.world().count("RenewAgent"), 2);
    assert!(agent.status().agent_expires > before);
}

#[tokio::test]
async fn an_agent_that_the_server_has_forgotten_is_attested_again() {
    let stage = repeatable().await;
    let agent = stage.agent();
    agent.step().await.unwrap();
    let before = identities(&agent);
    stage.world().agents.clear();
    agent.step().await.unwrap();
    assert_eq!(stage.world().count("AttestAgent"), 2);
    // The workloads do not notice.
    assert!(Arc::ptr_eq(&before, &identities(&agent)));
}

#[tokio::test]
async fn an_agent_whose_svid_has_expired_is_attested_again() {
    let stage = repeatable().await;
    let agent = stage.agent();
    agent.step().await.unwrap();
    stage.pass(2 * HOUR);
    agent.step().await.unwrap();
    assert_eq!(stage.world().count("AttestAgent"), 2);
    assert_eq!(stage.world().count("RenewAgent"), 0);
}

#[tokio::test]
async fn where_the_server_wants_it_the_node_is_attested_anew_with_a_new_key() {
    let stage = repeatable().await;
    let agent = stage.agent();
    agent.step().await.unwrap();
    with_node(&stage, |node| node.must_reattest = true);
    stage.pass(HOUR.mul_f64(0.6));
    agent.step().await.unwrap();
    assert_eq!(stage.world().count("AttestAgent"), 2);
    let world = stage.world();
    assert_eq!(world.requests.len(), 2);
    assert_ne!(world.requests[0], world.requests[1]);
}

#[tokio::test]
async fn until_the_node_is_attested_anew_the_old_svid_is_shown() {
    let stage = repeatable().await;
    let agent = stage.agent();
    agent.step().await.unwrap();
    with_node(&stage, |node| node.must_reattest = true);
    stage.pass(HOUR.mul_f64(0.6));
    let key = std::fs::read(stage.file("node.key")).unwrap();
    std::fs::write(stage.file("node.key"), "gone").unwrap();
    stage.world().add("late", 2);
    let failed = agent.step().await.unwrap_err();
    assert!(matches!(failed, SpireError::Attestation(_)), "{failed}");
    // What can be done is done.
    assert!(svid(&agent, "late").is_some());
    std::fs::write(stage.file("node.key"), key).unwrap();
    agent.step().await.unwrap();
    assert_eq!(stage.world().count("AttestAgent"), 2);
}

#[tokio::test]
async fn a_forgotten_agent_with_a_used_token_goes_on_until_its_svids_end() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    let agent = stage.agent();
    agent.step().await.unwrap();
    stage.world().agents.clear();
    let before = identities(&agent);
    let spent = agent.step().await.unwrap_err();
    assert!(
        matches!(spent, SpireError::TokenSpent(Denial::NotAttested)),
        "{spent}"
    );
    assert!(Arc::ptr_eq(&before, &identities(&agent)));
    drop(agent);
    // With another token, a restart helps.
    std::fs::write(stage.file("token"), "another").unwrap();
    stage.world().tokens.insert("another".to_owned());
    let agent = stage.agent();
    agent.step().await.unwrap();
    assert_eq!(paths(&agent), ["/web"]);
}

#[tokio::test]
async fn a_banned_agent_forgets_its_svid_and_serves_nothing_any_more() {
    let stage = repeatable().await;
    let agent = Arc::new(stage.agent());
    agent.step().await.unwrap();
    let audience = ["api".to_owned()];
    let entry = Arc::clone(&identities(&agent).issued()[0].entry);
    with_node(&stage, |node| node.is_banned = true);
    // It ends by itself.
    Arc::clone(&agent).run(CancellationToken::new()).await;
    assert_eq!(agent.status().phase, Phase::Banned);
    assert_eq!(paths(&agent), [""; 0]);
    assert!(!stage.file("spire_agent.json").exists());
    assert!(agent.jwt_svid(&entry, &audience).await.is_err());
    let calls = stage.world().calls.len();
    assert!(matches!(agent.step().await, Err(SpireError::Banned)));
    assert_eq!(stage.world().calls.len(), calls);
}

#[tokio::test]
async fn an_outage_shows_since_when_and_until_when_and_takes_nothing_away() {
    let stage = repeatable().await;
    let agent = stage.agent();
    agent.step().await.unwrap();
    stage.pass(HOUR / 4);
    stage.world().add("late", 2);
    agent.step().await.unwrap();
    let before = identities(&agent);
    stage.world().fault = Fault::Down;
    stage.pass(Duration::from_secs(60));
    let since = crate::clock::seconds(stage.clock.now());
    agent.step().await.unwrap_err();
    stage.pass(Duration::from_secs(60));
    agent.step().await.unwrap_err();
    let status = agent.status();
    assert_eq!(status.phase, Phase::Failing);
    assert_eq!(status.failing_since, Some(since));
    assert_eq!(status.synced, Some(since - 60));
    assert_eq!(status.failing.unwrap().code, "SG0194");
    let spread = status.last_expiry.unwrap() - status.first_expiry.unwrap();
    assert_eq!(spread, 900);
    assert!(Arc::ptr_eq(&before, &identities(&agent)));
    stage.world().fault = Fault::None;
    agent.step().await.unwrap();
    let status = agent.status();
    assert_eq!((status.phase, status.failing_since), (Phase::Serving, None));
}

#[tokio::test]
async fn nobody_at_the_servers_address_is_an_outage_too() {
    let mut stage = Stage::new().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    stage.config.server = listener.local_addr().unwrap().to_string();
    drop(listener);
    let failed = stage.agent().step().await.unwrap_err();
    assert!(matches!(failed, SpireError::Connect { .. }), "{failed}");
    stage.config.server = "without.a.port".to_owned();
    let failed = stage.agent().step().await.unwrap_err();
    assert!(matches!(failed, SpireError::Connect { .. }), "{failed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_where_the_server_ends_connections_all_the_time() {
    let stage = Stage::with_connections_of(Some(Duration::from_millis(20))).await;
    stage.world().add("web", 1);
    let agent = attested(&stage).await;
    let entry = Arc::clone(&identities(&agent).issued()[0].entry);
    let audience = ["api".to_owned()];
    let connections = stage.world().connections;
    while stage.world().connections < connections + 20 {
        let token = agent.jwt_svid(&entry, &audience);
        let (step, token) = tokio::join!(agent.step(), token);
        step.unwrap();
        token.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_wire_replaces_nothing() {
    let stage = Stage::with_connections_of(Some(Duration::from_millis(20))).await;
    stage.world().add("web", 1);
    let agent = attested(&stage).await;
    let before = identities(&agent);
    stage.world().fault = Fault::Garbage;
    // The connections that are there go on to their end.
    while agent.step().await.is_ok() {}
    assert!(Arc::ptr_eq(&before, &identities(&agent)));
    stage.world().fault = Fault::None;
    agent.step().await.unwrap();
}

#[tokio::test]
async fn the_agent_follows_the_server_by_itself_until_it_is_told_to_stop() {
    let mut stage = Stage::new().await;
    stage.config.sync_interval = Duration::from_millis(20);
    stage.world().add("web", 1);
    let agent = Arc::new(stage.agent());
    let stop = CancellationToken::new();
    let running = tokio::spawn(Arc::clone(&agent).run(stop.clone()));
    let mut watched = agent.watch();
    watched
        .wait_for(|all| all.issued().len() == 1)
        .await
        .unwrap();
    stage.world().fault = Fault::Down;
    while agent.status().phase != Phase::Failing {
        tokio::task::yield_now().await;
    }
    stage.world().fault = Fault::None;
    stage.world().entries.clear();
    watched
        .wait_for(|all| all.issued().is_empty())
        .await
        .unwrap();
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn where_all_authorities_were_replaced_a_new_bundle_is_all_that_it_takes() {
    let stage = repeatable().await;
    drop(attested(&stage).await);
    let now = stage.clock.now();
    stage.world().authorities = vec![Authority::new(TRUST_DOMAIN, now)];
    stage.world().agents.clear();
    let refused = stage.agent().step().await.unwrap_err();
    assert!(matches!(refused, SpireError::Untrusted { .. }), "{refused}");
    assert!(refused.hint().unwrap().contains("spire_bundle.json"));
    let root = encoding::certificates_pem([&stage.world().signer().root]);
    std::fs::write(stage.file("bootstrap.pem"), root).unwrap();
    std::fs::remove_file(stage.file("spire_bundle.json")).unwrap();
    let agent = stage.agent();
    agent.step().await.unwrap();
    assert_eq!(paths(&agent), ["/web"]);
    assert_eq!(stage.world().count("AttestAgent"), 2);
}

#[tokio::test]
async fn where_the_server_has_said_so_the_node_is_attested_anew_at_half_of_its_life() {
    let stage = repeatable().await;
    stage.world().is_reattestable = true;
    let agent = stage.agent();
    agent.step().await.unwrap();
    stage.pass(HOUR / 5 * 3);
    agent.step().await.unwrap();
    let world = stage.world();
    assert_eq!(
        (world.count("AttestAgent"), world.count("RenewAgent")),
        (2, 0)
    );
}
