//! Why the registry refuses.

use std::io;
use std::path::PathBuf;

use crate::entry::EntryError;

/// Why an entry is not made, not removed, or not read.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The entry breaks a rule.
    #[error(transparent)]
    Entry(#[from] EntryError),
    /// There is no such entry.
    #[error("there is no entry `{0}`")]
    UnknownId(String),
    /// An entry of the configuration cannot be removed at run time.
    #[error("the entry `{0}` stands in the configuration: remove it there")]
    InConfiguration(String),
    /// The configuration has an entry for the same ID with the same selectors.
    #[error("the entry `{0}` of the configuration is for the same ID with the same selectors")]
    Configured(String),
    /// Another entry has the id.
    #[error("there is an entry `{0}` already")]
    TakenId(String),
    /// Not an id.
    #[error(
        "`{0}` is no id for an entry: it takes letters, digits, `-`, `_` and `.`, at most 255 of \
         them, and must not begin with `configuration-`"
    )]
    BadId(String),
    /// The file cannot be read or written.
    #[error("cannot {action} the entries in {}", path.display())]
    File {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file does not hold what it should.
    #[error("{} does not hold entries: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// An entry of the file is not valid.
    #[error("entry {position} in {} is refused", path.display())]
    BadEntry {
        /// The file.
        path: PathBuf,
        /// Which, from 1.
        position: usize,
        /// Why.
        #[source]
        source: Box<RegistryError>,
    },
}

impl RegistryError {
    /// The stable diagnostic code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Entry(error) => error.code(),
            Self::Configured(_) => "SG0112",
            Self::UnknownId(_) => "SG0115",
            Self::InConfiguration(_) => "SG0116",
            Self::TakenId(_) | Self::BadId(_) => "SG0117",
            Self::File { .. } => "SG0136",
            Self::Damaged { .. } | Self::BadEntry { .. } => "SG0137",
        }
    }

    /// What to do about it, where that is not plain from the message.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Entry(error) => error.hint(),
            Self::BadEntry { source, .. } => source.hint(),
            Self::UnknownId(_)
            | Self::InConfiguration(_)
            | Self::Configured(_)
            | Self::TakenId(_)
            | Self::BadId(_)
            | Self::File { .. }
            | Self::Damaged { .. } => None,
        }
    }
}
