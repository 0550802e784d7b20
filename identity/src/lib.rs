//! Identity: who every workload is, and how its peers can know.
//!
//! A [`source`] holds X.509-SVIDs and bundles and publishes each change as one immutable
//! [`svid::Identities`] generation. [`attestation`] finds out what a workload is; [`entry`]s say
//! which SPIFFE ID that gives it; [`workload_api`] hands it out, and [`tls`] puts it to use.
#![warn(missing_docs)]

pub mod attestation;
pub mod authority;
pub mod clock;
pub mod durable;
pub mod embedded;
pub mod encoding;
pub mod entry;
pub mod federation;
pub mod jwt;
pub mod metrics;
pub mod received;
pub mod registry;
pub mod selector;
pub mod slots;
pub mod source;
pub mod spiffe_bundle;
pub mod spire;
pub mod svid;
pub mod svid_file;
pub mod tls;
pub mod workload_api;

pub use spiffe::{SpiffeId, TrustDomain};

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An error and its causes, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
