//! Hashes of executables, kept for as long as the files do not change.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::digest::{Context, SHA256};

/// A larger executable is not hashed, so that a workload cannot keep the attestor busy.
const LARGEST: u64 = 512 * 1024 * 1024;

/// More are not kept.
const MOST: usize = 1024;

/// Which bytes a file had: another file, or the same one written to, has another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Version {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// The SHA-256 of executables, hex.
#[derive(Debug, Default)]
pub(super) struct ExecutableHashes {
    known: Mutex<HashMap<Version, String>>,
}

impl Version {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

impl ExecutableHashes {
    /// The hash of the file, computed or kept.
    ///
    /// # Errors
    /// When it cannot be read, is too large, or changes meanwhile.
    pub(super) fn hash(&self, path: &Path) -> io::Result<String> {
        let mut file = File::open(path)?;
        let version = Version::of(&file.metadata()?);
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hash) = known().get(&version) {
            return Ok(hash.clone());
        }
        if version.length > LARGEST {
            return Err(io::Error::other("it is too large to be hashed"));
        }
        let hash = read(&mut file)?;
        if Version::of(&file.metadata()?) != version {
            return Err(io::Error::other("it changed while it was hashed"));
        }
        let mut known = known();
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(version, hash.clone());
        Ok(hash)
    }
}

fn read(file: &mut File) -> io::Result<String> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(crate::hex(context.finish().as_ref())),
            length => context.update(buffer.get(..length).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_written_to_is_hashed_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        let hashes = ExecutableHashes::default();
        std::fs::write(&path, "").unwrap();
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hashes.hash(&path).unwrap(), empty);
        assert_eq!(hashes.hash(&path).unwrap(), empty);
        assert_eq!(hashes.known.lock().unwrap().len(), 1);
        std::fs::write(&path, "abc").unwrap();
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hashes.hash(&path).unwrap(), abc);
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("program");
        // Sparse: it takes no space.
        File::create(&path).unwrap().set_len(LARGEST + 1).unwrap();
        assert!(ExecutableHashes::default().hash(&path).is_err());
    }
}
