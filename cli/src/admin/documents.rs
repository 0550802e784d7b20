//! The documents that go over the admin API, and that `-o json` prints.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use sidegate_identity::entry::EntryRequest;
use sidegate_identity::registry::{Origin, Registration};
use sidegate_identity::spiffe_bundle::SpiffeBundle;

use crate::table::Table;

/// A registration entry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EntryDocument {
    pub(crate) id: String,
    pub(crate) origin: Origin,
    /// RFC 3339.
    pub(crate) created_at: String,
    pub(crate) entry: EntryRequest,
}

/// All entries, in the order in which they count.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EntryList {
    pub(crate) entries: Vec<EntryDocument>,
}

/// An entry to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewEntry {
    #[serde(default)]
    pub(crate) id: Option<String>,
    pub(crate) entry: Table<EntryRequest>,
}

/// How to rotate an authority.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rotate {
    /// Only publish the successor.
    #[serde(default)]
    pub(crate) prepare_only: bool,
}

/// Which authority is meant; without an id, the newest that fits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selected {
    #[serde(default)]
    pub(crate) id: Option<String>,
}

/// Directives of a log filter.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Level {
    pub(crate) level: String,
}

/// A document that says nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Nothing {}

/// The authority that it was done to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Chosen {
    pub(crate) id: String,
}

/// All trust bundles: a SPIFFE bundle map that says whose it is.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct BundleList {
    pub(crate) own: String,
    pub(crate) trust_domains: BTreeMap<String, SpiffeBundle>,
}

/// The trust domain whose bundle it was done to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bundle {
    pub(crate) trust_domain: String,
}

/// The entry that is gone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Removed {
    pub(crate) removed: EntryDocument,
}

/// Why a request was not done.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// The stable diagnostic code.
    pub(crate) code: String,
    pub(crate) message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hint: Option<String>,
}

impl From<&Registration> for EntryDocument {
    fn from(registration: &Registration) -> Self {
        Self {
            id: registration.id.clone(),
            origin: registration.origin,
            created_at: rfc3339(registration.created_at),
            entry: registration.entry.to_request(),
        }
    }
}

/// A time of day, in UTC and whole seconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}
