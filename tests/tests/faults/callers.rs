//! Callers that end while they are attested, or before.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use sidegate_tests::{Sidegate, until};
use tempfile::TempDir;

use super::frames::{Answer, answer, call, fetch, preface};
use super::setup::{Setup, entry};
use crate::support::{counter, folder, write};

const CALLER: &str = env!("CARGO_BIN_EXE_passing-caller");
/// What the program `passing-caller` is entitled to, beside the identity of its user.
const IDENTITIES: [&str; 2] = [
    "spiffe://sidegate.local/caller",
    "spiffe://sidegate.local/demo",
];
/// How many callers end while they are attested.
const PASSING: usize = 300;
/// How many have ended when their request comes.
const GONE: usize = 30;

/// A `sidegate` with an entry that only one program matches.
struct Gate {
    sidegate: Sidegate,
    folder: TempDir,
}

impl Gate {
    fn start() -> Self {
        let folder = folder();
        let program = Path::new(CALLER).canonicalize().expect("it is built");
        let selector = format!("unix:path:{}", program.display());
        let setup = Setup::without_component().identity(&entry("caller", &[selector]));
        let sidegate = Sidegate::run(&setup.write(folder.path()));
        Self { sidegate, folder }
    }

    /// Starts a caller that sends `request`. What it connected is ours to read, whatever becomes
    /// of it.
    fn caller(&self, request: &[u8], arguments: &[&str]) -> (Child, UnixStream) {
        let (unix, stream) = (AddressFamily::Unix, SockType::Stream);
        let ours = socket(unix, stream, SockFlag::SOCK_CLOEXEC, None).expect("a socket");
        let theirs = ours.try_clone().expect("another handle of it");
        let mut command = Command::new(CALLER);
        command
            .arg(self.folder.path().join("workload.sock"))
            .arg(write(self.folder.path(), "request", request))
            .args(arguments)
            .stdin(Stdio::from(theirs));
        let caller = command.spawn().expect("it starts");
        (caller, UnixStream::from(ours))
    }

    /// A caller that waits for its answer gets what it is entitled to.
    fn serves_the_living(&self) {
        let request = [preface(1 << 20), fetch(1)].concat();
        let (mut caller, mut connection) = self.caller(&request, &["stay"]);
        until("its connection", || connection.peer_addr().ok());
        let answer = answer(&mut connection, 1);
        caller.kill().expect("it is there");
        caller.wait().expect("it ends");
        let Answer::Identities(mut found) = answer else {
            panic!("a caller that stays is served: {answer:?}");
        };
        found.sort();
        assert_eq!(found, IDENTITIES);
    }
}

#[test]
fn a_caller_that_has_ended_gets_nothing_whoever_holds_its_connection() {
    let gate = Gate::start();
    gate.serves_the_living();
    for _ in 0..GONE {
        let (mut caller, mut connection) = gate.caller(b"", &[]);
        let status = caller.wait().expect("it ends");
        assert!(status.success(), "it connects: {status}");
        let sent = connection.write_all(&[preface(1 << 20), fetch(1)].concat());
        let answer = match sent {
            Ok(()) => answer(&mut connection, 1),
            Err(_) => Answer::Closed,
        };
        assert!(!matches!(answer, Answer::Identities(_)), "{answer:?}");
    }
    gate.serves_the_living();
    assert_eq!(gate.sidegate.stop().status.code(), Some(0));
}

#[test]
fn callers_that_end_while_they_are_attested_get_their_own_identity_or_none() {
    let gate = Gate::start();
    let request = [preface(1 << 20), fetch(1)].concat();
    let mut served = 0;
    for _ in 0..PASSING {
        let (mut caller, mut connection) = gate.caller(&request, &[]);
        let status = caller.wait().expect("it ends");
        assert!(status.success(), "it calls: {status}");
        match answer(&mut connection, 1) {
            // Of one that ends meanwhile not all may be known.
            Answer::Identities(found) => {
                let is_its_own = |id: &String| IDENTITIES.contains(&id.as_str());
                assert!(found.iter().all(is_its_own), "{found:?}");
                served += 1;
            }
            Answer::Refused | Answer::Closed => {}
        }
    }
    // We are not that program, and hear so on a connection of our own.
    let answer = call(&gate.sidegate);
    let Answer::Identities(ours) = &answer else {
        panic!("we are served: {answer:?}");
    };
    assert_eq!(ours, &IDENTITIES[1..]);
    gate.serves_the_living();
    // Whoever was served had been attested.
    let success = ["result=\"success\""];
    let attested = counter(&gate.sidegate, "sidegate_attestations_total", &success);
    assert!(attested >= f64::from(served), "{attested} {served}");
}
