//! What it costs to be the agent of many entries. For people, on a quiet machine and against the played
//! server, which shares it: `cargo test -p sidegate-tests -- --ignored --nocapture spire::figures`, with
//! the release binary in `SIDEGATE_TEST_BINARY`.

use std::fs;
use std::time::{Duration, Instant};

use nix::unistd::{SysconfVar, sysconf};
use sidegate_tests::Sidegate;

use super::gate::{DEMO, Machine, given, wait};
use super::played::Played;
use super::server::{Entry, Options, SpireServer, id};

/// Over so many syncs the costs of one are told.
const SYNCS: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "figures, for people"]
async fn the_costs_of_an_agent() {
    for many in [0, 1000, 5000] {
        let server = Played::start("figures", &Options::default()).expect("it needs nothing");
        let machine = Machine::joining(&server);
        let entry = |number: u32| {
            let selector = format!("unix:uid:{}", 100_000 + number);
            Entry::new(&machine.agent, &format!("/many/{number}"), &[&selector])
        };
        server.create_many(&Vec::from_iter((0..many).map(entry)));
        machine.register(&server);
        let begin = Instant::now();
        let gate = machine.run();
        assert_eq!(given(&gate).await, [id(DEMO)]);
        let first = begin.elapsed();
        let until = |syncs: usize| {
            wait("a sync", || {
                (server.calls("SyncAuthorizedEntries") >= syncs).then_some(())
            });
        };
        let done = server.calls("SyncAuthorizedEntries");
        until(done + 2);
        let before = processor_time(&gate);
        until(done + 2 + SYNCS);
        let sync = (processor_time(&gate) - before) / 20;
        println!(
            "{many} entries: {first:?} to the first SVID, {} MiB resident, {sync:?} of processor time \
             a sync without changes",
            resident(&gate) / 1024,
        );
    }
}

/// What the process has used.
fn processor_time(gate: &Sidegate) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{}/stat", gate.process.pid())).expect("it runs");
    let (_, fields) = stat.rsplit_once(") ").expect("a name");
    let fields: Vec<u64> = fields
        .split(' ')
        .map(|it| it.parse().unwrap_or(0))
        .collect();
    let ticks = sysconf(SysconfVar::CLK_TCK)
        .expect("it is known")
        .expect("there is one");
    let ticks = u64::try_from(ticks).expect("it is positive");
    Duration::from_millis((fields[11] + fields[12]) * 1000 / ticks)
}

/// Memory, in KiB.
fn resident(gate: &Sidegate) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", gate.process.pid()));
    let status = status.expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .expect("a number")
}
