//! Which source of identities there is, and how it fares.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::clock::{moment, rfc3339};

/// The kinds of sources, by their names in the configuration.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SourceKind {
    /// None: there are no identities.
    None,
    /// A CA of our own.
    #[default]
    Embedded,
    /// PEM files.
    Files,
    /// Another's Workload API.
    WorkloadApi,
    /// A SPIRE server, whose agent this is.
    SpireServer,
}

/// How a source fares. Times are in seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceStatus {
    /// Which it is.
    pub kind: SourceKind,
    /// Why it is down: what it gives is refused, or it cannot be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Down>,
}

/// A source that is down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Down {
    /// The stable diagnostic code.
    pub code: String,
    /// Why.
    pub error: String,
    /// Since when.
    pub since: u64,
    /// When the first of the SVIDs in use ends; `None` without any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl SourceStatus {
    /// What is not well, in a line for people.
    pub fn failing(&self) -> Option<String> {
        let Down {
            code,
            error,
            since,
            until,
        } = self.down.as_ref()?;
        let time = |seconds: u64| rfc3339(moment(seconds));
        let until = match until {
            Some(until) => format!("what is there serves until {}", time(*until)),
            None => "there is no SVID".to_owned(),
        };
        Some(format!(
            "the identity source `{}` is down since {}, {until}: {error} [{code}]",
            self.kind,
            time(*since)
        ))
    }
}

impl fmt::Display for SourceKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Embedded => "embedded",
            Self::Files => "files",
            Self::WorkloadApi => "workload-api",
            Self::SpireServer => "spire-server",
        })
    }
}
