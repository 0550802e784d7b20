//! `command`: a program runs when there are new files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use sidegate_tests::{Sidegate, until};

use super::{Set, start};
use crate::support::{Operator, folder, identity_only, own_entry, spiffe_id, write};

/// Copies the files of a directory to one below `kept`, which appears there when it is complete.
const KEEP: &str = "set -eu\ncd \"$1\"\ncopy=\"$$\"\nmkdir -p kept \"part.$copy\"\n\
     cp files/*.* \"part.$copy\"\nmv \"part.$copy\" \"kept/$copy\"\n";

#[test]
fn a_command_runs_at_start_and_after_each_renewal_and_sees_whole_sets() {
    let folder = folder();
    let script = write(folder.path(), "keep.sh", KEEP);
    let command = format!("command = [\"/bin/sh\", {script:?}, {:?}]", folder.path());
    let gate = start(folder.path(), "", &command);
    let operator = Operator::of(&gate);
    let kept = || {
        let entries = fs::read_dir(folder.path().join("kept")).ok();
        let entries = entries.into_iter().flatten();
        let sets = entries.map(|entry| Set::of(&entry.expect("a folder").path()));
        Vec::from_iter(sets.map(|set| set.expect("all four files")))
    };
    let seen = |expected: &Set| kept().contains(expected).then_some(());
    let current = || Set::read(&folder.path().join("files"));
    let first = current().expect("they are there");
    until("what it saw at start", || seen(&first));
    for action in ["rotate", "taint", "revoke"] {
        operator.ask(&[action, "x509"]);
        let roots = operator.authorities("x509").len();
        let last = until(&format!("the files after {action}"), || {
            let is_last = |set: &Set| {
                set.bundle.len() == roots && (action == "rotate" || set.serial() != first.serial())
            };
            current().filter(is_last)
        });
        until("that it saw them", || seen(&last));
    }
    let serials: BTreeSet<_> = kept().iter().map(Set::serial).collect();
    assert_eq!(serials.len(), 2);
    assert!(!gate.process.stderr().contains("SG0148"));
}

#[test]
fn a_command_gets_its_arguments_as_they_are_written() {
    let folder = folder();
    let out = folder.path().join("out");
    let arguments = ["two words", "$HOME", "*", "'; touch x", "", "\u{e9}"];
    let script = format!("printf '%s\\n' \"$@\" > {0:?}.new; mv {0:?}.new {0:?}", out);
    let words = ["/bin/sh", "-c", &script, "sh"]
        .into_iter()
        .chain(arguments);
    let command = Value::from(Vec::from_iter(words)).to_string();
    let _gate = start(folder.path(), "", &format!("command = {command}"));
    let written = until("what it wrote", || fs::read_to_string(&out).ok());
    assert_eq!(written.lines().collect::<Vec<_>>(), arguments);
}

#[test]
fn a_command_that_fails_or_does_not_exist_is_logged_and_the_files_are_renewed() {
    let folder = folder();
    let plain = write(folder.path(), "plain", "exit 0\n");
    let commands = [
        r#"["/bin/false"]"#.to_owned(),
        r#"["/does/not/exist"]"#.to_owned(),
        r#"["/bin/sh", "-c", "kill -9 $$"]"#.to_owned(),
        format!("[{plain:?}]"),
        format!("[{:?}]", folder.path()),
    ];
    let gate = several(folder.path(), "", &commands);
    let directories: Vec<_> = (0..commands.len())
        .map(|number| folder.path().join(number.to_string()))
        .collect();
    let serials = || -> Option<Vec<_>> {
        let sets = directories.iter().map(|directory| Set::read(directory));
        sets.map(|set| Some(set?.serial())).collect()
    };
    let complaints = |times: usize| {
        for number in 0..commands.len() {
            let id = format!("spiffe_id={} ", spiffe_id(&format!("/{number}")));
            until(&format!("that the command of {id} fails"), || {
                let stderr = gate.process.stderr();
                let lines = stderr.lines().filter(|line| line.contains("SG0148"));
                let lines = lines.filter(|line| line.contains(&id));
                (lines.count() >= times).then_some(())
            });
        }
    };
    complaints(1);
    let before = until("files", serials);
    let operator = Operator::of(&gate);
    operator.ask(&["rotate", "x509"]);
    operator.ask(&["taint", "x509"]);
    until("new files in all directories", || {
        let now = serials()?;
        let mut pairs = now.iter().zip(&before);
        pairs.all(|(now, before)| now != before).then_some(())
    });
    complaints(2);
}

#[test]
fn a_command_that_hangs_is_ended_and_leaves_no_expired_files_behind() {
    let folder = folder();
    let ran = folder.path().join("ran");
    let hang = format!("echo run >> {ran:?}; exec sleep 600");
    let commands = [json!(["/bin/sh", "-c", hang]), json!(["/bin/true"])];
    let commands = commands.map(|command| command.to_string());
    let gate = several(folder.path(), "svid_ttl = \"10s\"\n", &commands);
    let mut seen = [BTreeSet::new(), BTreeSet::new()];
    until("that it is ended", || {
        for (number, seen) in seen.iter_mut().enumerate() {
            let set = Set::read(&folder.path().join(number.to_string()))?;
            assert!(!set.is_expired(), "{number}: it ended at {}", set.ends());
            seen.insert(set.serial());
        }
        gate.process.stderr().contains("SG0148").then_some(())
    });
    for seen in seen {
        assert!(seen.len() >= 3, "{seen:?}");
    }
    // There have been new files since.
    until("that it runs again", || {
        let runs = fs::read_to_string(&ran).expect("it ran");
        (runs.lines().count() >= 2).then_some(())
    });
    // Nor does it wait for the command when it is to stop.
    assert_eq!(gate.stop().status.code(), Some(0));
}

/// An instance that writes an identity to a directory for each command, `0` for the first.
fn several(folder: &Path, identity: &str, commands: &[String]) -> Sidegate {
    let files = commands.iter().enumerate().map(|(number, command)| {
        let path = format!("/{number}");
        format!(
            "{}\n[[svid_file]]\nspiffe_id = \"{}\"\ndirectory = \"{number}\"\ncommand = {command}\n",
            own_entry(&path),
            spiffe_id(&path)
        )
    });
    let sections = identity.to_owned() + &files.collect::<String>();
    Sidegate::run(&identity_only(folder, &sections))
}
