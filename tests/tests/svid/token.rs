//! Tokens in files.

use std::fs;

use sidegate_tests::Sidegate;

use super::{DEMO, NO_ARGUMENTS, is_refused, json, mode, names, socket, svid, with_one_and_two};
use crate::support::{finish, folder};

#[test]
fn a_token_is_written_for_its_owner_only_and_not_printed() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    for format in ["text", "json"] {
        let file = folder.path().join(format!("{format}.token"));
        fs::write(&file, "an old one").expect("it is written");
        let mut command = svid(&["fetch", "jwt", "--audience", "demo", "-o", format]);
        let output = finish(command.arg("--write").arg(&file).args(socket(&gate)));
        assert!(output.status.success(), "{output:?}");
        assert_eq!(mode(&file), 0o600);
        let token = fs::read_to_string(&file).expect("it is text");
        assert_eq!(token.trim(), token);
        let printed = output.stdout + &output.stderr;
        assert!(!printed.contains(&token), "{printed}");
        let signature = token.rsplit('.').next().expect("the last part");
        assert!(!printed.contains(signature), "{printed}");
        for expected in [DEMO, file.to_str().expect("it is text")] {
            assert!(printed.contains(expected), "{printed}");
        }
        let valid = json(&gate, &["validate", "--audience", "demo", &token]);
        assert_eq!(valid["spiffe_id"], DEMO);
    }
}

#[test]
fn a_bare_file_name_is_one_in_the_working_directory() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("it is made");
    for arguments in [
        &["fetch", "jwt", "--audience", "demo", "--write", "token"][..],
        &["bundle", "--write", "bundle"],
        &["fetch", "x509", "--write", "svid"],
    ] {
        let output = finish(svid(arguments).args(socket(&gate)).current_dir(&out));
        assert!(output.status.success(), "{output:?}");
    }
    let expected = ["bundle", "svid", "token"].map(ToOwned::to_owned);
    assert_eq!(names(&out), expected.into());
}

#[test]
fn of_several_tokens_the_first_is_written_or_the_one_that_is_asked_for() {
    let folder = folder();
    let gate = with_one_and_two(folder.path());
    let file = folder.path().join("token");
    let file = file.to_str().expect("it is text");
    let fetch = ["fetch", "jwt", "--audience", "both"];
    let all = json(&gate, &fetch);
    assert_eq!(all["svids"].as_array().map(Vec::len), Some(2));
    let second = all["svids"][1]["spiffe_id"].as_str().expect("an ID");
    let cases: [(&[&str], _); 2] = [
        (&[], &all["svids"][0]["spiffe_id"]),
        (&["--spiffe-id", second], &all["svids"][1]["spiffe_id"]),
    ];
    for (more, expected) in cases {
        let written = json(&gate, &[&fetch[..], &["--write", file], more].concat());
        assert_eq!(written["svids"].as_array().map(Vec::len), Some(1));
        assert_eq!(written["svids"][0]["spiffe_id"], *expected);
        assert_eq!(written["svids"][0]["file"], file);
        assert_eq!(written["svids"][0].get("token"), None);
        let token = fs::read_to_string(file).expect("it is written");
        let valid = json(&gate, &["validate", "--audience", "both", &token]);
        assert_eq!(valid["spiffe_id"], *expected);
    }
}

#[test]
fn what_is_no_plain_file_is_not_replaced() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/dev/null", &link).expect("a link");
    let missing = folder.path().join("no/such/folder");
    for path in [link.as_path(), folder.path(), &missing] {
        for arguments in [&["fetch", "jwt", "--audience", "demo"][..], &["bundle"]] {
            let mut command = svid(arguments);
            let output = finish(command.arg("--write").arg(path).args(socket(&gate)));
            is_refused(&output, "SG0057");
        }
    }
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    let expected = ["link", "state"].map(ToOwned::to_owned);
    assert_eq!(names(folder.path()), expected.into());
}

#[test]
fn a_refused_token_leaves_the_old_file() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    let file = folder.path().join("token");
    fs::write(&file, "an old one").expect("it is written");
    let mut command = svid(&["fetch", "jwt", "--audience", "other", "--write"]);
    let output = finish(command.arg(&file).args(socket(&gate)));
    is_refused(&output, "SG0050");
    assert_eq!(fs::read_to_string(&file).unwrap(), "an old one");
}
