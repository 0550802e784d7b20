//! The entries and bundles that the server has.

use super::authority::Authority;
use super::world::{Fault, selector};
use super::*;
use crate::spire::proto::types;

fn foreign_bundle(stage: &Stage, trust_domain: &str) -> types::Bundle {
    let authority = Authority::new(trust_domain, stage.clock.now());
    types::Bundle {
        trust_domain: trust_domain.to_owned(),
        x509_authorities: vec![authority.certificate()],
        ..types::Bundle::default()
    }
}

#[tokio::test]
async fn short_and_long_lists_and_old_servers_give_the_same() {
    for (page_size, fault, method) in [
        (500, Fault::None, "SyncAuthorizedEntries"),
        (2, Fault::None, "SyncAuthorizedEntries"),
        (500, Fault::Old, "GetAuthorizedEntries"),
    ] {
        let stage = Stage::new().await;
        for (index, name) in ["c", "a", "e", "b", "d"].into_iter().enumerate() {
            stage.world().add(name, index);
        }
        stage.world().entries[2].created_at = 1;
        stage.world().page_size = page_size;
        stage.world().fault = fault;
        let agent = stage.agent();
        agent.step().await.unwrap();
        agent.step().await.unwrap();
        // The oldest first.
        assert_eq!(paths(&agent), ["/e", "/a", "/b", "/c", "/d"], "{page_size}");
        assert_eq!(stage.world().count(method), 2);
    }
}

#[tokio::test]
async fn of_a_long_list_only_what_is_new_or_changed_is_asked_for() {
    let stage = Stage::new().await;
    for name in ["a", "b", "c", "d", "e"] {
        stage.world().add(name, 1);
    }
    stage.world().page_size = 2;
    let agent = stage.agent();
    agent.step().await.unwrap();
    let ids =
        |names: &[&str]| -> Vec<_> { names.iter().map(|name| format!("entry-{name}")).collect() };
    let first = [ids(&["a", "b"]), ids(&["c", "d"]), ids(&["e"])];
    assert_eq!(std::mem::take(&mut stage.world().asked), first);
    agent.step().await.unwrap();
    assert!(stage.world().asked.is_empty());
    let generation = identities(&agent).generation;
    {
        let mut world = stage.world();
        world.add("f", 1);
        world.entries[1].revision_number = 2;
        world.entries[1].hint = "new".to_owned();
        // Made anew under the same id.
        world.entries[3].created_at = 2000;
        world.entries.remove(0);
    }
    agent.step().await.unwrap();
    assert_eq!(stage.world().asked, [ids(&["b", "d"]), ids(&["f"])]);
    assert_eq!(paths(&agent), ["/b", "/c", "/e", "/f", "/d"]);
    let identities = identities(&agent);
    // What is taken back does not wait for what is signed.
    assert_eq!(identities.generation, generation + 2);
    assert_eq!(identities.issued()[0].entry.hint(), "new");
}

#[tokio::test]
async fn a_step_without_news_makes_no_generation() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    let agent = stage.agent();
    agent.step().await.unwrap();
    let first = identities(&agent);
    agent.step().await.unwrap();
    assert!(Arc::ptr_eq(&first, &identities(&agent)));
}

#[tokio::test]
async fn a_list_that_does_not_fit_replaces_nothing() {
    for (page_size, fault) in [
        (500, Fault::TwiceTheSameEntry),
        (2, Fault::TwiceTheSameEntry),
        (2, Fault::NotWhatWasAskedFor),
        (2, Fault::NotAllThatWasAskedFor),
        (2, Fault::CutSync),
        (500, Fault::HugeEntries),
    ] {
        let stage = Stage::new().await;
        stage.world().add("a", 1);
        stage.world().add("b", 2);
        stage.world().add("c", 3);
        stage.world().page_size = page_size;
        let agent = stage.agent();
        agent.step().await.unwrap();
        let before = identities(&agent);
        let connections = stage.world().connections;
        stage.world().fault = fault;
        stage.world().entries.remove(2);
        stage.world().entries[0].revision_number = 2;
        stage.world().add("d", 1);
        agent.step().await.unwrap_err();
        assert!(Arc::ptr_eq(&before, &identities(&agent)), "{fault:?}");
        assert_eq!(agent.status().phase, Phase::Failing);
        // The connection is not at fault.
        assert_eq!(stage.world().connections, connections, "{fault:?}");
        stage.world().fault = Fault::None;
        agent.step().await.unwrap();
        assert_eq!(paths(&agent), ["/a", "/b", "/d"], "{fault:?}");
    }
}

#[tokio::test]
async fn an_entry_that_breaks_a_rule_is_not_served_and_listed() {
    let stage = Stage::new().await;
    {
        let mut world = stage.world();
        world.add("web", 1);
        let digest = format!("digest:sha256:{}", "0".repeat(64));
        world.add("pinned", 1).selectors = vec![selector("component", &digest)];
        world.add("taken-over", 1).selectors = vec![selector("component", "name:web")];
        world.add("store", 1).store_svid = true;
        world.add("spire/agent/x", 1);
        world.add("nobody", 1).selectors.clear();
        world.add("bad-uid", 1).selectors = vec![selector("unix", "uid:root")];
        let id = world.add("foreign", 1).spiffe_id.as_mut().unwrap();
        id.trust_domain = "two.test".to_owned();
        world.add("pod", 1).selectors = vec![selector("k8s", "ns:default")];
        world
            .add("both", 1)
            .selectors
            .push(selector("docker", "label:a:b"));
    }
    let agent = stage.agent();
    agent.step().await.unwrap();
    assert_eq!(paths(&agent), ["/pinned", "/web"]);
    let status = agent.status();
    assert_eq!((status.served, status.foreign), (2, 2));
    let refused = status.refused.iter();
    let refused: Vec<_> = refused
        .map(|it| (it.entry_id.as_str(), it.code.as_str()))
        .collect();
    assert_eq!(
        refused,
        [
            ("entry-bad-uid", "SG0106"),
            ("entry-foreign", "SG0102"),
            ("entry-nobody", "SG0105"),
            ("entry-spire/agent/x", "SG0104"),
            ("entry-store", "SG0179"),
            ("entry-taken-over", "SG0108"),
        ]
    );
    // Nothing is signed for them either.
    assert_eq!(stage.world().batches, [2]);
}

#[tokio::test]
async fn an_entry_that_comes_to_break_a_rule_is_withdrawn() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    let agent = stage.agent();
    agent.step().await.unwrap();
    {
        let mut world = stage.world();
        world.entries[0].selectors = vec![selector("component", "name:web")];
        world.entries[0].revision_number = 2;
    }
    agent.step().await.unwrap();
    assert_eq!(paths(&agent), [""; 0]);
}

#[tokio::test]
async fn narrower_selectors_count_at_once_and_another_id_is_another_svid() {
    let stage = Stage::new().await;
    stage.world().add("web", 1);
    let agent = stage.agent();
    agent.step().await.unwrap();
    stage.world().entries[0]
        .selectors
        .push(selector("unix", "gid:7"));
    stage.world().entries[0].revision_number = 2;
    stage.world().fault = Fault::RefusedSvids;
    agent.step().await.unwrap();
    let all = identities(&agent);
    let selectors =
        |texts: &[&str]| -> Vec<_> { texts.iter().map(|text| text.parse().unwrap()).collect() };
    assert_eq!(all.entitled(&selectors(&["unix:uid:1"])).count(), 0);
    let both = selectors(&["unix:uid:1", "unix:gid:7"]);
    assert_eq!(all.entitled(&both).count(), 1);
    stage.world().entries[0].spiffe_id.as_mut().unwrap().path = "/other".to_owned();
    stage.world().entries[0].revision_number = 3;
    agent.step().await.unwrap();
    assert_eq!(paths(&agent), [""; 0]);
    stage.world().fault = Fault::None;
    agent.step().await.unwrap();
    assert_eq!(paths(&agent), ["/other"]);
}

#[tokio::test]
async fn foreign_bundles_come_and_go_with_the_entries_that_want_them() {
    let stage = Stage::new().await;
    let names: Vec<_> = (10..40).map(|number| format!("td{number}.test")).collect();
    for name in &names {
        let bundle = foreign_bundle(&stage, name);
        stage.world().federated.insert(name.clone(), bundle);
    }
    stage.world().add("web", 1).federates_with = names.clone();
    stage.world().entries[0]
        .federates_with
        .push("no.test".to_owned());
    let agent = stage.agent();
    agent.step().await.unwrap();
    assert_eq!(identities(&agent).bundles.len(), 31);
    assert_eq!(identities(&agent).jwt_bundles.len(), 31);
    assert!(stage.world().federated_most <= 10);
    assert_eq!(agent.status().bundles.len(), 1);
    // One is spoiled, another is taken back.
    let td10 = TrustDomain::new("td10.test").unwrap();
    let before = Arc::clone(&identities(&agent).bundles[&td10]);
    let spoiled = foreign_bundle(&stage, "td11.test");
    stage
        .world()
        .federated
        .insert("td10.test".to_owned(), spoiled);
    stage.world().federated.remove("td12.test");
    agent.step().await.unwrap();
    assert_eq!(identities(&agent).bundles.len(), 30);
    assert!(Arc::ptr_eq(&before, &identities(&agent).bundles[&td10]));
    assert_eq!(agent.status().bundles.len(), 3);
    // One that cannot be had is no reason to let everything else wait.
    stage.world().fault = Fault::NoForeign;
    stage.world().add("late", 3);
    agent.step().await.unwrap();
    assert_eq!(identities(&agent).bundles.len(), 30);
    assert_eq!(agent.status().bundles.len(), 31);
    assert!(svid(&agent, "late").is_some());
    stage.world().fault = Fault::None;
    stage.world().entries[0].federates_with.truncate(1);
    stage.world().entries[0].revision_number = 2;
    agent.step().await.unwrap();
    assert_eq!(identities(&agent).bundles.len(), 2);
}

#[tokio::test]
async fn an_own_bundle_that_does_not_fit_replaces_nothing() {
    for fault in [
        Fault::ForeignBundle,
        Fault::EmptyBundle,
        Fault::DamagedBundle,
    ] {
        let stage = Stage::new().await;
        stage.world().add("web", 1);
        let agent = stage.agent();
        agent.step().await.unwrap();
        let before = identities(&agent);
        let kept = std::fs::read(stage.file("spire_bundle.json")).unwrap();
        stage.world().entries.clear();
        stage.world().sequence += 1;
        stage.world().fault = fault;
        let refused = agent.step().await.unwrap_err();
        assert!(matches!(refused, SpireError::Refused { .. }), "{fault:?}");
        assert!(Arc::ptr_eq(&before, &identities(&agent)), "{fault:?}");
        assert_eq!(
            std::fs::read(stage.file("spire_bundle.json")).unwrap(),
            kept
        );
    }
}

#[tokio::test]
async fn a_root_that_ends_while_the_server_is_away_leaves_the_bundle() {
    let stage = Stage::new().await;
    let short = Authority::lasting(TRUST_DOMAIN, stage.clock.now(), Duration::from_secs(600));
    stage.world().authorities.push(short);
    let agent = stage.agent();
    agent.step().await.unwrap();
    let roots = || identities(&agent).own_bundle().unwrap().roots().len();
    assert_eq!(roots(), 2);
    stage.world().fault = Fault::Down;
    stage.pass(Duration::from_secs(601));
    agent.step().await.unwrap_err();
    assert_eq!(roots(), 1);
}

#[tokio::test]
async fn the_server_is_told_which_bundle_and_version_are_here() {
    let stage = Stage::new().await;
    let agent = stage.agent();
    agent.step().await.unwrap();
    agent.step().await.unwrap();
    stage.world().prepare();
    agent.step().await.unwrap();
    let version = format!("sidegate/{}", env!("CARGO_PKG_VERSION"));
    let posted = stage.world().posted.clone();
    assert_eq!(posted, [(1, version.clone()), (2, version)]);
}
