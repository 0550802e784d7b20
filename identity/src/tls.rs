//! TLS with X.509-SVIDs: what this side shows, and what it demands of its peer.

mod client;
mod names;
mod peer;
mod server;
mod verifier;

pub use client::{ClientTls, ClientTlsError, Expected, Grounds, Secured};
pub use names::TlsServer;
pub use peer::{PeerError, PeerIdentity};
pub(crate) use peer::{check_anchor, check_signer};

pub use server::{HandshakeProblem, Presented, ServerTls, TlsError, TlsMode, Trust};
pub use verifier::SpiffeVerifier;
pub(crate) use verifier::{describe, verify_chain};
