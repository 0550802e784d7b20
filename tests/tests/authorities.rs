//! Roots and JWT keys that are rotated, tainted and revoked while Sidegate runs.

pub(crate) mod connections;
mod jwt;
mod load;
pub(crate) mod svids;

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use sidegate_tests::{Sidegate, until};

use crate::support::{Operator, folder, identity_only, own_entry, phases};

const KINDS: [&str; 2] = ["x509", "jwt"];

#[test]
fn an_authority_goes_through_its_phases_and_no_other_way() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    for kind in KINDS {
        assert_eq!(operator.phases(kind), ["active"]);
        let first = operator.authority(kind, "active");
        refuses(&operator, kind, "taint", &[&first]);
        refuses(&operator, kind, "revoke", &[&first]);

        operator.ask(&["rotate", kind, "--prepare-only"]);
        assert_eq!(operator.phases(kind), ["active", "prepared"]);
        let second = operator.authority(kind, "prepared");
        assert_eq!(operator.authority(kind, "active"), first);
        refuses(&operator, kind, "taint", &[&first, &second]);
        refuses(&operator, kind, "revoke", &[&first]);
        // What has signed nothing yet can be given up at once.
        operator.ask(&["revoke", kind, "--authority-id", &second]);
        assert_eq!(operator.phases(kind), ["active"]);
        operator.ask(&["rotate", kind, "--prepare-only"]);
        assert_ne!(operator.authority(kind, "prepared"), second);
        let second = operator.authority(kind, "prepared");
        // Once more is once.
        operator.ask(&["rotate", kind, "--prepare-only"]);
        assert_eq!(operator.phases(kind), ["active", "prepared"]);
        assert_eq!(operator.authority(kind, "prepared"), second);

        let rotated = operator.ask(&["rotate", kind]);
        assert_eq!(operator.phases(kind), ["old", "active"]);
        assert_eq!(operator.authority(kind, "old"), first);
        assert_eq!(operator.authority(kind, "active"), second);
        assert_eq!(phases(&rotated, kind), operator.authorities(kind));
        refuses(&operator, kind, "revoke", &[&first, &second]);
        is_refused(&operator, kind, "taint", &["--authority-id", &second]);

        let tainted = operator.ask(&["taint", kind, "--authority-id", &first]);
        assert_eq!(tainted["id"], first, "{tainted}");
        assert_eq!(operator.phases(kind), ["tainted", "active"]);
        refuses(&operator, kind, "taint", &[&first, &second]);
        is_refused(&operator, kind, "revoke", &["--authority-id", &second]);

        let revoked = operator.ask(&["revoke", kind, "--authority-id", &first]);
        assert_eq!(revoked["id"], first, "{revoked}");
        assert_eq!(
            operator.authorities(kind),
            [("active".to_owned(), second.clone())]
        );
        refuses(&operator, kind, "revoke", &[&first, &second]);
        refuses(&operator, kind, "taint", &[&first, &second]);
    }
}

#[test]
fn an_authority_of_one_kind_is_none_of_the_other() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    for kind in KINDS {
        operator.ask(&["rotate", kind]);
    }
    for (kind, other) in [("x509", "jwt"), ("jwt", "x509")] {
        let id = operator.authority(other, "old");
        for action in ["taint", "revoke"] {
            is_refused(&operator, kind, action, &["--authority-id", &id]);
        }
    }
    assert_eq!(operator.phases("x509"), ["old", "active"]);
    assert_eq!(operator.phases("jwt"), ["old", "active"]);
}

#[test]
fn without_an_id_the_newest_that_fits_is_taken() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    for kind in KINDS {
        let mut ids = vec![operator.authority(kind, "active")];
        for _ in 0..2 {
            operator.ask(&["rotate", kind]);
            ids.push(operator.authority(kind, "active"));
        }
        assert_eq!(operator.phases(kind), ["old", "old", "active"]);
        for action in ["taint", "revoke"] {
            for id in [&ids[1], &ids[0]] {
                assert_eq!(operator.ask(&[action, kind])["id"], **id, "{action} {kind}");
            }
        }
        assert_eq!(operator.authority(kind, "active"), ids[2]);
        assert_eq!(operator.phases(kind), ["active"]);
    }
}

#[test]
fn what_is_shown_says_of_each_authority_its_phase_and_when_it_ends() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    operator.ask(&["rotate", "x509"]);
    let document = operator.ask(&["authorities"]);
    let text = operator.run(&["authorities"]).stdout;
    let now = crate::support::now().unix_timestamp();
    for kind in KINDS {
        for authority in document[kind].as_array().expect("a list") {
            let line = text
                .lines()
                .find(|line| line.contains(authority["id"].as_str().expect("an id")))
                .expect("it has a line");
            assert!(line.starts_with(kind), "{line}");
            assert!(
                line.contains(authority["phase"].as_str().unwrap()),
                "{line}"
            );
            let time = |key: &str| authority[key].as_i64().expect("a time");
            assert!(time("not_before") <= now, "{authority}");
            assert!(time("not_after") > now, "{authority}");
        }
    }
    assert_eq!(text.lines().count(), 3, "{text}");
}

#[test]
fn phases_are_kept_over_a_stop_and_over_a_kill() {
    let folder = folder();
    let mut gate = start(folder.path());
    let steps: [&[&str]; 6] = [
        &["rotate", "--prepare-only"],
        &["rotate"],
        &["taint"],
        &["rotate", "--prepare-only"],
        &["revoke"],
        &["rotate"],
    ];
    let authorities = |gate: &Sidegate| -> Value { Operator::of(gate).ask(&["authorities"]) };
    for (number, step) in steps.into_iter().enumerate() {
        for kind in KINDS {
            let (action, more) = step.split_first().expect("an action");
            Operator::of(&gate).ask(&[&[*action, kind], more].concat());
        }
        let before = authorities(&gate);
        gate.process.signal(if number % 2 == 0 {
            Signal::SIGKILL
        } else {
            Signal::SIGTERM
        });
        gate.process.wait();
        gate = start(folder.path());
        assert_eq!(authorities(&gate), before, "{step:?}");
    }
    for kind in KINDS {
        assert_eq!(Operator::of(&gate).phases(kind), ["old", "active"]);
    }
}

#[test]
fn a_rotation_that_is_killed_half_way_can_be_finished_after_it() {
    let folder = folder();
    let mut gate = start(folder.path());
    for kind in KINDS {
        let operator = Operator::of(&gate);
        let rotation = sidegate_tests::Running::start(&mut operator.command(&["rotate", kind]));
        until("a successor", || {
            (operator.phases(kind).len() == 2).then_some(())
        });
        let before = operator.authorities(kind);
        gate.process.signal(Signal::SIGKILL);
        gate.process.wait();
        rotation.wait();
        gate = start(folder.path());
        let operator = Operator::of(&gate);
        let ids = |authorities: Vec<(String, String)>| -> Vec<String> {
            authorities.into_iter().map(|(_, id)| id).collect()
        };
        assert_eq!(ids(operator.authorities(kind)), ids(before), "{kind}");
        if operator.phases(kind) == ["active", "prepared"] {
            operator.ask(&["rotate", kind]);
        }
        assert_eq!(operator.phases(kind), ["old", "active"], "{kind}");
        operator.ask(&["taint", kind]);
        operator.ask(&["revoke", kind]);
    }
}

#[test]
fn rotations_at_the_same_time_leave_one_that_signs() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    for kind in KINDS {
        let first = operator.authority(kind, "active");
        let workers: Vec<_> = (0..4)
            .map(|_| {
                let operator = operator.clone();
                std::thread::spawn(move || operator.run(&["rotate", kind]))
            })
            .collect();
        let mut done = 0;
        for worker in workers {
            let output = worker.join().expect("it ends");
            let is_refused = output.stderr.contains("error[SG0142]");
            assert!(output.status.success() || is_refused, "{output:?}");
            done += usize::from(output.status.success());
        }
        assert!(done >= 1);
        let phases = operator.phases(kind);
        let count = |phase: &str| phases.iter().filter(|found| *found == phase).count();
        assert_eq!(count("active"), 1, "{phases:?}");
        assert_eq!(count("old"), phases.len() - 1, "{phases:?}");
        assert_ne!(operator.authority(kind, "active"), first);
    }
}

#[test]
fn an_authority_that_cannot_be_kept_is_not_used() {
    let folder = folder();
    let gate = start(folder.path());
    let operator = Operator::of(&gate);
    for (kind, file) in [("x509", "authority.pem"), ("jwt", "jwt_keys.json")] {
        let before = operator.authorities(kind);
        let file = gate.ready.state.join(file);
        let kept = fs::read(&file).expect("it is kept");
        fs::remove_file(&file).expect("it is ours");
        // A directory is in the way of the file.
        fs::create_dir_all(file.join("in-the-way")).expect("it is ours");
        let output = operator.run(&["rotate", kind]);
        assert_eq!(output.status.code(), Some(2), "{kind}: {output:?}");
        assert!(output.stderr.contains("error[SG01"), "{kind}: {output:?}");
        assert_eq!(operator.authorities(kind), before, "{kind}");
        fs::remove_dir_all(&file).expect("it is ours");
        fs::write(&file, kept).expect("it is ours");
        operator.ask(&["rotate", kind]);
        assert_eq!(operator.phases(kind), ["old", "active"]);
    }
}

/// An instance without listeners and one entry for the user who runs the tests.
fn start(folder: &std::path::Path) -> Sidegate {
    let entry = own_entry("/demo") + "audiences = [\"demo\"]\n";
    Sidegate::run(&identity_only(folder, &entry))
}

/// An action is refused without an id, with each of these, and with one that nobody has.
fn refuses(operator: &Operator, kind: &str, action: &str, ids: &[&str]) {
    let before = operator.authorities(kind);
    is_refused(operator, kind, action, &[]);
    for id in ids.iter().chain(&["none"]) {
        is_refused(operator, kind, action, &["--authority-id", id]);
    }
    assert_eq!(operator.authorities(kind), before, "{kind} {action}");
}

fn is_refused(operator: &Operator, kind: &str, action: &str, more: &[&str]) {
    operator.is_refused(&[&[action, kind], more].concat(), "SG0142");
}
