//! Clients that others wrote watch, while entries for each of them come and go.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use sidegate_tests::{Running, Sidegate, Tool, root, skip, tool, until};
use spiffe::{X509Source, X509SourceError};
use tokio::time::timeout;

use super::start;
use crate::go_spiffe::client::documents;
use crate::support::{Operator, folder, own_uid, program, spiffe_id};

/// A watcher that prints a line for each update and for each error.
struct Watcher {
    name: &'static str,
    selector: String,
    process: Option<Running>,
    command: Command,
}

#[test]
fn watchers_on_go_and_python_are_told_of_their_own_entries_only() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let operator = Operator::of(&gate);
    let mut watchers = watchers(&gate);
    let mut first = Vec::new();
    for watcher in &mut watchers {
        let path = format!("/{}", watcher.name);
        first.push(operator.create(&path, &watcher.selector, &[]));
        watcher.start();
        watcher.lines(1);
        assert_eq!(watcher.ids(0), [spiffe_id(&path)]);
    }
    // One after the other gets a second identity, loses it, and then loses all.
    for (watcher, first) in watchers.iter_mut().zip(&first) {
        let path = format!("/{}-second", watcher.name);
        let second = operator.create(&path, &watcher.selector, &[]);
        watcher.lines(2);
        let own = spiffe_id(&format!("/{}", watcher.name));
        assert_eq!(watcher.ids(1), [own.clone(), spiffe_id(&path)]);
        let svid = |line: &Value| line["svids"][0]["serial"].clone();
        let lines = watcher.lines(2);
        assert_eq!(svid(&lines[1]), svid(&lines[0]), "it has not changed");

        operator.delete(&second);
        watcher.lines(3);
        assert_eq!(watcher.ids(2), [own]);

        operator.delete(first);
        let line = watcher.lines(4)[3].clone();
        let error = line["error"].as_str().expect("an error").to_owned();
        let is_denial =
            ["PermissionDenied", "PERMISSION_DENIED"].map(|denial| error.contains(denial));
        assert!(is_denial.contains(&true), "{}: {line}", watcher.name);
    }
    // With an entry that fits all of them each one is back.
    operator.create("/back", &own_uid(), &[]);
    for watcher in &mut watchers {
        until("it is back", || {
            let last = watcher.lines(5).pop().expect("a line");
            (last["svids"][0]["spiffe_id"] == spiffe_id("/back")).then_some(())
        });
        let between = watcher.lines(5);
        let between = &between[4..between.len() - 1];
        for line in between {
            assert!(line["error"].is_string(), "{}: {line}", watcher.name);
        }
    }
}

#[tokio::test]
async fn a_source_of_rust_spiffe_is_withdrawn_with_its_entry_and_comes_back() {
    let folder = folder();
    let gate = start(folder.path(), "");
    let operator = Operator::of(&gate);
    let mut entry = operator.create("/round-0", &own_uid(), &[]);
    let source = X509Source::builder()
        .endpoint(&gate.ready.workload_socket)
        .build()
        .await
        .expect("there is an entry");
    let mut updates = source.updated();
    for round in 0..3 {
        let expected = spiffe_id(&format!("/round-{round}"));
        reached(&mut updates, || {
            let svid = source.svid().ok();
            svid.is_some_and(|svid| svid.spiffe_id().to_string() == expected)
        })
        .await;

        // Another's entry is no news.
        let before = updates.last();
        let other = operator.create("/other", "unix:path:/nowhere", &[]);
        operator.delete(&other);
        operator.delete(&entry);
        reached(&mut updates, || {
            matches!(source.svid(), Err(X509SourceError::Withdrawn(_)))
        })
        .await;
        assert_eq!(updates.last(), before + 1, "the withdrawal only");
        entry = operator.create(&format!("/round-{}", round + 1), &own_uid(), &[]);
    }
    source.shutdown().await;
}

/// Waits for updates until it is so.
async fn reached(updates: &mut spiffe::x509_source::X509SourceUpdates, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            updates.changed().await.expect("the source goes on");
        }
    };
    timeout(Duration::from_secs(30), wait)
        .await
        .expect("it is so some time");
}

fn watchers(gate: &Sidegate) -> Vec<Watcher> {
    let test = "watchers_are_told_of_their_own_entries_only";
    let socket = &gate.ready.workload_socket;
    let mut watchers = Vec::new();
    match tool(Tool::GoClient) {
        Some(binary) => {
            let mut command = Command::new(&binary);
            command.arg("watch").env("SPIFFE_ENDPOINT_SOCKET", socket);
            watchers.push(Watcher::new("go", &binary, command));
        }
        None => skip(test, Tool::GoClient),
    }
    match tool(Tool::Python) {
        Some(binary) => {
            let mut command = Command::new(&binary);
            command
                .arg(root().join("tests/peers/spiffe_watch.py"))
                .arg(socket);
            watchers.push(Watcher::new("python", &binary, command));
        }
        None => skip(test, Tool::Python),
    }
    watchers
}

impl Watcher {
    fn new(name: &'static str, binary: &Path, command: Command) -> Self {
        Self {
            name,
            selector: program(binary),
            process: None,
            command,
        }
    }

    fn start(&mut self) {
        self.process = Some(Running::start(&mut self.command));
    }

    /// The lines so far, once there are so many.
    fn lines(&mut self, count: usize) -> Vec<Value> {
        let process = self.process.as_mut().expect("it was started");
        until(&format!("{count} lines of {}", self.name), || {
            assert!(process.is_running(), "{}", process.stderr());
            let stdout = process.stdout();
            let whole = stdout.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines = documents(whole);
            (lines.len() >= count).then_some(lines)
        })
    }

    /// The SPIFFE IDs of a line, in order; there is no line after it.
    fn ids(&mut self, line: usize) -> Vec<String> {
        let lines = self.lines(line + 1);
        assert_eq!(lines.len(), line + 1, "{}: {lines:?}", self.name);
        let svids = lines[line]["svids"].as_array().cloned();
        let mut ids: Vec<_> = svids
            .unwrap_or_default()
            .iter()
            .map(|svid| svid["spiffe_id"].as_str().expect("an ID").to_owned())
            .collect();
        ids.sort();
        assert_eq!(
            lines[line]["bundles"],
            json!({"sidegate.local": 1}),
            "{}",
            self.name
        );
        ids
    }
}
