//! The state directory: kept across restarts, and held by one instance.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use sidegate_tests::Sidegate;

use crate::support::{Client, address, finish, folder, up};

#[tokio::test(flavor = "multi_thread")]
async fn after_a_kill_it_starts_again_with_the_same_authority() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let before = Client::demo(&sidegate);
    let bundle = fs::read(&sidegate.demo().bundle).unwrap();
    let authority = fs::read(sidegate.ready.state.join("authority.pem")).unwrap();
    sidegate.process.signal(Signal::SIGKILL);
    sidegate.process.wait();
    let socket = folder.path().join("state/workload.sock");
    assert!(socket.exists(), "a killed process leaves its socket");

    let sidegate = up(&folder, &[]);
    assert_eq!(fs::read(&sidegate.demo().bundle).unwrap(), bundle);
    assert_eq!(
        fs::read(sidegate.ready.state.join("authority.pem")).unwrap(),
        authority
    );
    std::os::unix::net::UnixStream::connect(&socket).expect("the socket is new");
    assert_eq!(Client::demo(&sidegate).get("/status/200").await.status, 200);

    // Who kept the old bundle and SVID is served as well.
    let old = before.at(address(&sidegate));
    assert_eq!(old.get("/status/200").await.status, 200);
}

#[test]
fn after_a_stop_it_starts_again_with_the_same_authority() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let bundle = fs::read(&sidegate.demo().bundle).unwrap();
    assert_eq!(sidegate.stop().status.code(), Some(0));
    let sidegate = up(&folder, &[]);
    assert_eq!(fs::read(&sidegate.demo().bundle).unwrap(), bundle);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_instance_is_refused_and_the_first_goes_on() {
    let folder = folder();
    let sidegate = up(&folder, &[]);
    let state = &sidegate.ready.state;
    let before = content(state);

    let output = finish(
        Sidegate::command("up")
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .arg("--state")
            .arg(state),
    );
    assert_eq!(output.status.code(), Some(2), "{}", output.stderr);
    assert!(output.stderr.contains("error[SG"), "{}", output.stderr);
    assert!(output.stderr.contains(state.to_str().unwrap()));
    assert_eq!(output.stdout, "");

    assert_eq!(content(state), before);
    assert!(std::os::unix::net::UnixStream::connect(state.join("workload.sock")).is_ok());
    assert_eq!(Client::demo(&sidegate).get("/status/200").await.status, 200);
}

/// Every file below a folder with its content.
pub(crate) fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            files.extend(content(&path));
        } else {
            let bytes = if kind.is_file() {
                fs::read(&path).unwrap()
            } else {
                Vec::new()
            };
            files.push((path.display().to_string(), bytes));
        }
    }
    files.sort();
    files
}
