//! TLS with X.509-SVIDs: what this side shows, and what it demands of its peer.

mod peer;
mod server;
mod verifier;

pub use peer::{PeerError, PeerIdentity};
pub use server::{HandshakeProblem, ServerTls, TlsError};
pub use verifier::SpiffeVerifier;
pub(crate) use verifier::verify_chain;
