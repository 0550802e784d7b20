//! What the server's entries say reaches listeners and workloads, as far as it may.

use std::collections::BTreeSet;
use std::time::Duration;

use nix::sys::signal::Signal;
use spiffe::{JwtSvid, WorkloadApiClient};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tonic::Code;

use super::gate::{
    DEMO, GREETER, Machine, component, context, eventually, given, is_up, readiness, shown_id,
};
use super::server::{Entry, Options, SpireServer, id};
use crate::jwt::raw::{fetch, fetch_one};
use crate::jwt::token::Token;
use crate::support::{Operator, Upstream, logged, own_uid};
use crate::workload_api::validity;

scenarios! {
    a_stream_and_a_listener_follow_entries_that_come_change_and_go(Options::default());
    a_listener_before_a_local_server_has_the_identity_of_its_own_entry(Options::default());
    an_entry_that_knows_a_component_by_its_name_alone_is_not_served(Options::default());
    an_entry_for_a_store_or_of_other_attestors_is_nobodys(Options::default());
    hint_lifetime_and_names_are_those_of_the_entry(Options::default());
    tokens_are_for_whom_the_rules_say_and_else_for_everybody(Options::default());
    a_start_without_an_entry_for_the_listener_says_which_one_to_make(Options::default());
    five_thousand_entries_are_served_and_followed(Options::default());
}

async fn a_stream_and_a_listener_follow_entries_that_come_change_and_go<S: SpireServer>(server: S) {
    let machine = Machine::joining(&server);
    let [greeter, _] = machine.register(&server);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    let workload = WorkloadApiClient::connect_to(&gate.ready.workload_socket).await;
    let workload = workload.expect("it is there");
    let mut stream = workload.stream_x509_contexts().await.expect("a stream");
    let mut told = async |expected: &[&str]| {
        let expected: BTreeSet<_> = expected.iter().map(|path| id(path)).collect();
        let reading = async {
            while let Some(context) = stream.next().await {
                let context = context.expect("each is valid");
                let ids = context.svids().iter().map(|it| it.spiffe_id().to_string());
                if ids.collect::<BTreeSet<_>>() == expected {
                    return;
                }
            }
            panic!("the stream ended");
        };
        let told = timeout(Duration::from_secs(30), reading).await;
        told.unwrap_or_else(|_| panic!("waited in vain: {expected:?}"));
    };
    told(&[DEMO]).await;
    let extra = Entry::new(&machine.agent, "/extra", &[&own_uid()]);
    let extra_id = server.create(&extra);
    told(&[DEMO, "/extra"]).await;
    let other = Entry {
        spiffe_id: id("/other"),
        ..extra
    };
    server.update(&extra_id, &other);
    told(&[DEMO, "/other"]).await;
    server.delete(&extra_id);
    told(&[DEMO]).await;

    assert_eq!(shown_id(&client).await, Some(id(GREETER)));
    server.delete(&greeter);
    readiness(&gate, "a listener without an identity", |status, text| {
        status == 503 && text.contains("`main` has no identity")
    });
    assert_eq!(shown_id(&client).await, None);
    let again = Entry::new(&machine.agent, GREETER, &[&component()]);
    let greeter = server.create(&again);
    is_up(&gate);
    assert_eq!(shown_id(&client).await, Some(id(GREETER)));
    assert_eq!(client.get("/hello").await.status, 200);

    // Another identity is another listener, and that is for an operator to say.
    let renamed = Entry {
        spiffe_id: id("/renamed"),
        ..again
    };
    server.update(&greeter, &renamed);
    readiness(&gate, "a listener without its identity", |status, text| {
        status == 503 && text.contains("`main` has no identity")
    });
    gate.process.signal(Signal::SIGHUP);
    is_up(&gate);
    assert_eq!(shown_id(&client).await, Some(id("/renamed")));
}

async fn a_listener_before_a_local_server_has_the_identity_of_its_own_entry<S: SpireServer>(
    server: S,
) {
    let mut machine = Machine::joining(&server);
    let upstream = Upstream::start().await;
    machine.sections = format!(
        "[[listener]]\nname = \"local\"\nlisten = \"127.0.0.1:0\"\nupstream = {:?}\n",
        upstream.url
    );
    machine.register(&server);
    server.create(&Entry::new(
        &machine.agent,
        "/local",
        &["listener:name:local"],
    ));
    let gate = machine.run();
    let names = gate.ready.listeners.iter();
    let names: BTreeSet<_> = names
        .map(|it| (it.name.as_str(), it.spiffe_id.clone()))
        .collect();
    let expected = [("local", id("/local")), ("main", id(GREETER))];
    assert_eq!(names, BTreeSet::from(expected));
}

async fn an_entry_that_knows_a_component_by_its_name_alone_is_not_served<S: SpireServer>(
    server: S,
) {
    let machine = Machine::joining(&server);
    let taken = Entry::new(&machine.agent, "/taken", &["component:name:greeter"]);
    server.create(&taken);
    machine.is_refused(&["error[SG0042]", "`main`"]);

    let machine = Machine::joining(&server);
    machine.register(&server);
    let taken = Entry::new(&machine.agent, "/taken", &["component:name:greeter"]);
    server.create(&taken);
    let gate = machine.run();
    let client = machine.client(&gate).await;
    assert_eq!(shown_id(&client).await, Some(id(GREETER)));
    let checked = machine.check();
    for said in ["SG0108", "/taken"] {
        assert!(checked.stdout.contains(said), "{said}: {}", checked.stdout);
    }
    let listed = Operator::of(&gate).ask(&["entry", "list"]).to_string();
    for path in [GREETER, DEMO] {
        assert!(listed.contains(&id(path)), "{path}: {listed}");
    }
}

async fn an_entry_for_a_store_or_of_other_attestors_is_nobodys<S: SpireServer>(server: S) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    let kept = Entry {
        store_svid: true,
        dns_names: Vec::new(),
        ..Entry::new(
            &machine.agent,
            "/kept",
            &["aws_secretsmanager:secretname:kept"],
        )
    };
    server.create(&kept);
    let selectors = [&*own_uid(), "docker:label:app:web"];
    server.create(&Entry::new(&machine.agent, "/container", &selectors));
    let gate = machine.run();
    assert_eq!(given(&gate).await, [id(DEMO)]);
    is_up(&gate);
}

async fn hint_lifetime_and_names_are_those_of_the_entry<S: SpireServer>(server: S) {
    let machine = Machine::joining(&server);
    let [_, demo] = machine.register(&server);
    let named = Entry {
        hint: "inside".to_owned(),
        svid_ttl: Some(Duration::from_mins(10)),
        dns_names: vec!["localhost".to_owned(), "demo.example".to_owned()],
        ..Entry::new(&machine.agent, DEMO, &[&own_uid()])
    };
    server.update(&demo, &named);
    let gate = machine.run();
    let context = context(&gate).await;
    let svid = context.default_svid().expect("an SVID");
    assert_eq!(
        svid.hint().map(ToString::to_string).as_deref(),
        Some("inside")
    );
    let leaf = svid.leaf().as_bytes();
    let [begins, ends] = validity(leaf);
    let lifetime = (ends - begins).whole_seconds();
    assert!((590..=620).contains(&lifetime), "{lifetime}");
    let name = b"demo.example";
    assert!(leaf.windows(name.len()).any(|part| part == name));
}

async fn tokens_are_for_whom_the_rules_say_and_else_for_everybody<S: SpireServer>(server: S) {
    let mut machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    let socket = &gate.ready.workload_socket;
    let svid = fetch_one(socket, &["anybody"]).await;
    let token = Token::new(&svid.svid);
    assert_eq!(token.claims["sub"], id(DEMO));
    assert_eq!(token.claims["aud"], serde_json::json!(["anybody"]));
    let workload = WorkloadApiClient::connect_to(socket)
        .await
        .expect("it is there");
    let bundles = workload.fetch_jwt_bundles().await.expect("bundles");
    let parsed = JwtSvid::parse_and_validate(&svid.svid, &bundles, &["anybody"]);
    assert_eq!(
        parsed.expect("it is valid").spiffe_id().to_string(),
        id(DEMO)
    );
    let checked = machine.check();
    assert!(checked.stdout.contains("SG0199"), "{}", checked.stdout);

    machine.sections = format!(
        "[[identity.audience_rule]]\nspiffe_ids = [{:?}, {:?}]\naudiences = [\"shop\"]\n",
        id("/other/*"),
        id(DEMO)
    );
    // Rules are not taken in silence: it is told that they want a restart.
    machine.configure();
    logged(&gate, &["a change needs a restart", "SG0073"]);
    gate.stop();
    let gate = machine.run();
    let socket = &gate.ready.workload_socket;
    assert_eq!(fetch_one(socket, &["shop"]).await.spiffe_id, id(DEMO));
    for audience in [&["anybody"][..], &["shop", "anybody"]] {
        let refused = fetch(socket, audience, "")
            .await
            .expect_err("it is not allowed");
        assert_eq!(
            refused.code(),
            Code::PermissionDenied,
            "{audience:?}: {refused}"
        );
    }
    let checked = machine.check();
    assert!(!checked.stdout.contains("SG0199"), "{}", checked.stdout);
}

async fn a_start_without_an_entry_for_the_listener_says_which_one_to_make<S: SpireServer>(
    server: S,
) {
    let machine = Machine::joining(&server);
    let command = "spire-server entry create -parentID";
    machine.is_refused(&["error[SG0042]", command, &machine.agent, &component()]);
    // The agent has attested, and goes on with that.
    machine.register(&server);
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
}

async fn five_thousand_entries_are_served_and_followed<S: SpireServer>(server: S) {
    const MANY: u32 = 5000;
    let machine = Machine::joining(&server);
    let entry = |number: u32| {
        let selector = format!("unix:uid:{}", 100_000 + number);
        Entry::new(&machine.agent, &format!("/many/{number}"), &[&selector])
    };
    server.create_many(&Vec::from_iter((0..MANY).map(entry)));
    machine.register(&server);
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
    let operator = Operator::of(&gate);
    let count = operator.entries().len();
    assert_eq!(count, MANY as usize + 2);
    let last = Entry::new(&machine.agent, "/last", &[&own_uid()]);
    let last = server.create(&last);
    eventually("one more", async || {
        (given(&gate).await == [id(DEMO), id("/last")]).then_some(())
    })
    .await;
    server.delete(&last);
    eventually("one less", async || {
        (given(&gate).await == [id(DEMO)]).then_some(())
    })
    .await;
    is_up(&gate);
}
