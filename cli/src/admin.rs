//! The admin API: what the CLI shows and does to a running instance, as JSON over HTTP on
//! `admin.sock` in the state directory. Only the owner of the process, or root, may use it.
//!
//! ```text
//! GET    /v1/status                       everything that `check` shows
//! GET    /v1/entries                      registration entries
//! POST   /v1/entries                      make one
//! GET    /v1/entries/ID   DELETE          one of them
//! GET    /v1/authorities                  roots and JWT keys with their phases
//! POST   /v1/authorities/KIND/rotate      KIND is x509 or jwt
//! POST   /v1/authorities/KIND/taint
//! POST   /v1/authorities/KIND/revoke
//! GET    /v1/bundles                      all bundles, as a SPIFFE bundle map
//! PUT    /v1/bundles/TRUST_DOMAIN         a foreign one, in SPIFFE's format
//! DELETE /v1/bundles/TRUST_DOMAIN
//! GET    /v1/log/level                    which events are logged
//! POST   /v1/log/level                    have others logged
//! POST   /v1/policy/rollback              return to the policy before
//! POST   /v1/policy/promote               have the candidate decide
//! ```

mod client;
mod documents;
mod server;
mod status;

pub(crate) use client::AdminClient;
pub(crate) use documents::{
    Bundle, BundleList, Chosen, EntryDocument, EntryList, Level, NewEntry, Nothing, Refusal,
    Removed, Rotate, Selected, rfc3339,
};
pub(crate) use server::AdminServer;
pub(crate) use status::{
    ComponentStatus, DecisionLogFacts, DenialJump, EngineFacts, EntryCounts, ListenerFacts,
    PolicyFacts, Promotion, RefusedSources, ReloadFacts, ShadowFacts, Status, SvidStatus,
};

/// The socket's name in the state directory.
pub(crate) const SOCKET: &str = "admin.sock";
