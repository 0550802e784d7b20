//! Many connections to the Workload API's socket within a short time, or at once.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use sidegate_tests::{Sidegate, until};
use tempfile::TempDir;

use super::frames::{Answer, answer, call, connect, fetch, preface};
use crate::workload_api::many_users::{
    Entry, ManyUsers, copy_of_sidegate, open_folder, spiffe_ids,
};
use crate::workload_api::setpriv;

const OTHER_USER: u32 = 65534;
const OWN: &str = "spiffe://sidegate.local/own";
/// Connections of one user at once, as SG0133 says.
const MOST: usize = 256;

/// A `sidegate` that serves us and another user.
struct Gate {
    users: ManyUsers,
    setpriv: Option<PathBuf>,
    binary: PathBuf,
}

impl Gate {
    fn start(test: &str) -> Self {
        let folder: TempDir = open_folder();
        let binary = copy_of_sidegate(folder.path(), "sidegate");
        let entries = [("/own", geteuid().as_raw()), ("/other", OTHER_USER)];
        let entries = entries.map(|(path, uid)| Entry {
            path,
            selectors: vec![format!("unix:uid:{uid}")],
        });
        Self {
            users: ManyUsers::start(folder, &entries),
            setpriv: setpriv(test),
            binary,
        }
    }

    fn sidegate(&self) -> &Sidegate {
        &self.users.gate
    }

    /// Another user fetches its SVID, where this machine lets us be one.
    fn serves_another_user(&self) {
        if let Some(setpriv) = &self.setpriv {
            let output = self.users.fetch(setpriv, OTHER_USER, &self.binary, "json");
            assert!(output.status.success(), "{}", output.stderr);
            let expected = BTreeSet::from(["spiffe://sidegate.local/other".to_owned()]);
            assert_eq!(spiffe_ids(&output), expected);
        }
    }

    /// How many descriptors it has open.
    fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.sidegate().process.pid());
        fs::read_dir(Path::new(&folder)).expect("it runs").count()
    }

    /// Waits until as many descriptors are open as there were.
    fn closes_what_it_opened(&self, before: usize) {
        until("descriptors are closed", || {
            (self.descriptors() <= before).then_some(())
        });
    }
}

#[test]
fn a_thousand_connections_in_a_row_are_answered_and_none_is_left_open() {
    let gate = Gate::start("another_user_is_served_during_a_thousand_connections");
    let before = gate.descriptors();
    gate.serves_another_user();
    assert!(is_our_own(&call(gate.sidegate())));
    gate.closes_what_it_opened(before);

    std::thread::scope(|scope| {
        let crowd: Vec<_> = (0..20)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let answer = call(gate.sidegate());
                        assert!(is_our_own(&answer), "{answer:?}");
                    }
                })
            })
            .collect();
        while crowd.iter().any(|member| !member.is_finished()) {
            gate.serves_another_user();
        }
    });
    gate.closes_what_it_opened(before);
}

#[test]
fn a_user_with_too_many_connections_is_turned_away_and_another_one_is_not() {
    let gate = Gate::start("another_user_is_served_while_one_has_too_many_connections");
    let before = gate.descriptors();
    gate.serves_another_user();
    assert!(is_our_own(&call(gate.sidegate())));
    gate.closes_what_it_opened(before);

    let mut crowd: Vec<UnixStream> = (0..MOST + 100).map(|_| connect(gate.sidegate())).collect();
    let answers: Vec<_> = crowd
        .iter_mut()
        .map(|connection| {
            let request = [preface(1 << 20), fetch(1)].concat();
            match connection.write_all(&request) {
                Ok(()) => answer(connection, 1),
                Err(_) => Answer::Closed,
            }
        })
        .collect();
    let served = answers.iter().filter(|answer| is_our_own(answer)).count();
    let closed = answers
        .iter()
        .filter(|answer| matches!(answer, Answer::Closed));
    assert_eq!((served, closed.count()), (MOST, 100));
    gate.serves_another_user();

    drop(crowd);
    gate.closes_what_it_opened(before);
    assert!(is_our_own(&call(gate.sidegate())));
}

fn is_our_own(answer: &Answer) -> bool {
    matches!(answer, Answer::Identities(ids) if ids.as_slice() == [OWN])
}
