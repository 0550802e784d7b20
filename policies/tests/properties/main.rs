//! What holds of every policy: found by asking many small ones about many requests, all made by
//! chance. A failure shows the smallest policy and requests that still fail.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "the helpers of tests fail as tests do"
)]

mod policies;
mod properties;
mod requests;
