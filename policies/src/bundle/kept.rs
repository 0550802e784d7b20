//! The last accepted bundle of a server, kept for the day on which the server is down.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::error::BundleError;
use super::files::Limits;

/// The kept tarball, or `None` where none was kept.
///
/// # Errors
/// What cannot be read, or is larger than a bundle may be.
pub fn read(path: &Path, limits: &Limits) -> Result<Option<Vec<u8>>, BundleError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(kept(path, source)),
    };
    let mut content = Vec::new();
    file.take(limits.compressed.saturating_add(1))
        .read_to_end(&mut content)
        .map_err(|source| kept(path, source))?;
    Limits::check(Limits::COMPRESSED, content.len(), limits.compressed)?;
    Ok(Some(content))
}

/// Keeps a tarball in the place of the one before: whatever happens, one of the two is there. It is
/// readable by its owner only, and so are folders that are made for it.
///
/// # Errors
/// What cannot be written.
pub fn write(path: &Path, content: &[u8]) -> Result<(), BundleError> {
    replace(path, content).map_err(|source| kept(path, source))
}

fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    let temporary = path.with_extension("new");
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&temporary, path));
    if let Err(error) = written {
        // Where this fails, the next attempt begins with it.
        let _ = fs::remove_file(&temporary);
        return Err(error);
    }
    File::open(directory)?.sync_all()
}

fn kept(path: &Path, source: io::Error) -> BundleError {
    BundleError::Kept {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_bundle_is_kept_for_its_owner_only_and_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bundles/authz/bundle.tar.gz");
        let limits = Limits::default();
        assert_eq!(read(&path, &limits).unwrap(), None);
        for content in [b"one", b"two"] {
            write(&path, content).unwrap();
            assert_eq!(read(&path, &limits).unwrap().as_deref(), Some(&content[..]));
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let small = Limits {
            compressed: 2,
            ..limits
        };
        assert_eq!(read(&path, &small).unwrap_err().code(), "SG0232");
        // A directory cannot be replaced by a file.
        let taken = folder.path().join("bundles");
        assert_eq!(write(&taken, b"three").unwrap_err().code(), "SG0245");
    }
}
