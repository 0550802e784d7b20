//! `[[svid_file]]`: files for programs that only read files, and how those are told of new ones.

mod commands;
mod set;
mod signals;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use sidegate_tests::{Sidegate, until};

use crate::federation::{Foreign, bundle};
use crate::go_spiffe::client::GoClient;
use crate::support::{Operator, folder, identity_only, own_entry, spiffe_id};
pub(crate) use set::Set;

const OTHER: &str = "other.example";
const THIRD: &str = "third.example";

#[test]
fn the_bundle_map_has_the_own_trust_domain_and_those_that_the_entry_federates_with() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = start(folder.path(), "", "");
    let operator = Operator::of(&gate);
    let directories = ["files", "plain"].map(|name| folder.path().join(name));
    let own = bundle(&operator, None);
    let read = |number: usize| until("files", || Set::read(&directories[number]));
    let map_of = |documents: &[(&str, &Value)]| -> Value {
        let keys = documents
            .iter()
            .map(|(name, document)| ((*name).to_owned(), json!({"keys": document["keys"]})));
        json!({"trust_domains": serde_json::Map::from_iter(keys)})
    };
    let ours = map_of(&[("sidegate.local", &own)]);
    let plain = read(1);
    assert_eq!(read(0).map, ours);
    assert_eq!(plain.map, ours);

    Foreign::start(THIRD).is_known_to(&operator);
    foreign.is_known_to(&operator);
    until("the foreign bundle", || {
        (read(0).trust_domains().len() > 1).then_some(())
    });
    let other = foreign.bundle();
    let both = map_of(&[("sidegate.local", &own), (OTHER, &other)]);
    assert_eq!(read(0).map, both);
    assert_eq!(read(0).bundle, plain.bundle);
    // What concerns only others does not make new files.
    assert_eq!(read(1), plain);

    foreign
        .operator()
        .ask(&["rotate", "x509", "--prepare-only"]);
    foreign.is_known_to(&operator);
    until("the second foreign root", || {
        (read(0).roots(OTHER).len() == 2).then_some(())
    });
    foreign.is_forgotten_by(&operator);
    until("the foreign bundle to be gone", || {
        (read(0).map == ours).then_some(())
    });

    for directory in &directories {
        let resolved = fs::canonicalize(directory.join("svid.pem")).expect("it is there");
        let resolved = resolved.parent().expect("it is in a folder");
        let mut names = BTreeSet::new();
        for file in fs::read_dir(resolved).expect("a folder") {
            let file = file.expect("a file");
            let mode = file.metadata().expect("it is there").permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file:?}");
            names.insert(file.file_name().into_string().expect("it is text"));
        }
        let expected = ["bundle.pem", "bundle_map.json", "key.pem", "svid.pem"];
        assert_eq!(names, BTreeSet::from(expected.map(ToOwned::to_owned)));
    }
}

#[test]
fn all_four_files_change_together_with_svids_and_roots_and_keys_and_bundles() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = start(folder.path(), "", "");
    let operator = Operator::of(&gate);
    let files = folder.path().join("files");
    let goes_on = AtomicBool::new(true);
    let ids = |kind: &str| -> BTreeSet<String> {
        let authorities = operator.authorities(kind).into_iter();
        authorities.map(|(_, id)| id).collect()
    };
    let seen = std::thread::scope(|scope| {
        // Reading asserts that they belong together, at any time.
        let reader = scope.spawn(|| {
            let mut seen: Vec<Set> = Vec::new();
            while goes_on.load(Ordering::Relaxed) {
                let set = Set::read(&files);
                seen.extend(set.filter(|set| seen.last() != Some(set)));
            }
            seen
        });
        for kind in ["x509", "jwt"] {
            for action in ["rotate", "taint", "revoke"] {
                operator.ask(&[action, kind]);
                until(&format!("{kind} {action} in the files"), || {
                    let set = Set::read(&files)?;
                    let keys = set.keys("sidegate.local", "jwt-svid").into_iter();
                    let keys: BTreeSet<_> = keys
                        .map(|key| key["kid"].as_str().expect("an id").to_owned())
                        .collect();
                    let is_so = set.root_keys() == ids("x509") && keys == ids("jwt");
                    is_so.then_some(())
                });
            }
        }
        for _ in 0..3 {
            foreign.is_known_to(&operator);
            until("the foreign bundle", || {
                (Set::read(&files)?.trust_domains().len() == 2).then_some(())
            });
            foreign.is_forgotten_by(&operator);
            until("the foreign bundle to be gone", || {
                (Set::read(&files)?.trust_domains().len() == 1).then_some(())
            });
        }
        goes_on.store(false, Ordering::Relaxed);
        reader.join().expect("the files always belong together")
    });
    let serials: BTreeSet<_> = seen.iter().map(Set::serial).collect();
    assert_eq!(serials.len(), 2, "one, and another after the taint");
    assert!(seen.len() > 8, "{}", seen.len());
}

#[test]
fn go_verifies_the_svid_by_the_bundle_map_and_knows_the_foreign_trust_domain() {
    let (folder, foreign) = (folder(), Foreign::start(OTHER));
    let gate = start(folder.path(), "", "");
    let Some(client) = GoClient::of(&gate, "go_verifies_the_svid_by_the_bundle_map") else {
        return;
    };
    let files = folder.path().join("files");
    let files = files.to_str().expect("the path is text");
    let expected = |bundles: Value| json!({"verified": spiffe_id("/demo"), "bundles": bundles});
    let own = json!({"x509": 1, "jwt": 1});
    let shown = client.ask(&["files", files]);
    assert_eq!(shown, [expected(json!({"sidegate.local": own}))]);

    foreign.is_known_to(&Operator::of(&gate));
    let both = expected(json!({"sidegate.local": own, OTHER: own}));
    until("the foreign trust domain", || {
        (client.ask(&["files", files]) == [both.clone()]).then_some(())
    });
}

/// An instance that writes `files` for an entry that federates with other.example, and `plain` for
/// one that does not; with lines within `[identity]`, and within the section of `files`.
fn start(folder: &Path, identity: &str, file: &str) -> Sidegate {
    let sections = format!(
        r#"{identity}
{demo}federates_with = ["other.example"]
{plain}
[[svid_file]]
spiffe_id = "spiffe://sidegate.local/demo"
directory = "files"
{file}
[[svid_file]]
spiffe_id = "spiffe://sidegate.local/plain"
directory = "plain"
"#,
        demo = own_entry("/demo"),
        plain = own_entry("/plain"),
    );
    Sidegate::run(&identity_only(folder, &sections))
}
