//! SVIDs as files, for tools that cannot speak the Workload API.
//!
//! ```text
//! demo/svid.pem   -> ..data/svid.pem       leaf, then intermediates
//! demo/key.pem    -> ..data/key.pem        PKCS#8
//! demo/bundle.pem -> ..data/bundle.pem     roots of the SVID's own trust domain
//! demo/..data     -> ..<serial>            replaced by one rename: the three change together
//! ```

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::svid::{Identities, X509Svid};
use crate::{SpiffeId, durable, encoding};

const FILES: [&str; 3] = ["svid.pem", "key.pem", "bundle.pem"];
const CURRENT: &str = "..data";
const SET: &str = "..";
const RETRY: Duration = Duration::from_secs(1);

/// Keeps one identity's files in a directory.
#[derive(Debug, Clone)]
pub struct SvidFile {
    /// Whose SVID.
    pub spiffe_id: SpiffeId,
    /// Where to; made with mode 0700 where it is not there.
    pub directory: PathBuf,
}

/// Why the files could not be written.
#[derive(Debug, thiserror::Error)]
pub enum SvidFileError {
    /// The source holds no such SVID.
    #[error("there is no SVID for `{0}` to write to files")]
    NoSvid(SpiffeId),
    /// The file system refused.
    #[error("cannot write SVID files to {}", directory.display())]
    Write {
        /// Where to.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl SvidFileError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoSvid(_) => "SG0140",
            Self::Write { .. } => "SG0141",
        }
    }
}

impl SvidFile {
    /// Writes the SVID that is in use now.
    ///
    /// # Errors
    /// The files that were there stay.
    pub fn write(&self, identities: &Identities) -> Result<(), SvidFileError> {
        let svid = identities
            .svid(&self.spiffe_id)
            .ok_or_else(|| SvidFileError::NoSvid(self.spiffe_id.clone()))?;
        self.replace(svid, identities)
            .map_err(|source| SvidFileError::Write {
                directory: self.directory.clone(),
                source,
            })
    }

    /// Writes the files again after each rotation, until told to stop. What fails is tried again
    /// with what is the newest then.
    pub async fn run(
        self,
        mut identities: watch::Receiver<Arc<Identities>>,
        stop: CancellationToken,
    ) {
        let current = |identities: &Identities| identities.svid(&self.spiffe_id).map(Arc::clone);
        let mut written = current(&identities.borrow_and_update());
        let mut failed = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = identities.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if failed => {}
            }
            let generation = Arc::clone(&identities.borrow_and_update());
            let svid = current(&generation);
            let unchanged = match (&written, &svid) {
                (Some(written), Some(svid)) => Arc::ptr_eq(written, svid),
                _ => false,
            };
            if unchanged {
                continue;
            }
            let file = self.clone();
            let outcome = tokio::task::spawn_blocking(move || file.write(&generation)).await;
            failed = !matches!(outcome, Ok(Ok(())));
            match outcome {
                Ok(Ok(())) => written = svid,
                Ok(Err(failure)) => {
                    let cause = std::error::Error::source(&failure).map(ToString::to_string);
                    error!(code = failure.code(), cause, "{failure}");
                }
                Err(failure) => error!(code = "SG0141", %failure, "SVID files are not written"),
            }
        }
    }

    /// Makes the directory, or checks that nobody else can change what is in it: who could, would
    /// choose the identity of whoever reads it.
    fn prepare(&self) -> io::Result<()> {
        match DirBuilder::new().mode(0o700).create(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return made,
        }
        let metadata = fs::metadata(&self.directory)?;
        if metadata.uid() != geteuid().as_raw() {
            return Err(io::Error::other("the directory belongs to another user"));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(io::Error::other("others may write to the directory"));
        }
        Ok(())
    }

    fn replace(&self, svid: &X509Svid, identities: &Identities) -> io::Result<()> {
        self.prepare()?;
        let name = format!("{SET}{:032x}", rand::random::<u128>());
        let fresh = self.directory.join(&name);
        DirBuilder::new().mode(0o700).create(&fresh)?;
        let replaced = fill(&fresh, svid, identities)
            .and_then(|()| replace_link(Path::new(&name), &self.directory.join(CURRENT)))
            .and_then(|()| {
                FILES
                    .iter()
                    .try_for_each(|file| link_to_current(&self.directory, file))
            });
        // What is not, or no longer, in use goes: also what an earlier process left behind.
        let current = fs::read_link(self.directory.join(CURRENT)).ok();
        if let Err(error) = remove_other_sets(&self.directory, current.as_deref()) {
            warn!(code = "SG0141", %error, "old SVID files are not removed");
        }
        replaced
    }
}

/// Writes the three files into a directory that nobody reads yet.
fn fill(fresh: &Path, svid: &X509Svid, identities: &Identities) -> io::Result<()> {
    let bundle = identities.own_bundle();
    let bundle = bundle.map_or(&[][..], |bundle| bundle.roots());
    let [svid_file, key_file, bundle_file] = FILES.map(|file| fresh.join(file));
    let key = encoding::private_key_pem(svid.key());
    durable::replace(
        &svid_file,
        encoding::certificates_pem(svid.chain()).as_bytes(),
    )?;
    durable::replace(&key_file, key.as_bytes())?;
    durable::replace(&bundle_file, encoding::certificates_pem(bundle).as_bytes())
}

fn link_to_current(directory: &Path, file: &str) -> io::Result<()> {
    let link = directory.join(file);
    let target = Path::new(CURRENT).join(file);
    if fs::read_link(&link).ok().as_ref() == Some(&target) {
        return Ok(());
    }
    replace_link(&target, &link)
}

/// Removes the directories that this module made, but for the one in use. A link, or anything of
/// another name, is not ours.
fn remove_other_sets(directory: &Path, current: Option<&Path>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_set = name
            .to_str()
            .and_then(|name| name.strip_prefix(SET))
            .is_some_and(|serial| {
                serial.len() == 32 && serial.bytes().all(|byte| byte.is_ascii_hexdigit())
            });
        if is_set && entry.file_type()?.is_dir() && current != Some(Path::new(&name)) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Points a symbolic link elsewhere in one step.
fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let mut name = link
        .file_name()
        .ok_or(io::ErrorKind::InvalidInput)?
        .to_owned();
    name.push(".new");
    let temporary = link.with_file_name(name);
    match fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    symlink(target, &temporary)?;
    fs::rename(&temporary, link)
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
    fn only_sets_of_ours_that_are_not_in_use_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("kept"), "").unwrap();
        let [used, old, link] = ["0", "1", "2"].map(|digit| format!("{SET}{}", digit.repeat(32)));
        for name in [&used, &old, "mine", "..mine"] {
            fs::create_dir(path.join(name)).unwrap();
        }
        symlink(elsewhere.path(), path.join(&link)).unwrap();
        remove_other_sets(path, Some(Path::new(&used))).unwrap();
        assert_eq!(
            names(path),
            [used.as_str(), link.as_str(), "..mine", "mine"]
        );
        assert_eq!(names(elsewhere.path()), ["kept"]);
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        let file = SvidFile {
            spiffe_id: SpiffeId::new("spiffe://one.test/a").unwrap(),
            directory: directory.path().to_owned(),
        };
        file.prepare().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(file.prepare().is_err());
    }
}
