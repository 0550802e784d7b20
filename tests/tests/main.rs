//! Black-box tests: the built binary against real peers.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "whatever goes wrong in a test fails it"
)]

mod admin;
mod authorities;
mod authority;
mod bad_input;
mod broken;
mod brought;
mod bundles;
mod check;
mod component;
mod contract;
mod decision_log;
mod entries;
mod envoy;
mod faults;
mod federation;
mod forwarding;
mod generations;
mod go_spiffe;
mod hostile;
mod inbound;
mod jwt;
mod lifecycle;
mod metrics;
mod mtls;
mod nghttp2;
mod opa_envoy;
mod opa_eval;
mod origins;
mod outbound;
mod overload;
mod paths;
mod policy;
mod policy_commands;
mod policy_explain;
mod rotation;
mod routes;
mod run;
mod shadow;
mod sources;
mod spiffe_helper;
mod spire;
mod state;
mod support;
mod svid;
mod svid_files;
mod tracing;
mod up;
mod upgrade;
mod upstream;
mod workload_api;
