//! Files that are either the old one or the new one, whatever happens in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use zeroize::Zeroizing;

/// What a file holds; `None` where there is none. It may be secret.
///
/// # Errors
/// Any other failure.
pub fn read(path: &Path) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(Zeroizing::new(content))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a file that somebody else keeps holds: no more than `longest` bytes, and nothing that would have to
/// be waited for, such as a pipe. It may be secret.
///
/// # Errors
/// Any failure; there being no file is one.
pub fn read_bounded(path: &Path, longest: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    let nonblocking = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(nonblocking)
        .open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut content = Zeroizing::new(Vec::new());
    let read = file.take(longest + 1).read_to_end(&mut content)?;
    match u64::try_from(read) {
        Ok(read) if read <= longest => Ok(content),
        _ => Err(io::ErrorKind::FileTooLarge.into()),
    }
}

/// Replaces a file by way of a temporary one beside it: write, sync, rename, sync the directory.
///
/// The file is readable by its owner only.
///
/// # Errors
/// Any failure leaves the old file as it was. Only if the last step fails, and then putting the old
/// one back fails too, is the new one there.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let temporary = temporary(path)?;
    let before = read(path)?;
    exchange(&temporary, path, content)?;
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    if synced.is_err() {
        // The new file is there, but might not be after a power failure: nobody may count on it.
        let _ = match before {
            Some(before) => exchange(&temporary, path, &before),
            None => fs::remove_file(path),
        };
    }
    synced
}

fn exchange(temporary: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let exchanged = write(temporary, content).and_then(|()| fs::rename(temporary, path));
    exchanged.inspect_err(|_| {
        // Where this fails, the next attempt begins with it.
        let _ = fs::remove_file(temporary);
    })
}

fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// The name beside a path under which its successor is made. What an earlier attempt left there is
/// removed.
pub(crate) fn temporary(path: &Path) -> io::Result<PathBuf> {
    let mut name = path
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(".new");
    let temporary = path.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(temporary),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_made_and_replaced_and_nothing_else_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for content in ["one", "two"] {
            replace(&path, content.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
            assert_eq!(names(directory.path()), ["file"]);
        }
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        replace(&path, b"one").unwrap();
        // Neither can be removed as a file.
        fs::create_dir(directory.path().join("file.new")).unwrap();
        assert!(replace(&path, b"two").is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "one");
        assert_eq!(names(directory.path()), ["file", "file.new"]);
        let fresh = directory.path().join("nowhere/file");
        assert!(replace(&fresh, b"one").is_err());
    }
}
