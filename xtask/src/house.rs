//! What holds for the tree as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::root;

/// Which rooms each room may know, and which crates it must not.
const ROOMS: [(&str, &[&str], &[&str]); 7] = [
    (
        "identity",
        &[],
        &["hyper", "regorus", "envoy-types", "wasmtime"],
    ),
    (
        "policies",
        &[],
        &[
            "rustls",
            "tokio",
            "socket2",
            "hyper",
            "envoy-types",
            "wasmtime",
        ],
    ),
    (
        "proxy",
        &["sidegate-identity", "sidegate-policy"],
        &["envoy-types", "wasmtime", "regorus", "tonic"],
    ),
    (
        "xds",
        &["sidegate-identity", "sidegate-policy"],
        &["wasmtime", "hyper", "socket2", "regorus"],
    ),
    (
        "host",
        &["sidegate-identity", "sidegate-policy"],
        &["envoy-types", "tonic", "socket2", "rustls", "regorus"],
    ),
    ("tests", &[], &["regorus", "wasmtime", "envoy-types"]),
    (
        "bench",
        &["sidegate-identity", "sidegate-policy"],
        &["regorus", "wasmtime", "envoy-types"],
    ),
];

const LONGEST_FILE: usize = 700;

#[test]
fn dependencies_between_rooms_point_one_way() {
    for (room, known, forbidden) in ROOMS {
        let manifest = fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let mut sections = vec!["dependencies", "build-dependencies"];
        if room == "tests" {
            // What a test may use of our own is what it tests: nothing.
            sections.push("dev-dependencies");
        }
        let names = sections
            .iter()
            .filter_map(|section| manifest.get(*section)?.as_table())
            .flat_map(toml::Table::keys);
        for name in names {
            let is_ours = name.starts_with("sidegate");
            assert!(
                !is_ours || known.contains(&name.as_str()),
                "{room} must not know {name}"
            );
            assert!(
                !forbidden.contains(&name.as_str()),
                "{room} must not know {name}"
            );
        }
    }
}

#[test]
fn every_library_forbids_unsafe_code_and_documents_itself() {
    for room in ["identity", "policies", "proxy", "xds", "host"] {
        let library = fs::read_to_string(root().join(room).join("src/lib.rs")).unwrap();
        assert!(library.contains("#![warn(missing_docs)]"), "{room}");
        let manifest = fs::read_to_string(root().join(room).join("Cargo.toml")).unwrap();
        assert!(manifest.contains("[lints]\nworkspace = true"), "{room}");
    }
}

#[test]
fn every_diagnostic_code_is_explained_and_every_explanation_has_a_code() {
    let mut used: BTreeMap<String, PathBuf> = BTreeMap::new();
    for path in files("rs").into_iter().filter(|path| !is_test(path)) {
        for code in codes(&fs::read_to_string(&path).unwrap()) {
            used.insert(code, path.clone());
        }
    }
    let page = fs::read_to_string(root().join("docs/diagnostics.md")).unwrap();
    let explained: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| SG"))
        .filter_map(|rest| rest.get(..4))
        .map(|digits| format!("SG{digits}"))
        .collect();
    for (code, path) in &used {
        assert!(
            explained.contains(code),
            "{code} of {} is not explained",
            path.display()
        );
    }
    for code in &explained {
        assert!(used.contains_key(code), "{code} is explained and not used");
    }
}

#[test]
fn the_example_pins_the_component_that_is_there() {
    let example = fs::read_to_string(root().join("examples/sidegate.toml")).unwrap();
    let component = fs::read(root().join("guests/components/hello.wasm")).unwrap();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &component);
    let digest: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert!(
        example.contains(&format!("component:digest:sha256:{digest}")),
        "{digest}"
    );
}

#[test]
fn a_file_is_read_in_one_sitting() {
    for path in files("rs") {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(
            lines <= LONGEST_FILE,
            "{} has {lines} lines",
            path.display()
        );
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    for path in files("md") {
        let text = fs::read_to_string(&path).unwrap();
        let targets = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next());
        for target in targets {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let linked = path.parent().unwrap().join(target);
            assert!(linked.exists(), "{} links to {target}", path.display());
        }
    }
}

fn is_test(path: &Path) -> bool {
    let in_project = path.strip_prefix(root()).unwrap();
    in_project
        .iter()
        .any(|part| part == "tests" || part == "tests.rs")
        || in_project.starts_with("xtask")
        || in_project.starts_with("guests")
}

/// `SG` and four digits, as they stand in string literals.
fn codes(text: &str) -> BTreeSet<String> {
    text.split("\"SG")
        .skip(1)
        .filter_map(|rest| Some((rest.get(..4)?, rest.get(4..5)?)))
        .filter(|(digits, after)| {
            *after == "\"" && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
        .map(|(digits, _)| format!("SG{digits}"))
        .collect()
}

/// The project's files with an ending, without what is built or installed.
fn files(extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path);
            }
        }
    }
    found
}
