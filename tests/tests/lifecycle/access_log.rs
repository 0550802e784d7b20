//! The access log as a file: private, rotated, in either format.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use sidegate_tests::until;

use super::unwell;
use crate::support::{Configuration, folder, logged};

/// An access log in this file, with further lines of `[log]`.
fn to_file(path: &str, lines: &str) -> Configuration {
    Configuration::new().rest(&format!(
        "[log]\naccess = \"file\"\naccess_path = \"{path}\"\n{lines}"
    ))
}

/// The lines of a file; none where it is not there yet.
fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(ToOwned::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_line_is_lost_and_none_is_torn_while_the_file_is_rotated_under_load() {
    let folder = folder();
    let (sidegate, client) = to_file("access.log", "").start(folder.path());
    let current = folder.path().join("access.log");
    let mode = fs::metadata(&current).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let asked = async {
        let mut ids = Vec::new();
        for _ in 0..300 {
            let answer = client.get("/status/200").await;
            ids.push(answer.header("x-request-id").to_owned());
        }
        ids
    };
    let rotated = tokio::task::spawn_blocking({
        let folder = folder.path().to_owned();
        move || {
            for round in 0..5 {
                until("a line", || (!lines(&current).is_empty()).then_some(()));
                fs::rename(&current, folder.join(format!("access.log.{round}"))).unwrap();
                sidegate.process.signal(Signal::SIGHUP);
                until("the new file", || current.exists().then_some(()));
            }
            sidegate
        }
    });
    let ids = asked.await;
    // A line of its own for each round, if the load was over too soon.
    let mut more = Vec::new();
    while !rotated.is_finished() {
        let answer = client.get("/status/200").await;
        more.push(answer.header("x-request-id").to_owned());
    }
    let sidegate = rotated.await.unwrap();
    assert_eq!(sidegate.stop().status.code(), Some(0));

    let mut written: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().unwrap().contains("access.log"))
        .flat_map(|path| lines(&path))
        .map(|line| serde_json::from_str::<Value>(&line).expect("a whole line"))
        .map(|line| line["request_id"].as_str().unwrap().to_owned())
        .collect();
    let mut asked = [ids, more].concat();
    asked.sort();
    written.sort();
    assert_eq!(written, asked);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_text_it_is_apaches_combined_format_with_the_spiffe_id_as_the_user() {
    let folder = folder();
    let configuration = to_file("access.log", "access_format = \"text\"\n");
    let (sidegate, client) = configuration.start(folder.path());
    let answer = client.get("/status/200").await;
    let id = answer.header("x-request-id").to_owned();
    let line = until("the line", || {
        lines(&folder.path().join("access.log")).pop()
    });
    let (before, rest) = line.split_once(" [").unwrap();
    let (time, rest) = rest.split_once("] ").unwrap();
    assert_eq!(before, "127.0.0.1 - spiffe://sidegate.local/demo");
    assert!(time.ends_with(" +0000"), "{time}");
    assert_eq!(time.len(), "22/Nov/2026:20:10:58 +0000".len());
    let (request, rest) = rest.split_once(" \"-\" \"-\" ").unwrap();
    let bytes = request.strip_prefix("\"GET /status/200 HTTP/1.1\" 200 ");
    assert!(bytes.is_some_and(|it| it.parse::<u64>().is_ok()), "{line}");
    let fields: Vec<&str> = rest.split(' ').collect();
    assert_eq!(fields.len(), 4, "{line}");
    assert_eq!([fields[0], fields[2], fields[3]], ["allow", &id, "-"]);
    assert!(!sidegate.process.stdout().contains(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_cannot_be_opened_again_leaves_the_one_that_is_open() {
    let folder = folder();
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).unwrap();
    let (sidegate, client) = to_file("logs/access.log", "").start(folder.path());
    let old = folder.path().join("old");
    fs::rename(&logs, &old).unwrap();
    sidegate.process.signal(Signal::SIGHUP);
    logged(&sidegate, &["SG0071"]);
    client.get("/status/200").await;
    until("a line in the old file", || {
        (lines(&old.join("access.log")).len() == 1).then_some(())
    });
    let state = sidegate.ready.state.to_str().unwrap();
    until("the row", || {
        let rows = unwell(&["--state", state]);
        (rows.len() == 1 && rows[0].0 == "access-log" && rows[0].2 == "SG0071").then_some(())
    });

    fs::rename(&old, &logs).unwrap();
    sidegate.process.signal(Signal::SIGHUP);
    until("no row", || {
        unwell(&["--state", state]).is_empty().then_some(())
    });
}

#[test]
fn a_file_that_cannot_be_made_is_refused_before_anything_runs() {
    let folder = folder();
    let config = to_file("missing/access.log", "").write(folder.path());
    let config = config.to_str().unwrap();
    let mut command = sidegate_tests::Sidegate::command("run");
    let output = crate::support::finish(command.args(["--config", config]));
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stderr.contains("error[SG0071]"), "{}", output.stderr);
    assert!(
        output
            .stderr
            .contains("access_path = \"missing/access.log\"")
    );
    let rows = unwell(&["--config", config]);
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!([&rows[0].0, &rows[0].2], ["access-log", "SG0071"]);
}
