//! Policy files under the names by which a person knows them.

use std::fs;
use std::path::{Path, PathBuf};

use regorus::Value;

use crate::error::{EngineMessage, PolicyError};
use crate::sources::PolicySources;

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
}

/// The modules and data documents below some paths, as text and not yet looked
/// at: what [`check`](crate::lint::check) takes, so that it can show all that
/// is wrong with them.
///
/// Names are the paths as they were given, so that messages lead back to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFiles {
    files: Vec<PolicyFile>,
}

impl PolicyFiles {
    /// Reads files, and directories with everything below them.
    ///
    /// A directory is read as [`PolicySources::read`] does: its own path is the
    /// root of `data`. A `.json` or `.yaml` file that is named itself is put at
    /// the root of `data`, whatever it is called.
    ///
    /// # Errors
    ///
    /// A path that cannot be read, a file that is neither Rego nor data, or no
    /// module in any of them.
    pub fn read(paths: &[PathBuf]) -> Result<Self, PolicyError> {
        let mut files = Vec::new();
        for path in paths {
            let read_error = |source| PolicyError::Read {
                path: path.clone(),
                source,
            };
            if fs::metadata(path).map_err(read_error)?.is_dir() {
                for (below, text) in PolicySources::read_below(path)? {
                    let directory = below.rsplit_once('/').map_or("", |(it, _)| it);
                    let parts = directory.split('/').filter(|part| !part.is_empty());
                    let parts = parts.map(str::to_owned).collect();
                    files.push(PolicyFile::new(&path.join(&below), parts, text)?);
                }
            } else {
                let text = fs::read_to_string(path).map_err(read_error)?;
                files.push(PolicyFile::new(path, Vec::new(), text)?);
            }
        }
        let files = Self { files };
        if files.modules().next().is_none() {
            let paths: Vec<_> = paths.iter().map(|it| it.display().to_string()).collect();
            return Err(PolicyError::NoModules {
                origin: paths.join(", "),
            });
        }
        Ok(files)
    }

    /// The policy that Sidegate brings along: see [`STOCK_POLICY`](crate::STOCK_POLICY).
    #[must_use]
    pub fn stock() -> Self {
        let files = crate::STOCK_POLICY.iter().map(|(name, text)| PolicyFile {
            name: (*name).to_owned(),
            directories: Vec::new(),
            kind: PolicyFileKind::Module,
            text: (*text).to_owned(),
        });
        Self {
            files: files.collect(),
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

/// The first place that a message names as `line 3 column 5`.
pub(crate) fn place_in(message: &str) -> Option<(usize, usize)> {
    message.split("line ").skip(1).find_map(|after| {
        let (line, after) = after.split_once(" column ")?;
        let digits = after.split(|it: char| !it.is_ascii_digit()).next()?;
        let column: usize = digits.parse().ok()?;
        Some((line.parse().ok()?, column.max(1)))
    })
}
