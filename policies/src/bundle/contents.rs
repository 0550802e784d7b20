//! A bundle as it was read: its policy, and what it owns.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use regorus::{Engine, Value};

use super::error::BundleError;
use super::files::{Files, Limits, read_archive, read_directory, read_error};
use super::manifest::{MANIFEST, Manifest};
use super::signature::{SIGNATURES, Verification, verify};
use crate::engine::too_deep;
use crate::sources::{BundleRevision, DataDocument, Module, PolicySources, RegoVersion};
use crate::syntax::whole_path;

/// A bundle that was read whole, is within bounds, is signed as it must be, and holds only what its
/// manifest's roots allow. Whether its policy can decide, only
/// [`Policy::load`](crate::Policy::load) finds out.
#[derive(Debug, Clone)]
pub struct Bundle {
    manifest: Manifest,
    modules: Vec<Module>,
    data: Vec<DataDocument>,
}

/// A bundle whose signature nobody has looked at: for commands that put nothing into service.
#[derive(Debug, Clone)]
pub struct UnverifiedBundle {
    /// What is in it.
    pub bundle: Bundle,
    /// Whether it is signed, by whomever.
    pub is_signed: bool,
}

impl Bundle {
    /// Reads a gzip tarball, as `opa build` makes it.
    ///
    /// Of a tarball that is too large, no more is read than may be. `policy.wasm` and plans are
    /// passed over.
    ///
    /// # Errors
    /// Whatever is wrong with any part refuses the whole.
    pub fn read(
        compressed: impl Read,
        limits: &Limits,
        verification: Option<&Verification>,
    ) -> Result<Self, BundleError> {
        Self::new(read_archive(compressed, limits)?, verification)
    }

    /// Reads a directory with the files of a bundle, or a file with a gzip tarball.
    ///
    /// # Errors
    /// As [`Bundle::read`], and what cannot be read.
    pub fn read_path(
        path: &Path,
        limits: &Limits,
        verification: Option<&Verification>,
    ) -> Result<Self, BundleError> {
        Self::new(read_files(path, limits)?, verification)
    }

    /// The same, whatever the signature says. What is read like this must decide nothing.
    ///
    /// # Errors
    /// As [`Bundle::read_path`], but for signatures.
    pub fn read_path_unverified(
        path: &Path,
        limits: &Limits,
    ) -> Result<UnverifiedBundle, BundleError> {
        let mut files = read_files(path, limits)?;
        let is_signed = files.remove(SIGNATURES).is_some();
        let bundle = Self::new(files, None)?;
        Ok(UnverifiedBundle { bundle, is_signed })
    }

    fn new(mut files: Files, verification: Option<&Verification>) -> Result<Self, BundleError> {
        if let Some(path) = files.keys().find(|path| file_name(path) == "patch.json") {
            return Err(BundleError::Delta { path: path.clone() });
        }
        verify(&mut files, verification)?;
        for path in files.keys() {
            describes_nothing(path)?;
        }
        let manifest = Manifest::read(files.get(MANIFEST).map(Vec::as_slice))?;
        let mut modules = Vec::new();
        let mut data = Vec::new();
        for (path, content) in files {
            if path.ends_with(".rego") {
                let version = manifest.version(&path);
                let text = text(&path, content)?;
                modules.push(Module {
                    file: path,
                    text,
                    version,
                });
            } else if DataDocument::is_one(&path) {
                let text = text(&path, content)?;
                data.extend(DataDocument::new(path, text));
            }
        }
        let bundle = Self {
            manifest,
            modules,
            data,
        };
        bundle.check_roots()?;
        Ok(bundle)
    }

    /// What the manifest says which edition this is; empty, it says nothing.
    #[must_use]
    pub fn revision(&self) -> &str {
        &self.manifest.revision
    }

    /// The modules, in the order of their paths.
    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The data documents, in the order of their paths.
    pub(crate) fn data(&self) -> &[DataDocument] {
        &self.data
    }

    /// Whether the other would decide the same, and says the same of itself.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let (one, two) = (&self.manifest, &other.manifest);
        let Manifest {
            revision, roots, ..
        } = one;
        *revision == two.revision
            && *roots == two.roots
            && self.modules == other.modules
            && self.data == other.data
    }

    fn check_roots(&self) -> Result<(), BundleError> {
        if self.manifest.roots.are_everything() {
            return Ok(());
        }
        for module in &self.modules {
            // What does not parse is told of where it is put to use, with all that does not.
            if let Some(package) = package(module)
                && !self.manifest.roots.contain(&package)
            {
                return Err(self.outside(&module.file, &package));
            }
        }
        for document in &self.data {
            let value = document.placed()?;
            self.check_data(document.file(), &mut Vec::new(), &value)?;
        }
        Ok(())
    }

    fn check_data(
        &self,
        file: &str,
        path: &mut Vec<String>,
        value: &Value,
    ) -> Result<(), BundleError> {
        let roots = &self.manifest.roots;
        if roots.contain(path) {
            return Ok(());
        }
        let Value::Object(members) = value else {
            return Err(self.outside(file, path));
        };
        if !roots.reach_below(path) {
            return Err(self.outside(file, path));
        }
        for (key, value) in members.iter() {
            let key = match key {
                Value::String(key) => key.to_string(),
                other => other.to_string(),
            };
            path.push(key);
            self.check_data(file, path, value)?;
            path.pop();
        }
        Ok(())
    }

    fn outside(&self, file: &str, path: &[String]) -> BundleError {
        BundleError::OutsideRoots {
            file: file.to_owned(),
            found: path.join("/"),
            roots: self.manifest.roots.to_string(),
        }
    }
}

/// Makes one policy of several bundles, each with its name. Files are named
/// `<bundle>/<path>` from here on.
///
/// # Errors
/// Two bundles that own the same part of `data`; files that do not go together; no module at all.
pub fn merge<'a, Named>(bundles: Named) -> Result<PolicySources, BundleError>
where
    Named: IntoIterator<Item = (&'a str, &'a Bundle)>,
{
    let bundles: Vec<(&str, &Bundle)> = bundles.into_iter().collect();
    let mut modules = Vec::new();
    let mut data = Vec::new();
    let mut revisions = Vec::new();
    check_disjoint(&bundles)?;
    for (name, bundle) in &bundles {
        modules.extend(bundle.modules.iter().map(|module| module.within(name)));
        data.extend(bundle.data.iter().map(|document| document.within(name)));
        revisions.push(BundleRevision {
            name: (*name).to_owned(),
            revision: bundle.revision().to_owned(),
        });
    }
    Ok(PolicySources::from_parts(modules, data, revisions)?)
}

/// Whether each of several bundles, each with its name, owns a part of `data` of its own.
///
/// # Errors
/// The first two that own the same part.
pub(crate) fn check_disjoint(bundles: &[(&str, &Bundle)]) -> Result<(), BundleError> {
    for (index, (name, bundle)) in bundles.iter().enumerate() {
        for (other, earlier) in bundles.iter().take(index) {
            if let Some(root) = earlier.manifest.roots.shared(&bundle.manifest.roots) {
                return Err(BundleError::Overlap {
                    first: (*other).to_owned(),
                    second: (*name).to_owned(),
                    root,
                });
            }
        }
    }
    Ok(())
}

/// The files of a directory, or of a file with a gzip tarball.
fn read_files(path: &Path, limits: &Limits) -> Result<Files, BundleError> {
    let metadata = std::fs::metadata(path).map_err(read_error(path))?;
    if metadata.is_dir() {
        return read_directory(path, limits);
    }
    Limits::check(Limits::COMPRESSED, metadata.len(), limits.compressed)?;
    let file = File::open(path).map_err(read_error(path))?;
    read_archive(file.take(limits.compressed), limits)
}

/// Other files that OPA would take for the manifest or the signatures: there is one place for each.
fn describes_nothing(path: &str) -> Result<(), BundleError> {
    let problem = if path.ends_with(".manifest.pb") {
        "is a manifest in a form that is not read: write it as JSON"
    } else if path != MANIFEST && path.ends_with(MANIFEST) {
        "is not read: the manifest stands at the bundle's root"
    } else if file_name(path) == SIGNATURES {
        "is not read: the signatures stand at the bundle's root"
    } else {
        return Ok(());
    };
    Err(BundleError::Manifest {
        file: path.to_owned(),
        problem: problem.to_owned(),
    })
}

/// The package of a module in its components after `data`, if it parses.
fn package(module: &Module) -> Option<Vec<String>> {
    if too_deep(&module.text).is_some() {
        return None;
    }
    let mut engine = Engine::new();
    engine.set_rego_v0(module.version == RegoVersion::V0);
    let (file, text) = (module.file.clone(), module.text.clone());
    engine.add_policy(file, text).ok()?;
    let tree: serde_json::Value = serde_json::from_str(&engine.get_ast_as_json().ok()?).ok()?;
    whole_path(tree.pointer("/0/ast/package/refr")?)
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn text(path: &str, content: Vec<u8>) -> Result<String, BundleError> {
    String::from_utf8(content).map_err(|_| BundleError::Manifest {
        file: path.to_owned(),
        problem: "is not UTF-8".to_owned(),
    })
}

#[cfg(test)]
mod tests;
