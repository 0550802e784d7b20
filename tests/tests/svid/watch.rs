//! `sidegate svid watch`.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::Value;
use sidegate_tests::{Running, Sidegate, until};

use super::{DEMO, NO_ARGUMENTS, belong_together, certificates, names, socket, svid};
use crate::support::{Configuration, finish, folder};
use crate::workload_api::serial;

/// A watch that prints JSON, of a socket that need not be there yet.
pub(super) fn watch(socket: &str, arguments: &[&str]) -> Running {
    let mut command = svid(&["watch", "-o", "json", "--socket", socket]);
    Running::start(command.args(arguments))
}

/// The events so far.
pub(super) fn events(watch: &Running) -> Vec<Value> {
    let stdout = watch.stdout();
    let lines = stdout.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("each line is a document"))
        .collect()
}

/// Waits until there are so many events of a kind, and gives the last one.
pub(super) fn event(watch: &mut Running, kind: &str, count: usize) -> Value {
    until(&format!("{count} of {kind}"), || {
        let events = events(watch);
        assert!(
            watch.is_running(),
            "it goes on: {events:?} {}",
            watch.stderr()
        );
        let mut events = events.into_iter().filter(|event| event["event"] == kind);
        events.nth(count - 1)
    })
}

/// The serial number of the leaf that an update shows.
fn leaf(update: &Value) -> String {
    let chain = pem::parse_many(update["svids"][0]["chain"].as_str().expect("a chain"));
    serial(chain.expect("it is PEM")[0].contents())
}

fn leaf_of(folder: &Path) -> String {
    serial(&certificates(&folder.join("svid.0.pem"))[0])
}

#[test]
fn each_rotation_is_shown_and_written_until_there_were_enough() {
    let folder = folder();
    let state = folder.path().join("state");
    let gate = Sidegate::up(&state, ["--svid-ttl", "10s"]);
    let out = folder.path().join("out");
    let mut text = svid(&["watch", "--count", "2"]);
    let text = Running::start(text.args(socket(&gate)));
    let path = out.to_str().expect("it is text");
    let arguments = ["--write", path, "--count", "3"];
    let output = watch(&gate.ready.workload_socket, &arguments).wait();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert!(!output.stdout.contains("PRIVATE KEY"), "{output:?}");
    let events: Vec<Value> = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).expect("each line is a document"))
        .collect();
    assert_eq!(events.len(), 3, "{output:?}");
    let mut serials = BTreeSet::new();
    for update in &events {
        assert_eq!(update["event"], "update");
        assert_eq!(update["svids"][0]["spiffe_id"], DEMO);
        let roots = update["bundles"]["sidegate.local"].as_str().expect("PEM");
        assert!(!pem::parse_many(roots).expect("it is PEM").is_empty());
        serials.insert(leaf(update));
    }
    assert_eq!(serials.len(), 3);
    assert!(belong_together(&out, 0));
    assert_eq!(leaf_of(&out), leaf(&events[2]));

    let text = text.wait();
    assert_eq!(text.status.code(), Some(0), "{text:?}");
    let updates = text.stdout.matches("Z update\nSPIFFE ID:  ").count();
    assert_eq!(updates, 2, "{text:?}");
    assert!(text.stdout.contains(DEMO), "{text:?}");
    assert!(!text.stdout.contains("BEGIN"), "{text:?}");
}

#[test]
fn a_server_that_goes_away_is_shown_and_found_again() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let folder = folder();
        let (state, out) = (folder.path().join("state"), folder.path().join("out"));
        let gate = Sidegate::up(&state, NO_ARGUMENTS);
        let socket = gate.ready.workload_socket.clone();
        let mut watch = watch(&socket, &["--write", out.to_str().unwrap()]);
        event(&mut watch, "update", 1);
        gate.stop();
        let gone = event(&mut watch, "unavailable", 1);
        assert!(!gone["reason"].as_str().expect("a reason").is_empty());
        // What is there is good until it expires.
        assert!(belong_together(&out, 0));

        let gate = Sidegate::up(&state, NO_ARGUMENTS);
        let update = event(&mut watch, "update", 2);
        assert_eq!(update["svids"][0]["spiffe_id"], DEMO);
        assert_eq!(leaf_of(&out), leaf(&update));
        watch.signal(signal);
        let output = watch.wait();
        assert_eq!(output.status.code(), Some(0), "{signal}: {output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
        gate.stop();
    }
}

#[test]
fn it_may_start_before_the_server() {
    let folder = folder();
    let state = folder.path().join("state");
    let socket = format!("unix://{}", state.join("workload.sock").display());
    let mut watch = watch(&socket, &["--count", "1"]);
    event(&mut watch, "unavailable", 1);
    let _gate = Sidegate::up(&state, NO_ARGUMENTS);
    let output = watch.wait();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let last = output.stdout.lines().last().expect("there are events");
    assert!(last.contains(DEMO), "{output:?}");
}

#[test]
fn a_withdrawal_is_shown_takes_the_files_away_and_may_pass() {
    let folder = folder();
    let entitled = Configuration::new();
    let mut withdrawn = entitled.clone();
    let own = nix::unistd::geteuid().as_raw();
    let before = withdrawn.entries.clone();
    withdrawn.entries = before.replace(
        &format!("\"unix:uid:{own}\""),
        &format!("\"unix:uid:{}\"", own + 1),
    );
    assert_ne!(withdrawn.entries, before);

    let out = folder.path().join("out");
    let (gate, _) = entitled.start(folder.path());
    let socket = gate.ready.workload_socket.clone();
    let mut watch = watch(&socket, &["--write", out.to_str().unwrap()]);
    event(&mut watch, "update", 1);
    assert!(names(&out).contains("svid.0.key"));
    fs::write(out.join("mine"), "kept").expect("it is written");

    gate.stop();
    let (gate, _) = withdrawn.start(folder.path());
    let event_of = event(&mut watch, "withdrawn", 1);
    assert_eq!(event_of["reason"], "no identity issued");
    assert_eq!(names(&out), ["mine".to_owned()].into());

    gate.stop();
    let (_gate, _) = entitled.start(folder.path());
    event(&mut watch, "update", 2);
    assert!(belong_together(&out, 0));
    // It was tried again and again meanwhile, and shown once.
    let kinds: Vec<_> = events(&watch)
        .iter()
        .map(|event| event["event"].clone())
        .collect();
    let withdrawals = kinds.iter().filter(|kind| *kind == "withdrawn").count();
    assert_eq!(withdrawals, 1, "{kinds:?}");
}

#[test]
fn it_ends_when_nobody_reads_any_more() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    for format in ["text", "json"] {
        let mut command = svid(&["watch", "-o", format]);
        let mut watch = command
            .args(socket(&gate))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it starts");
        let mut line = String::new();
        let mut stdout = BufReader::new(watch.stdout.take().expect("it is piped"));
        stdout.read_line(&mut line).expect("it is text");
        assert!(line.contains("update"), "{line}");
        drop(stdout);
        // Its SVID lasts for an hour: there is nothing more to print.
        let status = until("its end", || watch.try_wait().expect("its state is known"));
        assert_eq!(status.code(), Some(0), "{format}");
    }
}

#[test]
fn a_full_standard_output_does_not_keep_it_from_ending() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    let full = fs::OpenOptions::new().write(true).open("/dev/full");
    let mut command = svid(&["watch"]);
    let mut watch = command
        .args(socket(&gate))
        .stdin(Stdio::null())
        .stdout(full.expect("it is there"))
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let status = until("its end", || watch.try_wait().expect("its state is known"));
    assert_eq!(status.code(), Some(2));
    let output = finish(svid(&["bundle"]).args(socket(&gate)));
    assert!(output.status.success(), "{output:?}");
}
