//! OPA bundles: what they are made of, what they are signed with, and how new ones are found.
//!
//! ```text
//! Fetch ── Remote ──┐ bytes                      merge
//! directory, file ──┴─────▶ Bundle ─ of each name ─▶ PolicySources ─▶ accepted? kept, ETag
//!                  limits, signature, roots                          refused? the one before stays
//! ```
//!
//! Transports are passed in: see [`Fetch`]. So is time: whoever drives a [`Remote`] waits as long
//! as it says, and ends what takes too long.

mod canonical;
mod contents;
mod error;
mod fetch;
mod files;
pub mod kept;
mod keys;
mod manifest;
mod signature;
#[cfg(test)]
mod testing;

pub(crate) use contents::check_disjoint;
pub use contents::{Bundle, UnverifiedBundle, merge};
pub use error::{BundleError, Cause};
pub use fetch::{Fetch, FetchBody, Fetched, Fetching, Polling, Remote};
pub use files::Limits;
pub use keys::{SignatureAlgorithm, VerificationKey};
pub use signature::Verification;
