//! What the agent shows of itself.

use serde::{Deserialize, Serialize};

use crate::received::{Down, SourceKind, SourceStatus};

/// How the agent stands. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Where in its life it is.
    pub phase: Phase,
    /// The agent's own SPIFFE ID.
    pub agent_id: Option<String>,
    /// When the agent's own SVID expires.
    pub agent_expires: Option<u64>,
    /// When entries and bundles were last the server's.
    pub synced: Option<u64>,
    /// Since when something does not succeed.
    pub failing_since: Option<u64>,
    /// What did not succeed last.
    pub failing: Option<Failing>,
    /// When the first of the workloads' SVIDs expires: until then all goes on without the server.
    pub first_expiry: Option<u64>,
    /// When the last of them expires: after that nothing does.
    pub last_expiry: Option<u64>,
    /// Entries that are served.
    pub served: usize,
    /// Entries for which the server has not signed an SVID that can be taken, each with the reason.
    pub unsigned: Vec<String>,
    /// Entries for workloads of attestors that are not here.
    pub foreign: usize,
    /// Entries that break a rule, and are not served.
    pub refused: Vec<RefusedEntry>,
    /// Foreign trust domains whose bundles are missing or refused, each with the reason.
    pub bundles: Vec<String>,
    /// Entries of processes whose JWT-SVIDs may be for any audience: no rule narrows them.
    pub any_audience: usize,
}

impl AgentStatus {
    /// How it fares as a source of identities.
    pub(super) fn as_source(&self) -> SourceStatus {
        let failing = self.failing.as_ref();
        SourceStatus {
            kind: SourceKind::SpireServer,
            down: failing.map(|failing| Down {
                code: failing.code.clone(),
                error: failing.error.clone(),
                since: self.failing_since.unwrap_or_default(),
                until: self.first_expiry,
            }),
        }
    }
}

/// Where in its life an agent is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// There was no contact with the server yet.
    #[default]
    Starting,
    /// All is as the server has it.
    Serving,
    /// Something does not succeed; what is there stays in use until it expires.
    Failing,
    /// The server has banned it: it serves nothing any more.
    Banned,
}

/// What does not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failing {
    /// The diagnostic code.
    pub code: String,
    /// What happened, with its causes.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}

/// An entry of the server's that is not served here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusedEntry {
    /// The entry's id at the server.
    pub entry_id: String,
    /// The SPIFFE ID that it would give.
    pub spiffe_id: String,
    /// The diagnostic code.
    pub code: String,
    /// The rule that it breaks.
    pub reason: String,
}
