//! The first contact, and looking whether there could be one.

use super::world::Fault;
use super::*;
use crate::source::Issuer;
use crate::spire::{AudienceRule, Phase};

const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn at_a_start_the_entries_that_are_needed_are_waited_for() {
    let stage = Stage::new().await;
    let agent = Arc::new(stage.agent());
    let first = tokio::spawn({
        let agent = Arc::clone(&agent);
        let is_enough = |all: &Identities| !all.issued().is_empty();
        async move { agent.first(PATIENCE, is_enough).await }
    });
    while agent.status().phase != Phase::Serving {
        tokio::task::yield_now().await;
    }
    stage.world().add("web", 1);
    first.await.unwrap().unwrap();
    assert_eq!(paths(&agent), ["/web"]);
}

#[tokio::test]
async fn at_a_start_there_is_an_end_to_waiting() {
    let stage = Stage::new().await;
    let agent = stage.agent();
    // Not enough is no error: whoever needs more says so better.
    agent.first(Duration::ZERO, |_| false).await.unwrap();
    assert_eq!(agent.status().phase, Phase::Serving);
    let stage = Stage::new().await;
    stage.world().fault = Fault::Down;
    let agent = stage.agent();
    let error = agent.first(Duration::ZERO, |_| true).await.unwrap_err();
    assert_eq!(error.code(), "SG0194", "{error}");
}

#[tokio::test]
async fn at_a_start_what_does_not_pass_by_itself_is_not_waited_for() {
    let stage = Stage::new().await;
    stage.world().tokens.clear();
    let error = stage.agent().first(PATIENCE, |_| true).await.unwrap_err();
    assert!(matches!(error, SpireError::NotAttested(_)), "{error}");
    assert_eq!(
        (error.code(), stage.world().count("AttestAgent")),
        ("SG0195", 1)
    );
}

#[tokio::test]
async fn looking_whether_it_could_be_an_agent_changes_nothing() {
    let stage = Stage::new().await;
    stage.agent().examine().await.unwrap();
    assert_eq!(stage.world().count("AttestAgent"), 0);
    let files = std::fs::read_dir(stage.directory.path()).unwrap();
    assert_eq!(files.count(), 2, "the token and the bootstrap bundle");
    std::fs::remove_file(stage.file("token")).unwrap();
    let error = stage.agent().examine().await.unwrap_err();
    assert_eq!(error.code(), "SG0198", "{error}");
    // An agent that has an SVID needs no token.
    std::fs::write(stage.file("token"), "token").unwrap();
    stage.agent().step().await.unwrap();
    std::fs::remove_file(stage.file("token")).unwrap();
    stage.agent().examine().await.unwrap();
    stage.world().fault = Fault::Down;
    let error = stage.agent().examine().await.unwrap_err();
    assert_eq!(error.code(), "SG0194", "{error}");
}

#[tokio::test]
async fn rules_narrow_the_audiences_of_the_ids_that_they_name() {
    let mut stage = Stage::new().await;
    stage.config.audience_rules = vec![AudienceRule {
        spiffe_ids: vec![format!("spiffe://{TRUST_DOMAIN}/web").parse().unwrap()],
        audiences: vec!["shop".to_owned()],
    }];
    stage.world().add("any", 1);
    stage.world().add("web", 2);
    let agent = stage.agent();
    agent.step().await.unwrap();
    let all = identities(&agent);
    let allowed = ["shop", "bank"].map(|audience| {
        let entries = all.issued().iter().map(|issued| &issued.entry);
        entries
            .map(|entry| agent.allows(entry, &[audience.to_owned()]))
            .collect::<Vec<_>>()
    });
    assert_eq!(allowed, [[true, true], [true, false]]);
    assert_eq!(agent.status().any_audience, 1);
}
