//! What the tests share: certificates to show, clients to ask with, and logs to read.

mod certificates;
mod client;
mod configuration;
mod listen;
mod observe;
mod operator;
mod upstream;

pub(crate) use certificates::{Authority, Identity, certificates, leaf, now};
pub(crate) use client::{Answer, Body, Client, body, patiently, read};
pub(crate) use configuration::{Configuration, digest, hexadecimal};
pub(crate) use listen::{listen, listen_at};
pub(crate) use observe::{access_line, admin, counter, logged};
pub(crate) use operator::{
    Operator, identity_only, own_entry, own_uid, phases, program, spiffe_id,
};
pub(crate) use upstream::Upstream;

use std::path::{Path, PathBuf};
use std::process::Command;

use sidegate_tests::{Output, Running, Sidegate, guest};
use tempfile::TempDir;

/// A folder of its own for one test, gone with it.
pub(crate) fn folder() -> TempDir {
    TempDir::new().expect("a folder")
}

/// `sidegate up` in front of the probe, with further arguments.
pub(crate) fn up(folder: &TempDir, arguments: &[&str]) -> Sidegate {
    let probe = guest("probe");
    let probe = probe.to_str().expect("the path is text");
    Sidegate::up(&folder.path().join("state"), [&[probe], arguments].concat())
}

/// `sidegate up` in front of the probe, deciding by one Rego file.
pub(crate) fn up_with_policy(folder: &TempDir, rego: &str) -> Sidegate {
    let policy = write(folder.path(), "policy/policy.rego", rego);
    up(
        folder,
        &["--policy", policy.parent().unwrap().to_str().unwrap()],
    )
}

/// Runs a program to its end.
pub(crate) fn finish(command: &mut Command) -> Output {
    Running::start(command).wait()
}

/// Writes a file, with its folder.
pub(crate) fn write(folder: &Path, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("it is in a folder")).expect("it is made");
    std::fs::write(&path, content).expect("it is written");
    path
}

/// The address of its only listener.
pub(crate) fn address(sidegate: &Sidegate) -> &str {
    let [listener] = sidegate.ready.listeners.as_slice() else {
        panic!("one listener: {:?}", sidegate.ready.listeners);
    };
    &listener.address
}
