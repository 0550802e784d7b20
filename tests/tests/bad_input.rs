//! What is refused at the start: exit code 2, a code, the thing by name, and nothing half-started.

mod configuration;
mod directory;
mod rego;

use std::ffi::OsStr;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use sidegate_tests::{Output, Running, Sidegate, guest, until};

use crate::support::{folder, write};

/// `sidegate up` on free ports with a state directory, run to its end.
fn up<I, S>(state: &Path, arguments: I) -> Output
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Sidegate::command("up");
    command
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
        .args(["-o", "json", "--state"])
        .arg(state)
        .args(arguments);
    refused(&mut command)
}

/// Runs to its end what should be refused; where it starts nevertheless, it is stopped.
fn refused(command: &mut Command) -> Output {
    let mut process = Running::start(command);
    let started = until("a refusal", || {
        let started = process.stdout().contains('\n');
        (started || !process.is_running()).then_some(started)
    });
    if started && process.is_running() {
        process.signal(Signal::SIGTERM);
    }
    process.wait()
}

/// What is not as it should be with a refusal that names all of these; nothing, if all is well.
fn unlike_a_refusal(output: &Output, names: &[&str]) -> Option<String> {
    let code = output
        .stderr
        .split_once("error[SG")
        .and_then(|(_, rest)| rest.split_once(']'))
        .is_some_and(|(code, _)| code.len() == 4 && code.bytes().all(|byte| byte.is_ascii_digit()));
    let named = names.iter().all(|name| output.stderr.contains(name));
    let whole = output.status.code() == Some(2)
        && code
        && named
        && output.stdout.is_empty()
        && !output.stderr.contains("panicked");
    (!whole).then(|| format!("{names:?} wanted: {output:#?}"))
}

/// Asserts a refusal that names all of these.
fn assert_refused(output: &Output, names: &[&str]) {
    if let Some(why) = unlike_a_refusal(output, names) {
        panic!("{why}");
    }
}

#[test]
fn what_is_no_component_is_refused_by_its_name_and_the_state_can_be_used_after() {
    let folder = folder();
    let component = std::fs::read(guest("probe")).unwrap();
    let core_module = b"\0asm\x01\0\0\0";
    let files = [
        ("core.wasm", core_module.to_vec()),
        ("text.wasm", b"(component)".to_vec()),
        ("html.wasm", b"<!doctype html><p>Not Found".to_vec()),
        ("short.wasm", component[..component.len() / 2].to_vec()),
        ("head.wasm", component[..8].to_vec()),
        ("almost.wasm", component[..component.len() - 1].to_vec()),
        ("empty.wasm", Vec::new()),
        ("zeros.wasm", vec![0; 4096]),
    ];
    let state = folder.path().join("state");

    let mut wrong = Vec::new();
    for (name, content) in files {
        let path = write(folder.path(), name, content);
        wrong.extend(unlike_a_refusal(&up(&state, [&path]), &[name]));
        assert!(!state.join("workload.sock").exists(), "{name}");
        assert!(!state.join("demo").exists(), "{name}");
    }
    let missing = folder.path().join("missing.wasm");
    wrong.extend(unlike_a_refusal(&up(&state, [&missing]), &["missing.wasm"]));
    let directory = folder.path().join("directory.wasm");
    std::fs::create_dir(&directory).unwrap();
    wrong.extend(unlike_a_refusal(
        &up(&state, [&directory]),
        &["directory.wasm"],
    ));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    Sidegate::up(&state, [guest("probe")]);
}

#[test]
fn a_core_module_is_told_from_a_component_with_what_to_do() {
    let folder = folder();
    let path = write(folder.path(), "core.wasm", b"\0asm\x01\0\0\0");
    let output = up(&folder.path().join("state"), [&path]);
    assert_refused(&output, &["core", "component", "wasm32-wasip2"]);
}

#[test]
fn a_port_that_is_taken_is_refused_by_its_number() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--admin"] {
        let folder = folder();
        let state = folder.path().join("state");
        let mut command = Sidegate::command("up");
        let other = if flag == "--listen" {
            "--admin"
        } else {
            "--listen"
        };
        command
            .args([flag, &address, other, "127.0.0.1:0", "--state"])
            .arg(&state);
        let output = refused(&mut command);
        assert_refused(&output, &[&address]);
        assert!(!state.join("workload.sock").exists(), "{flag}");

        Sidegate::up(&state, [""; 0]);
    }
}

#[test]
fn a_wildcard_address_finds_its_port_taken_as_well() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("0.0.0.0:{}", taken.local_addr().unwrap().port());
    let folder = folder();
    let output = refused(
        Sidegate::command("up")
            .args(["--listen", &address, "--admin", "127.0.0.1:0", "--state"])
            .arg(folder.path().join("state")),
    );
    assert_refused(&output, &[&address]);
}

#[test]
fn another_sidegates_port_is_taken_too() {
    let (first, second) = (folder(), folder());
    let running = Sidegate::up(&first.path().join("state"), [""; 0]);
    let address = crate::support::address(&running);
    let output = refused(
        Sidegate::command("up")
            .args(["--listen", address, "--admin", "127.0.0.1:0", "--state"])
            .arg(second.path().join("state")),
    );
    assert_refused(&output, &[address]);
}

#[test]
fn arguments_that_make_no_sense_are_named_and_exit_with_2() {
    let folder = folder();
    let state = folder.path().join("state");
    let probe = guest("probe");
    let probe = probe.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["--frobnicate"], "--frobnicate"),
        (&["--listen", "nowhere"], "nowhere"),
        (&["--admin", "127.0.0.1"], "127.0.0.1"),
        (&["--trust-domain", "Sidegate.local"], "Sidegate.local"),
        (&["--trust-domain", "spiffe://a/b"], "spiffe://a/b"),
        (&["--trust-domain", ""], "--trust-domain"),
        (
            &["--upstream", "https://127.0.0.1:9"],
            "https://127.0.0.1:9",
        ),
        (
            &["--upstream", "http://127.0.0.1:9/path"],
            "http://127.0.0.1:9/path",
        ),
        (
            &["--upstream", "http://u@127.0.0.1:9"],
            "http://u@127.0.0.1:9",
        ),
        (&["--upstream", "http://127.0.0.1:9", probe], "--upstream"),
        (&["--svid-ttl", "1s"], "1s"),
        (&["--svid-ttl", "25h"], "25h"),
        (&["--svid-ttl", "soon"], "soon"),
        (&["-o", "yaml"], "yaml"),
        (&[probe, probe], "probe.wasm"),
    ];
    let mut wrong = Vec::new();
    for (arguments, name) in cases {
        let output = refused(
            Sidegate::command("up")
                .arg("--state")
                .arg(&state)
                .args(*arguments),
        );
        if output.status.code() != Some(2) || !output.stderr.contains(name) {
            wrong.push(format!("{arguments:?}: {output:#?}"));
        }
        assert!(!state.exists(), "{arguments:?} made a state directory");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let output = refused(&mut Sidegate::command("frobnicate"));
    assert_eq!(output.status.code(), Some(2));
}
