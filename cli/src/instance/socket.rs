//! Unix sockets: the Workload API's, to which everybody may connect, since attestation is the gate,
//! and the admin API's, to which only the owner may.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, eaccess};

use crate::config::WorkloadApi;
use crate::failure::Failure;

/// A bound socket, there as long as this is.
pub(super) struct BoundSocket {
    path: PathBuf,
    listener: UnixListener,
}

/// What a socket is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Everybody may connect.
    WorkloadApi,
    /// In the state directory, for the owner.
    Admin,
}

/// What is where a socket is to be.
enum Place {
    Free,
    /// A socket that a dead process left behind.
    Stale,
    /// A socket that a process serves.
    Served,
}

impl BoundSocket {
    /// Binds. A socket that a dead process left behind is replaced; anything else that is there is
    /// left alone.
    pub(super) fn bind(path: &Path, purpose: Purpose) -> Result<Self, Failure> {
        let path = resolve(path).map_err(|error| failed(path, &error))?;
        short_enough(&path, purpose)?;
        clear(&path)?;
        let listener = UnixListener::bind(&path).map_err(|error| failed(&path, &error))?;
        listener
            .set_nonblocking(true)
            .and_then(|()| fs::set_permissions(&path, Permissions::from_mode(purpose.mode())))
            .map_err(|error| failed(&path, &error))?;
        Ok(Self { path, listener })
    }

    /// Looks for what would hinder [`BoundSocket::bind`], without changing anything. `served` are
    /// the sockets of the instance that is to be replaced.
    pub(super) fn examine(
        path: &Path,
        purpose: Purpose,
        served: &[PathBuf],
    ) -> Result<(), Failure> {
        let path = resolve(path).map_err(|error| failed(path, &error))?;
        short_enough(&path, purpose)?;
        let is_ours = |served: &PathBuf| resolve(served).is_ok_and(|served| served == path);
        match look(&path)? {
            Place::Served if !served.iter().any(is_ours) => Err(taken(&path)),
            _ => path.parent().map_or(Ok(()), |folder| {
                eaccess(folder, AccessFlags::W_OK | AccessFlags::X_OK)
                    .map_err(|error| failed(&path, &error.into()))
            }),
        }
    }

    /// Its address, as `SPIFFE_ENDPOINT_SOCKET` takes it.
    pub(super) fn endpoint(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// The socket, for the runtime to accept on.
    pub(super) fn listener(&self) -> Result<tokio::net::UnixListener, Failure> {
        self.listener
            .try_clone()
            .and_then(tokio::net::UnixListener::from_std)
            .map_err(|error| failed(&self.path, &error))
    }
}

impl Purpose {
    fn mode(self) -> u32 {
        match self {
            Self::WorkloadApi => 0o777,
            Self::Admin => 0o600,
        }
    }
}

/// The socket goes when its server does.
impl Drop for BoundSocket {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            tracing::debug!(%error, "the socket was gone already");
        }
    }
}

/// The path as its clients are to write it: absolute, without links and `..`.
fn resolve(path: &Path) -> io::Result<PathBuf> {
    let path = std::path::absolute(path)?;
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) => Ok(fs::canonicalize(folder)?.join(name)),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

fn look(path: &Path) -> Result<Place, Failure> {
    let there = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Place::Free),
        Err(error) => return Err(failed(path, &error)),
    };
    if !there.file_type().is_socket() {
        return Err(Failure::message(
            "SG0007",
            format!("{} is there already and is not a socket", path.display()),
        ));
    }
    match UnixStream::connect(path) {
        Ok(_) => Ok(Place::Served),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(Place::Stale),
        Err(error) => Err(failed(path, &error)),
    }
}

fn clear(path: &Path) -> Result<(), Failure> {
    match look(path)? {
        Place::Free => Ok(()),
        Place::Stale => fs::remove_file(path).map_err(|error| failed(path, &error)),
        Place::Served => Err(taken(path)),
    }
}

fn taken(path: &Path) -> Failure {
    Failure::message(
        "SG0007",
        format!("another process serves {}", path.display()),
    )
}

/// Whether a Unix socket can be at the path.
pub(super) fn short_enough(path: &Path, purpose: Purpose) -> Result<(), Failure> {
    let length = path.as_os_str().len();
    if length <= WorkloadApi::SOCKET_PATH_MAX {
        return Ok(());
    }
    let (what, help) = match purpose {
        Purpose::WorkloadApi => (
            "Workload API's socket",
            "shorten `workload_api.socket`; of `sidegate up`, --state, in which it is",
        ),
        Purpose::Admin => (
            "admin socket",
            "shorten the path of the state directory, in which it is: `identity.state`, or --state",
        ),
    };
    let text = format!(
        "the path of the {what} {} has {length} bytes; a Unix socket's path has at most {}",
        path.display(),
        WorkloadApi::SOCKET_PATH_MAX
    );
    Err(Failure::message("SG0033", text).help(help))
}

fn failed(path: &Path, error: &io::Error) -> Failure {
    Failure::message(
        "SG0006",
        format!("cannot serve on the socket {}: {error}", path.display()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_too_long_says_whose_it_is_and_what_to_shorten() {
        let path = |length: usize| PathBuf::from(format!("/{}", "a".repeat(length - 1)));
        for (purpose, what, setting) in [
            (Purpose::Admin, "admin socket", "`identity.state`"),
            (
                Purpose::WorkloadApi,
                "Workload API",
                "`workload_api.socket`",
            ),
        ] {
            assert!(short_enough(&path(107), purpose).is_ok());
            let Err(Failure::Other(reason)) = short_enough(&path(108), purpose) else {
                panic!("108 bytes are too many");
            };
            assert_eq!(reason.code, "SG0033");
            assert!(reason.message.contains(what), "{}", reason.message);
            assert!(reason.help.unwrap().contains(setting));
        }
    }
}
