//! Decides requests with Rego under the OPA-Envoy contract.
//!
//! ```text
//! PolicySources ── Policy::load ──▶ Policy ── evaluator() ──▶ Evaluator (one a worker thread)
//!   text            parse, check,      one                       │
//!                   own tests          generation                ▼ decide(connection, request)
//!                                                       Ok(Permit) | Err(Denial)
//! ```
//!
//! A [`Permit`] is the only thing that can be forwarded, and only an
//! [`Evaluator`] makes one. Whatever is not a clear yes is a [`Denial`].
//!
//! This crate knows no TLS, no sockets and no server; it reads files only
//! where [`PolicySources::read`] or a [`bundle`] is given their path.

#![warn(missing_docs)]

mod analysis;
mod builtins;
pub mod bundle;
mod coverage;
mod decision;
pub mod decision_log;
mod denial;
mod engine;
mod error;
mod evaluator;
mod files;
mod input;
pub mod lint;
mod machine;
mod memory;
mod metrics;
mod permit;
mod points;
mod policy;
pub mod question;
mod sources;
mod syntax;
pub mod test_runner;

pub use coverage::{CoverageReport, FileCoverage};
pub use decision::DecisionError;
pub use denial::{Denial, DenialReason};
pub use error::{
    CallProblem, EngineMessage, ParseFailure, PolicyError, Recursion, UnsupportedCall,
};
pub use evaluator::Evaluator;
pub use files::PolicyFiles;
pub use input::{ConnectionFacts, ConnectionParameters, InputError, RequestFacts};
pub use metrics::PolicyMetrics;
pub use permit::{Forwardable, Permit};
pub use points::connect::{ConnectDenial, ConnectPermit};
pub use policy::{Policy, PolicyOptions, PolicyStatus};
pub use sources::{BundleRevision, PolicySources, RegoVersion};

/// The policy that Sidegate brings along, as pairs of name and text: callers
/// of the proxy's own trust domain may call everything outside `/admin`.
pub const STOCK_POLICY: &[(&str, &str)] = &[
    ("ingress.rego", include_str!("../rego/ingress.rego")),
    (
        "ingress_test.rego",
        include_str!("../rego/ingress_test.rego"),
    ),
];
