//! What the agent shows of itself.

use serde::Serialize;

/// How the agent stands. Times are seconds since 1970.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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
    /// The ids of own JWT keys whose tokens must not be handed out any more.
    pub tainted_jwt_keys: Vec<String>,
}

/// Where in its life an agent is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failing {
    /// The diagnostic code.
    pub code: &'static str,
    /// What happened, with its causes.
    pub error: String,
    /// What to do about it.
    pub hint: Option<&'static str>,
}

/// An entry of the server's that is not served here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RefusedEntry {
    /// The entry's id at the server.
    pub entry_id: String,
    /// The SPIFFE ID that it would give.
    pub spiffe_id: String,
    /// The diagnostic code.
    pub code: &'static str,
    /// The rule that it breaks.
    pub reason: String,
}
