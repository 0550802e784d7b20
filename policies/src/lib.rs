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
mod differential;
mod engine;
mod error;
mod evaluator;
pub mod explain;
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
pub mod replay;
mod served;
pub mod shadow;
mod sources;
mod syntax;
pub mod test_runner;
#[cfg(test)]
mod test_schemas;

pub use coverage::{CoverageReport, FileCoverage};
pub use decision::{DecisionError, DynamicMetadata};
pub use denial::{Denial, DenialReason};
pub use differential::{EngineChoice, Examined, InterpreterReason};
pub use error::{
    CallProblem, EngineMessage, ParseFailure, PolicyError, Recursion, Unlike, UnsupportedCall,
};
pub use evaluator::Evaluator;
pub use files::{PolicyFiles, PolicyFilesError, is_bundle};
pub use input::{
    BodyProblem, ConnectionFacts, ConnectionParameters, InputError, RequestBody, RequestFacts,
};
pub use metrics::PolicyMetrics;
pub use permit::{Forwardable, Permit};
pub use points::DecisionPoint;
pub use points::admit::{Admission, AdmitDenial, AdmitFacts};
pub use points::connect::{ConnectDenial, ConnectPermit};
pub use points::egress::{EgressRequest, Workload};
pub use policy::{Policy, PolicyOptions, PolicyStatus};
pub use sources::{BundleRevision, PolicySources, RegoVersion, read_bounded};

/// The policy that Sidegate brings along, as pairs of name and text: callers
/// of the proxy's own trust domain may connect and call everything outside
/// `/admin`, workloads may call peers of their trust domain, and components may
/// start that want no capability.
pub const STOCK_POLICY: &[(&str, &str)] = &[
    ("admit.rego", include_str!("../rego/admit.rego")),
    ("admit_test.rego", include_str!("../rego/admit_test.rego")),
    ("connect.rego", include_str!("../rego/connect.rego")),
    (
        "connect_test.rego",
        include_str!("../rego/connect_test.rego"),
    ),
    ("egress.rego", include_str!("../rego/egress.rego")),
    ("egress_test.rego", include_str!("../rego/egress_test.rego")),
    ("ingress.rego", include_str!("../rego/ingress.rego")),
    (
        "ingress_test.rego",
        include_str!("../rego/ingress_test.rego"),
    ),
    ("spiffe.rego", include_str!("../rego/spiffe.rego")),
];
