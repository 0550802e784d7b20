//! State directories that are refused, and stay as they are.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sidegate_tests::Sidegate;

use super::{assert_refused, unlike_a_refusal, up};
use crate::state::content;
use crate::support::{folder, write};

/// A state directory that was used once.
fn used(folder: &Path) -> PathBuf {
    let state = folder.join("state");
    let output = Sidegate::up(&state, [""; 0]).stop();
    assert_eq!(output.status.code(), Some(0));
    state
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_directory_of_something_else_is_refused_and_not_touched() {
    let folder = folder();
    let foreign = folder.path().join("foreign");
    write(&foreign, "notes.txt", "mine");
    write(&foreign, "demo/svid.pem", "mine too");
    for bits in [0o700, 0o755] {
        fs::set_permissions(&foreign, Permissions::from_mode(bits)).unwrap();
        let before = content(&foreign);
        assert_refused(&up(&foreign, [""; 0]), &["foreign"]);
        assert_eq!(content(&foreign), before);
        assert_eq!(mode(&foreign), bits);
    }
}

#[test]
fn a_file_in_its_place_is_refused() {
    let folder = folder();
    let file = write(folder.path(), "state", "mine");
    assert_refused(&up(&file, [""; 0]), &["state"]);
    assert_eq!(fs::read(&file).unwrap(), b"mine");
}

#[test]
fn the_state_of_another_trust_domain_is_refused_and_both_are_named() {
    let folder = folder();
    let state = used(folder.path());
    let before = content(&state);
    let output = up(&state, ["--trust-domain", "other.example"]);
    assert_refused(&output, &["sidegate.local", "other.example"]);
    assert_eq!(content(&state), before);
    drop(Sidegate::up(&state, [""; 0]));
}

#[test]
fn an_authority_that_cannot_be_read_is_refused_and_left_as_it_is() {
    let folder = folder();
    let state = used(folder.path());
    let path = state.join("authority.pem");
    let good = fs::read_to_string(&path).unwrap();
    let blocks: Vec<&str> = good.split_inclusive("-----\n").collect();
    assert_eq!(blocks.len(), 8, "begin and end of four blocks");
    let (root, root_key) = (blocks[..2].concat(), blocks[2..4].concat());
    let (middle, middle_key) = (blocks[4..6].concat(), blocks[6..].concat());

    let cases = [
        ("empty", String::new()),
        ("no PEM", "garbage\n".to_owned()),
        ("cut off", good[..good.len() / 2].to_owned()),
        ("one block short", format!("{root}{root_key}{middle}")),
        ("one block more", format!("{good}{root}")),
        (
            "keys that do not fit",
            format!("{root}{middle_key}{middle}{root_key}"),
        ),
        (
            "in another order",
            format!("{middle}{middle_key}{root}{root_key}"),
        ),
        ("a changed byte", good.replacen("MII", "MIA", 1)),
    ];
    let mut wrong = Vec::new();
    for (what, text) in cases {
        fs::write(&path, &text).unwrap();
        let output = up(&state, [""; 0]);
        if let Some(why) = unlike_a_refusal(&output, &["authority.pem"]) {
            wrong.push(format!("{what}: {why}"));
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), text, "{what}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    fs::write(&path, &good).unwrap();
    drop(Sidegate::up(&state, [""; 0]));
}

#[test]
fn a_state_directory_that_others_can_enter_is_refused() {
    let folder = folder();
    let state = used(folder.path());
    for bits in [0o750, 0o710, 0o755, 0o701, 0o770] {
        fs::set_permissions(&state, Permissions::from_mode(bits)).unwrap();
        let output = up(&state, [""; 0]);
        assert_refused(&output, &[state.to_str().unwrap()]);
        assert_eq!(mode(&state), bits, "it is left as it is");
    }
    fs::set_permissions(&state, Permissions::from_mode(0o700)).unwrap();
    drop(Sidegate::up(&state, [""; 0]));
}

#[test]
fn a_path_that_is_too_long_for_a_socket_is_refused_before_an_authority_is_made() {
    let folder = folder();
    let parent = folder.path().join("d".repeat(60));
    fs::create_dir(&parent).unwrap();
    let deep = parent.join("e".repeat(60));
    let output = up(&deep, [""; 0]);
    assert_refused(&output, &["workload.sock", "107"]);
    assert!(!deep.join("authority.pem").exists());
}
