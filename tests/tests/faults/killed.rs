//! SIGKILL before each system call that changes a file: whatever is there then, a start opens it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};

use rcgen::KeyPair;
use serde_json::Value;
use sidegate_tests::{Running, Sidegate, Tool, skip, tool, until};
use time::Duration;

use super::old_state::{Age, age_jwt_keys, authorities};
use super::setup::Setup;
use super::traced::traced;
use crate::support::folder;
use crate::workload_api::belongs;

/// The files of the state directory whose content grows old.
const AUTHORITIES: [&str; 2] = ["authority.pem", "jwt_keys.json"];

/// System calls that change files.
struct Change {
    /// As strace takes them: their names differ between machines.
    calls: &'static str,
    /// Only those to files of the state directory count: programs open and write much else.
    of_state: bool,
}

/// `unlink` is not among them: here it finds nothing to remove.
const CHANGES: [Change; 7] = [
    change("?mkdir,?mkdirat", false),
    change("?chmod,?fchmodat", false),
    change("openat", true),
    change("write", true),
    change("fsync", false),
    change("?rename,?renameat,?renameat2", false),
    change("?symlink,?symlinkat", false),
];

/// The authorities' files by name, as far as they are there.
type Authorities = BTreeMap<&'static str, Vec<u8>>;

#[test]
fn a_first_start_that_is_killed_anywhere_is_made_up_for_by_the_next() {
    let Some(strace) = tool(Tool::Strace) else {
        return skip("a_first_start_that_is_killed_anywhere", Tool::Strace);
    };
    let kills = kill_before_each_change(&strace, &Authorities::new());
    // Six files, each made, written, synchronized and renamed.
    assert!(kills > 30, "{kills}");
}

#[test]
fn a_start_that_is_killed_anywhere_in_a_rotation_is_made_up_for_by_the_next() {
    let Some(strace) = tool(Tool::Strace) else {
        return skip(
            "a_start_that_is_killed_anywhere_in_a_rotation",
            Tool::Strace,
        );
    };
    let old = old_authorities();
    let kills = kill_before_each_change(&strace, &old);
    // Five files: the directory is marked already.
    assert!(kills > 25, "{kills}");

    let folder = folder();
    let _gate = Sidegate::run(&prepare(folder.path(), &old));
    let new = read_authorities(&folder.path().join("state"));
    let [old, new] = [&old, &new].map(|files| public(files).len());
    assert_eq!((old, new), (2, 4), "both authorities get a successor");
}

/// Kills starts in folders with these authorities, checks each that was left behind, and says how
/// many there were.
fn kill_before_each_change(strace: &Path, authorities: &Authorities) -> usize {
    let usual = usual_names(authorities);
    let mut kills = 0;
    for change in &CHANGES {
        let mut before = 0;
        loop {
            let folder = folder();
            let config = prepare(folder.path(), authorities);
            let state = folder.path().join("state");
            let files = usual.iter().map(|name| state.join(name));
            if !killed_before(strace, &config, change, files, before + 1) {
                break;
            }
            before += 1;
            let place = format!("before the {before}. {}", change.calls);
            check(folder.path(), &config, authorities, &place);
            assert_eq!(names(&state), usual, "{place}: something is left");
        }
        kills += before;
    }
    kills
}

/// What is in the state directory while it runs if nobody was killed.
fn usual_names(authorities: &Authorities) -> Vec<String> {
    let folder = folder();
    let _gate = Sidegate::run(&prepare(folder.path(), authorities));
    names(&folder.path().join("state"))
}

/// A configuration, and a state with these authorities if there are any.
fn prepare(folder: &Path, authorities: &Authorities) -> PathBuf {
    let config = Setup::without_component().write(folder);
    if !authorities.is_empty() {
        let state = folder.join("state");
        DirBuilder::new().mode(0o700).create(&state).unwrap();
        let marker = br#"{"format":1,"trust_domain":"sidegate.local"}"#;
        let marker = ("state.json", marker.to_vec());
        let files = authorities
            .iter()
            .map(|(name, content)| (*name, content.clone()));
        for (name, content) in files.chain([marker]) {
            let mut file = OpenOptions::new();
            file.write(true).create_new(true).mode(0o600);
            let mut file = file.open(state.join(name)).unwrap();
            file.write_all(&content).unwrap();
        }
    }
    config
}

/// Authorities of which half is over, as is that of the intermediate.
fn old_authorities() -> Authorities {
    let folder = folder();
    drop(Sidegate::run(&prepare(folder.path(), &Authorities::new())));
    let state = folder.path().join("state");
    age_jwt_keys(&state.join("jwt_keys.json"), Duration::hours(18));
    let age = Age {
        since: Duration::hours(3),
        left: Duration::hours(1),
    };
    fs::write(state.join("authority.pem"), authorities(&[(age, age)])).unwrap();
    read_authorities(&state)
}

/// Starts it, and has it killed when it is about to do such a change for the nth time. Says whether
/// it came to that.
fn killed_before(
    strace: &Path,
    config: &Path,
    change: &Change,
    files: impl Iterator<Item = PathBuf>,
    nth: usize,
) -> bool {
    let kill = format!("signal=SIGKILL:when={nth}");
    let files = files.filter(|_| change.of_state);
    let paths = files.flat_map(|file| [file.with_added_extension("new"), file]);
    let mut command = traced(strace, change.calls, &kill, paths, config);
    let mut process = Running::start(&mut command);
    let survived = until("its end, or its beginning", || {
        if process.stdout().contains("\"ready\"") {
            return Some(true);
        }
        (!process.is_running()).then_some(false)
    });
    if !survived {
        let output = process.wait();
        assert_eq!(output.status.signal(), Some(9), "{}", output.stderr);
    }
    !survived
}

/// What a kill left is opened, nothing that was complete is lost, and nothing else is left.
fn check(folder: &Path, config: &Path, before: &Authorities, place: &str) {
    let state = folder.join("state");
    let left = read_authorities(&state);
    let gate = Sidegate::run(config);
    let found = read_authorities(&state);
    for (name, content) in &left {
        if before.get(name) != Some(content) {
            assert_eq!(
                found.get(name),
                Some(content),
                "{place}: {name} is replaced"
            );
        }
    }
    let (kept, known) = (public(&left), public(&found));
    assert!(kept.is_subset(&known), "{place}: an authority is lost");

    let marker = fs::read(state.join("state.json")).unwrap();
    let marker: Value = serde_json::from_slice(&marker).unwrap();
    assert_eq!(marker["trust_domain"], "sidegate.local", "{place}");
    assert_eq!(mode(&state), 0o700, "{place}");
    for name in names(&state) {
        let path = state.join(&name);
        if path.is_file() {
            assert_eq!(mode(&path), 0o600, "{place}: {name}");
        }
    }
    check_svid_files(&folder.join("demo"), place);
    drop(gate);
}

/// The files of the demo identity belong together, and there is one set of them.
fn check_svid_files(demo: &Path, place: &str) {
    let set = fs::read_link(demo.join("..data")).unwrap();
    let set = set.to_str().unwrap();
    let files = ["bundle.pem", "bundle_map.json", "key.pem", "svid.pem"];
    let expected = [&[set, "..data"], &files[..]].concat().into_iter();
    let sorted = expected.map(ToOwned::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(
        names(demo),
        sorted.into_iter().collect::<Vec<_>>(),
        "{place}"
    );
    assert_eq!(names(&demo.join(set)), files, "{place}");
    let key = demo.join("key.pem");
    assert_eq!(mode(&key), 0o600, "{place}");
    let key = KeyPair::from_pem(&fs::read_to_string(key).unwrap()).unwrap();
    let svid = pem::parse_many(fs::read(demo.join("svid.pem")).unwrap()).unwrap();
    assert!(belongs(&key, svid[0].contents()), "{place}");
}

fn read_authorities(state: &Path) -> Authorities {
    let files = AUTHORITIES.map(|name| (name, fs::read(state.join(name)).ok()));
    let files = files.into_iter();
    files
        .filter_map(|(name, content)| Some((name, content?)))
        .collect()
}

/// The roots, and the JWT keys.
fn public(authorities: &Authorities) -> BTreeSet<Vec<u8>> {
    let mut public = BTreeSet::new();
    if let Some(roots) = authorities.get("authority.pem") {
        let blocks = pem::parse_many(roots).unwrap();
        public.extend(blocks.chunks(4).map(|blocks| blocks[0].contents().to_vec()));
    }
    if let Some(keys) = authorities.get("jwt_keys.json") {
        let document: Value = serde_json::from_slice(keys).unwrap();
        let keys = document["keys"].as_array().unwrap();
        public.extend(keys.iter().map(|key| key["key"].as_str().unwrap().into()));
    }
    public
}

/// The names in a folder, in order.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const fn change(calls: &'static str, of_state: bool) -> Change {
    Change { calls, of_state }
}
