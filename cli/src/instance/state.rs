//! The state directory: ours alone, for one trust domain and one process at a time.

use std::fs::{self, DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess, geteuid};
use serde::{Deserialize, Serialize};
use sidegate_identity::{TrustDomain, durable};

use crate::failure::Failure;

const MARKER: &str = "state.json";
const LOCK: &str = "lock";
const FORMAT: u32 = 1;

/// An open state directory. It is locked until this is dropped.
#[derive(Debug)]
pub(crate) struct StateDirectory {
    path: PathBuf,
    _lock: File,
}

/// What is at the path of a state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// Nothing, but it can be made.
    Absent,
    /// A directory that is still nobody's.
    Empty,
    /// A state directory.
    Ours,
}

/// Whose a directory is that may be a state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    Us,
    /// It is to have a trust domain, and has none yet.
    UsWithoutTrustDomain,
}

/// Says that a directory is ours, and for which trust domain.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Marker {
    format: u32,
    /// None where nothing in it belongs to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trust_domain: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum StateError {
    #[error("cannot {action} the state directory {}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is not a state directory, and not empty: {problem}", path.display())]
    Foreign { path: PathBuf, problem: String },
    #[error("{} holds the state of trust domain `{found}`, not of `{wanted}`", path.display())]
    OtherTrustDomain {
        path: PathBuf,
        found: String,
        wanted: TrustDomain,
    },
    #[error("another instance uses the state directory {}", path.display())]
    Locked { path: PathBuf },
    #[error("the state directory {} is open to others: {problem}", path.display())]
    Exposed { path: PathBuf, problem: String },
}

impl StateDirectory {
    /// Opens the directory, or makes it. What is not ours is never written to.
    pub(crate) fn open(path: &Path, trust_domain: Option<&TrustDomain>) -> Result<Self, Failure> {
        open(path, trust_domain).map_err(Failure::from)
    }

    /// Looks at a directory that a user is to have, without changing anything.
    pub(crate) fn look(
        path: &Path,
        owner: u32,
        trust_domain: Option<&TrustDomain>,
    ) -> Result<Found, Failure> {
        look(path, owner, trust_domain).map_err(Failure::from)
    }

    /// Where it is, absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl StateError {
    fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "SG0001",
            Self::Foreign { .. } => "SG0002",
            Self::OtherTrustDomain { .. } => "SG0003",
            Self::Locked { .. } => "SG0004",
            Self::Exposed { .. } => "SG0005",
        }
    }

    fn help(&self) -> Option<String> {
        match self {
            Self::Io { .. } => None,
            Self::Foreign { .. } => Some("name an empty directory, or one to be made".to_owned()),
            Self::OtherTrustDomain { found, .. } => Some(format!(
                "use another directory, or the trust domain `{found}`"
            )),
            Self::Locked { .. } => Some("stop it, or use another directory".to_owned()),
            Self::Exposed { path, .. } => Some(format!(
                "it holds private keys: chmod 700 {}",
                path.display()
            )),
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        let failure = Self::new(error.code(), &error);
        match error.help() {
            Some(help) => failure.help(help),
            None => failure,
        }
    }
}

fn look(path: &Path, owner: u32, trust_domain: Option<&TrustDomain>) -> Result<Found, StateError> {
    let path = std::path::absolute(path).map_err(failed("find", path))?;
    match fs::metadata(&path) {
        Ok(_) => Ok(match examine(&path, owner, trust_domain)? {
            Owner::Nobody => Found::Empty,
            Owner::Us | Owner::UsWithoutTrustDomain => Found::Ours,
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(&path);
            eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK)
                .map_err(|error| failed("make", &path)(error.into()))?;
            Ok(Found::Absent)
        }
        Err(error) => Err(failed("read", &path)(error)),
    }
}

fn open(path: &Path, trust_domain: Option<&TrustDomain>) -> Result<StateDirectory, StateError> {
    let path = std::path::absolute(path).map_err(failed("find", path))?;
    match DirBuilder::new().mode(0o700).create(&path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed("make", &path)(error)),
    }
    let path = fs::canonicalize(&path).map_err(failed("find", &path))?;
    let owner = geteuid().as_raw();
    if examine(&path, owner, trust_domain)? == Owner::Nobody {
        let private = Permissions::from_mode(0o700);
        fs::set_permissions(&path, private).map_err(failed("protect", &path))?;
    }
    let lock = File::options()
        .create(true)
        .mode(0o600)
        .truncate(false)
        .write(true)
        .open(path.join(LOCK))
        .map_err(failed("write to", &path))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StateError::Locked { path }),
        Err(TryLockError::Error(error)) => return Err(failed("lock", &path)(error)),
    }
    // Another instance may have made it its own before it let go of the lock.
    if examine(&path, owner, trust_domain)? != Owner::Us {
        let marker = Marker {
            format: FORMAT,
            trust_domain: trust_domain.map(ToString::to_string),
        };
        let text = serde_json::to_vec(&marker).map_err(io::Error::other);
        text.and_then(|text| durable::replace(&path.join(MARKER), &text))
            .map_err(failed("write to", &path))?;
    }
    Ok(StateDirectory { path, _lock: lock })
}

/// Whose the directory is; an error if it is somebody else's. Without a trust domain, that of the
/// directory does not matter: nothing of it is touched.
fn examine(
    path: &Path,
    owner: u32,
    trust_domain: Option<&TrustDomain>,
) -> Result<Owner, StateError> {
    let metadata = fs::metadata(path).map_err(failed("read", path))?;
    let foreign = |problem: String| StateError::Foreign {
        path: path.to_owned(),
        problem,
    };
    if !metadata.is_dir() {
        return Err(foreign("it is no directory".to_owned()));
    }
    if metadata.uid() != owner {
        return Err(StateError::Exposed {
            path: path.to_owned(),
            problem: format!("it belongs to uid {}", metadata.uid()),
        });
    }
    let marker = match fs::read(path.join(MARKER)) {
        Ok(marker) => marker,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return if is_empty(path)? {
                Ok(Owner::Nobody)
            } else {
                Err(foreign(format!("there is no {MARKER} in it")))
            };
        }
        Err(error) => return Err(failed("read", path)(error)),
    };
    let marker: Marker = serde_json::from_slice(&marker)
        .map_err(|error| foreign(format!("its {MARKER} cannot be read: {error}")))?;
    if marker.format != FORMAT {
        return Err(foreign(format!(
            "its format is {}, this version knows {FORMAT}",
            marker.format
        )));
    }
    let whose = match (marker.trust_domain, trust_domain) {
        (Some(found), Some(wanted)) if found != wanted.as_str() => {
            return Err(StateError::OtherTrustDomain {
                path: path.to_owned(),
                found,
                wanted: wanted.clone(),
            });
        }
        (None, Some(_)) => Owner::UsWithoutTrustDomain,
        (Some(_), _) | (None, None) => Owner::Us,
    };
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StateError::Exposed {
            path: path.to_owned(),
            problem: format!("its mode is {mode:o}"),
        });
    }
    Ok(whose)
}

/// Whether there is nothing but what an instance leaves that was killed while making it.
fn is_empty(path: &Path) -> Result<bool, StateError> {
    let entries = fs::read_dir(path).map_err(failed("read", path))?;
    for entry in entries {
        let name = entry.map_err(failed("read", path))?.file_name();
        if name != LOCK && name != "state.json.new" {
            return Ok(false);
        }
    }
    Ok(true)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StateError {
    let path = path.to_owned();
    move |source| StateError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trust_domain() -> TrustDomain {
        TrustDomain::new("one.test").unwrap()
    }

    fn code(path: &Path) -> &'static str {
        open(path, Some(&trust_domain()))
            .err()
            .map_or("", |error| error.code())
    }

    #[test]
    fn a_directory_is_made_private_and_opened_again() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        drop(open(&path, Some(&trust_domain())).unwrap());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
        let held = open(&path, Some(&trust_domain())).unwrap();
        assert_eq!(code(&path), "SG0004");
        drop(held);
        assert_eq!(code(&path), "");
        let other = open(&path, Some(&TrustDomain::new("two.test").unwrap()));
        assert_eq!(other.err().unwrap().code(), "SG0003");
        fs::set_permissions(&path, Permissions::from_mode(0o750)).unwrap();
        assert_eq!(code(&path), "SG0005");
    }

    #[test]
    fn a_directory_without_a_trust_domain_is_given_one_and_one_with_it_keeps_it() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let marker = || fs::read_to_string(path.join(MARKER)).unwrap();
        drop(open(&path, None).unwrap());
        assert_eq!(marker(), r#"{"format":1}"#);
        drop(open(&path, None).unwrap());
        let owner = geteuid().as_raw();
        let found = look(&path, owner, Some(&trust_domain()));
        assert_eq!(found.unwrap(), Found::Ours);
        assert_eq!(marker(), r#"{"format":1}"#, "looking changes nothing");
        assert_eq!(code(&path), "");
        let with = r#"{"format":1,"trust_domain":"one.test"}"#;
        assert_eq!(marker(), with);
        drop(open(&path, None).unwrap());
        assert_eq!(marker(), with);
        let other = open(&path, Some(&TrustDomain::new("two.test").unwrap()));
        assert_eq!(other.err().unwrap().code(), "SG0003");
    }

    #[test]
    fn looking_changes_nothing_and_finds_what_opening_finds() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("state");
        let owner = geteuid().as_raw();
        let found = |owner| look(&path, owner, Some(&trust_domain()));
        assert_eq!(found(owner).unwrap(), Found::Absent);
        assert!(!path.exists());
        fs::create_dir(&path).unwrap();
        assert_eq!(found(owner).unwrap(), Found::Empty);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 0);
        let held = open(&path, Some(&trust_domain())).unwrap();
        assert_eq!(found(owner).unwrap(), Found::Ours);
        assert_eq!(found(owner + 1).unwrap_err().code(), "SG0005");
        drop(held);
        let nowhere = look(&path.join("a/b"), owner, Some(&trust_domain()));
        assert_eq!(nowhere.unwrap_err().code(), "SG0001");
    }

    #[test]
    fn what_is_not_ours_is_refused_and_not_written_to() {
        let parent = tempfile::tempdir().unwrap();
        let names = |path: &Path| -> Vec<_> {
            let entries = fs::read_dir(path).unwrap();
            entries.map(|entry| entry.unwrap().file_name()).collect()
        };
        for (file, content) in [
            ("notes.txt", "mine"),
            ("state.json", "{}"),
            ("state.json", r#"{"format":2,"trust_domain":"one.test"}"#),
            (
                "state.json",
                r#"{"format":1,"trust_domain":"one.test","x":1}"#,
            ),
        ] {
            let path = parent.path().join("d");
            fs::create_dir(&path).unwrap();
            fs::write(path.join(file), content).unwrap();
            assert_eq!(code(&path), "SG0002", "{content}");
            assert_eq!(names(&path), [file]);
            fs::remove_dir_all(&path).unwrap();
        }
        let file = parent.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(code(&file), "SG0002");
        assert_eq!(code(&parent.path().join("a/b")), "SG0001");
    }
}
