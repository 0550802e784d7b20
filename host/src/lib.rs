//! Runs WebAssembly components behind the proxy.
//!
//! A component that exports `wasi:http/incoming-handler` (WASI 0.2) becomes a [`tower::Service`]
//! over HTTP requests. [`Host`] owns the engine and its limits, [`Host::load`] compiles bytes to a
//! [`Component`], and [`Component::service`] gives the [`ComponentService`] that the proxy calls.
//!
//! ```text
//! Host::load(name, bytes) ── classify, compile, link once ──▶ Component
//! ComponentService::call(request)
//!   ├─ a permit, or Saturated
//!   └─ a task with a new instance ── head ──▶ response future
//!                                 └─ body ──▶ response body (ends in an error if the guest fails)
//! ```
//!
//! What holds:
//! - **A new instance for every request**; nothing lives on from one request to the next.
//! - **Capabilities are granted, never ambient**: no variables, arguments, files, sockets, input or
//!   outgoing requests. See [`Host::load`] for the interfaces that can be imported.
//! - **A guest cannot take the host down**: traps, endless loops, memory and what it makes the host
//!   keep are bounded, and other requests on the same thread go on meanwhile.
//! - **A guest that fails after its head was sent cuts the body**; it never looks complete.
//! - **A caller that goes away ends the instance.**
//!
//! This room knows wasmtime and WASI. It never knows listeners, the proxy room, files or the
//! environment: bytes come in, services go out.

#![warn(missing_docs)]

mod body;
mod component;
mod config;
mod ending;
mod engine;
mod error;
mod guest;
mod invoke;
mod limits;
mod load;
mod metrics;
mod output;

pub use body::ResponseBody;
pub use component::{Component, ComponentService};
pub use config::HostConfig;
pub use engine::Host;
pub use error::{HostError, InvokeError};
pub use load::{LoadError, digest};
pub use metrics::HostMetrics;
