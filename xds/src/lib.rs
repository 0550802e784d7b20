//! The Envoy plane: what Envoy and other xDS clients get from Sidegate.
//!
//! Only this crate knows Envoy's protos. So far it serves secrets ([`sds`]).
#![warn(missing_docs)]

pub mod sds;
