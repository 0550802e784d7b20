//! Everything is renewed in time, and nothing is lost by it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::Version;
use sidegate_tests::Sidegate;

use super::gate::{Machine, is_up, wait};
use super::played::{Fault, Played};
use super::server::{Options, SpireServer};
use crate::rotation::client::Client as Rotating;
use crate::rotation::load::Target;
use crate::support::address;

scenarios! {
    nothing_fails_while_everything_is_renewed(Options::short(12));
}

async fn nothing_fails_while_everything_is_renewed<S: SpireServer>(server: S) {
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    load(&gate, Duration::from_secs(36)).await;
    is_up(&gate);
    assert_eq!(server.agents(), [machine.agent.as_str()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_while_the_server_ends_each_connection_after_a_second() {
    let server = Played::start("", &Options::short(12)).expect("it needs nothing");
    server.behave(|it| it.connection_age = Duration::from_secs(1));
    let machine = Machine::joining(&server);
    machine.register(&server);
    let gate = machine.run();
    load(&gate, Duration::from_secs(24)).await;
    is_up(&gate);
    let seen = server.seen();
    assert_eq!(seen.attested, [machine.agent.as_str()]);
    assert!(seen.calls["RenewAgent"] >= 2, "{:?}", seen.calls);
    assert!(seen.connections >= 10, "{}", seen.connections);
    let log = gate.process.stderr();
    assert!(!log.contains("the SPIRE server is not followed"), "{log}");
    // What the server may show its operator.
    let posted = seen.posted.last().expect("it says how it is");
    assert_eq!(posted.current_bundle_serial, 1);
    assert!(!posted.agent_version.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_at_any_moment_of_a_renewal_keeps_the_agent() {
    let server = Played::start("", &Options::short(20)).expect("it needs nothing");
    let machine = Machine::joining(&server);
    machine.register(&server);
    let slow = Duration::from_millis(500);
    // Before the server has signed, before the answer has come, and as it comes.
    for fault in [Some(Fault::Slow(slow)), Some(Fault::Late(slow)), None, None] {
        server.mend();
        let gate = machine.run();
        assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
        server.behave(|it| it.faults.extend(fault.map(|fault| ("RenewAgent", fault))));
        let before = server.calls("RenewAgent");
        wait("a renewal", || {
            (server.calls("RenewAgent") > before).then_some(())
        });
        // This is SIGKILL.
        drop(gate);
    }
    server.mend();
    let gate = machine.run();
    assert_eq!(machine.client(&gate).await.get("/hello").await.status, 200);
    assert_eq!(server.seen().attested, [machine.agent.as_str()]);
}

/// Requests of a client whose identity is renewed as well.
async fn load(gate: &Sidegate, duration: Duration) {
    let server: SocketAddr = address(gate).parse().expect("an address");
    let client = Arc::new(Rotating::new(&gate.ready.workload_socket, server).await);
    let reports = [Version::HTTP_11, Version::HTTP_2].map(|version| {
        let target = Target::Proxy(Arc::clone(&client), version);
        tokio::spawn(target.load(duration))
    });
    for report in reports {
        let report = report.await.expect("it ends");
        assert!(report.failures.is_empty(), "{:?}", report.failures);
        assert!(report.answered > 100, "{report:?}");
    }
    let seen = client.seen.lock().expect("nobody panics with it");
    assert!(seen.server.len() >= 3, "the server's: {seen:?}");
    assert!(seen.own.len() >= 3, "our own: {seen:?}");
}
