//! A thousand rotations while connections are made all the time.

use std::sync::Arc;

use sidegate_tests::{Sidegate, until};

use super::load::Load;
use super::setup::{Setup, entry};
use crate::rotation::client::Client;
use crate::support::{address, counter, folder};

/// Entries of other workloads, so that generations follow one another quickly.
const OTHERS: usize = 250;
/// Entries of the client.
const OWN: usize = 20;
const ROTATIONS: f64 = 1000.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_handshake_fails_in_a_thousand_rotations() {
    let folder = folder();
    let uid = nix::unistd::getuid().as_raw();
    let own = [format!("unix:uid:{uid}")];
    let other = [format!("unix:uid:{}", uid + 1)];
    let own = (0..OWN).map(|number| entry(&format!("own-{number}"), &own));
    let others = (0..OTHERS).map(|number| entry(&format!("other-{number}"), &other));
    let setup = Setup::with_hello()
        .identity("svid_ttl = \"10s\"\n")
        .identity(&own.chain(others).collect::<String>());
    let gate = Sidegate::run(&setup.write(folder.path()));
    let server = address(&gate).parse().expect("an address");
    let client = Arc::new(Client::new(&gate.ready.workload_socket, server).await);

    let rotations = || {
        counter(
            &gate,
            "sidegate_svid_rotations_total",
            &["result=\"success\""],
        )
    };
    let enough = rotations() + ROTATIONS;
    let load = Load::start(&client, 2);
    until("a thousand rotations", || {
        (rotations() >= enough).then_some(())
    });
    let tally = load.stop().await;

    assert!(tally.own.len() > 2 * OWN, "SVIDs: {}", tally.own.len());
    let handshakes = |labels: &[&str]| counter(&gate, "sidegate_tls_handshakes_total", labels);
    let good = handshakes(&["result=\"success\""]);
    assert!(good >= f64::from(u32::try_from(tally.answered).expect("it fits")));
    assert_eq!(handshakes(&[]), good, "none failed");
    let failed = counter(
        &gate,
        "sidegate_svid_rotations_total",
        &["result=\"failure\""],
    );
    assert_eq!(failed, 0.0);
}
