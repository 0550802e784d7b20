//! Where the access log goes, which can be changed while it is written.
//!
//! Whoever changes it opens the new file, so that what is wrong with it is known at once; the writer
//! goes over to it between two lines.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Stderr, Stdout, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use nix::fcntl::OFlag;

use crate::config::AccessLogOutput;

/// Of a file that is made.
const PRIVATE: u32 = 0o600;

/// What everybody may do.
const OTHERS: u32 = 0o007;

/// The writer's end.
pub(super) struct AccessOutput {
    opened: Opened,
    successor: Successor,
    at_line_start: bool,
    /// A write failed: there may be half a line.
    is_broken: bool,
}

/// Has it go elsewhere.
pub(super) struct AccessOutputHandle {
    successor: Successor,
}

/// An output that lines can go to.
pub(super) enum Opened {
    Stdout(Stdout),
    Stderr(Stderr),
    File(File),
}

type Successor = Arc<Mutex<Option<Opened>>>;

impl Opened {
    /// A file is opened, or made.
    pub(super) fn at(output: &AccessLogOutput) -> io::Result<Self> {
        Ok(match output {
            AccessLogOutput::Stdout => Self::Stdout(io::stdout()),
            AccessLogOutput::Stderr => Self::Stderr(io::stderr()),
            AccessLogOutput::File(path) => Self::File(open(path)?),
        })
    }

    fn end_line(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => end_line(file),
            Self::Stdout(_) | Self::Stderr(_) => Ok(()),
        }
    }
}

impl AccessOutput {
    pub(super) fn new(opened: Opened) -> (Self, AccessOutputHandle) {
        let successor = Arc::default();
        let handle = AccessOutputHandle {
            successor: Arc::clone(&successor),
        };
        let output = Self {
            opened,
            successor,
            at_line_start: true,
            is_broken: false,
        };
        (output, handle)
    }

    /// Goes over to the successor, if there is one.
    fn follow(&mut self) -> io::Result<()> {
        let successor = self.successor.lock();
        let successor = successor.unwrap_or_else(PoisonError::into_inner).take();
        if let Some(opened) = successor {
            self.opened = opened;
        } else if self.is_broken {
            self.opened.end_line()?;
        }
        self.is_broken = false;
        Ok(())
    }
}

impl Write for AccessOutput {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        if self.at_line_start || self.is_broken {
            self.follow()?;
        }
        let written = match &mut self.opened {
            Opened::Stdout(stdout) => stdout.write(lines),
            Opened::Stderr(stderr) => stderr.write(lines),
            Opened::File(file) => file.write(lines),
        };
        match &written {
            Ok(length) => {
                let last = length.checked_sub(1).and_then(|last| lines.get(last));
                self.at_line_start = last == Some(&b'\n');
            }
            Err(error) => self.is_broken = error.kind() != ErrorKind::Interrupted,
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.opened {
            Opened::Stdout(stdout) => stdout.flush(),
            Opened::Stderr(stderr) => stderr.flush(),
            Opened::File(file) => file.flush(),
        }
    }
}

impl AccessOutputHandle {
    /// Lines go there from now on.
    pub(super) fn switch(&self, opened: Opened) {
        let mut successor = self
            .successor
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *successor = Some(opened);
    }
}

fn open(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(PRIVATE)
        // A pipe must not be waited for: it is refused.
        .custom_flags(OFlag::O_NONBLOCK.bits())
        .open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    // Whoever rotates it may have made it, for a group.
    let mode = metadata.permissions().mode();
    if mode & OTHERS != 0 {
        file.set_permissions(Permissions::from_mode(mode & 0o7777 & !OTHERS))?;
    }
    end_line(&mut file)?;
    Ok(file)
}

/// What was killed, or found no space, may have left half a line.
fn end_line(file: &mut File) -> io::Result<()> {
    let Some(last) = file.metadata()?.len().checked_sub(1) else {
        return Ok(());
    };
    let mut byte = [0];
    file.read_exact_at(&mut byte, last)?;
    match byte {
        [b'\n'] => Ok(()),
        _ => file.write_all(b"\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(path: &Path) -> (AccessOutput, AccessOutputHandle) {
        let output = AccessLogOutput::File(path.to_owned());
        AccessOutput::new(Opened::at(&output).unwrap())
    }

    fn read(path: &Path) -> String {
        std::fs::read_to_string(path).unwrap()
    }

    #[test]
    fn it_goes_over_to_the_new_file_between_lines_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        let old = folder.path().join("access.log.1");
        let (mut file, handle) = started(&path);
        file.write_all(b"one\ntw").unwrap();
        std::fs::rename(&path, &old).unwrap();
        handle.switch(Opened::File(open(&path).unwrap()));
        file.write_all(b"o\n").unwrap();
        file.write_all(b"three\n").unwrap();
        assert_eq!(read(&old), "one\ntwo\n");
        assert_eq!(read(&path), "three\n");
    }

    #[test]
    fn half_a_line_is_ended_and_nobody_else_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        std::fs::write(&path, "ha").unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let (mut file, _handle) = started(&path);
        file.write_all(b"one\n").unwrap();
        assert_eq!(read(&path), "ha\none\n");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
    }

    #[test]
    fn what_is_no_file_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(open(folder.path()).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
    }
}
