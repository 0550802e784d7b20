//! `pid_file` and `signal`: a process is told of new files.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use sidegate_tests::{Running, Sidegate, root, until};

use super::{OTHER, Set, start};
use crate::federation::Foreign;
use crate::support::{Operator, finish, folder};

#[test]
fn the_process_of_the_pid_file_gets_its_signal_at_start_and_at_each_renewal() {
    let folder = folder();
    let process = waiting_for("HUP", &mut shell());
    fs::write(folder.path().join("pid"), format!("{}\n", process.pid())).expect("it is written");
    let gate = start(folder.path(), "svid_ttl = \"10s\"", &lines("SIGHUP"));
    let files = folder.path().join("files");
    told(&process, 1);
    let first = Set::read(&files).expect("they are there").serial();
    told(&process, 2);
    let second = Set::read(&files).expect("they are there").serial();
    assert_ne!(second, first, "it is told when they are new");
    assert!(!gate.process.stderr().contains("SG0148"));
}

#[test]
fn each_signal_that_can_be_named_is_the_one_that_is_sent() {
    for signal in ["HUP", "USR1", "USR2", "INT", "QUIT", "TERM", "WINCH"] {
        let folder = folder();
        let process = waiting_for(signal, &mut shell());
        fs::write(folder.path().join("pid"), process.pid().to_string()).expect("it is written");
        let _gate = start(folder.path(), "", &lines(&format!("SIG{signal}")));
        told(&process, 1);
    }
}

#[test]
fn the_pid_file_is_read_anew_each_time() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let [first, second] = [(); 2].map(|()| waiting_for("HUP", &mut shell()));
    let pid = folder.path().join("pid");
    fs::write(&pid, first.pid().to_string()).expect("it is written");
    let gate = start(folder.path(), "", &lines("SIGHUP"));
    told(&first, 1);
    fs::write(&pid, second.pid().to_string()).expect("it is written");
    foreign.is_known_to(&Operator::of(&gate));
    told(&second, 1);
    assert_eq!(count(&first), 1);
}

#[test]
fn a_pid_file_that_names_no_process_signals_nobody_and_is_logged() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    // 0 is everybody in the own process group, -1 everybody, and -N everybody in that group.
    let ours = waiting_for("WINCH", &mut shell());
    let leader = waiting_for("WINCH", shell().process_group(0));
    let gone = Running::start(&mut Command::new("true"));
    let gone_pid = gone.pid();
    gone.wait();
    let cases = [
        "0".to_owned(),
        "-1".to_owned(),
        format!("-{}", leader.pid()),
        String::new(),
        "\n".to_owned(),
        "nonsense".to_owned(),
        format!("{} x", leader.pid()),
        format!("{0}\n{0}", leader.pid()),
        format!("{}.0", leader.pid()),
        format!("0x{:x}", leader.pid()),
        "99999999999999999999".to_owned(),
        // What 32 bits leave of it is the process.
        (u64::from(leader.pid()) + (1 << 32)).to_string(),
        "9".repeat(1 << 20),
        "\0".repeat(16),
        gone_pid.to_string(),
    ];
    let pid = folder.path().join("pid");
    // It is not there at first.
    let gate = start(folder.path(), "", &lines("SIGWINCH"));
    let logged = |expected: usize| {
        let stderr = gate.process.stderr();
        let logged = stderr.lines().filter(|line| line.contains("SG0148"));
        (logged.count() >= expected).then_some(())
    };
    until("that there is no pid file", || logged(1));
    let operator = Operator::of(&gate);
    let renew = |number: usize| {
        if number.is_multiple_of(2) {
            foreign.is_known_to(&operator);
        } else {
            foreign.is_forgotten_by(&operator);
        }
    };
    for (number, content) in cases.iter().enumerate() {
        fs::write(&pid, content).expect("it is written");
        renew(number);
        until(&format!("that {content:.40} is logged"), || {
            logged(number + 2)
        });
    }
    // A folder, and a pipe that nobody writes to, are no files.
    fs::remove_file(&pid).expect("it is ours");
    fs::create_dir(&pid).expect("it is made");
    renew(cases.len());
    until("that the folder is logged", || logged(cases.len() + 2));
    fs::remove_dir(&pid).expect("it is ours");

    // Whoever is named is told, and has not been told before.
    fs::write(&pid, format!(" {}\n", leader.pid())).expect("it is written");
    renew(cases.len() + 1);
    told(&leader, 1);
    assert_eq!(count(&leader), 1);
    assert_eq!(count(&ours), 0);
    assert_eq!(gate.stop().status.code(), Some(0));
}

#[test]
fn files_are_written_while_the_pid_file_is_a_pipe_that_nobody_writes_to() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let pid = folder.path().join("pid");
    nix::unistd::mkfifo(&pid, nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let gate: Sidegate = start(folder.path(), "", &lines("SIGWINCH"));
    let operator = Operator::of(&gate);
    let files = folder.path().join("files");
    for (is_known, domains) in [(true, 2), (false, 1)] {
        if is_known {
            foreign.is_known_to(&operator);
        } else {
            foreign.is_forgotten_by(&operator);
        }
        until("new files", || {
            (Set::read(&files)?.trust_domains().len() == domains).then_some(())
        });
    }
    assert_eq!(gate.stop().status.code(), Some(0));
}

#[test]
fn neither_a_signal_without_a_pid_file_nor_one_that_is_not_listed_is_accepted() {
    let cases = [
        ("signal = \"SIGHUP\"\n", "SG0015"),
        ("pid_file = \"pid\"\n", "SG0015"),
        ("pid_file = \"pid\"\nsignal = \"SIGKILL\"\n", "SG0022"),
        ("pid_file = \"pid\"\nsignal = \"HUP\"\n", "SG0022"),
        ("pid_file = \"\"\nsignal = \"SIGHUP\"\n", "SG0034"),
        ("command = []\n", "SG0034"),
        ("command = [\"\"]\n", "SG0034"),
        ("command = \"true\"\n", "SG0014"),
    ];
    for (lines, code) in cases {
        let folder = folder();
        let config = config(folder.path(), lines);
        let mut command = Sidegate::command("check");
        let output = finish(command.arg("--config").arg(config));
        assert_eq!(output.status.code(), Some(1), "{lines}: {output:?}");
        assert!(output.stdout.contains(code), "{lines}: {output:?}");
    }
}

/// A shell that can trap every signal: one that is ignored when it starts, as SIGHUP is below `nohup`,
/// it could not.
fn shell() -> Command {
    let mut command = Command::new("env");
    command.args(["--default-signal", "sh"]);
    command
}

/// A shell that says when it has got a signal.
fn waiting_for(signal: &str, shell: &mut Command) -> Running {
    let script = root().join("tests/peers/print_signals.sh");
    let process = Running::start(shell.arg(script).env("SIGNAL", signal));
    until("the process to wait", || {
        process.stdout().contains("started").then_some(())
    });
    process
}

/// Waits until a process has had so many signals.
fn told(process: &Running, times: usize) {
    until("a signal", || (count(process) >= times).then_some(()));
}

fn count(process: &Running) -> usize {
    process.stdout().matches("renewed").count()
}

fn lines(signal: &str) -> String {
    format!("pid_file = \"pid\"\nsignal = \"{signal}\"")
}

fn config(folder: &Path, lines: &str) -> PathBuf {
    let sections = format!(
        "{}\n[[svid_file]]\nspiffe_id = \"spiffe://sidegate.local/demo\"\ndirectory = \"files\"\n{lines}",
        crate::support::own_entry("/demo")
    );
    crate::support::identity_only(folder, &sections)
}
