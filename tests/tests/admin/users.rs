//! Who is let in: the owner and root, by the credentials of their process alone.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Gid, Uid, chown};
use sidegate_tests::{Output, Sidegate, Tool, skip, tool};

use super::{Api, everything, start};
use crate::support::{Operator, finish, identity_only, logged, own_uid, spiffe_id};
use crate::workload_api::many_users::{copy_of_sidegate, open_folder};
use crate::workload_api::setpriv;

const NOBODY: u32 = 65534;
const SOMEBODY: u32 = 65533;

/// A way to run programs as another user.
struct Users {
    setpriv: PathBuf,
    sidegate: PathBuf,
    state: PathBuf,
}

#[test]
fn another_user_gets_nothing_even_where_all_files_are_open() {
    let Some(setpriv) = setpriv("another_user_gets_nothing_even_where_all_files_are_open") else {
        return;
    };
    let folder = open_folder();
    let gate = start(folder.path());
    let users = Users::new(setpriv, folder.path(), &gate);
    let api = Api::of(&gate);
    api.create("one", &spiffe_id("/one"), "unix:uid:1");
    let before = everything(&api);
    users.open();

    let create = format!("entry create --spiffe-id {} --selector", spiffe_id("/new"));
    let uid = format!("unix:uid:{NOBODY}");
    let create = Vec::from_iter(create.split(' ').chain([uid.as_str()]));
    let all: [&[&str]; 8] = [
        &["entry", "list"],
        &["entry", "show", "one"],
        &create,
        &["entry", "delete", "one"],
        &["authorities"],
        &["rotate", "x509"],
        &["taint", "jwt"],
        &["revoke", "x509"],
    ];
    for arguments in all {
        let output = users.run(NOBODY, arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert_eq!(output.stdout, "", "{arguments:?}");
        let what = format!("{arguments:?}: {output:?}");
        assert!(output.stderr.contains("error[SG0054]"), "{what}");
        assert!(!output.stderr.contains("/one"), "{what}");
    }
    // It did reach the socket: it is the process that was turned away.
    logged(&gate, &["SG0048", &format!("uid={NOBODY}")]);
    assert_eq!(everything(&api), before, "nothing has changed");

    let Some(curl) = tool(Tool::Curl) else {
        return skip("another_user_gets_not_a_byte", Tool::Curl);
    };
    let mut command = users.command(NOBODY, &curl);
    command.args(["--silent", "--include", "--unix-socket"]);
    command.arg(api.socket()).arg("http://localhost/v1/entries");
    let output = finish(&mut command);
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(output.stdout, "", "not a byte");
}

#[test]
fn a_group_does_not_open_the_socket_either() {
    let Some(setpriv) = setpriv("a_group_does_not_open_the_socket_either") else {
        return;
    };
    let folder = open_folder();
    let gate = start(folder.path());
    let users = Users::new(setpriv.clone(), folder.path(), &gate);
    users.open();
    let mut command = Command::new(setpriv);
    command
        .args([&format!("--reuid={NOBODY}"), "--regid=0", "--groups=0"])
        .arg(&users.sidegate)
        .args(["identity", "entry", "list", "--state"])
        .arg(&users.state);
    let output = finish(&mut command);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stdout, "");
    logged(&gate, &["SG0048", &format!("uid={NOBODY}")]);
}

#[test]
fn the_owner_and_root_are_let_in_where_the_owner_is_not_root() {
    let Some(setpriv) = setpriv("the_owner_and_root_are_let_in") else {
        return;
    };
    let folder = open_folder();
    let sidegate = copy_of_sidegate(folder.path(), "sidegate");
    let own = folder.path().join("own");
    fs::create_dir(&own).expect("a folder");
    let config = identity_only(&own, "");
    for path in [&own, &config] {
        let owner = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        chown(path, Some(owner.0), Some(owner.1)).expect("we are root");
    }
    let mut command = Command::new(&setpriv);
    command
        .args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")])
        .arg("--clear-groups")
        .arg(&sidegate)
        .args(["run", "-o", "json", "--config"])
        .arg(&config);
    let gate = Sidegate::start(&mut command);
    let users = Users {
        setpriv,
        sidegate,
        state: gate.ready.state.clone(),
    };
    let create = |path: &str| format!("entry create --spiffe-id {} --selector", spiffe_id(path));
    let selector = own_uid();
    for (uid, path) in [(NOBODY, "/by-the-owner"), (0, "/by-root")] {
        let create = create(path);
        let create = Vec::from_iter(create.split(' ').chain([selector.as_str()]));
        let output = users.run(uid, &create);
        assert!(output.status.success(), "{uid}: {output:?}");
    }
    users.open();
    let output = users.run(SOMEBODY, &["entry", "list"]);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert_eq!(output.stdout, "");
    let entries = Operator::of(&gate).entries();
    assert_eq!(entries.len(), 2, "{entries:?}");
}

impl Users {
    fn new(setpriv: PathBuf, folder: &Path, gate: &Sidegate) -> Self {
        Self {
            setpriv,
            sidegate: copy_of_sidegate(folder, "sidegate"),
            state: gate.ready.state.clone(),
        }
    }

    /// Takes all that the file system could hold against anybody out of the way.
    fn open(&self) {
        for (path, mode) in [
            (self.state.clone(), 0o755),
            (self.state.join("admin.sock"), 0o666),
        ] {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
        }
    }

    fn command(&self, uid: u32, program: &Path) -> Command {
        let mut command = Command::new(&self.setpriv);
        command
            .args([format!("--reuid={uid}"), format!("--regid={uid}")])
            .arg("--clear-groups")
            .arg(program);
        command
    }

    /// `sidegate identity …` as a user.
    fn run(&self, uid: u32, arguments: &[&str]) -> Output {
        let mut command = self.command(uid, &self.sidegate);
        command.arg("identity").args(arguments);
        finish(command.arg("--state").arg(&self.state))
    }
}

/// A request to the admin address on TCP: its status and body.
pub(super) fn tcp(gate: &Sidegate, method: &str, path: &str, body: &str) -> (u16, String) {
    let address = gate.ready.admin.strip_prefix("http://").expect("a URL");
    let mut stream = TcpStream::connect(address).expect("it listens");
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("it is sent");
    let mut answer = Vec::new();
    // With a body that nobody reads the connection may end in a reset.
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).expect("it is text");
    let (head, body) = answer.split_once("\r\n\r\n").expect(&answer);
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), body.to_owned())
}
