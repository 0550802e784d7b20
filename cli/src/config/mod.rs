//! The configuration file `sidegate.toml`: strict, and with every problem shown at once.
//!
//! ```text
//! text ── document ──▶ RawConfig + KeyMap ── lower, cross ──▶ Config + ConfigSource
//!            │                                   │
//!            └────────────── Diagnostics ◀───────┘
//! ```
//!
//! [`Config`] knows nothing of the file it came from. [`ConfigSource`] keeps the text, so that what
//! other rooms refuse later is shown at the same place in the same form.

mod codes;
mod cross;
mod diagnostic;
mod differences;
mod document;
mod key;
mod lower;
mod model;
mod raw;
#[cfg(test)]
mod tests;
mod upstream;
mod values;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(crate) use diagnostic::{Diagnostic, Diagnostics};
pub(crate) use differences::taken;
pub(crate) use key::Key;
pub(crate) use model::{
    AccessLogOutput, Admin, BodyLimits, BundleOrigin, BundleServer, Component, Config, Credentials,
    DecisionLogOutput, Embedded, Entry, Forwarding, Identity, IdentitySource, Limits, Listen,
    Listener, ListenerTls, Log, LogFormat, Notify, PathRules, Policy, PolicyBundle, PolicyShadow,
    Protocol, Proxy, Receiver, SpireServer, SvidFile, Target, Timeouts, TlsMode, TrustBundle,
    WorkloadApi,
};

pub(crate) use upstream::{Mesh, UpstreamServer, upstream_server};
pub(crate) use values::{directives, jwt_svid_ttl, svid_ttl};

use document::{Document, KeyMap};

/// The file that a [`Config`] came from, for problems that only show later.
#[derive(Debug)]
pub(crate) struct ConfigSource {
    path: PathBuf,
    text: Arc<str>,
    keys: KeyMap,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    /// The file cannot be read, or is not UTF-8.
    #[error("cannot read the configuration file {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The file was read and is refused whole.
    #[error("{0}")]
    Invalid(Diagnostics),
}

/// Reads and checks the configuration file at `path`.
///
/// Relative paths in it start at the file's own folder.
///
/// # Errors
///
/// When the file cannot be read, or with all problems of its text.
pub(crate) fn load(path: &Path) -> Result<(Config, ConfigSource), ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.to_owned(),
        source,
    })?;
    parse(path, &text).map_err(ConfigError::Invalid)
}

/// Checks `text` as if it were the content of the file at `path`.
fn parse(path: &Path, text: &str) -> Result<(Config, ConfigSource), Diagnostics> {
    let base = path.parent().unwrap_or(Path::new(""));
    let Document {
        raw,
        keys,
        problems,
    } = Document::read(text);
    let lowered = match raw {
        Some(raw) => lower::lower(raw, &keys, base, problems),
        None => Err(problems),
    };
    let source = ConfigSource {
        path: path.to_owned(),
        text: text.into(),
        keys,
    };
    match lowered {
        Ok(config) => Ok((config, source)),
        Err(problems) => Err(source.diagnostics(problems)),
    }
}

impl ConfigSource {
    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether the file still says what was read.
    pub(crate) fn is_current(&self) -> bool {
        std::fs::read(&self.path).is_ok_and(|content| content == self.text.as_bytes())
    }

    /// A problem with the value of `key`, or, where the file does not set it, with the nearest
    /// section around it. Labels and help can be added.
    pub(crate) fn diagnostic(
        &self,
        key: &Key,
        code: &'static str,
        title: impl Into<String>,
    ) -> Diagnostic {
        Diagnostic::new(code, title, self.keys.value(key))
    }

    /// Joins problems with the text that they point into, in file order.
    pub(crate) fn diagnostics(&self, problems: Vec<Diagnostic>) -> Diagnostics {
        Diagnostics::new(
            self.path.display().to_string(),
            Arc::clone(&self.text),
            problems,
        )
    }
}

impl ConfigError {
    /// The stable code of the refusal; each of [`Diagnostics`] carries its own besides.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Read { .. } => codes::UNREADABLE,
            Self::Invalid(_) => codes::INVALID,
        }
    }
}
