//! The `spire-server` source: Sidegate is the SPIRE agent of its machine.
//!
//! ```text
//!   bootstrap bundle ─▶ node attestation ─▶ agent SVID, kept in the state directory
//!                                               │  renewed at half of its life; the old one is
//!                                               │  kept until the new one has been accepted
//!                                               ▼
//!   every few seconds: authorized entries, bundles ─▶ SVIDs signed in batches ─▶ a generation
//!                                               │
//!     the server is away: what is there stays ◀─┘  in use until it expires, tried again with
//!                                                  a growing, random pause
//! ```
//!
//! Keys of workloads are never written. An answer that does not fit is refused whole and replaces
//! nothing: a leaf for another key or ID, a chain that does not lead to the bundle, another trust
//! domain, a cut stream.
//!
//! The tests play the server after the published API and what is known of SPIRE's behaviour. They
//! show that this side does what it means to do; that it works with SPIRE's own server is shown only
//! by running against one.

mod agent;
mod apply;
mod attest;
mod audience;
mod backoff;
mod bootstrap;
mod credentials;
mod error;
mod key;
mod messages;
mod node;
mod session;
mod sign;
mod source;
mod status;
mod sync;
mod tls;

pub use agent::{AgentConfig, SYNC_INTERVAL, SpireAgent};
pub use audience::{AudienceRule, IdPattern, NoIdPattern};
pub use bootstrap::{Bootstrap, FetchBundle, FetchedBundle};
pub use error::{Denial, SpireError};
pub use node::NodeAttestation;
pub use status::{AgentStatus, Failing, Phase, RefusedEntry};

/// SPIRE's server API, as far as it is used.
#[expect(unreachable_pub, unused_qualifications, reason = "generated code")]
#[cfg_attr(
    test,
    expect(
        clippy::clone_on_ref_ptr,
        clippy::default_trait_access,
        reason = "generated code"
    )
)]
mod proto {
    include!(concat!(env!("OUT_DIR"), "/spire.rs"));

    pub(super) use spire::api::server::agent::v1 as agent;
    pub(super) use spire::api::server::bundle::v1 as bundle;
    pub(super) use spire::api::server::entry::v1 as entry;
    pub(super) use spire::api::server::svid::v1 as svid;
    pub(super) use spire::api::types;
}

#[cfg(test)]
mod tests;
