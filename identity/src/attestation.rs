//! Attestation: finding out what a workload is, without asking it.

mod authority;
mod component;
mod executable;
mod socket;
mod unix;

pub use component::{ComponentFacts, host_selectors, listener_selectors};
pub use socket::{UnixListenerStream, UnixPeer};
pub use unix::{AttestError, Caller, UnixAttestor};
