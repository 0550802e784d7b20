//! The Rego modules and data documents that make up a policy.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use regorus::Value;
use serde::Serialize;

use crate::error::{EngineMessage, ParseFailure, PolicyError};
use crate::files::{PolicyFile, PolicyFileKind};

/// How many directories below the given one are read. Bundles are shallow; the
/// bound is what ends a chain of links.
const DIRECTORY_LIMIT: usize = 32;

/// How many bytes a file may have.
const FILE_LIMIT: u64 = 256 << 20;

/// The version of Rego that a module is written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RegoVersion {
    /// That of OPA before 1.0.
    V0,
    /// That of OPA since 1.0.
    #[default]
    V1,
}

/// Which edition of a bundle is in use, for decision logs and status pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BundleRevision {
    /// The bundle's name in the configuration.
    pub name: String,
    /// What its manifest says; empty, it says nothing.
    pub revision: String,
}

/// One Rego module: a name for messages, and its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Module {
    pub(crate) file: String,
    pub(crate) text: String,
    pub(crate) version: RegoVersion,
}

/// How a data document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DataFormat {
    Json,
    Yaml,
}

/// One data document and the place in `data` that its directory gives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataDocument {
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
/// count (in bundles `data.yml` too), and their directory says where in `data` they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySources {
    modules: Vec<Module>,
    data: Vec<DataDocument>,
    bundles: Vec<BundleRevision>,
}

impl Module {
    /// That there is a NUL byte, which OPA refuses and the engine does not.
    fn nul_byte(&self) -> Option<ParseFailure> {
        let (before, _) = self.text.split_once('\0')?;
        let line = before.matches('\n').count().saturating_add(1);
        let column = before.chars().rev().take_while(|it| *it != '\n').count();
        let (file, column) = (&self.file, column.saturating_add(1));
        Some(ParseFailure {
            file: file.clone(),
            message: EngineMessage::new(format!(
                "--> {file}:{line}:{column}\nerror: there is a NUL byte"
            )),
        })
    }

    /// The same, named as a file of a bundle.
    pub(crate) fn within(&self, bundle: &str) -> Self {
        Self {
            file: format!("{bundle}/{}", self.file),
            ..self.clone()
        }
    }
}

impl DataDocument {
    /// Whether a file is a data document, by its name.
    pub(crate) fn is_one(file: &str) -> bool {
        let name = file.rsplit('/').next().unwrap_or(file);
        DataFormat::of(name).is_some()
    }

    /// A file, if it is a data document by its name.
    pub(crate) fn new(file: String, text: String) -> Option<Self> {
        let (directory, name) = file.rsplit_once('/').unwrap_or(("", &file));
        let format = DataFormat::of(name)?;
        let parts = directory.split('/').filter(|part| !part.is_empty());
        let directories = parts.map(str::to_owned).collect();
        Some(Self {
            file,
            directories,
            format,
            text,
        })
    }

    /// Its name as it was given.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The objects of `data` that it is in, the outermost first.
    pub(crate) fn directories(&self) -> &[String] {
        &self.directories
    }

    /// Its text.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The same, named as a file of a bundle.
    pub(crate) fn within(&self, bundle: &str) -> Self {
        Self {
            file: format!("{bundle}/{}", self.file),
            ..self.clone()
        }
    }

    /// The document, parsed anew and wrapped in the objects that its directories stand for.
    pub(crate) fn placed(&self) -> Result<Value, PolicyError> {
        let parsed = match self.format {
            DataFormat::Json => Value::from_json_str(&self.text),
            DataFormat::Yaml => Value::from_yaml_str(&self.text),
        };
        let value = parsed.map_err(|error| data_error(&self.file, error))?;
        let directories = self.directories.iter().rev();
        Ok(directories.fold(value, |inner, directory| {
            Value::from(BTreeMap::from([(Value::from(directory.as_str()), inner)]))
        }))
    }
}

impl DataFormat {
    fn of(name: &str) -> Option<Self> {
        match name {
            "data.json" => Some(Self::Json),
            "data.yaml" | "data.yml" => Some(Self::Yaml),
            _ => None,
        }
    }
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
        let mut modules = Vec::new();
        let mut data = Vec::new();
        for (file, text) in files {
            let file = file.trim_start_matches('/').to_owned();
            if file.ends_with(".rego") {
                modules.push(Module {
                    file,
                    text,
                    version: RegoVersion::default(),
                });
            } else if is_data(&file) {
                data.extend(DataDocument::new(file, text));
            }
        }
        Self::from_parts(modules, data, Vec::new())
    }

    /// Joins what was read from bundles.
    ///
    /// # Errors
    ///
    /// As [`PolicySources::from_files`].
    pub(crate) fn from_parts(
        modules: Vec<Module>,
        data: Vec<DataDocument>,
        bundles: Vec<BundleRevision>,
    ) -> Result<Self, PolicyError> {
        let sources = Self {
            modules,
            data,
            bundles,
        };
        sources.check()?;
        Ok(sources)
    }

    /// The same, as if it came from a bundle.
    #[cfg(test)]
    pub(crate) fn of_bundle(mut self, bundle: BundleRevision) -> Self {
        self.bundles.push(bundle);
        self
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
                version: RegoVersion::default(),
            })
            .collect();
        Self::from_parts(modules, Vec::new(), Vec::new())
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

    /// The same with other texts of modules, each made of its name and its text.
    pub(crate) fn rewritten(&self, mut rewrite: impl FnMut(&str, &str) -> String) -> Self {
        let mut sources = self.clone();
        for module in &mut sources.modules {
            module.text = rewrite(&module.file, &module.text);
        }
        sources
    }

    /// The number of modules.
    #[must_use]
    pub fn module_count(&self) -> usize {
        self.modules.len()
    }

    /// The bundles that it was made of, in the order of the configuration; none
    /// where it was read from a directory or file.
    #[must_use]
    pub fn bundles(&self) -> &[BundleRevision] {
        &self.bundles
    }

    /// The data documents, parsed anew, each wrapped in the objects that its
    /// directories stand for.
    pub(crate) fn documents(&self) -> impl Iterator<Item = Result<(&str, Value), PolicyError>> {
        let documents = self.data.iter();
        documents.map(|document| Ok((document.file(), document.placed()?)))
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
        let failures: Vec<_> = self.modules.iter().filter_map(Module::nul_byte).collect();
        if !failures.is_empty() {
            return Err(PolicyError::Parse { failures });
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

/// Whether a file of a directory is a data document.
fn is_data(file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    matches!(name, "data.json" | "data.yaml")
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
        } else if name.ends_with(".rego") || is_data(name) {
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
    // Nobody writes to a pipe that lies among the files, or it never ends.
    match metadata(path)?.is_file() {
        true => fs::File::open(path).and_then(read_bounded),
        false => Err(io::Error::other("it is no regular file")),
    }
    .map_err(|source| PolicyError::Read {
        path: path.to_owned(),
        source,
    })
}

/// The text of a file or stream, if it is no longer than a policy's file may be.
///
/// # Errors
///
/// What cannot be read, is longer than 256 MiB, or is not UTF-8: of the last the
/// kind is [`io::ErrorKind::InvalidData`].
pub fn read_bounded(source: impl Read) -> io::Result<String> {
    let mut bytes = Vec::new();
    let mut source = source.take(FILE_LIMIT.saturating_add(1));
    source.read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > FILE_LIMIT) {
        return Err(io::Error::other("it is longer than 256 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| {
        let problem = "stream did not contain valid UTF-8";
        io::Error::new(io::ErrorKind::InvalidData, problem)
    })
}

impl PolicySources {
    /// Takes files that are told apart already, under names of their own.
    ///
    /// # Errors
    ///
    /// As for [`PolicySources::from_files`].
    pub(crate) fn from_policy_files<'a>(
        files: impl IntoIterator<Item = &'a PolicyFile>,
    ) -> Result<Self, PolicyError> {
        let mut sources = Self {
            modules: Vec::new(),
            data: Vec::new(),
            bundles: Vec::new(),
        };
        for file in files {
            let (name, text) = (file.name.clone(), file.text.clone());
            let format = match file.kind {
                PolicyFileKind::Module => {
                    sources.modules.push(Module {
                        file: name,
                        text,
                        version: file.version,
                    });
                    continue;
                }
                PolicyFileKind::Json => DataFormat::Json,
                PolicyFileKind::Yaml => DataFormat::Yaml,
            };
            sources.data.push(DataDocument {
                file: name,
                directories: file.directories.clone(),
                format,
                text,
            });
        }
        sources.check()?;
        Ok(sources)
    }

    /// The same data with other modules, which are taken as they are.
    pub(crate) fn with_modules(&self, modules: Vec<Module>) -> Self {
        Self {
            modules,
            ..self.clone()
        }
    }

    /// Collects what counts below a directory: paths relative to it, and texts.
    ///
    /// # Errors
    ///
    /// As for [`PolicySources::read`].
    pub(crate) fn read_below(directory: &Path) -> Result<Vec<(String, String)>, PolicyError> {
        let mut files = Vec::new();
        read_directory(directory, "", &mut Vec::new(), &mut files)?;
        Ok(files)
    }
}
