//! What users of the crate can rely on: loading, deciding, serving.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of tests fail as tests do"
)]

mod body;
mod builtins;
mod calls;
mod common;
mod connect;
mod decide;
mod lint;
mod load;
mod matrix;
mod points;
mod question;
mod service;
mod stock_policy;
mod test_runner;
