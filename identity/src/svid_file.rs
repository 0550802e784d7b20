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
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::svid::{Identities, X509Svid};
use crate::{SpiffeId, durable, encoding};

const FILES: [&str; 3] = ["svid.pem", "key.pem", "bundle.pem"];
const CURRENT: &str = "..data";

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

    /// Writes the files again after each rotation, until told to stop.
    pub async fn run(
        self,
        mut identities: watch::Receiver<Arc<Identities>>,
        stop: CancellationToken,
    ) {
        let current = |identities: &Identities| identities.svid(&self.spiffe_id).map(Arc::clone);
        let mut written = current(&identities.borrow_and_update());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = identities.changed() => if changed.is_err() { return },
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

    fn replace(&self, svid: &X509Svid, identities: &Identities) -> io::Result<()> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        if !self.directory.exists() {
            builder.create(&self.directory)?;
        }
        let before = fs::read_link(self.directory.join(CURRENT)).ok();
        let name = format!("..{:032x}", rand::random::<u128>());
        let fresh = self.directory.join(&name);
        builder.create(&fresh)?;
        let bundle = identities
            .own_bundle()
            .map_or(&[][..], |bundle| bundle.roots());
        let key = encoding::private_key_pem(svid.key());
        let contents = [
            encoding::certificates_pem(svid.chain()),
            key.to_string(),
            encoding::certificates_pem(bundle),
        ];
        for (file, content) in FILES.iter().zip(&contents) {
            durable::replace(&fresh.join(file), content.as_bytes())?;
        }
        replace_link(Path::new(&name), &self.directory.join(CURRENT))?;
        for file in FILES {
            let link = self.directory.join(file);
            let target = Path::new(CURRENT).join(file);
            if fs::read_link(&link).ok().as_ref() != Some(&target) {
                replace_link(&target, &link)?;
            }
        }
        match before {
            Some(before) => fs::remove_dir_all(self.directory.join(before)),
            None => Ok(()),
        }
    }
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
