//! A bundle's `.manifest`, and the parts of `data` that it owns.

use std::fmt;

use globset::{GlobBuilder, GlobMatcher};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::error::BundleError;
use crate::sources::RegoVersion;

/// The file with the manifest.
pub(super) const MANIFEST: &str = ".manifest";

/// What a bundle says of itself.
#[derive(Debug, Clone)]
pub(crate) struct Manifest {
    pub(crate) revision: String,
    pub(crate) roots: Roots,
    version: RegoVersion,
    /// In the order of their patterns, of which the first that fits counts.
    file_versions: Vec<(GlobMatcher, RegoVersion)>,
}

/// Paths in `data`, in their components. The empty one is everything, and none at all is nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roots(Vec<Vec<String>>);

#[derive(Debug, Default, Deserialize)]
struct RawManifest {
    revision: Option<String>,
    roots: Option<Vec<String>>,
    rego_version: Option<i64>,
    file_rego_versions: Option<Map<String, Value>>,
    wasm: Option<Vec<Value>>,
    /// Not used; what it holds is the publisher's own.
    #[serde(rename = "metadata")]
    _metadata: Option<Map<String, Value>>,
}

/// The keys that mean something. Others are passed over, as in OPA.
const KEYS: [&str; 6] = [
    "revision",
    "roots",
    "rego_version",
    "file_rego_versions",
    "wasm",
    "metadata",
];

impl Manifest {
    /// Reads the manifest, or takes that of a bundle without one.
    pub(crate) fn read(content: Option<&[u8]>) -> Result<Self, BundleError> {
        let raw = match content {
            Some(content) => parse(content).map_err(refused)?,
            None => RawManifest::default(),
        };
        if raw.wasm.is_some_and(|resolvers| !resolvers.is_empty()) {
            return Err(refused(
                "names entrypoints that are compiled to WebAssembly: build the bundle as Rego"
                    .to_owned(),
            ));
        }
        let version = raw.rego_version.map(version).transpose();
        let mut file_versions = Vec::new();
        for (pattern, number) in raw.file_rego_versions.unwrap_or_default() {
            let number = number.as_i64().unwrap_or(-1);
            let version = version_of_file(&pattern, number)?;
            let matcher = GlobBuilder::new(&pattern)
                .backslash_escape(true)
                .empty_alternates(true)
                .build();
            let matcher =
                matcher.map_err(|error| refused(format!("has a pattern that is none: {error}")))?;
            file_versions.push((matcher.compile_matcher(), version));
        }
        Ok(Self {
            revision: raw.revision.unwrap_or_default(),
            roots: Roots::new(raw.roots)?,
            version: version.map_err(refused)?.unwrap_or_default(),
            file_versions,
        })
    }

    /// The version of Rego that a module is written in. Patterns are written with a `/` at the
    /// start, as `opa build` names files, or without.
    pub(crate) fn version(&self, path: &str) -> RegoVersion {
        let rooted = format!("/{path}");
        let mut versions = self.file_versions.iter();
        versions
            .find(|(pattern, _)| pattern.is_match(&rooted) || pattern.is_match(path))
            .map_or(self.version, |(_, version)| *version)
    }
}

fn parse(content: &[u8]) -> Result<RawManifest, String> {
    let failed = |error: serde_json::Error| format!("cannot be read: {error}");
    let keys: Map<String, Value> = serde_json::from_slice(content).map_err(failed)?;
    // OPA takes any spelling of these: to pass one over could widen the roots to everything.
    for key in keys.keys() {
        let known = KEYS.iter().find(|known| known.eq_ignore_ascii_case(key));
        if let Some(known) = known.filter(|known| *known != key) {
            return Err(format!("has the key `{key}`: write `{known}`"));
        }
    }
    serde_json::from_slice(content).map_err(failed)
}

fn version(number: i64) -> Result<RegoVersion, String> {
    match number {
        0 => Ok(RegoVersion::V0),
        1 => Ok(RegoVersion::V1),
        _ => Err("has a Rego version that is neither 0 nor 1".to_owned()),
    }
}

fn version_of_file(pattern: &str, number: i64) -> Result<RegoVersion, BundleError> {
    version(number).map_err(|problem| refused(format!("{problem}, for `{pattern}`")))
}

fn refused(problem: String) -> BundleError {
    BundleError::Manifest {
        file: MANIFEST.to_owned(),
        problem,
    }
}

impl Roots {
    fn new(written: Option<Vec<String>>) -> Result<Self, BundleError> {
        let written = written.unwrap_or_else(|| vec![String::new()]);
        let mut roots: Vec<Vec<String>> = Vec::new();
        for root in &written {
            let parts: Vec<String> = match root.trim_matches('/') {
                "" => Vec::new(),
                trimmed => trimmed.split('/').map(str::to_owned).collect(),
            };
            if parts.iter().any(String::is_empty) {
                return Err(refused(format!("has the root `{root}`, which is no path")));
            }
            if let Some(other) = roots.iter().find(|other| overlap(other, &parts)) {
                let other = other.join("/");
                return Err(refused(format!(
                    "has the roots `{other}` and `{root}`, of which one is in the other"
                )));
            }
            roots.push(parts);
        }
        Ok(Self(roots))
    }

    /// Whether a path is in one of them.
    pub(crate) fn contain(&self, path: &[String]) -> bool {
        self.0.iter().any(|root| path.starts_with(root))
    }

    /// Whether one of them is below a path.
    pub(crate) fn reach_below(&self, path: &[String]) -> bool {
        self.0.iter().any(|root| root.starts_with(path))
    }

    /// Whether they are all of `data`.
    pub(crate) fn are_everything(&self) -> bool {
        self.0.iter().any(Vec::is_empty)
    }

    /// The smaller of two roots, of which one is in the other.
    pub(crate) fn shared(&self, other: &Self) -> Option<String> {
        let pairs = self
            .0
            .iter()
            .flat_map(|root| other.0.iter().map(move |other| (root, other)));
        let (first, second) = pairs
            .into_iter()
            .find(|(root, other)| overlap(root, other))?;
        Some(match first.len() > second.len() {
            true => first.join("/"),
            false => second.join("/"),
        })
    }
}

impl fmt::Display for Roots {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let roots: Vec<String> = self.0.iter().map(|root| root.join("/")).collect();
        write!(formatter, "{roots:?}")
    }
}

fn overlap(one: &[String], other: &[String]) -> bool {
    one.starts_with(other) || other.starts_with(one)
}
