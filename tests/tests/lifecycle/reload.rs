//! SIGHUP, and the log level of a running instance.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal;
use sidegate_tests::{Output, Sidegate, until};

use super::unwell_running;
use crate::support::{Configuration, finish, folder, logged};

/// `sidegate log level …` to its end.
fn level(sidegate: &Sidegate, directives: &[&str]) -> Output {
    let mut command: Command = Sidegate::command("log");
    command.arg("level").args(directives);
    command.arg("--state").arg(&sidegate.ready.state);
    finish(&mut command)
}

/// The level that counts.
fn shown(sidegate: &Sidegate) -> String {
    let output = level(sidegate, &[]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    output.stdout.trim_end().to_owned()
}

/// Sends SIGHUP, and waits until one more reload came to an end with this text.
pub(super) fn hang_up(sidegate: &Sidegate, text: &str) {
    let count = || sidegate.process.stderr().matches(text).count();
    let before = count();
    sidegate.process.signal(Signal::SIGHUP);
    until(text, || (count() > before).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_level_counts_at_once_and_what_needs_a_restart_is_named() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .rest("[log]\nlevel = \"info\"\n")
        .start(folder.path());
    // A refused request of the admin API, for one.
    let debug = "DEBUG";
    level(&sidegate, &["nonsense"]);
    assert!(!sidegate.process.stderr().contains(debug));
    let path = folder.path().join("sidegate.toml");
    let before = fs::read_to_string(&path).unwrap();
    let changed = before
        .replace("level = \"info\"", "level = \"debug\"\nformat = \"json\"")
        .replace(
            "component = \"probe\"",
            "component = \"probe\"\n[listener.timeouts]\nidle = \"9s\"",
        )
        .replace(
            "[admin]",
            "[policy.shadow]\npath = \"next\"\n[proxy]\nworkers = 2\n[admin]",
        );
    fs::write(&path, changed).unwrap();
    hang_up(&sidegate, "the configuration is reloaded");
    assert_eq!(shown(&sidegate), "debug");
    until("a debug line", || {
        level(&sidegate, &["nonsense"]);
        sidegate.process.stderr().contains(debug).then_some(())
    });
    let expected = ["policy.shadow", "proxy.workers", "log.format"];
    let rows = until("the rows", || {
        let rows = unwell_running(&sidegate);
        (!rows.is_empty()).then_some(rows)
    });
    assert_eq!(rows.len(), expected.len(), "{rows:?}");
    for ((id, result, code, said), key) in rows.iter().zip(expected) {
        assert_eq!([id, result, code], ["restart", "warning", "SG0073"]);
        assert!(said.starts_with(key), "{said}");
        logged(&sidegate, &["SG0073", key]);
    }
    assert_eq!(client.get("/status/200").await.status, 200);

    // The old file needs no restart.
    fs::write(&path, before).unwrap();
    hang_up(&sidegate, "the configuration is reloaded");
    until("no row", || {
        unwell_running(&sidegate).is_empty().then_some(())
    });
    assert_eq!(shown(&sidegate), "info");
    assert_eq!(sidegate.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_refused_changes_nothing_and_is_told_with_its_place_until_it_is_mended() {
    let folder = folder();
    let (sidegate, client) = Configuration::new()
        .rest("[log]\nlevel = \"info\"\n")
        .start(folder.path());
    let path = folder.path().join("sidegate.toml");
    let before = fs::read_to_string(&path).unwrap();
    for (from, to, code, caret) in [
        // What is right in the file is not applied either.
        (
            "level = \"info\"",
            "level = \"debug\"\nlevl = 1",
            "SG0013",
            "^^^^",
        ),
        ("[log]\nlevel =", "[log]\nlevel", "SG0012", "-->"),
    ] {
        fs::write(&path, before.replace(from, to)).unwrap();
        hang_up(&sidegate, "SG0072");
        for text in [code, caret, "sidegate.toml:"] {
            logged(&sidegate, &[text]);
        }
        let rows = until("the row", || {
            let rows = unwell_running(&sidegate);
            (!rows.is_empty()).then_some(rows)
        });
        assert_eq!(rows.len(), 1, "{rows:?}");
        assert_eq!(
            [&rows[0].0, &rows[0].1, &rows[0].2],
            ["reload", "error", "SG0072"]
        );
        assert!(rows[0].3.contains(code) && rows[0].3.contains(caret));
        assert_eq!(shown(&sidegate), "info");
        assert_eq!(client.get("/status/200").await.status, 200);

        fs::write(&path, &before).unwrap();
        hang_up(&sidegate, "the configuration is reloaded");
        until("no row", || {
            unwell_running(&sidegate).is_empty().then_some(())
        });
    }
    fs::remove_file(&path).unwrap();
    hang_up(&sidegate, "SG0010");
    assert_eq!(client.get("/status/200").await.status, 200);
    assert_eq!(sidegate.stop().status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_level_is_changed_through_the_admin_socket_and_nonsense_is_refused() {
    let folder = folder();
    let (sidegate, _client) = Configuration::new().start(folder.path());
    assert_eq!(shown(&sidegate), "info");
    for nonsense in ["loud", "info,sidegate_proxy=loud", ""] {
        let refused = level(&sidegate, &[nonsense]);
        assert_eq!(refused.status.code(), Some(2));
        assert!(refused.stderr.contains("error[SG0037]"), "{refused:?}");
        assert_eq!(shown(&sidegate), "info");
    }
    let changed = level(&sidegate, &["warn,sidegate::admin=debug", "-o", "json"]);
    assert_eq!(
        changed.stdout.trim(),
        r#"{"level":"warn,sidegate::admin=debug"}"#
    );
    assert_eq!(shown(&sidegate), "warn,sidegate::admin=debug");
    assert_eq!(level(&sidegate, &["nonsense"]).status.code(), Some(2));
    logged(&sidegate, &["DEBUG", "sidegate::admin"]);
}
