//! What a running instance tells of itself. Nothing in it is secret.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use sidegate_identity::embedded::Authorities;

use crate::check::counted;
use crate::instance::ListenerStatus;

/// The document of `GET /v1/status`. Moments are seconds since 1970.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Status {
    /// [`Status::SCHEMA`]; another number may mean anything.
    pub(crate) schema: u64,
    pub(crate) version: String,
    pub(crate) pid: u32,
    /// The user that it runs as.
    pub(crate) uid: u32,
    /// The instance's time of day.
    pub(crate) now: u64,
    pub(crate) trust_domain: String,
    /// What keeps traffic away, as `/readyz` says it; nothing when ready.
    pub(crate) missing: Vec<String>,
    /// What is not well, and does not keep traffic away yet.
    pub(crate) failing: Vec<String>,
    /// Grows with each change of SVIDs and bundles.
    pub(crate) generation: u64,
    pub(crate) entries: EntryCounts,
    /// Those in use, in the order of the entries.
    pub(crate) svids: Vec<SvidStatus>,
    pub(crate) authorities: Authorities,
    /// The certificate of an authority that was brought along.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) brought: Option<String>,
    /// The Workload API's address, as `SPIFFE_ENDPOINT_SOCKET` takes it.
    pub(crate) workload_socket: String,
    /// Where `/readyz` is.
    pub(crate) admin: SocketAddr,
    /// Whether it asks for mutual TLS.
    #[serde(default)]
    pub(crate) admin_tls: bool,
    pub(crate) policy: PolicyFacts,
    pub(crate) listeners: Vec<ListenerFacts>,
    pub(crate) components: Vec<ComponentStatus>,
}

/// How many entries there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EntryCounts {
    pub(crate) configuration: usize,
    pub(crate) runtime: usize,
}

/// An X.509-SVID that is in use.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct SvidStatus {
    pub(crate) spiffe_id: String,
    pub(crate) issued_at: u64,
    pub(crate) not_after: u64,
}

/// The policy that decides.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PolicyFacts {
    /// Without one it is the stock policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) path: Option<String>,
    pub(crate) entrypoint: String,
    pub(crate) generation: u64,
    pub(crate) modules: usize,
    pub(crate) tests: usize,
}

/// A listener, and whether it still has an identity to show.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListenerFacts {
    #[serde(flatten)]
    pub(crate) listener: ListenerStatus,
    pub(crate) has_svid: bool,
}

/// A component that is loaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ComponentStatus {
    pub(crate) name: String,
    pub(crate) digest: String,
}

impl PolicyFacts {
    /// In a line, for people.
    pub(crate) fn summary(&self) -> String {
        format!(
            "{}, {}, {}, {} passed",
            self.path.as_deref().unwrap_or("the stock policy"),
            self.entrypoint,
            counted(self.modules, "module"),
            counted(self.tests, "test"),
        )
    }
}

impl Status {
    pub(crate) const SCHEMA: u64 = 1;
}
