//! SVIDs and bundles as files.
//!
//! A directory holds what `spire-agent api fetch x509 -write` writes, under the same names:
//!
//! ```text
//! svid.0.pem                 leaf, then intermediates
//! svid.0.key                 PKCS#8
//! bundle.0.pem               roots of the SVID's own trust domain
//! federated_bundle.0.0.pem   roots of another trust domain, in the order of their names
//! svid.1.pem …               the next SVID
//! ```
//!
//! Each file is replaced in one step. Files of these names that are no longer current are removed:
//! an identity or a trust that was withdrawn must not stay behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::Path;

use nix::unistd::geteuid;
use serde::Serialize;
use sidegate_identity::durable;
use sidegate_identity::encoding::{certificates_pem, private_key_pem};
use spiffe::{Certificate, X509Context, X509Svid};

use crate::failure::Failure;

/// Where one SVID is.
#[derive(Debug, Serialize)]
pub(super) struct SvidFiles {
    pub(super) svid: String,
    pub(super) key: String,
    pub(super) bundle: String,
    /// By trust domain.
    pub(super) federated_bundles: BTreeMap<String, String>,
}

/// Makes a directory hold exactly these SVIDs and bundles; says where each SVID is.
pub(super) fn write_all(
    directory: &Path,
    context: &X509Context,
) -> Result<Vec<SvidFiles>, Failure> {
    let mut written = BTreeSet::new();
    prepare(directory)
        .and_then(|()| {
            let svids = context.svids().iter().enumerate();
            let files = svids
                .map(|(index, svid)| write_svid(directory, index, svid, context, &mut written))
                .collect::<io::Result<Vec<_>>>()?;
            remove_others(directory, &written)?;
            Ok(files)
        })
        .map_err(|error| failure(directory, &error))
}

/// Removes all SVIDs and bundles from a directory.
pub(super) fn remove_all(directory: &Path) -> Result<(), Failure> {
    prepare(directory)
        .and_then(|()| remove_others(directory, &BTreeSet::new()))
        .map_err(|error| failure(directory, &error))
}

/// Replaces one file, which only its owner can read.
pub(super) fn write(file: &Path, content: &[u8]) -> Result<(), Failure> {
    std::path::absolute(file)
        .and_then(|file| replace(&file, content))
        .map_err(|error| failure(file, &error))
}

/// Certificates as PEM.
pub(super) fn pem(certificates: &[Certificate]) -> String {
    let certificates: Vec<_> = certificates
        .iter()
        .map(|certificate| certificate.as_bytes().into())
        .collect();
    certificates_pem(&certificates)
}

fn write_svid(
    directory: &Path,
    index: usize,
    svid: &X509Svid,
    context: &X509Context,
    written: &mut BTreeSet<String>,
) -> io::Result<SvidFiles> {
    let mut write = |name: String, content: &[u8]| {
        let file = directory.join(&name);
        replace(&file, content)?;
        written.insert(name);
        Ok::<_, io::Error>(file.display().to_string())
    };
    let own = svid.spiffe_id().trust_domain();
    let bundles = context.bundle_set();
    let own_roots = bundles
        .get_ref(own)
        .map(|bundle| pem(bundle.authorities()))
        .unwrap_or_default();
    let foreign = bundles.iter().filter(|(name, _)| *name != own);
    Ok(SvidFiles {
        bundle: write(format!("bundle.{index}.pem"), own_roots.as_bytes())?,
        federated_bundles: foreign
            .enumerate()
            .map(|(number, (trust_domain, bundle))| {
                let name = format!("federated_bundle.{index}.{number}.pem");
                let file = write(name, pem(bundle.authorities()).as_bytes())?;
                Ok((trust_domain.to_string(), file))
            })
            .collect::<io::Result<_>>()?,
        key: write(
            format!("svid.{index}.key"),
            private_key_pem(svid.private_key().as_bytes()).as_bytes(),
        )?,
        svid: write(
            format!("svid.{index}.pem"),
            pem(svid.cert_chain()).as_bytes(),
        )?,
    })
}

/// Makes the directory, or checks that nobody else can change what is in it: who could, would
/// choose the identity of whoever reads it.
fn prepare(directory: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let metadata = fs::metadata(directory)?;
    if !metadata.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    if metadata.uid() != geteuid().as_raw() {
        return Err(io::Error::other("the directory belongs to another user"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write to the directory"));
    }
    Ok(())
}

/// What is there and is not a plain file, such as a device, is left alone.
fn replace(file: &Path, content: &[u8]) -> io::Result<()> {
    match fs::symlink_metadata(file) {
        Ok(metadata) if !metadata.is_file() => {
            return Err(io::Error::other(format!(
                "{} is not a plain file",
                file.display()
            )));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    durable::replace(file, content)
}

fn remove_others(directory: &Path, current: &BTreeSet<String>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        // A write that was cut off leaves such a file.
        let finished = name.strip_suffix(".new").unwrap_or(name);
        if is_ours(finished) && !current.contains(name) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    let parts: Vec<_> = name.split('.').collect();
    let numbers = match parts.as_slice() {
        ["svid", number, "pem" | "key"] | ["bundle", number, "pem"] => vec![number],
        ["federated_bundle", svid, number, "pem"] => vec![svid, number],
        _ => return false,
    };
    numbers
        .iter()
        .all(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn failure(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::message(
        "SG0057",
        format!("cannot write to {}: {error}", path.display()),
    );
    match error.kind() {
        io::ErrorKind::Other => {
            failure.help("name a path that is only yours; a directory is made if it is not there")
        }
        _ => failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_are_written_here_are_ours() {
        for name in [
            "svid.0.pem",
            "svid.12.key",
            "bundle.3.pem",
            "federated_bundle.0.10.pem",
        ] {
            assert!(is_ours(name), "{name}");
        }
        for name in [
            "svid.pem",
            "svid..pem",
            "svid.a.pem",
            "svid.0.0.pem",
            "svid.0.pem.bak",
            "bundle.0.key",
            "federated_bundle.0.pem",
            "federated_bundle.0..pem",
            "my.svid.0.pem",
            "",
        ] {
            assert!(!is_ours(name), "{name}");
        }
    }

    #[test]
    fn what_is_not_current_is_removed_and_what_is_not_ours_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        for name in ["svid.0.key", "svid.1.key", "svid.1.key.new", "mine.pem"] {
            fs::write(path.join(name), "").unwrap();
        }
        remove_others(path, &BTreeSet::from(["svid.0.key".to_owned()])).unwrap();
        let names: BTreeSet<_> = fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let expected = ["svid.0.key", "mine.pem"].map(ToOwned::to_owned);
        assert_eq!(names, BTreeSet::from(expected));
    }

    #[test]
    fn a_device_or_a_link_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let link = directory.path().join("link");
        std::os::unix::fs::symlink("/dev/null", &link).unwrap();
        for file in [link.as_path(), Path::new("/dev/null"), directory.path()] {
            assert!(replace(file, b"content").is_err(), "{}", file.display());
        }
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}
