//! Following the files of a policy, of a candidate for one, of a bundle, or of the configuration.
//!
//! They are looked at twice a second, and loaded once they have changed and then kept still for one
//! look. Looking sees what notifications of the kernel do not tell: changes on network and overlay
//! file systems, behind links, and of directories that are put in the place of others, as Kubernetes
//! does with a ConfigMap.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// Data documents.
const DATA: [&[u8]; 3] = [b"data.json", b"data.yaml", b"data.yml"];

/// What describes a bundle.
const DESCRIBES: [&[u8]; 2] = [b".manifest", b".signatures.json"];

/// The files at a path, as they were when the policy was loaded last.
pub(crate) struct PolicyFiles {
    path: Arc<Path>,
    files: Files,
}

/// The files at some paths, as they were when they were loaded last.
pub(crate) struct Files {
    paths: Arc<[PathBuf]>,
    loaded: Look,
}

/// All that tells whether files are the same; nothing where one cannot be looked at.
type Look = BTreeMap<PathBuf, Option<Mark>>;

/// What changes whenever a file is written or replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    file: (u64, u64),
    bytes: u64,
    /// Of the content and of the inode, in seconds and nanoseconds.
    changed: [(i64, i64); 2],
}

impl PolicyFiles {
    /// Looks at the files. They are to be loaded after that, so that no change is missed.
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.into(),
            files: Files::new(vec![path.to_owned()]),
        }
    }

    /// Waits until they have changed, and kept still for one look; tells where they are. To stop
    /// waiting misses nothing.
    pub(crate) async fn changed(&mut self) -> Arc<Path> {
        self.files.changed().await;
        Arc::clone(&self.path)
    }
}

impl Files {
    /// Looks at the files. They are to be loaded after that, so that no change is missed.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        let loaded = look_at(&paths);
        Self {
            paths: paths.into(),
            loaded,
        }
    }

    /// Looks at them again: they are to be loaded now for another reason.
    pub(crate) fn look(&mut self) {
        self.loaded = look_at(&self.paths);
    }

    /// They had changed already when they were looked at.
    pub(crate) fn have_changed(&mut self) {
        self.loaded.clear();
    }

    /// Follows these from now on. Those that were followed already are not looked at again.
    pub(crate) fn follow(&mut self, paths: Vec<PathBuf>) {
        let known = std::mem::take(&mut self.loaded);
        self.loaded = look_at(&paths);
        for (path, mark) in &mut self.loaded {
            if let Some(known) = known.get(path) {
                *mark = *known;
            }
        }
        self.paths = paths.into();
    }

    /// Waits until they have changed, and kept still for one look. To stop waiting misses nothing.
    pub(crate) async fn changed(&mut self) {
        let mut last = None;
        loop {
            tokio::time::sleep(INTERVAL).await;
            let paths = Arc::clone(&self.paths);
            let Ok(now) = spawn_blocking(move || look_at(&paths)).await else {
                continue;
            };
            if last.as_ref() == Some(&now) && now != self.loaded {
                self.loaded = now;
                return;
            }
            last = Some(now);
        }
    }
}

impl Mark {
    fn of(metadata: &Metadata) -> Self {
        Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.len(),
            changed: [
                (metadata.mtime(), metadata.mtime_nsec()),
                (metadata.ctime(), metadata.ctime_nsec()),
            ],
        }
    }
}

fn look_at(paths: &[PathBuf]) -> Look {
    paths.iter().flat_map(|path| look(path)).collect()
}

/// Looks at a file, or at all files of a directory that a policy is read from.
fn look(path: &Path) -> Look {
    let (mut found, mut directories) = (Look::new(), BTreeSet::new());
    let mut left = vec![path.to_owned()];
    while let Some(next) = left.pop() {
        let metadata = fs::metadata(&next).ok();
        let mark = metadata.as_ref().map(Mark::of);
        if metadata.is_some_and(|it| it.is_dir()) {
            // A link may lead back.
            if mark.is_some_and(|mark| directories.insert(mark.file)) {
                left.extend(entries(&next));
            }
        } else if next == path || is_source(&next) {
            found.insert(next, mark);
        }
    }
    found
}

/// What is in a directory and not hidden, but for what describes a bundle. A directory that cannot be
/// read shows nothing.
fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries
        .filter(|entry| {
            let name = entry.file_name();
            let name = name.as_encoded_bytes();
            !name.starts_with(b".") || DESCRIBES.contains(&name)
        })
        .map(|entry| entry.path())
}

/// Whether a file would be a module or a data document, or describe a bundle.
fn is_source(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.ends_with(b".rego") || DATA.contains(&name) || DESCRIBES.contains(&name)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn every_change_of_the_sources_is_seen_and_no_other() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("v1.2/teams")).unwrap();
        for name in [
            "a.rego",
            "v1.2/teams/data.json",
            "README.md",
            ".hidden.rego",
        ] {
            fs::write(path(name), "1").unwrap();
        }
        symlink(folder.path(), path("v1.2/back")).unwrap();
        let mut before = look(folder.path());
        assert_eq!(before.len(), 2, "{before:?}");
        for name in ["README.md", ".hidden.rego", "v1.2/teams/other.json"] {
            fs::write(path(name), "2").unwrap();
            assert_eq!(look(folder.path()), before, "{name}");
        }
        let mut is_seen = |what: &str| {
            let now = look(folder.path());
            assert_ne!(now, before, "{what}");
            before = now;
        };
        fs::write(path("v1.2/teams/data.json"), "22").unwrap();
        is_seen("an edit");
        fs::write(path("new"), "1").unwrap();
        fs::rename(path("new"), path("a.rego")).unwrap();
        is_seen("a file in the place of another");
        fs::write(path("v1.2/b.rego"), "1").unwrap();
        is_seen("a new file");
        fs::remove_dir_all(path("v1.2")).unwrap();
        is_seen("files that are gone");
    }

    #[test]
    fn a_mounted_config_map_is_seen_to_change_all_at_once() {
        let folder = TempDir::new().unwrap();
        let path = |name: &str| folder.path().join(name);
        for version in ["..1", "..2"] {
            fs::create_dir(path(version)).unwrap();
            fs::write(path(version).join("a.rego"), "1").unwrap();
        }
        symlink("..1", path("..data")).unwrap();
        symlink("..data/a.rego", path("a.rego")).unwrap();
        let before = look(folder.path());
        assert_eq!(before.len(), 1, "{before:?}");
        symlink("..2", path("..new")).unwrap();
        fs::rename(path("..new"), path("..data")).unwrap();
        assert_ne!(look(folder.path()), before);
    }

    #[test]
    fn a_path_that_is_not_there_is_told_from_an_empty_directory() {
        let folder = TempDir::new().unwrap();
        let absent = folder.path().join("absent");
        assert_eq!(look(&absent), Look::from([(absent.clone(), None)]));
        fs::create_dir(&absent).unwrap();
        assert_eq!(look(&absent), Look::new());
    }
}
