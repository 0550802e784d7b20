//! A file that is rotated by its size.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A file for events, and what becomes of it when it is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOptions {
    /// The file. Those before it are `path.1` (the newest), `path.2` and so on.
    pub path: PathBuf,
    /// How many bytes it may have.
    pub max_size: u64,
    /// How many full ones are kept.
    pub keep: usize,
}

/// The file that is written to. Only its owner can read it.
#[derive(Debug)]
pub(super) struct RotatingFile {
    options: FileOptions,
    file: File,
    size: u64,
}

impl RotatingFile {
    pub(super) fn open(options: FileOptions) -> io::Result<Self> {
        let file = open(&options.path)?;
        let size = file.metadata()?.len();
        let mut opened = Self {
            options,
            file,
            size,
        };
        opened.end_line()?;
        Ok(opened)
    }

    /// Writes a whole line, or nothing.
    pub(super) fn write(&mut self, line: &[u8]) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if self.size > 0 && self.size.saturating_add(length) > self.options.max_size {
            self.rotate()?;
        }
        match self.file.write_all(line) {
            Ok(()) => {
                self.size = self.size.saturating_add(length);
                Ok(())
            }
            Err(error) => {
                // Half a line would spoil the next one too.
                self.file.set_len(self.size)?;
                Err(error)
            }
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        for index in (1..self.options.keep).rev() {
            move_over(
                &self.numbered(index),
                &self.numbered(index.saturating_add(1)),
            )?;
        }
        if self.options.keep == 0 {
            fs::remove_file(&self.options.path).or_else(missing)?;
        } else {
            move_over(&self.options.path, &self.numbered(1))?;
        }
        self.file = open(&self.options.path)?;
        self.size = self.file.metadata()?.len();
        Ok(())
    }

    fn numbered(&self, index: usize) -> PathBuf {
        let mut name = self.options.path.clone().into_os_string();
        name.push(format!(".{index}"));
        name.into()
    }

    /// A process that was killed may have left half a line.
    fn end_line(&mut self) -> io::Result<()> {
        if self.size > 0 && !ends_with_newline(&self.options.path, self.size)? {
            self.file.write_all(b"\n")?;
            self.size = self.size.saturating_add(1);
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    // What is there already is looked at first: to open a pipe would wait for
    // its reader.
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => {
            return Err(io::Error::other("it is not a regular file"));
        }
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = OpenOptions::new();
    let file = options.append(true).create(true).mode(0o600).open(path)?;
    // It may have been there with wider permissions.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn ends_with_newline(path: &Path, size: u64) -> io::Result<bool> {
    use std::os::unix::fs::FileExt;
    let mut last = [0];
    File::open(path)?.read_exact_at(&mut last, size.saturating_sub(1))?;
    Ok(last == *b"\n")
}

fn move_over(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to).or_else(missing)
}

fn missing(error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    fn lines(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    fn rotating(folder: &Path, keep: usize) -> RotatingFile {
        RotatingFile::open(FileOptions {
            path: folder.join("log"),
            max_size: 10,
            keep,
        })
        .unwrap()
    }

    #[test]
    fn a_full_file_makes_way_and_the_oldest_goes() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = rotating(folder.path(), 2);
        for line in [
            "one\n",
            "two\n",
            "three\n",
            "four\n",
            "five\n",
            "too long for any\n",
            "7\n",
        ] {
            file.write(line.as_bytes()).unwrap();
        }
        let path = |name: &str| folder.path().join(name);
        assert_eq!(lines(&path("log")), ["7"]);
        assert_eq!(lines(&path("log.1")), ["too long for any"]);
        assert_eq!(lines(&path("log.2")), ["four", "five"]);
        assert!(!path("log.3").exists());
        for name in ["log", "log.1", "log.2"] {
            assert_eq!(mode(&path(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn without_any_to_keep_there_is_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = rotating(folder.path(), 0);
        for line in ["one\n", "two\n", "three\n"] {
            file.write(line.as_bytes()).unwrap();
        }
        assert_eq!(lines(&folder.path().join("log")), ["three"]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_there_is_gone_on_with_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "cut").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let mut file = rotating(folder.path(), 1);
        file.write(b"next\n").unwrap();
        assert_eq!(lines(&path), ["cut", "next"]);
        assert_eq!(mode(&path), 0o600);
        file.write(b"full\n").unwrap();
        assert_eq!(lines(&path), ["full"]);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("log")).unwrap();
        let options = FileOptions {
            path: folder.path().join("log"),
            max_size: 10,
            keep: 1,
        };
        assert!(RotatingFile::open(options).is_err());
    }
}
