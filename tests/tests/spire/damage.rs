//! A server that is slow, cut off, or wrong: what is refused is told, and what was there stays.

use std::time::Duration;

use sidegate_tests::Sidegate;
use tonic::Code;

use super::gate::{
    DEMO, GREETER, Machine, command, context, eventually, given, is_down, is_up, readiness,
    shown_id, wait,
};
use super::played::{Fault, Forgery, Played};
use super::server::{Entry, Kind, Options, SpireServer, id};
use crate::jwt::raw::fetch;
use crate::support::{Client, own_uid};

const SYNC: &str = "SyncAuthorizedEntries";
const BATCH: &str = "BatchNewX509SVID";
const BUNDLE: &str = "GetBundle";
const TENS_OF_MEGABYTES: usize = 40 << 20;

fn started() -> (Played, Machine) {
    let server = Played::start("", &Options::default()).expect("it needs nothing");
    let machine = Machine::joining(&server);
    machine.register(&server);
    (server, machine)
}

/// What was there serves on.
async fn serves(client: &Client) {
    assert_eq!(client.get("/hello").await.status, 200);
    assert_eq!(shown_id(client).await, Some(id(GREETER)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_server_is_waited_for() {
    let (server, machine) = started();
    let slow = Fault::Slow(Duration::from_secs(2));
    for method in ["AttestAgent", SYNC, BATCH, BUNDLE] {
        server.fault(method, slow);
    }
    let gate = machine.run();
    let client = machine.client(&gate).await;
    serves(&client).await;
    server.create(&Entry::new(&machine.agent, "/extra", &[&own_uid()]));
    eventually("one more", async || {
        (given(&gate).await == [id(DEMO), id("/extra")]).then_some(())
    })
    .await;
    is_up(&gate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_off_or_too_long_or_refused_changes_nothing() {
    let (server, machine) = started();
    let gate = machine.run();
    let client = machine.client(&gate).await;
    let faults = [
        Fault::Cut,
        Fault::Refuse(Code::Internal),
        Fault::Oversize(TENS_OF_MEGABYTES),
    ];
    for method in [SYNC, BUNDLE] {
        for fault in faults {
            server.fault(method, fault);
            let text = is_down(&gate);
            assert!(text.contains("[SG019"), "{method} {fault:?}: {text}");
            serves(&client).await;
            assert_eq!(given(&gate).await, [id(DEMO)], "{method} {fault:?}");
            server.mend();
            is_up(&gate);
        }
    }
    assert!(memory(&gate) < 400 << 20, "{}", memory(&gate));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bundle_without_authorities_or_of_another_trust_domain_is_refused() {
    let (server, machine) = started();
    let gate = machine.run();
    let client = machine.client(&gate).await;
    for fault in [Fault::Fewer, Fault::Forge(Forgery::Id)] {
        server.fault(BUNDLE, fault);
        let text = is_down(&gate);
        assert!(text.contains("[SG0196]"), "{fault:?}: {text}");
        serves(&client).await;
        assert_eq!(context(&gate).await.bundle_set().len(), 1, "{fault:?}");
        server.mend();
        is_up(&gate);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_no_server_should_give_are_not_served_and_the_others_are() {
    let (server, machine) = started();
    let own = own_uid();
    let entry = |spiffe_id: &str, selectors: &[&str]| Entry {
        spiffe_id: spiffe_id.to_owned(),
        ..Entry::new(&machine.agent, "/", selectors)
    };
    let bad = [
        entry("spiffe://other.example/foreign", &[&own]),
        entry(&id("/spire/server"), &[&own]),
        entry(&id("/spire/agent/x509pop/other"), &[&own]),
        entry(&id("/twice//over"), &[&own]),
        entry(&id("/up/../and/away"), &[&own]),
        entry(&id("/space bar"), &[&own]),
        entry(&id("/"), &[&own]),
        entry(&id("/everybody"), &[]),
        entry(&id("/somebody"), &["unix:uid:not a number"]),
    ];
    let gate = machine.run();
    for bad in &bad {
        let made = server.create(bad);
        let good = server.create(&entry(&id("/good"), &[&own]));
        eventually("what is good", async || {
            let given = given(&gate).await;
            let expected = [id(DEMO), id("/good")];
            assert!(
                given.iter().all(|id| expected.contains(id)),
                "{bad:?}: {given:?}"
            );
            (given == expected).then_some(())
        })
        .await;
        server.delete(&good);
        server.delete(&made);
        eventually("its end", async || {
            (given(&gate).await == [id(DEMO)]).then_some(())
        })
        .await;
    }
    serves(&machine.client(&gate).await).await;
    is_up(&gate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_svid_that_is_not_what_was_asked_for_is_refused() {
    let (server, machine) = started();
    let gate = machine.run();
    let client = machine.client(&gate).await;
    let faults = [
        Fault::Forge(Forgery::Id),
        Fault::Forge(Forgery::Key),
        Fault::Forge(Forgery::Authority),
        Fault::Forge(Forgery::Early),
        Fault::Forge(Forgery::Late),
        Fault::Fewer,
        Fault::Cut,
        Fault::Refuse(Code::Internal),
        Fault::Oversize(TENS_OF_MEGABYTES),
    ];
    for (number, fault) in faults.into_iter().enumerate() {
        server.fault(BATCH, fault);
        let path = format!("/extra/{number}");
        let extra = server.create(&Entry::new(&machine.agent, &path, &[&own_uid()]));
        let text = readiness(&gate, "what is wrong", |status, text| {
            status == 200 && text.contains("warning: ")
        });
        // Where an SVID was signed, it is told which is not taken.
        if matches!(fault, Fault::Forge(_)) {
            assert!(text.contains(&id(&path)), "{fault:?}: {text}");
        }
        serves(&client).await;
        assert_eq!(given(&gate).await, [id(DEMO)], "{fault:?}");
        server.mend();
        eventually("the SVID", async || {
            (given(&gate).await == [id(DEMO), id(&path)]).then_some(())
        })
        .await;
        is_up(&gate);
        server.delete(&extra);
        eventually("its end", async || {
            (given(&gate).await == [id(DEMO)]).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_svid_that_is_not_what_was_asked_for_is_refused() {
    for forgery in [
        Forgery::Id,
        Forgery::Key,
        Forgery::Authority,
        Forgery::Early,
        Forgery::Late,
    ] {
        let (server, machine) = started();
        server.fault("AttestAgent", Fault::Forge(forgery));
        let output = machine.is_refused(&["error[SG019"]);
        assert!(
            !output.stderr.contains("panicked"),
            "{forgery:?}: {}",
            output.stderr
        );
        assert!(
            !machine.state().join("spire_agent.json").exists(),
            "{forgery:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_signs_ten_at_once_is_asked_for_less_and_less() {
    let (server, machine) = started();
    server.behave(|it| it.batch = 10);
    for number in 0..100_u32 {
        let selector = format!("unix:uid:{}", 100_000 + number);
        let path = format!("/many/{number}");
        server.create(&Entry::new(&machine.agent, &path, &[&selector]));
    }
    server.create(&Entry::new(&machine.agent, "/last", &[&own_uid()]));
    let gate = machine.run();
    eventually("all of them", async || {
        (given(&gate).await == [id(DEMO), id("/last")]).then_some(())
    })
    .await;
    is_up(&gate);
    let batches = server.seen().batches;
    let good: usize = batches.iter().filter(|&&size| size <= 10).sum();
    assert!(good >= 103, "{batches:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_server_is_asked_for_its_entries_as_it_knows_it() {
    let (server, machine) = started();
    server.behave(|it| it.is_old = true);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    serves(&client).await;
    assert!(server.calls("GetAuthorizedEntries") > 0);
    is_up(&gate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_entries_that_changed_are_asked_for_where_there_are_many() {
    let (server, machine) = started();
    server.behave(|it| it.page = 3);
    let entries: Vec<_> = (0..20_u32)
        .map(|number| {
            let selector = format!("unix:uid:{}", 100_000 + number);
            let path = format!("/many/{number}");
            server.create(&Entry::new(&machine.agent, &path, &[&selector]))
        })
        .collect();
    let gate = machine.run();
    eventually("everything signed", async || {
        (server.seen().batches.iter().sum::<usize>() >= 22).then_some(())
    })
    .await;
    let signed: usize = server.seen().batches.iter().sum();
    let changed = Entry::new(&machine.agent, "/changed", &[&own_uid()]);
    server.update(&entries[7], &changed);
    eventually("the change", async || {
        (given(&gate).await == [id("/changed"), id(DEMO)]).then_some(())
    })
    .await;
    assert_eq!(server.seen().batches.iter().sum::<usize>(), signed + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_nothing_new_is_asked_for_nothing_but_whether_there_is() {
    let (server, machine) = started();
    let gate = machine.run();
    is_up(&gate);
    let before = server.seen().calls;
    wait("five rounds", || {
        (server.calls(SYNC) >= before[SYNC] + 5).then_some(())
    });
    let after = server.seen().calls;
    for method in ["AttestAgent", "RenewAgent", BATCH, "NewJWTSVID"] {
        assert_eq!(after.get(method), before.get(method), "{method}: {after:?}");
    }
    for method in [BUNDLE, "PostStatus"] {
        let [before, after] = [&before, &after].map(|calls| calls.get(method).copied());
        let more = after.unwrap_or_default() - before.unwrap_or_default();
        assert!(more <= 7, "{method}: {more}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_bundle_that_the_server_does_not_have_keeps_nobody_from_its_svid() {
    let (server, machine) = started();
    server.create(&Entry {
        federates_with: vec!["nowhere.example".to_owned()],
        ..Entry::new(&machine.agent, "/extra", &[&own_uid()])
    });
    let gate = machine.run();
    eventually("both SVIDs", async || {
        (given(&gate).await == [id(DEMO), id("/extra")]).then_some(())
    })
    .await;
    let text = readiness(&gate, "what is missing", |status, text| {
        status == 200 && text.contains("nowhere.example")
    });
    assert!(text.contains("warning: "), "{text}");
    assert!(server.calls("GetFederatedBundle") > 0);
    assert_eq!(context(&gate).await.bundle_set().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_that_the_server_refuses_to_sign_are_refused() {
    let (server, machine) = started();
    let gate = machine.run();
    let socket = &gate.ready.workload_socket;
    for fault in [Fault::Refuse(Code::Internal), Fault::Cut] {
        server.fault("NewJWTSVID", fault);
        let refused = fetch(socket, &["shop"], "")
            .await
            .expect_err("there is none");
        assert_eq!(refused.code(), Code::Unavailable, "{fault:?}: {refused}");
    }
    server.mend();
    eventually("a token", async || fetch(socket, &["shop"], "").await.ok()).await;
    // What another authority signs is given as soon as that is known.
    server.rotate(Kind::Jwt);
    eventually("a token", async || fetch(socket, &["other"], "").await.ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_broken_off_by_the_server_goes_on_with_the_next_try() {
    let (server, machine) = started();
    server.fault("AttestAgent", Fault::Refuse(Code::Unavailable));
    server.fault(SYNC, Fault::Cut);
    let config = machine.configure();
    let starting = tokio::task::spawn_blocking(move || Sidegate::start(&mut command(&config)));
    wait("a few tries", || {
        (server.calls("AttestAgent") > 1).then_some(())
    });
    server.behave(|it| it.faults.retain(|method, _| *method == SYNC));
    wait("a few tries", || (server.calls(SYNC) > 1).then_some(()));
    server.mend();
    let gate = starting.await.expect("it starts");
    serves(&machine.client(&gate).await).await;
}

/// The most memory that it had, in bytes.
fn memory(gate: &Sidegate) -> usize {
    let path = format!("/proc/{}/status", gate.process.pid());
    let status = std::fs::read_to_string(path).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|text| text.parse::<usize>().ok())
        .expect("a number")
        << 10
}
