//! Attestation: finding out what a workload is, without asking it.

mod component;
mod unix;

pub use component::{ComponentFacts, listener_selectors};
pub use unix::{AttestError, Caller, UnixAttestor, UnixListenerStream, UnixPeer};
