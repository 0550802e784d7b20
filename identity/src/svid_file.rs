//! SVIDs as files, for tools that cannot speak the Workload API.
//!
//! ```text
//! demo/svid.pem   -> ..data/svid.pem       leaf, then intermediates
//! demo/key.pem    -> ..data/key.pem        PKCS#8
//! demo/bundle.pem -> ..data/bundle.pem     roots of the SVID's own trust domain
//! demo/bundle_map.json -> ..data/…         all bundles that belong to the identity, SPIFFE's format
//! demo/..data     -> ..<serial>            replaced by one rename: the four change together
//! ```

mod notify;

use std::collections::BTreeMap;
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

use crate::jwt::JwtBundle;
use crate::spiffe_bundle::{SpiffeBundle, bundle_map_json};
use crate::svid::{Identities, X509Bundle, X509Svid};
use crate::{SpiffeId, TrustDomain, durable, encoding};
pub use notify::Notify;

const FILES: [&str; 4] = ["svid.pem", "key.pem", "bundle.pem", "bundle_map.json"];
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
    /// Who is told of new files, and how.
    pub notify: Notify,
}

/// What is in the files now.
pub struct Written(Content);

/// What goes into the files.
#[derive(Clone)]
struct Content {
    svid: Arc<X509Svid>,
    /// Of the own trust domain, then of those that the entry federates with.
    bundles: Vec<(TrustDomain, Arc<X509Bundle>, Option<Arc<JwtBundle>>)>,
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
    pub fn write(&self, identities: &Identities) -> Result<Written, SvidFileError> {
        let content = Content::of(&self.spiffe_id, identities)
            .ok_or_else(|| SvidFileError::NoSvid(self.spiffe_id.clone()))?;
        let replaced = self.replace(&content);
        replaced.map_err(|source| SvidFileError::Write {
            directory: self.directory.clone(),
            source,
        })?;
        Ok(Written(content))
    }

    /// Looks at the directory as [`SvidFile::write`] would, without changing anything. One that is
    /// not there is fine where it can be made.
    ///
    /// # Errors
    /// When nothing would be written to it.
    pub fn examine(&self) -> Result<(), SvidFileError> {
        let looked = match self.look() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let path = std::path::absolute(&self.directory);
                path.and_then(|path| fs::metadata(path.parent().unwrap_or(&path)).map(drop))
            }
            looked => looked,
        };
        looked.map_err(|source| SvidFileError::Write {
            directory: self.directory.clone(),
            source,
        })
    }

    /// Writes the files again after each change, and tells of it, until told to stop; of those that
    /// are written it tells first. What fails is tried again with what is the newest then.
    pub async fn run(
        self,
        written: Written,
        mut identities: watch::Receiver<Arc<Identities>>,
        stop: CancellationToken,
    ) {
        // New files are never kept waiting by whoever is told of the ones before.
        let fresh = tokio::sync::Notify::new();
        tokio::join!(
            self.keep(written, &mut identities, &fresh, &stop),
            self.notify.run(&self.spiffe_id, &fresh, &stop),
        );
    }

    async fn keep(
        &self,
        mut written: Written,
        identities: &mut watch::Receiver<Arc<Identities>>,
        fresh: &tokio::sync::Notify,
        stop: &CancellationToken,
    ) {
        fresh.notify_one();
        loop {
            let generation = Arc::clone(&identities.borrow_and_update());
            let content = Content::of(&self.spiffe_id, &generation);
            let is_written = content.is_some_and(|content| written.0.is(&content));
            let mut failed = false;
            if !is_written {
                let file = self.clone();
                let outcome = tokio::task::spawn_blocking(move || file.write(&generation)).await;
                failed = !matches!(outcome, Ok(Ok(_)));
                match outcome {
                    Ok(Ok(now)) => {
                        written = now;
                        fresh.notify_one();
                    }
                    Ok(Err(failure)) => {
                        let cause = std::error::Error::source(&failure).map(ToString::to_string);
                        error!(code = failure.code(), cause, "{failure}");
                    }
                    Err(failure) => error!(code = "SG0141", %failure, "SVID files are not written"),
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = identities.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY), if failed => {}
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
        self.look()
    }

    fn look(&self) -> io::Result<()> {
        let metadata = fs::metadata(&self.directory)?;
        if metadata.uid() != geteuid().as_raw() {
            return Err(io::Error::other("the directory belongs to another user"));
        }
        if metadata.mode() & 0o022 != 0 {
            return Err(io::Error::other("others may write to the directory"));
        }
        Ok(())
    }

    fn replace(&self, content: &Content) -> io::Result<()> {
        self.prepare()?;
        let name = format!("{SET}{:032x}", rand::random::<u128>());
        let fresh = self.directory.join(&name);
        DirBuilder::new().mode(0o700).create(&fresh)?;
        let replaced = fill(&fresh, content)
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

impl Content {
    fn of(id: &SpiffeId, identities: &Identities) -> Option<Self> {
        let mut issued = identities.issued().iter();
        let issued = issued.find(|issued| issued.svid.id() == id)?;
        let own = [&identities.trust_domain];
        let bundles = own
            .into_iter()
            .chain(issued.entry.federates_with())
            .filter_map(|trust_domain| {
                let x509 = identities.bundles.get(trust_domain)?;
                let jwt = identities.jwt_bundles.get(trust_domain);
                Some((trust_domain.clone(), Arc::clone(x509), jwt.map(Arc::clone)))
            });
        Some(Self {
            svid: Arc::clone(&issued.svid),
            bundles: bundles.collect(),
        })
    }

    fn is(&self, other: &Self) -> bool {
        let bundles = self.bundles.iter().zip(&other.bundles);
        Arc::ptr_eq(&self.svid, &other.svid)
            && self.bundles.len() == other.bundles.len()
            && bundles.into_iter().all(|(one, another)| {
                one.0 == another.0
                    && Arc::ptr_eq(&one.1, &another.1)
                    && one.2.as_ref().map(Arc::as_ptr) == another.2.as_ref().map(Arc::as_ptr)
            })
    }

    fn bundle_map(&self) -> io::Result<String> {
        let bundles = self.bundles.iter().map(|(trust_domain, x509, jwt)| {
            let mut bundle = match jwt {
                Some(jwt) => {
                    SpiffeBundle::parse(jwt.jwks().as_bytes()).map_err(io::Error::other)?
                }
                None => SpiffeBundle::default(),
            };
            bundle.x509_authorities = x509.roots().to_vec();
            Ok((trust_domain.clone(), bundle))
        });
        let bundles = bundles.collect::<io::Result<BTreeMap<_, _>>>()?;
        Ok(bundle_map_json(&bundles))
    }
}

/// Writes the files into a directory that nobody reads yet.
fn fill(fresh: &Path, content: &Content) -> io::Result<()> {
    let svid = &content.svid;
    let roots = content.bundles.first();
    let roots = roots.map_or(&[][..], |(_, own, _)| own.roots());
    let [svid_file, key_file, bundle_file, map_file] = FILES.map(|file| fresh.join(file));
    let (chain, key) = (
        encoding::certificates_pem(svid.chain()),
        encoding::private_key_pem(svid.key()),
    );
    durable::replace(&svid_file, chain.as_bytes())?;
    durable::replace(&key_file, key.as_bytes())?;
    durable::replace(&bundle_file, encoding::certificates_pem(roots).as_bytes())?;
    durable::replace(&map_file, content.bundle_map()?.as_bytes())
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
    let temporary = durable::temporary(link)?;
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
            notify: Notify::default(),
        };
        file.prepare().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o770)).unwrap();
        assert!(file.prepare().is_err());
        assert_eq!(file.examine().unwrap_err().code(), "SG0141");
        let absent = directory.path().join("absent");
        let absent = SvidFile {
            directory: absent,
            ..file
        };
        absent.examine().unwrap();
        assert!(!absent.directory.exists());
        let nowhere = SvidFile {
            directory: absent.directory.join("a"),
            ..absent
        };
        assert!(nowhere.examine().is_err());
    }
}
