//! Policy files under the names by which a person knows them.

use std::fs;
use std::path::{Path, PathBuf};

use regorus::Value;

use crate::bundle::{Bundle, BundleError, Limits, check_disjoint};
use crate::error::{EngineMessage, PolicyError};
use crate::sources::{PolicySources, RegoVersion, read_bounded};

/// What says that a directory is a bundle.
const MANIFEST: &str = ".manifest";

/// What the names of tarballs end with.
const TARBALLS: [&str; 2] = [".tar.gz", ".tgz"];

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PolicyFileKind {
    /// A Rego module.
    Module,
    /// A data document.
    Json,
    /// A data document.
    Yaml,
}

/// One file, not yet looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PolicyFile {
    /// Its path as a person wrote it.
    pub(crate) name: String,
    /// Where in `data` it is.
    pub(crate) directories: Vec<String>,
    pub(crate) kind: PolicyFileKind,
    pub(crate) text: String,
    /// What it is written in, if it is a module.
    pub(crate) version: RegoVersion,
}

/// The modules and data documents below some paths, as text and not yet looked
/// at: what [`check`](crate::lint::check) takes, so that it can show all that
/// is wrong with them.
///
/// Names are the paths as they were given, so that messages lead back to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFiles {
    files: Vec<PolicyFile>,
    unverified: Vec<String>,
}

/// Why policy files cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum PolicyFilesError {
    /// Something is wrong with a file or directory.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// Something is wrong with a bundle, or with several together.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl PolicyFilesError {
    /// The stable diagnostic code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Policy(error) => error.code(),
            Self::Bundle(error) => error.code(),
        }
    }
}

impl PolicyFiles {
    /// Reads files, directories with everything below them, and OPA bundles.
    ///
    /// A directory is read as [`PolicySources::read`] does: its own path is the
    /// root of `data`. A `.json` or `.yaml` file that is named itself is put at
    /// the root of `data`, whatever it is called. A `.tar.gz` or `.tgz` file, and
    /// a directory with a `.manifest`, is a bundle, read as in service but for its
    /// signature, which is not verified: see [`PolicyFiles::unverified`].
    ///
    /// # Errors
    ///
    /// A path that cannot be read, a file that is neither Rego nor data, a bundle
    /// that would be refused in service, bundles that own the same part of `data`,
    /// or no module in any of them.
    pub fn read(paths: &[PathBuf]) -> Result<Self, PolicyFilesError> {
        let mut read = Self {
            files: Vec::new(),
            unverified: Vec::new(),
        };
        let mut bundles = Vec::new();
        for path in paths {
            match is_bundle(path) {
                true => bundles.push(read.add_bundle(path)?),
                false => read.add(path)?,
            }
        }
        let named: Vec<_> = bundles
            .iter()
            .map(|(name, it)| (name.as_str(), it))
            .collect();
        check_disjoint(&named)?;
        if read.modules().next().is_none() {
            let paths: Vec<_> = paths.iter().map(|it| it.display().to_string()).collect();
            let origin = paths.join(", ");
            return Err(PolicyError::NoModules { origin }.into());
        }
        Ok(read)
    }

    fn add(&mut self, path: &Path) -> Result<(), PolicyError> {
        let read_error = |source| PolicyError::Read {
            path: path.to_owned(),
            source,
        };
        if fs::metadata(path).map_err(read_error)?.is_dir() {
            for (below, text) in PolicySources::read_below(path)? {
                let directory = below.rsplit_once('/').map_or("", |(it, _)| it);
                let parts = directory.split('/').filter(|part| !part.is_empty());
                let parts = parts.map(str::to_owned).collect();
                self.files
                    .push(PolicyFile::new(&path.join(&below), parts, text)?);
            }
        } else {
            let text = fs::File::open(path).and_then(read_bounded);
            let text = text.map_err(read_error)?;
            self.files.push(PolicyFile::new(path, Vec::new(), text)?);
        }
        Ok(())
    }

    /// Adds the files of a bundle, under its path; tells how it is called.
    fn add_bundle(&mut self, path: &Path) -> Result<(String, Bundle), PolicyFilesError> {
        let name = path.display().to_string();
        let read = Bundle::read_path_unverified(path, &Limits::default());
        let read = read.map_err(|error| error.of(&name))?;
        for module in read.bundle.modules() {
            let below = path.join(&module.file);
            let file = PolicyFile::new(&below, Vec::new(), module.text.clone())?;
            self.files.push(PolicyFile {
                version: module.version,
                ..file
            });
        }
        for document in read.bundle.data() {
            let below = path.join(document.file());
            let (parts, text) = (document.directories().to_vec(), document.text().to_owned());
            self.files.push(PolicyFile::new(&below, parts, text)?);
        }
        if read.is_signed {
            self.unverified.push(name.clone());
        }
        Ok((name, read.bundle))
    }

    /// The bundles that are signed, and whose signatures nobody has looked at.
    #[must_use]
    pub fn unverified(&self) -> &[String] {
        &self.unverified
    }

    /// The policy that Sidegate brings along: see [`STOCK_POLICY`](crate::STOCK_POLICY).
    #[must_use]
    pub fn stock() -> Self {
        let files = crate::STOCK_POLICY.iter().map(|(name, text)| PolicyFile {
            name: (*name).to_owned(),
            directories: Vec::new(),
            kind: PolicyFileKind::Module,
            text: (*text).to_owned(),
            version: RegoVersion::default(),
        });
        Self {
            files: files.collect(),
            unverified: Vec::new(),
        }
    }

    /// The same as sources of a policy.
    ///
    /// # Errors
    ///
    /// As for [`PolicySources::from_files`].
    pub fn sources(&self) -> Result<PolicySources, PolicyError> {
        PolicySources::from_policy_files(&self.files)
    }

    /// The text of a file by its name.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        let file = self.files.iter().find(|file| file.name == name);
        file.map(|file| file.text.as_str())
    }

    /// Where a file stands among all.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.files.iter().position(|file| file.name == name)
    }

    /// The modules in the order in which they were given.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &PolicyFile> {
        let files = self.files.iter();
        files.filter(|file| file.kind == PolicyFileKind::Module)
    }

    /// The data documents in the order in which they were given.
    pub(crate) fn data(&self) -> impl Iterator<Item = &PolicyFile> {
        let files = self.files.iter();
        files.filter(|file| file.kind != PolicyFileKind::Module)
    }
}

impl PolicyFile {
    fn new(path: &Path, directories: Vec<String>, text: String) -> Result<Self, PolicyError> {
        let name = path.to_str().ok_or_else(|| PolicyError::FileName {
            path: path.to_owned(),
        })?;
        let kind = match path.extension().and_then(|it| it.to_str()) {
            Some("rego") => PolicyFileKind::Module,
            Some("json") => PolicyFileKind::Json,
            Some("yaml" | "yml") => PolicyFileKind::Yaml,
            _ => {
                return Err(PolicyError::FileType {
                    path: path.to_owned(),
                });
            }
        };
        Ok(Self {
            name: name.to_owned(),
            directories,
            kind,
            text,
            version: RegoVersion::default(),
        })
    }

    /// Why a data document does not parse, and where: line and column from 1,
    /// as far as the parser tells.
    pub(crate) fn data_problem(&self) -> Option<(EngineMessage, Option<(usize, usize)>)> {
        let error = match self.kind {
            PolicyFileKind::Module => return None,
            PolicyFileKind::Json => Value::from_json_str(&self.text).err()?,
            PolicyFileKind::Yaml => Value::from_yaml_str(&self.text).err()?,
        };
        let message = error.to_string();
        Some((EngineMessage::new(&message), place_in(&message)))
    }
}

/// Whether a path is a bundle's by its name, or as a directory with a
/// `.manifest`, whatever that is.
#[must_use]
pub fn is_bundle(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_tarball = TARBALLS.iter().any(|ending| name.ends_with(ending));
    match path.is_dir() {
        true => fs::symlink_metadata(path.join(MANIFEST)).is_ok(),
        false => is_tarball,
    }
}

/// The first place that a message names as `line 3 column 5`.
pub(crate) fn place_in(message: &str) -> Option<(usize, usize)> {
    message.split("line ").skip(1).find_map(|after| {
        let (line, after) = after.split_once(" column ")?;
        let digits = after.split(|it: char| !it.is_ascii_digit()).next()?;
        let column: usize = digits.parse().ok()?;
        Some((line.parse().ok()?, column.max(1)))
    })
}
