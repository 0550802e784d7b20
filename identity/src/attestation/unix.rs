//! Processes at the other end of a Unix socket, by the kernel's word.
//!
//! The kernel tells who connected. What else there is to know stands in `/proc/<pid>`, and counts
//! only if the process that connected is still alive after it was read: then its pid cannot have
//! been given to another one meanwhile. A pidfd, taken at accept, tells that.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Gid, Group, Uid, User};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::executable::ExecutableHashes;
use crate::metrics::IdentityMetrics;
use crate::selector::{Kind, Selector};

/// Attestations at once; the others wait, and leave threads to the rest of the process.
const MAX_ATTESTATIONS: usize = 16;

/// Who connected to the socket. Every gRPC request on the connection carries it as an extension.
#[derive(Debug, Clone)]
pub struct Caller {
    pid: i32,
    uid: u32,
    gid: u32,
    pidfd: Arc<OwnedFd>,
}

/// Finds the selectors of a caller.
#[derive(Debug, Clone)]
pub struct UnixAttestor {
    hashes: Arc<ExecutableHashes>,
    metrics: IdentityMetrics,
    turns: Arc<Semaphore>,
}

/// Why a caller could not be attested.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// It ended before it was known what it was.
    #[error("the process ended during attestation")]
    Gone,
    /// The kernel's word about it cannot be read.
    #[error("cannot read {what} of process {pid}")]
    Unreadable {
        /// What was to be read.
        what: &'static str,
        /// The process.
        pid: i32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl Caller {
    /// Asks the kernel who is at the other end.
    ///
    /// # Errors
    /// When the kernel does not tell, as for a peer that is gone already.
    pub fn of(stream: &UnixStream) -> io::Result<Self> {
        let credentials = getsockopt(stream, sockopt::PeerCredentials)?;
        let pidfd = match getsockopt(stream, sockopt::PeerPidfd) {
            Ok(pidfd) => pidfd,
            // Linux before 6.5. Between connect and here the pid could have been reused, but then
            // by a process that reused it within this call.
            Err(Errno::ENOPROTOOPT) => open_pidfd(credentials.pid())?,
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            pid: credentials.pid(),
            uid: credentials.uid(),
            gid: credentials.gid(),
            pidfd: Arc::new(pidfd),
        })
    }

    /// The process id, for logs only.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The user id at the time of connecting.
    pub fn uid(&self) -> u32 {
        self.uid
    }

    /// A pidfd becomes readable when its process ends.
    fn is_alive(&self) -> bool {
        let mut fds = [PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN)];
        matches!(poll(&mut fds, PollTimeout::ZERO), Ok(0))
    }

    fn unreadable(&self, what: &'static str) -> impl FnOnce(io::Error) -> AttestError {
        let pid = self.pid;
        move |source| AttestError::Unreadable { what, pid, source }
    }
}

impl UnixAttestor {
    /// Nothing is known of any caller yet.
    pub fn new(metrics: IdentityMetrics) -> Self {
        Self {
            hashes: Arc::default(),
            metrics,
            turns: Arc::new(Semaphore::new(MAX_ATTESTATIONS)),
        }
    }

    /// The caller's selectors, read anew each time, since a process may change.
    ///
    /// # Errors
    /// Every failure means that nothing is known of the caller.
    pub async fn attest(&self, caller: &Caller) -> Result<Vec<Selector>, AttestError> {
        let hashes = Arc::clone(&self.hashes);
        let caller = caller.clone();
        let _turn = self.turns.acquire().await.map_err(|_| AttestError::Gone)?;
        let attested = tokio::task::spawn_blocking(move || attest(&caller, &hashes))
            .await
            .unwrap_or(Err(AttestError::Gone));
        self.metrics.attested(attested.is_ok());
        attested
    }
}

fn attest(caller: &Caller, hashes: &ExecutableHashes) -> Result<Vec<Selector>, AttestError> {
    let mut selectors = vec![
        Selector::attested(Kind::UnixUid, caller.uid.to_string()),
        Selector::attested(Kind::UnixGid, caller.gid.to_string()),
    ];
    if let Ok(Some(user)) = User::from_uid(Uid::from_raw(caller.uid)) {
        selectors.push(Selector::attested(Kind::UnixUser, user.name));
    }
    if let Ok(Some(group)) = Group::from_gid(Gid::from_raw(caller.gid)) {
        selectors.push(Selector::attested(Kind::UnixGroup, group.name));
    }
    let proc = PathBuf::from(format!("/proc/{}", caller.pid));
    let status =
        fs::read_to_string(proc.join("status")).map_err(caller.unreadable("the status"))?;
    for gid in supplementary_groups(&status) {
        selectors.push(Selector::attested(Kind::UnixSupplementaryGid, gid));
    }
    // A process of another user shows its path only to root. An entry that needs the path then
    // does not match; one that does not is no worse off.
    match fs::read_link(proc.join("exe")) {
        Ok(path) => {
            let path = path.to_string_lossy().into_owned();
            selectors.push(Selector::attested(Kind::UnixPath, path));
            // An entry that asks for it may come while the caller's stream is open.
            match hashes.hash(&proc.join("exe")) {
                Ok(digest) => selectors.push(Selector::attested(Kind::UnixSha256, digest)),
                Err(error) => {
                    info!(code = "SG0134", pid = caller.pid, %error, "an executable is not hashed");
                }
            }
        }
        // It is ending; what of it can still be read is not all that it was.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AttestError::Gone),
        Err(error) => debug!(pid = caller.pid, %error, "the executable's path is hidden"),
    }
    if caller.is_alive() {
        Ok(selectors)
    } else {
        Err(AttestError::Gone)
    }
}

fn supplementary_groups(status: &str) -> impl Iterator<Item = &str> {
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .unwrap_or_default()
        .split_ascii_whitespace()
}

fn open_pidfd(pid: i32) -> io::Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid).ok_or(io::ErrorKind::NotFound)?;
    Ok(rustix::process::pidfd_open(
        pid,
        rustix::process::PidfdFlags::empty(),
    )?)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    async fn pair() -> (UnixStream, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("s")).unwrap();
        let (_client, accepted) = tokio::join!(
            async {
                Box::leak(Box::new(
                    UnixStream::connect(directory.path().join("s"))
                        .await
                        .unwrap(),
                ))
            },
            listener.accept()
        );
        (accepted.unwrap().0, directory)
    }

    #[tokio::test]
    async fn a_caller_is_known_by_ids_path_and_hash() {
        let (stream, _directory) = pair().await;
        let caller = Caller::of(&stream).unwrap();
        let attestor = UnixAttestor::new(IdentityMetrics::default());
        let selectors = attestor.attest(&caller).await.unwrap();
        let uid = nix::unistd::geteuid();
        let path = std::env::current_exe().unwrap();
        for expected in [
            format!("unix:uid:{uid}"),
            format!("unix:path:{}", path.display()),
        ] {
            let expected: Selector = expected.parse().unwrap();
            assert!(selectors.contains(&expected), "{expected} in {selectors:?}");
        }
        let hash = selectors
            .iter()
            .find(|found| found.kind() == Kind::UnixSha256);
        assert!(hash.unwrap().to_string().parse::<Selector>().is_ok());
    }

    #[tokio::test]
    async fn a_caller_that_has_ended_is_not_attested() {
        let (stream, _directory) = pair().await;
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let pidfd = open_pidfd(pid).unwrap();
        child.wait().unwrap();
        let caller = Caller {
            pid: std::process::id().try_into().unwrap(),
            pidfd: Arc::new(pidfd),
            ..Caller::of(&stream).unwrap()
        };
        let attestor = UnixAttestor::new(IdentityMetrics::default());
        assert!(matches!(
            attestor.attest(&caller).await,
            Err(AttestError::Gone)
        ));
    }
}
