//! The files of a bundle, from a gzip tarball or a directory, within bounds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use tar::{Archive, EntryType};

use super::error::BundleError;

/// How large a bundle may be. Its files become text that is kept as long as it is in use, and each
/// worker parses them anew: what is larger than this was not meant for a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the compressed tarball. It is in memory as a whole while it is fetched.
    pub compressed: u64,
    /// Bytes of all files, and of the tarball's own headers.
    pub unpacked: u64,
    /// Files and directories: each costs a header, however small it is.
    pub files: u64,
    /// Bytes of one path.
    pub path: u64,
    /// Directories above a file. Each is an object within an object of `data`.
    pub depth: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            compressed: 64 << 20,
            unpacked: 256 << 20,
            files: 10_000,
            path: 1024,
            depth: 32,
        }
    }
}

impl Limits {
    pub(super) const COMPRESSED: &'static str = "bytes";

    pub(super) fn check(
        what: &'static str,
        found: impl TryInto<u64>,
        limit: u64,
    ) -> Result<(), BundleError> {
        if found.try_into().is_ok_and(|found| found <= limit) {
            return Ok(());
        }
        Err(BundleError::Limit { what, limit })
    }
}

/// Files by their path below the bundle's root, with `/` between its parts and none before it.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// How many zero bytes end a tarball.
const END: u64 = 1024;

/// Reads a gzip tarball.
pub(crate) fn read_archive(compressed: impl Read, limits: &Limits) -> Result<Files, BundleError> {
    let mut archive = Archive::new(Bounded {
        inner: MultiGzDecoder::new(compressed),
        left: limits.unpacked.saturating_add(1),
        zeros: 0,
    });
    let files = read_entries(&mut archive, limits);
    let mut rest = archive.into_inner();
    // The bound shows as an error of reading, in whatever was being read.
    if rest.is_exceeded() {
        return Err(BundleError::Limit {
            what: "unpacked bytes",
            limit: limits.unpacked,
        });
    }
    let files = files?;
    // The checksum stands at the end: without it, a file that was cut off would go unseen.
    let drained = rest.drain();
    if rest.is_exceeded() {
        return Err(BundleError::Limit {
            what: "unpacked bytes",
            limit: limits.unpacked,
        });
    }
    drained.map_err(|source| BundleError::Archive { source })?;
    Ok(files)
}

fn read_entries<R: Read>(archive: &mut Archive<R>, limits: &Limits) -> Result<Files, BundleError> {
    let damaged = |source| BundleError::Archive { source };
    let mut files = Files::new();
    let mut count = 0_u64;
    for entry in archive.entries().map_err(damaged)? {
        let mut entry = entry.map_err(damaged)?;
        count = count.saturating_add(1);
        Limits::check("files and directories", count, limits.files)?;
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        let written = entry.path_bytes().into_owned();
        let written = String::from_utf8(written).map_err(|error| BundleError::Path {
            path: String::from_utf8_lossy(error.as_bytes()).into_owned(),
            problem: "is not UTF-8",
        })?;
        let path = normalized(&written, limits)?;
        match kind {
            EntryType::Directory => continue,
            EntryType::Regular if !path.is_empty() => {}
            _ => return Err(BundleError::SpecialFile { path: written }),
        }
        // What says that it is too large need not be read to be believed.
        Limits::check("unpacked bytes", entry.size(), limits.unpacked)?;
        let mut content = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or_default());
        entry.read_to_end(&mut content).map_err(damaged)?;
        if content.len() as u64 != entry.size() {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        if files.insert(path.clone(), content).is_some() {
            return Err(BundleError::Duplicate { path });
        }
    }
    Ok(files)
}

/// A path of a tarball, below the bundle's root. `opa build` writes `/policy.rego`, and `tar`
/// `./policy.rego`: one of both at the start is the root itself.
fn normalized(written: &str, limits: &Limits) -> Result<String, BundleError> {
    Limits::check("bytes in a path", written.len(), limits.path)?;
    let refused = |problem| BundleError::Path {
        path: written.to_owned(),
        problem,
    };
    let below = written
        .strip_prefix("./")
        .or_else(|| written.strip_prefix('/'))
        .unwrap_or(written);
    let below = below.strip_suffix('/').unwrap_or(below);
    if below.is_empty() || below == "." {
        return Ok(String::new());
    }
    for part in below.split('/') {
        match part {
            ".." => return Err(refused("climbs out of the bundle")),
            "" | "." => return Err(refused("is not written in the shortest way")),
            _ if part.contains('\0') => return Err(refused("holds a NUL byte")),
            // Paths stand in messages, on terminals too.
            _ if part.contains(char::is_control) => {
                return Err(refused("holds a control character"));
            }
            _ => {}
        }
    }
    Limits::check(
        "directories above a file",
        below.matches('/').count(),
        limits.depth,
    )?;
    Ok(below.to_owned())
}

/// Counts what is read down to nothing.
struct Bounded<R> {
    inner: R,
    left: u64,
    /// How many of the last bytes were zero.
    zeros: u64,
}

impl<R: Read> Bounded<R> {
    fn is_exceeded(&self) -> bool {
        self.left == 0
    }

    /// Reads on to the end, where there may be nothing but zeros.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            let count = self.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            if buffer.iter().take(count).any(|byte| *byte != 0) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "there is more after its end",
                ));
            }
        }
        if self.zeros < END {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the end of the tarball is missing",
            ));
        }
        Ok(())
    }
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let read = buffer.iter().take(count);
        let zeros = read.rev().take_while(|byte| **byte == 0).count();
        self.zeros = match zeros == count {
            true => self.zeros.saturating_add(zeros as u64),
            false => zeros as u64,
        };
        self.left = self.left.saturating_sub(count as u64);
        if self.left == 0 {
            return Err(io::Error::other("the bundle is too large"));
        }
        Ok(count)
    }
}

/// Reads a directory with everything below it.
///
/// Names that begin with a dot are passed over, but for the bundle's manifest and signatures: they
/// are the doubled contents of a mounted Kubernetes ConfigMap, or what belongs to an editor. Links
/// are followed, because a ConfigMap is made of them.
pub(crate) fn read_directory(directory: &Path, limits: &Limits) -> Result<Files, BundleError> {
    let mut walk = Walk {
        files: Files::new(),
        parents: Vec::new(),
        left: limits.unpacked,
        count: 0,
        limits,
    };
    walk.directory(directory, "")?;
    Ok(walk.files)
}

struct Walk<'a> {
    files: Files,
    /// The real paths of the directories on the way down: a link back to one is seen.
    parents: Vec<PathBuf>,
    left: u64,
    count: u64,
    limits: &'a Limits,
}

impl Walk<'_> {
    fn directory(&mut self, directory: &Path, prefix: &str) -> Result<(), BundleError> {
        let failed = read_error(directory);
        let real = fs::canonicalize(directory).map_err(failed)?;
        let depth = self.parents.len();
        Limits::check("directories above a file", depth, self.limits.depth)?;
        if self.parents.contains(&real) {
            return Err(BundleError::Path {
                path: prefix.to_owned(),
                problem: "is a link to a directory that it is in",
            });
        }
        self.parents.push(real);
        for entry in fs::read_dir(directory).map_err(read_error(directory))? {
            let path = entry.map_err(read_error(directory))?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| BundleError::Path {
                path: path.display().to_string(),
                problem: "is not UTF-8",
            })?;
            let describes = prefix.is_empty() && matches!(name, ".manifest" | ".signatures.json");
            if name.starts_with('.') && !describes {
                continue;
            }
            self.count = self.count.saturating_add(1);
            Limits::check("files and directories", self.count, self.limits.files)?;
            let below = match prefix {
                "" => name.to_owned(),
                _ => format!("{prefix}/{name}"),
            };
            Limits::check("bytes in a path", below.len(), self.limits.path)?;
            let metadata = fs::metadata(&path).map_err(read_error(&path))?;
            if metadata.is_dir() {
                self.directory(&path, &below)?;
            } else if metadata.is_file() {
                self.file(&path, below)?;
            } else {
                return Err(BundleError::SpecialFile { path: below });
            }
        }
        self.parents.pop();
        Ok(())
    }

    fn file(&mut self, path: &Path, below: String) -> Result<(), BundleError> {
        let file = File::open(path).map_err(read_error(path))?;
        let mut content = Vec::new();
        file.take(self.left.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(read_error(path))?;
        let left = self.left.checked_sub(content.len() as u64);
        self.left = left.ok_or(BundleError::Limit {
            what: "unpacked bytes",
            limit: self.limits.unpacked,
        })?;
        self.files.insert(below, content);
        Ok(())
    }
}

pub(super) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> BundleError + use<> {
    let path = path.to_owned();
    move |source| BundleError::Read { path, source }
}

#[cfg(test)]
mod tests;
