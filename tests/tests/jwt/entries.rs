//! Registration entries under `run`, and processes of other users.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::geteuid;
use serde_json::Value;
use sidegate_tests::{Output, Sidegate, Tool, sidegate, skip, tool};
use tonic::Code;

use super::raw::{fetch, fetch_one};
use super::token::Token;
use crate::support::{Configuration, finish, folder};

const NOBODY: u32 = 65534;
const SOMEBODY: u32 = 65533;

/// A registration entry of a user.
pub(crate) struct Entry {
    path: &'static str,
    uid: u32,
    audiences: &'static [&'static str],
}

/// An entry of the user who runs the tests.
pub(crate) fn own(path: &'static str, audiences: &'static [&'static str]) -> Entry {
    Entry {
        path,
        uid: geteuid().as_raw(),
        audiences,
    }
}

/// Starts it with entries beside those of the configuration, which have no audiences.
pub(crate) fn gate(folder: &Path, entries: &[Entry]) -> Sidegate {
    let mut configuration = Configuration::new();
    for Entry {
        path,
        uid,
        audiences,
    } in entries
    {
        configuration.entries.push_str(&format!(
            "\n[[identity.entry]]\nspiffe_id = \"{}\"\nselectors = [\"unix:uid:{uid}\"]\n\
             audiences = {audiences:?}\n",
            id(path)
        ));
    }
    Sidegate::run(&configuration.write(folder))
}

fn id(path: &str) -> String {
    format!("spiffe://sidegate.local{path}")
}

#[tokio::test]
async fn an_entry_without_audiences_gets_no_tokens() {
    let (none, empty) = (folder(), folder());
    let gates = [
        gate(none.path(), &[]),
        gate(empty.path(), &[own("/empty", &[])]),
    ];
    for gate in gates {
        for audience in ["demo", "*", ""] {
            for id in ["", super::DEMO] {
                let refused = fetch(&gate.ready.workload_socket, &[audience], id).await;
                let code = refused.expect_err("it is refused").code();
                if audience.is_empty() {
                    let is_refusal = [Code::InvalidArgument, Code::PermissionDenied];
                    assert!(is_refusal.contains(&code), "{id}: {code}");
                } else {
                    assert_eq!(code, Code::PermissionDenied, "{audience} {id}");
                }
            }
        }
    }
}

#[tokio::test]
async fn each_entry_of_a_caller_has_its_own_audiences() {
    let folder = folder();
    let gate = gate(
        folder.path(),
        &[
            own("/first", &["one", "both"]),
            own("/second", &["two", "both"]),
        ],
    );
    let socket = &gate.ready.workload_socket;
    let (first, second) = (id("/first"), id("/second"));
    let cases: [(&[&str], &str, &[&str]); 9] = [
        (&["one"], "", &[&first]),
        (&["two"], "", &[&second]),
        (&["both"], "", &[&first, &second]),
        (&["both"], &first, &[&first]),
        (&["both"], &second, &[&second]),
        (&["one", "two"], "", &[]),
        (&["two"], &first, &[]),
        (&["one"], &second, &[]),
        // It is the caller's own, and has no audiences.
        (&["one"], super::DEMO, &[]),
    ];
    for (audience, id, expected) in cases {
        match fetch(socket, audience, id).await {
            Ok(svids) => {
                let ids: BTreeSet<_> = svids.iter().map(|svid| &*svid.spiffe_id).collect();
                let expected = BTreeSet::from_iter(expected.iter().copied());
                assert_eq!(ids, expected, "{audience:?} {id}");
                for svid in svids {
                    let claims = Token::new(&svid.svid).claims;
                    assert_eq!(claims["sub"], *svid.spiffe_id);
                    assert_eq!(claims["aud"], serde_json::json!(audience));
                }
            }
            Err(status) => {
                assert_eq!(status.code(), Code::PermissionDenied, "{audience:?} {id}");
                assert!(expected.is_empty(), "{audience:?} {id}: {status}");
            }
        }
    }
}

#[tokio::test]
async fn a_caller_that_no_entry_matches_gets_no_token() {
    let folder = folder();
    let mut configuration = Configuration::new();
    let own = geteuid().as_raw();
    let stranger = format!("[\"unix:uid:{}\"]\naudiences = [\"demo\"]", own + 1);
    let entries = &mut configuration.entries;
    *entries = entries.replace(&format!("[\"unix:uid:{own}\"]"), &stranger);
    assert!(entries.contains(&stranger));
    let gate = Sidegate::run(&configuration.write(folder.path()));
    for id in ["", super::DEMO] {
        let refused = fetch(&gate.ready.workload_socket, &["demo"], id).await;
        let status = refused.expect_err("it is refused");
        assert_eq!(status.code(), Code::PermissionDenied, "{status}");
    }
}

#[tokio::test]
async fn two_users_get_each_their_own_token_only() {
    let setpriv = tool(Tool::Setpriv).filter(|_| geteuid().is_root());
    let Some(setpriv) = setpriv else {
        return skip("two_users_get_each_their_own_token_only", Tool::Setpriv);
    };
    let folder = folder();
    let open = Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), open.clone()).expect("it is ours");
    let binary = folder.path().join("sidegate");
    fs::copy(sidegate(), &binary).expect("it is copied");
    fs::set_permissions(&binary, open).expect("it is ours");
    let entry = |path, uid, audiences| Entry {
        path,
        uid,
        audiences,
    };
    let gate = gate(
        folder.path(),
        &[
            entry("/nobody", NOBODY, &["both", "nobodys"]),
            entry("/somebody", SOMEBODY, &["both", "somebodys"]),
            own("/root", &["both"]),
        ],
    );
    let socket = &gate.ready.workload_socket;
    let run = |uid: u32, arguments: &[&str]| {
        let mut command = Command::new(&setpriv);
        command
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .arg("--clear-groups")
            .arg(&binary)
            .arg("svid")
            .args(arguments)
            .args(["-o", "json", "--socket", socket]);
        finish(&mut command)
    };

    let users = [
        (NOBODY, "/nobody", "nobodys"),
        (SOMEBODY, "/somebody", "somebodys"),
    ];
    for (uid, path, audience) in users {
        for audience in ["both", audience] {
            let output = run(uid, &["fetch", "jwt", "--audience", audience]);
            let (subject, token) = only(&output);
            assert_eq!(subject, id(path), "{audience}");
            assert_eq!(Token::new(&token).claims["sub"], id(path));
            // Whoever asks, it is valid.
            let output = run(NOBODY, &["validate", "--audience", audience, &token]);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
        }
    }
    let nobody = id("/nobody");
    let refused: [(u32, &[&str]); 5] = [
        (NOBODY, &["--audience", "somebodys"]),
        (SOMEBODY, &["--audience", "nobodys"]),
        (SOMEBODY, &["--audience", "both", "--spiffe-id", &nobody]),
        (0, &["--audience", "nobodys"]),
        (65532, &["--audience", "both"]),
    ];
    for (uid, arguments) in refused {
        let output = run(uid, &[&["fetch", "jwt"], arguments].concat());
        assert_eq!(
            output.status.code(),
            Some(2),
            "{uid} {arguments:?}: {output:?}"
        );
        assert_eq!(output.stdout, "", "{uid} {arguments:?}");
        assert!(output.stderr.contains("error[SG"), "{output:?}");
    }
    let own = fetch_one(socket, &["both"]).await;
    assert_eq!(own.spiffe_id, id("/root"));
}

/// The SPIFFE ID and the token of the only SVID that was printed.
pub(crate) fn only(output: &Output) -> (String, String) {
    assert!(output.status.success(), "{output:?}");
    let document: Value = serde_json::from_str(&output.stdout).expect("it is JSON");
    let svids = document["svids"].as_array().expect("there are SVIDs");
    assert_eq!(svids.len(), 1, "{document}");
    let text = |key: &str| svids[0][key].as_str().expect("a text").to_owned();
    (text("spiffe_id"), text("token"))
}
