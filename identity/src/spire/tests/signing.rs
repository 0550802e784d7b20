//! SVIDs of the workloads.

use super::world::Fault;
use super::*;
use crate::jwt::validate;
use crate::tls::verify_chain;

const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn every_entry_gets_a_key_and_an_svid_of_its_own() {
    let stage = Stage::new().await;
    stage.world().add("a", 1);
    stage.world().add("b", 1);
    let agent = stage.agent();
    agent.step().await.unwrap();
    let all = identities(&agent);
    let [a, b] = all.issued() else { panic!("two") };
    assert_ne!(a.svid.key(), b.svid.key());
    let bundle = all.own_bundle().unwrap();
    for issued in [a, b] {
        assert_eq!(issued.svid.id(), issued.entry.spiffe_id());
        verify_chain(issued.svid.chain(), bundle, stage.clock.now()).unwrap();
    }
    // Keys of workloads are not written.
    for file in std::fs::read_dir(stage.directory.path()).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for issued in [a, b] {
            let pem = encoding::private_key_pem(issued.svid.key());
            let body = pem.lines().nth(1).unwrap();
            assert!(!text.contains(body));
        }
    }
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_halved_until_it_is_not() {
    let stage = Stage::new().await;
    for index in 0..520 {
        stage.world().add(&format!("w{index}"), index);
    }
    stage.world().page_size = 1000;
    stage.world().largest_batch = 200;
    let agent = stage.agent();
    agent.step().await.unwrap();
    assert_eq!(identities(&agent).issued().len(), 520);
    let batches = stage.world().batches.clone();
    // Halved until it succeeds, doubled then.
    assert_eq!(batches[..4], [500, 250, 125, 250]);
    let signed: usize = batches.iter().filter(|size| **size <= 200).sum();
    assert_eq!(signed, 520);
}

#[tokio::test]
async fn an_svid_is_renewed_at_half_of_its_life_and_the_old_one_is_there_until_then() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    stage.world().agent_life = 24 * HOUR;
    let agent = stage.agent();
    agent.step().await.unwrap();
    let first = svid(&agent, "web").unwrap();
    stage.pass(HOUR.mul_f64(0.44));
    agent.step().await.unwrap();
    assert!(Arc::ptr_eq(&first, &svid(&agent, "web").unwrap()));
    stage.pass(HOUR.mul_f64(0.12));
    agent.step().await.unwrap();
    let second = svid(&agent, "web").unwrap();
    assert!(!Arc::ptr_eq(&first, &second));
    assert_ne!(first.key(), second.key());
    assert_eq!(stage.world().batches, [1, 1]);
}

#[tokio::test]
async fn an_svid_that_does_not_fit_replaces_nothing() {
    for fault in [
        Fault::OtherKey,
        Fault::OtherId,
        Fault::OtherAuthority,
        Fault::Expired,
        Fault::NoCertificate,
        Fault::Damaged,
        Fault::FewerSvids,
        Fault::RefusedSvids,
    ] {
        let stage = Stage::new().await;
        stage.world().agent_life = 24 * HOUR;
        stage.world().add("web", 1);
        let agent = stage.agent();
        agent.step().await.unwrap();
        let before = identities(&agent);
        stage.pass(HOUR.mul_f64(0.6));
        stage.world().fault = fault;
        let step = agent.step().await;
        assert!(Arc::ptr_eq(&before, &identities(&agent)), "{fault:?}");
        // What is wrong with one entry's SVID does not slow down all others.
        let status = agent.status();
        match fault {
            Fault::FewerSvids => assert!(step.is_err()),
            _ => assert_eq!(
                (step.is_ok(), status.unsigned.len()),
                (true, 1),
                "{fault:?}"
            ),
        }
        stage.world().fault = Fault::None;
        agent.step().await.unwrap();
        assert!(!Arc::ptr_eq(&before, &identities(&agent)), "{fault:?}");
        assert!(agent.status().unsigned.is_empty());
    }
}

#[tokio::test]
async fn svids_under_a_tainted_authority_are_replaced_a_hundred_at_a_time() {
    let stage = Stage::new().await;
    for index in 0..230 {
        stage.world().add(&format!("w{index}"), index);
    }
    let agent = stage.agent();
    agent.step().await.unwrap();
    stage.world().batches.clear();
    stage.world().prepare();
    agent.step().await.unwrap();
    stage.world().activate(true);
    let old = |agent: &SpireAgent| {
        let all = identities(agent);
        let bundle = all.own_bundle().unwrap();
        let now = stage.clock.now();
        // The tainted root is still trusted: nobody is cut off.
        let chains = all.issued().iter().map(|issued| issued.svid.chain());
        assert!(
            chains
                .clone()
                .all(|it| verify_chain(it, bundle, now).is_ok())
        );
        chains
            .filter(|it| verify_chain(it, bundle.lasting(), now).is_err())
            .count()
    };
    agent.step().await.unwrap();
    assert_eq!(old(&agent), 130);
    // Not before the pause is over.
    agent.step().await.unwrap();
    assert_eq!(old(&agent), 130);
    for left in [30, 0, 0] {
        stage.pass(Duration::from_secs(5));
        agent.step().await.unwrap();
        assert_eq!(old(&agent), left);
    }
    assert_eq!(stage.world().batches, [100, 100, 30]);
    // The agent's own SVID, too.
    assert_eq!(stage.world().count("RenewAgent"), 1);
}

#[tokio::test]
async fn svids_under_a_revoked_authority_are_replaced_at_once() {
    let stage = Stage::new().await;
    for index in 0..230 {
        stage.world().add(&format!("w{index}"), index);
    }
    let agent = stage.agent();
    agent.step().await.unwrap();
    stage.world().prepare();
    agent.step().await.unwrap();
    stage.world().activate(false);
    agent.step().await.unwrap();
    stage.world().authorities.remove(0);
    stage.world().signing = 0;
    stage.world().sequence += 1;
    agent.step().await.unwrap();
    let all = identities(&agent);
    let bundle = all.own_bundle().unwrap();
    assert_eq!(bundle.roots().len(), 1);
    for issued in all.issued() {
        verify_chain(issued.svid.chain(), bundle, stage.clock.now()).unwrap();
    }
    assert_eq!(stage.world().batches, [230, 230]);
}

#[tokio::test]
async fn tokens_are_signed_by_the_server_and_checked_here() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    let agent = stage.agent();
    let audience = ["api".to_owned()];
    agent.step().await.unwrap();
    let all = identities(&agent);
    let entry = &all.issued()[0].entry;
    let token = agent.jwt_svid(entry, &audience).await.unwrap();
    assert_eq!(token.spiffe_id, *entry.spiffe_id());
    assert_eq!(token.key_id, "jwt-1");
    validate(&token.token, "api", &all.jwt_bundles, &all.trust_domain).unwrap();
    stage.world().fault = Fault::OtherToken;
    let refused = agent.jwt_svid(entry, &audience).await.unwrap_err();
    assert!(matches!(refused, SpireError::Refused { .. }), "{refused}");
    stage.world().fault = Fault::None;
    stage.world().entries.clear();
    agent.step().await.unwrap();
    let unknown = agent.jwt_svid(entry, &audience).await.unwrap_err();
    assert!(matches!(unknown, SpireError::UnknownEntry), "{unknown}");
}

#[tokio::test]
async fn a_token_of_a_key_that_is_newer_than_the_bundle_is_taken_with_the_newest_bundle() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    let agent = stage.agent();
    agent.step().await.unwrap();
    let entry = Arc::clone(&identities(&agent).issued()[0].entry);
    stage.world().jwt_key = rcgen::KeyPair::generate().unwrap();
    stage.world().jwt_key_id = "jwt-2".to_owned();
    stage.world().sequence += 1;
    let token = agent.jwt_svid(&entry, &["api".to_owned()]).await.unwrap();
    assert_eq!(token.key_id, "jwt-2");
}

#[tokio::test]
async fn what_a_step_has_taken_is_published_by_the_next_where_it_is_given_up() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    let agent = Arc::new(stage.agent());
    agent.step().await.unwrap();
    stage.world().entries[0].revision_number = 2;
    stage.world().entries[0].hint = "new".to_owned();
    stage.world().fault = Fault::Hangs;
    let before = stage.world().count("BatchNewX509SVID");
    let step = tokio::spawn({
        let agent = Arc::clone(&agent);
        async move { agent.step().await }
    });
    while stage.world().count("BatchNewX509SVID") == before {
        tokio::task::yield_now().await;
    }
    step.abort();
    assert!(step.await.unwrap_err().is_cancelled());
    assert_eq!(identities(&agent).issued()[0].entry.hint(), "");
    stage.world().fault = Fault::Down;
    agent.step().await.unwrap_err();
    assert_eq!(identities(&agent).issued()[0].entry.hint(), "new");
}
