//! `sidegate svid`: SVIDs and bundles in files, bundles on standard output, and changes as they come.

mod bundle;
pub(crate) mod fake;
mod others;
mod token;
mod watch;

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::unistd::{Uid, chown, geteuid};
use rcgen::KeyPair;
use serde_json::Value;
use sidegate_tests::{Output, Sidegate, Tool, skip, tool};

use crate::support::{Configuration, finish, folder};
use crate::workload_api::belongs;

const NO_ARGUMENTS: [&str; 0] = [];
const DEMO: &str = "spiffe://sidegate.local/demo";

/// `sidegate svid …` without the variable that the machine may have set.
fn svid(arguments: &[&str]) -> Command {
    let mut command = Sidegate::command("svid");
    command.args(arguments).env_remove("SPIFFE_ENDPOINT_SOCKET");
    command
}

/// It as JSON from a socket, which has to succeed.
fn json(gate: &Sidegate, arguments: &[&str]) -> Value {
    let output = finish(svid(arguments).args(["-o", "json"]).args(socket(gate)));
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    serde_json::from_str(&output.stdout).expect("it is JSON")
}

/// `sidegate run` with two further identities of the user who runs the tests.
fn with_one_and_two(folder: &Path) -> Sidegate {
    let mut configuration = Configuration::new();
    for name in ["one", "two"] {
        let entry = format!(
            "\n[[identity.entry]]\nspiffe_id = \"spiffe://sidegate.local/{name}\"\n\
             selectors = [\"unix:uid:{}\"]\naudiences = [\"both\"]\n",
            geteuid()
        );
        configuration.entries.push_str(&entry);
    }
    Sidegate::run(&configuration.write(folder))
}

fn socket(gate: &Sidegate) -> [&str; 2] {
    ["--socket", &gate.ready.workload_socket]
}

/// The names in a folder.
fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path)
        .expect("it is there")
        .permissions()
        .mode()
        & 0o7777
}

/// The certificates in a PEM file, DER.
fn certificates(path: &Path) -> Vec<Vec<u8>> {
    let text = fs::read(path).expect("the file is there");
    let blocks = pem::parse_many(text).expect("it is PEM");
    let blocks = blocks.into_iter();
    blocks
        .inspect(|block| assert_eq!(block.tag(), "CERTIFICATE"))
        .map(pem::Pem::into_contents)
        .collect()
}

/// Whether a folder's key with this number is that of its SVID.
fn belong_together(folder: &Path, number: usize) -> bool {
    let key = fs::read_to_string(folder.join(format!("svid.{number}.key")));
    let key = KeyPair::from_pem(&key.expect("the key is there")).expect("a private key");
    let chain = certificates(&folder.join(format!("svid.{number}.pem")));
    belongs(&key, &chain[0])
}

fn is_refused(output: &Output, code: &str) {
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stdout, "", "{output:?}");
    let expected = format!("error[{code}]");
    assert!(output.stderr.contains(&expected), "{code}: {output:?}");
}

#[test]
fn written_files_are_private_and_openssl_verifies_them() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    for format in ["text", "json"] {
        let out = folder.path().join(format);
        let mut command = svid(&["fetch", "x509", "-o", format, "--write"]);
        let output = finish(command.arg(&out).args(socket(&gate)));
        assert!(output.status.success(), "{output:?}");
        let printed = output.stdout + &output.stderr;
        assert!(!printed.contains("PRIVATE KEY"), "{printed}");
        assert!(printed.contains(DEMO), "{printed}");

        assert_eq!(mode(&out), 0o700);
        let expected = ["bundle.0.pem", "svid.0.key", "svid.0.pem"];
        assert_eq!(names(&out), expected.map(ToOwned::to_owned).into());
        for name in expected {
            let file = out.join(name);
            assert_eq!(mode(&file), 0o600, "{name}");
            let path = file.to_str().expect("it is text");
            assert!(printed.contains(path), "{name}: {printed}");
        }
        assert!(belong_together(&out, 0));
        assert_eq!(certificates(&out.join("svid.0.pem")).len(), 2);

        let Some(openssl) = tool(Tool::Openssl) else {
            return skip("openssl_verifies_them", Tool::Openssl);
        };
        let mut verify = Command::new(openssl);
        verify
            .current_dir(&out)
            .args(["verify", "-x509_strict", "-CAfile", "bundle.0.pem"])
            .args(["-untrusted", "svid.0.pem", "svid.0.pem"]);
        let output = finish(&mut verify);
        assert!(output.status.success(), "{output:?}");
    }
}

#[test]
fn each_identity_has_files_of_its_own_and_what_is_no_longer_one_goes() {
    let folder = folder();
    let gate = with_one_and_two(folder.path());
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("it is made");
    for stale in [
        "svid.0.pem",
        "svid.3.key",
        "federated_bundle.0.7.pem",
        "mine.pem",
    ] {
        fs::write(out.join(stale), "old").expect("it is written");
    }
    let path = out.to_str().expect("it is text");
    let fetched = json(&gate, &["fetch", "x509", "--write", path]);
    let svids = fetched["svids"].as_array().expect("there are SVIDs");
    assert_eq!(svids.len(), 3);
    let mut expected = BTreeSet::from(["mine.pem".to_owned()]);
    for (number, svid) in svids.iter().enumerate() {
        assert!(belong_together(&out, number), "{number}");
        let file = out.join(format!("svid.{number}.pem"));
        assert_eq!(svid["files"]["svid"], file.to_str().unwrap());
        let printed = pem::parse_many(svid["chain"].as_str().unwrap()).unwrap();
        let printed: Vec<_> = printed.into_iter().map(pem::Pem::into_contents).collect();
        assert_eq!(certificates(&file), printed, "{number}");
        for name in ["svid.N.pem", "svid.N.key", "bundle.N.pem"] {
            expected.insert(name.replace('N', &number.to_string()));
        }
    }
    assert_eq!(names(&out), expected);
    assert_eq!(fs::read_to_string(out.join("mine.pem")).unwrap(), "old");
}

#[test]
fn a_directory_that_is_not_ours_alone_is_refused_and_left_as_it_is() {
    let folder = folder();
    let gate = Sidegate::up(&folder.path().join("state"), NO_ARGUMENTS);
    let make = |name: &str, mode: u32| {
        let path = folder.path().join(name);
        fs::create_dir(&path).expect("it is made");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("it is ours");
        path
    };
    let file = folder.path().join("file");
    fs::write(&file, "content").expect("it is written");
    let occupied = make("occupied", 0o700);
    std::os::unix::fs::symlink("/dev/null", occupied.join("svid.0.key")).expect("a link");
    let mut cases = vec![
        make("group", 0o770),
        make("all", 0o777),
        file.join("below"),
        folder.path().join("no/such/parent"),
        file,
        occupied,
    ];
    if geteuid().is_root() {
        let foreign = make("foreign", 0o700);
        chown(&foreign, Some(Uid::from_raw(65534)), None).expect("root may");
        cases.push(foreign);
    }
    for path in &cases {
        let before = fs::read_dir(path).map(Iterator::count).ok();
        for arguments in [&["fetch", "x509"][..], &["watch", "--count", "1"]] {
            let mut command = svid(arguments);
            let output = finish(command.arg("--write").arg(path).args(socket(&gate)));
            is_refused(&output, "SG0057");
            let text = path.to_str().expect("it is text");
            assert!(output.stderr.contains(text), "{output:?}");
        }
        if !path.ends_with("occupied") {
            assert_eq!(fs::read_dir(path).map(Iterator::count).ok(), before);
        }
    }
    let link = fs::symlink_metadata(folder.path().join("occupied/svid.0.key"));
    assert!(link.expect("it is there").is_symlink());
}

#[test]
fn arguments_that_make_no_sense_are_exit_code_2_without_output() {
    let cases: [&[&str]; 14] = [
        &["fetch", "x509", "--write", ""],
        &["fetch", "jwt", "--audience", "demo", "--write", ""],
        &["watch", "--count", "0"],
        &["watch", "--count", "-1"],
        &["watch", "--count", "many"],
        &["watch", "--write"],
        &["watch", "--socket", "http://127.0.0.1:1"],
        &["watch", "--socket", "unix:relative"],
        &["watch", "--audience", "demo"],
        &["bundle", "--format", "jwks"],
        &["bundle", "--format", "pem", "-o", "json"],
        &["bundle", "--trust-domain", "Upper.Case"],
        &["bundle", "--trust-domain", "spiffe://a"],
        &["bundle", "--trust-domain", ""],
    ];
    for arguments in cases {
        let mut command = svid(arguments);
        if !arguments.contains(&"--socket") {
            command.args(["--socket", "/nowhere"]);
        }
        let output = finish(&mut command);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, "", "{arguments:?}");
        assert!(output.stderr.contains("error"), "{arguments:?}: {output:?}");
    }
    for arguments in [&["watch"][..], &["bundle"], &["fetch", "x509"]] {
        let output = finish(&mut svid(arguments));
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stderr.contains("--socket"), "{output:?}");
    }
}
