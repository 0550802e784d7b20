//! `cargo xtask guests`: builds the components under `guests/` and records what they were built
//! from, so that the committed components can be used without a WebAssembly toolchain.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use aws_lc_rs::digest::{SHA256, digest};

/// The guests, each a crate in a folder of its name.
const GUESTS: [&str; 2] = ["hello", "probe"];

const TARGET: &str = "wasm32-wasip2";

/// Digests of every source and component, in the format of `sha256sum`, relative to `guests/`.
const RECORD: &str = "components/SOURCES.sha256";

/// What `--check` and a failed check tell the reader to do.
const REBUILD: &str = "rebuild the components with `cargo xtask guests`";

/// Paths below `guests/` and the SHA-256 of their files, in hexadecimal.
type Digests = BTreeMap<String, String>;

/// Builds the guests and writes the record; with `check_only`, only compares the record with the
/// sources and components that are there.
pub(crate) fn run(check_only: bool) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../guests");
    if !check_only {
        build(&root)?;
        fs::write(root.join(RECORD), format_record(&digests(&root)?))?;
    }
    check(&root)
}

fn check(root: &Path) -> Result<()> {
    let record = fs::read_to_string(root.join(RECORD))
        .with_context(|| format!("guests/{RECORD} cannot be read: {REBUILD}"))?;
    let differences = differences(&parse_record(&record)?, &digests(root)?);
    ensure!(
        differences.is_empty(),
        "the components are not in step with their sources: {REBUILD}\n  {}",
        differences.join("\n  ")
    );
    Ok(())
}

fn build(root: &Path) -> Result<()> {
    add_target(root)?;
    let cargo = ["build", "--release", "--locked", "--target", TARGET];
    let status = Command::new("cargo").args(cargo).current_dir(root).status();
    ensure!(
        status.context("cargo cannot be run")?.success(),
        "the guests do not build"
    );

    fs::create_dir_all(root.join("components"))?;
    for guest in GUESTS {
        let built = root.join(format!("target/{TARGET}/release/{guest}.wasm"));
        let component =
            fs::read(&built).with_context(|| format!("{} is missing", built.display()))?;
        // A path of the machine that built it would be published with the component.
        let registry = b"/registry/src/";
        ensure!(
            !component
                .windows(registry.len())
                .any(|window| window == registry),
            "{guest}.wasm names paths of this machine: avoid panics with locations in dependencies"
        );
        fs::write(root.join(component_path(guest)), component)?;
    }
    Ok(())
}

/// Makes sure that the compiler has the target.
fn add_target(root: &Path) -> Result<()> {
    let installed = Command::new("rustup")
        .args(["target", "list", "--installed"])
        .current_dir(root)
        .output()
        .with_context(|| {
            format!("rustup cannot be run, and the guests need its {TARGET} target")
        })?;
    if String::from_utf8_lossy(&installed.stdout)
        .lines()
        .any(|line| line == TARGET)
    {
        return Ok(());
    }
    let added = Command::new("rustup")
        .args(["target", "add", TARGET])
        .current_dir(root)
        .status()?;
    ensure!(
        added.success(),
        "the {TARGET} target is not installed and cannot be fetched; \
         the committed components in guests/components can be used without it"
    );
    Ok(())
}

fn component_path(guest: &str) -> String {
    format!("components/{guest}.wasm")
}

/// The digests of everything that belongs to the record.
fn digests(root: &Path) -> Result<Digests> {
    let mut files = vec![PathBuf::from("Cargo.toml"), PathBuf::from("Cargo.lock")];
    for guest in GUESTS {
        files.push(PathBuf::from(component_path(guest)));
        files.push(Path::new(guest).join("Cargo.toml"));
        collect(root, &Path::new(guest).join("src"), &mut files)?;
    }
    let digests = files.iter().map(|file| {
        let bytes = fs::read(root.join(file))
            .with_context(|| format!("guests/{} cannot be read", file.display()))?;
        let name = file
            .to_str()
            .context("a guest's file has a name that is not UTF-8")?;
        Ok((name.to_owned(), hex(digest(&SHA256, &bytes).as_ref())))
    });
    digests.collect()
}

/// All files below a folder, relative to `root`.
fn collect(root: &Path, folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let path = folder.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            collect(root, &path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

fn differences(recorded: &Digests, found: &Digests) -> Vec<String> {
    let changed = found
        .iter()
        .filter_map(|(name, digest)| match recorded.get(name) {
            None => Some(format!("{name} is new")),
            Some(known) if known != digest => Some(format!("{name} has changed")),
            Some(_) => None,
        });
    let gone = recorded.keys().filter(|name| !found.contains_key(*name));
    changed
        .chain(gone.map(|name| format!("{name} is gone")))
        .collect()
}

fn format_record(digests: &Digests) -> String {
    digests.iter().fold(String::new(), |text, (name, digest)| {
        format!("{text}{digest}  {name}\n")
    })
}

fn parse_record(text: &str) -> Result<Digests> {
    let mut digests = Digests::new();
    for line in text.lines() {
        let Some((digest, name)) = line.split_once("  ") else {
            bail!("guests/{RECORD} has a line that is no digest and name: {line:?}");
        };
        digests.insert(name.to_owned(), digest.to_owned());
    }
    Ok(digests)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(lines: &str) -> Digests {
        parse_record(lines).unwrap()
    }

    #[test]
    fn a_record_that_is_written_can_be_read() {
        let record = "aa  Cargo.toml\nbb  hello/src/lib.rs\n";
        assert_eq!(format_record(&digests(record)), record);
        assert!(parse_record("aa Cargo.toml\n").is_err());
    }

    #[test]
    fn every_difference_is_named() {
        let recorded = digests("aa  same\nbb  changed\ncc  gone\n");
        let found = digests("aa  same\nb0  changed\ndd  new\n");
        assert_eq!(
            differences(&recorded, &found),
            ["changed has changed", "new is new", "gone is gone"]
        );
        assert!(differences(&recorded, &recorded).is_empty());
    }
}
