//! Clients of the Workload API that ask and never read.

use std::io::Write;
use std::os::unix::net::UnixStream;

use sidegate_tests::{Sidegate, until};

use super::frames::{Answer, call, connect, fetch, preface};
use super::setup::{Setup, entry};
use crate::support::{counter, folder};

/// Entries of the caller, so that every message is large.
const ENTRIES: usize = 30;
/// Streams of a connection, of those that never read and of those that have no window.
const STREAMS: u32 = 50;
const CONNECTIONS: usize = 6;
/// SVIDs renewed between two looks: many generations, each a message for every stream.
const ROTATIONS: f64 = 60.0;
/// What memory may differ by between two looks. If each generation were kept for each stream, it
/// would be hundreds of mebibytes.
const SLACK_KIB: u64 = 48 * 1024;

#[test]
fn clients_that_never_read_cost_no_memory_keep_nobody_waiting_and_delay_no_stop() {
    let folder = folder();
    let selectors = [format!("unix:uid:{}", nix::unistd::getuid())];
    let entries = (0..ENTRIES).map(|number| entry(&format!("entry-{number}"), &selectors));
    let setup = Setup::without_component()
        .identity("svid_ttl = \"10s\"\n")
        .identity(&entries.collect::<String>());
    let gate = Sidegate::run(&setup.write(folder.path()));

    let silent: Vec<UnixStream> = (0..CONNECTIONS)
        .map(|number| {
            // Half of them would take it all if it were read, half take not even a first byte.
            let window = if number % 2 == 0 { 1 << 30 } else { 0 };
            let calls = (0..STREAMS).map(|call| fetch(2 * call + 1));
            let mut connection = connect(&gate);
            let bytes = [preface(window), calls.collect::<Vec<_>>().concat()].concat();
            connection.write_all(&bytes).expect("it is taken");
            connection
        })
        .collect();
    let all = f64::from(STREAMS) * 6.0;
    until("all streams", || (streams(&gate) >= all).then_some(()));

    // From here on every buffer is full.
    await_rotations(&gate);
    let before = memory(&gate);
    await_rotations(&gate);
    let after = memory(&gate);
    assert!(
        after <= before + SLACK_KIB,
        "{before} KiB, then {after} KiB"
    );

    let answer = call(&gate);
    let Answer::Identities(identities) = &answer else {
        panic!("who reads is served: {answer:?}");
    };
    assert_eq!(identities.len(), ENTRIES + 1);
    assert!(streams(&gate) >= all, "nobody left");

    // The configured drain is longer than a test waits.
    let output = gate.stop();
    assert_eq!(output.status.code(), Some(0), "{}", output.stderr);
    drop(silent);
}

fn await_rotations(gate: &Sidegate) {
    let rotations = || {
        counter(
            gate,
            "sidegate_svid_rotations_total",
            &["result=\"success\""],
        )
    };
    let enough = rotations() + ROTATIONS;
    until("many rotations", || (rotations() >= enough).then_some(()));
}

fn streams(gate: &Sidegate) -> f64 {
    counter(gate, "sidegate_workload_api_streams_open", &[])
}

/// The resident memory of the process, in KiB.
pub(crate) fn memory(gate: &Sidegate) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gate.process.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    number.expect("it has memory").parse().expect("a number")
}
