//! Why a bundle, or a set of bundles, was refused.

use std::path::PathBuf;

use crate::error::PolicyError;

/// What something outside of this crate says: a transport, or whoever put the bundle to use.
pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why a bundle is not used. The one before, if there is one, stays in use.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The transport failed.
    #[error("the bundle cannot be fetched")]
    Fetch {
        /// What the transport said.
        #[source]
        source: Cause,
    },
    /// The server answered with neither a bundle nor that there is no newer one.
    #[error("the bundle cannot be fetched: the server answers with status {status}")]
    Status {
        /// The status of the answer.
        status: http::StatusCode,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Not a gzip tarball, or one that is truncated or damaged.
    #[error("the bundle is not a whole gzip tarball")]
    Archive {
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// More than a bundle may have.
    #[error("the bundle has more than {limit} {what}")]
    Limit {
        /// What there is too much of.
        what: &'static str,
        /// How much there may be.
        limit: u64,
    },
    /// A path that is not one below the bundle's root.
    #[error("the path {path:?} {problem}")]
    Path {
        /// The path as it is written.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A link, a device or the like.
    #[error("{path} is neither a file nor a directory")]
    SpecialFile {
        /// The path in the bundle.
        path: String,
    },
    /// Two files with the same path.
    #[error("the file {path} is there twice")]
    Duplicate {
        /// The path in the bundle.
        path: String,
    },
    /// A bundle with changes to another bundle's data.
    #[error("{path} makes this a delta bundle: only whole bundles are taken")]
    Delta {
        /// The path in the bundle.
        path: String,
    },
    /// The manifest, or another file that describes the bundle, is not right.
    #[error("the bundle's {file} {problem}")]
    Manifest {
        /// The path in the bundle.
        file: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Data or a package outside of the manifest's roots.
    #[error("{file} holds `{found}`, outside of the manifest's roots {roots}")]
    OutsideRoots {
        /// The path in the bundle.
        file: String,
        /// The package, or the place of the data, with `/` between its parts.
        found: String,
        /// The roots, as they are written.
        roots: String,
    },
    /// Two bundles claim the same part of `data`.
    #[error("the bundles `{first}` and `{second}` both own `{root}`")]
    Overlap {
        /// The name of one bundle.
        first: String,
        /// The name of the other.
        second: String,
        /// The root that lies within a root of the other.
        root: String,
    },
    /// Verification is configured, and the bundle is not signed.
    #[error("the bundle is not signed, and a verification key is configured")]
    Unsigned,
    /// The bundle is signed, and no verification is configured.
    #[error("the bundle is signed, and no verification key is configured")]
    NoKey,
    /// The signature is not that of the configured key, or says something else.
    #[error("the bundle's signature is refused: {problem}")]
    Signature {
        /// What is wrong with it.
        problem: String,
    },
    /// The signature is right, but the files are not those that were signed.
    #[error("{file} {problem}")]
    SignedFile {
        /// The path in the bundle.
        file: String,
        /// How it differs from what was signed.
        problem: String,
    },
    /// The verification key cannot be used.
    #[error("the verification key cannot be used: {problem}")]
    Key {
        /// What is wrong with it.
        problem: String,
    },
    /// The bundle that was kept cannot be read or written.
    #[error("the kept bundle {} cannot be read or written", path.display())]
    Kept {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The bundle was read, and its policy is not taken.
    #[error("the bundle's policy is refused")]
    Refused {
        /// The diagnostic code of the reason.
        code: &'static str,
        /// The reason.
        #[source]
        source: Cause,
    },
    /// The policy's files do not go together.
    #[error("the bundle's policy cannot be used")]
    Sources {
        /// What is wrong with them.
        #[source]
        source: PolicyError,
    },
    /// One of several bundles.
    #[error("bundle `{name}`")]
    Named {
        /// The name of the bundle.
        name: String,
        /// What is wrong with it.
        #[source]
        source: Box<BundleError>,
    },
}

impl BundleError {
    /// The stable diagnostic code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Fetch { .. } | Self::Status { .. } => "SG0230",
            Self::Archive { .. } => "SG0231",
            Self::Limit { .. } => "SG0232",
            Self::Path { .. } => "SG0233",
            Self::SpecialFile { .. } => "SG0234",
            Self::Duplicate { .. } => "SG0235",
            Self::Delta { .. } => "SG0236",
            Self::Manifest { .. } => "SG0237",
            Self::OutsideRoots { .. } => "SG0238",
            Self::Overlap { .. } => "SG0239",
            Self::Unsigned => "SG0240",
            Self::NoKey => "SG0241",
            Self::Signature { .. } => "SG0242",
            Self::SignedFile { .. } => "SG0243",
            Self::Key { .. } => "SG0244",
            Self::Kept { .. } => "SG0245",
            Self::Read { .. } => "SG0201",
            Self::Refused { code, .. } => code,
            Self::Sources { source } => source.code(),
            Self::Named { source, .. } => source.code(),
        }
    }

    /// The same, saying which bundle it is about.
    #[must_use]
    pub fn of(self, name: &str) -> Self {
        Self::Named {
            name: name.to_owned(),
            source: Box::new(self),
        }
    }
}

impl From<PolicyError> for BundleError {
    fn from(source: PolicyError) -> Self {
        Self::Sources { source }
    }
}
