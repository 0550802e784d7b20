//! The Rego modules and data documents that make up a policy.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use regorus::Value;

use crate::error::{EngineMessage, PolicyError};

/// How many directories below the given one are read. Bundles are shallow; the
/// bound is what ends a chain of links.
const DIRECTORY_LIMIT: usize = 32;

/// One Rego module: a name for messages, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) file: String,
    pub(crate) text: String,
}

/// How a data document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataFormat {
    Json,
    Yaml,
}

/// One data document and the place in `data` that its directory gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DataDocument {
    file: String,
    directories: Vec<String>,
    format: DataFormat,
    text: String,
}

/// The modules and data documents of one policy, as text.
///
/// Kept as text, because each worker's evaluator is built from it anew: engines
/// that share parsed parts slow each other down.
///
/// Files are taken as OPA takes them from a bundle: every `.rego` file is a
/// module; of all others only those named exactly `data.json` or `data.yaml`
/// count, and their directory says where in `data` they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySources {
    modules: Vec<Module>,
    data: Vec<DataDocument>,
}

impl PolicySources {
    /// Reads one `.rego` file, or a directory with everything below it in the
    /// order of names.
    ///
    /// Names that begin with a dot are passed over: they hold a bundle's
    /// manifest and signatures, and the doubled contents of a mounted
    /// Kubernetes ConfigMap.
    ///
    /// # Errors
    ///
    /// Whatever cannot be read refuses the whole; so do links into a parent
    /// directory, names that are not UTF-8, and a directory without modules.
    pub fn read(path: &Path) -> Result<Self, PolicyError> {
        let mut files = Vec::new();
        if metadata(path)?.is_dir() {
            read_directory(path, "", &mut Vec::new(), &mut files)?;
        } else {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.ok_or_else(|| PolicyError::FileName {
                path: path.to_owned(),
            })?;
            files.push((name.to_owned(), read_text(path)?));
        }
        Self::from_files(files).map_err(|error| match error {
            PolicyError::NoModules { .. } => PolicyError::NoModules {
                origin: path.display().to_string(),
            },
            other => other,
        })
    }

    /// Takes the files of a bundle: pairs of a path relative to the bundle's
    /// root, with `/` between its parts, and the text.
    ///
    /// # Errors
    ///
    /// A data document that does not parse or contradicts another, a module
    /// that is there twice, or no module at all.
    pub fn from_files(
        files: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, PolicyError> {
        let mut sources = Self {
            modules: Vec::new(),
            data: Vec::new(),
        };
        for (file, text) in files {
            let file = file.trim_start_matches('/').to_owned();
            let (directory, name) = file.rsplit_once('/').unwrap_or(("", &file));
            let format = match name {
                "data.json" => Some(DataFormat::Json),
                "data.yaml" => Some(DataFormat::Yaml),
                _ => None,
            };
            if let Some(format) = format {
                let parts = directory.split('/').filter(|part| !part.is_empty());
                let directories = parts.map(str::to_owned).collect();
                sources.data.push(DataDocument {
                    file,
                    directories,
                    format,
                    text,
                });
            } else if name.ends_with(".rego") {
                sources.modules.push(Module { file, text });
            }
        }
        sources.check()?;
        Ok(sources)
    }

    /// Takes modules alone: pairs of a name for messages and the text.
    ///
    /// # Errors
    ///
    /// No module at all, or two of the same name.
    pub fn from_modules<Name: Into<String>, Text: Into<String>>(
        modules: impl IntoIterator<Item = (Name, Text)>,
    ) -> Result<Self, PolicyError> {
        let modules = modules.into_iter();
        let modules = modules
            .map(|(file, text)| Module {
                file: file.into(),
                text: text.into(),
            })
            .collect();
        let sources = Self {
            modules,
            data: Vec::new(),
        };
        sources.check()?;
        Ok(sources)
    }

    /// The policy that Sidegate brings along: see [`STOCK_POLICY`](crate::STOCK_POLICY).
    ///
    /// # Errors
    ///
    /// None that a released build can have: its tests load it.
    pub fn stock() -> Result<Self, PolicyError> {
        Self::from_modules(crate::STOCK_POLICY.iter().copied())
    }

    /// The modules in the order in which they were given.
    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The number of modules.
    #[must_use]
    pub fn module_count(&self) -> usize {
        self.modules.len()
    }

    /// The data documents, parsed anew, each wrapped in the objects that its
    /// directories stand for.
    pub(crate) fn documents(&self) -> impl Iterator<Item = Result<(&str, Value), PolicyError>> {
        self.data.iter().map(|document| {
            let parsed = match document.format {
                DataFormat::Json => Value::from_json_str(&document.text),
                DataFormat::Yaml => Value::from_yaml_str(&document.text),
            };
            let value = parsed.map_err(|error| data_error(&document.file, error))?;
            let placed = document
                .directories
                .iter()
                .rev()
                .fold(value, |inner, directory| {
                    Value::from(std::collections::BTreeMap::from([(
                        Value::from(directory.as_str()),
                        inner,
                    )]))
                });
            Ok((document.file.as_str(), placed))
        })
    }

    fn check(&self) -> Result<(), PolicyError> {
        if self.modules.is_empty() {
            return Err(PolicyError::NoModules {
                origin: "the given files".to_owned(),
            });
        }
        let mut names = BTreeSet::new();
        for module in &self.modules {
            if !names.insert(module.file.as_str()) {
                return Err(PolicyError::DuplicateModule {
                    file: module.file.clone(),
                });
            }
        }
        let mut engine = regorus::Engine::new();
        for document in self.documents() {
            let (file, value) = document?;
            engine
                .add_data(value)
                .map_err(|error| data_error(file, error))?;
        }
        Ok(())
    }
}

pub(crate) fn data_error(file: &str, error: impl std::fmt::Display) -> PolicyError {
    PolicyError::Data {
        file: file.to_owned(),
        source: EngineMessage::new(error),
    }
}

/// Collects the files below `directory`; `parents` holds the real paths of the
/// directories on the way down, so that a link back to one of them is seen.
fn read_directory(
    directory: &Path,
    prefix: &str,
    parents: &mut Vec<PathBuf>,
    files: &mut Vec<(String, String)>,
) -> Result<(), PolicyError> {
    let read_error = |source| PolicyError::Read {
        path: directory.to_owned(),
        source,
    };
    let real = fs::canonicalize(directory).map_err(read_error)?;
    if parents.len() >= DIRECTORY_LIMIT || parents.contains(&real) {
        return Err(PolicyError::DirectoryDepth {
            path: directory.to_owned(),
            limit: DIRECTORY_LIMIT,
        });
    }
    parents.push(real);
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(read_error)? {
        paths.push(entry.map_err(read_error)?.path());
    }
    paths.sort();
    for path in paths {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| PolicyError::FileName { path: path.clone() })?;
        if name.starts_with('.') {
            continue;
        }
        let file = if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}/{name}")
        };
        if metadata(&path)?.is_dir() {
            read_directory(&path, &file, parents, files)?;
        } else if name.ends_with(".rego") || name == "data.json" || name == "data.yaml" {
            let text = read_text(&path)?;
            files.push((file, text));
        }
    }
    parents.pop();
    Ok(())
}

fn metadata(path: &Path) -> Result<fs::Metadata, PolicyError> {
    fs::metadata(path).map_err(|source| PolicyError::Read {
        path: path.to_owned(),
        source,
    })
}

fn read_text(path: &Path) -> Result<String, PolicyError> {
    fs::read_to_string(path).map_err(|source| PolicyError::Read {
        path: path.to_owned(),
        source,
    })
}
