//! `sidegate svid fetch jwt` and `sidegate svid validate`.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;
use sidegate_tests::{Output, Sidegate};

use super::entries::{self, only};
use super::token::Token;
use super::{DEMO, NO_ARGUMENTS};
use crate::support::{finish, folder};

#[test]
fn fetch_prints_a_token_that_validate_accepts_as_argument_and_from_standard_input() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = gate.ready.workload_socket.as_str();
    let (subject, token) = only(&fetch(&[
        "--audience",
        "demo",
        "-o",
        "json",
        "--socket",
        socket,
    ]));
    assert_eq!(subject, DEMO);
    assert_eq!(Token::new(&token).claims["sub"], DEMO);
    let text = fetch(&["--audience", "demo", "--socket", socket]);
    assert!(text.stdout.contains(&token), "{text:?}");
    assert!(text.stdout.contains(DEMO), "{text:?}");
    let chosen = ["--audience", "demo", "--spiffe-id", DEMO, "-o", "json"];
    assert_eq!(
        only(&fetch(&[&chosen[..], &["--socket", socket]].concat())).0,
        DEMO
    );

    let line = format!("{token}\n");
    let ways: [(&[&str], &str); 5] = [
        (&[&token], ""),
        (&["-"], &line),
        (&[], &line),
        (&[], &token),
        (&[], &format!("{token}\r\n")),
    ];
    for (argument, input) in ways {
        for format in ["text", "json"] {
            let common = ["--audience", "demo", "--socket", socket, "-o", format];
            let output = validate(&[&common, argument].concat(), input);
            let what = format!("{format} {} {output:?}", argument.len());
            assert_eq!(output.status.code(), Some(0), "{what}");
            assert!(output.stdout.contains(DEMO), "{what}");
            if format == "json" {
                let document: Value = serde_json::from_str(&output.stdout).expect("JSON");
                assert_eq!(document["valid"], true, "{what}");
            }
        }
    }
}

#[test]
fn validate_exits_1_for_what_is_not_valid() {
    let (state, other) = (folder(), folder());
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let other = Sidegate::up(other.path(), NO_ARGUMENTS);
    let [token, foreign] = [&gate, &other].map(|gate| {
        let socket = gate.ready.workload_socket.as_str();
        only(&fetch(&[
            "--audience",
            "demo",
            "-o",
            "json",
            "--socket",
            socket,
        ]))
        .1
    });
    let socket = gate.ready.workload_socket.as_str();
    let none = Token::new(&token)
        .with(&[("alg", "none".into())], &[])
        .signature(&[])
        .text();
    let cases = [
        ("other", token.as_str()),
        ("demo", &foreign),
        ("demo", &none),
        ("demo", &token[..token.len() - 4]),
        ("demo", "words"),
        ("demo", &format!("{token} {token}")),
    ];
    for (audience, text) in cases {
        for (argument, input) in [(text, ""), ("-", text)] {
            let arguments = ["--audience", audience, "--socket", socket, argument];
            let output = validate(&arguments, input);
            assert_eq!(output.status.code(), Some(1), "{text}: {output:?}");
            let output = validate(&[&arguments[..], &["-o", "json"]].concat(), input);
            assert_eq!(output.status.code(), Some(1), "{text}: {output:?}");
            let document: Value = serde_json::from_str(&output.stdout).expect("JSON");
            assert_eq!(document["valid"], false, "{text}: {output:?}");
            assert!(document.get("spiffe_id").is_none(), "{output:?}");
            assert!(!output.stdout.contains(&token), "{output:?}");
        }
    }
}

#[test]
fn an_empty_standard_input_is_never_valid() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = gate.ready.workload_socket.as_str();
    for input in ["", "\n", " \n \n"] {
        let output = validate(&["--audience", "demo", "--socket", socket], input);
        let code = output.status.code();
        assert!(matches!(code, Some(1 | 2)), "{input:?}: {output:?}");
    }
}

#[test]
fn a_socket_that_does_not_answer_is_exit_code_2() {
    let folder = folder();
    let missing = folder.path().join("missing.sock");
    let missing = missing.to_str().expect("it is UTF-8");
    let outputs = [
        validate(&["--audience", "demo", "--socket", missing, "a.b.c"], ""),
        validate(
            &["--audience", "demo", "--socket", missing, "-o", "json"],
            "a.b.c",
        ),
        fetch(&["--audience", "demo", "--socket", missing]),
    ];
    for output in outputs {
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert_eq!(output.stdout, "", "{output:?}");
        assert!(output.stderr.contains("error[SG00"), "{output:?}");
        assert!(output.stderr.contains(missing), "{output:?}");
    }
}

#[test]
fn fetch_exits_2_for_what_it_may_not_have() {
    let state = folder();
    let gate = Sidegate::up(state.path(), NO_ARGUMENTS);
    let socket = gate.ready.workload_socket.as_str();
    let cases: [&[&str]; 6] = [
        &[],
        &["--audience", ""],
        &["--audience", "other"],
        &["--audience", "demo", "--audience", "other"],
        &[
            "--audience",
            "demo",
            "--spiffe-id",
            "spiffe://sidegate.local/hello",
        ],
        &["--audience", "demo", "--spiffe-id", "words"],
    ];
    for arguments in cases {
        let output = fetch(&[arguments, &["--socket", socket]].concat());
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, "", "{arguments:?}");
        assert!(!output.stderr.is_empty(), "{arguments:?}");
    }
}

#[test]
fn several_audiences_are_all_in_the_token() {
    let folder = folder();
    let gate = entries::gate(folder.path(), &[entries::own("/several", &["one", "two"])]);
    let socket = gate.ready.workload_socket.as_str();
    let audiences = ["--audience", "one", "--audience", "two", "-o", "json"];
    let output = fetch(&[&audiences[..], &["--socket", socket]].concat());
    let (_, token) = only(&output);
    let claims = Token::new(&token).claims;
    assert_eq!(claims["aud"], serde_json::json!(["one", "two"]));
    for (audience, code) in [("one", 0), ("two", 0), ("three", 1)] {
        let output = validate(&["--audience", audience, "--socket", socket, &token], "");
        assert_eq!(output.status.code(), Some(code), "{audience}: {output:?}");
    }
}

fn fetch(arguments: &[&str]) -> Output {
    finish(command("fetch").arg("jwt").args(arguments))
}

fn validate(arguments: &[&str], input: &str) -> Output {
    let mut child = command("validate")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    // It may end without having read this.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("it is UTF-8");
    Output {
        status: output.status,
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}

/// `sidegate svid …` without the variable that the machine may have set.
fn command(name: &str) -> Command {
    let mut command = Sidegate::command("svid");
    command.arg(name).env_remove("SPIFFE_ENDPOINT_SOCKET");
    command
}
