//! What black-box tests need: the built `sidegate`, real peers, and a clean end for both.
//!
//! Nothing here knows Sidegate's own crates. Programs are found by the environment that
//! `cargo xtask test` sets, and else where it puts them.
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "this is a test harness: whatever goes wrong in it fails the test"
)]

mod opa_envoy_plugin;
mod process;
mod sidegate;
mod tools;
mod wait;

pub use opa_envoy_plugin::OpaEnvoyPlugin;
pub use process::{Output, Running};
pub use sidegate::{Demo, Listener, Ready, Sidegate};
pub use tools::{Tool, guest, root, sidegate, skip, tool};
pub use wait::until;
