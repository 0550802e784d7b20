//! A policy for OPA's Envoy plugin decides the same here: each request is sent twice, through an
//! Envoy that asks that plugin, and through Sidegate, with the same policy and the same certificate.

mod bodies;
mod decisions;
mod difference;
mod documents;
mod explained;
mod pair;
mod published;
mod sidecar;

use pair::{Ask, Pair, Protocol};

/// What some of these tests need of Sidegate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// The request's body in the input, and `[listener.request_body]`.
    Bodies,
    /// `query_parameters_to_set` and `query_parameters_to_remove`.
    QueryEdits,
    /// `dynamic_metadata`.
    DynamicMetadata,
    /// `io.jwt.*`.
    Tokens,
    /// `crypto.x509.parse_certificates`.
    Certificates,
}

/// What Sidegate lacks: the tests that need it wait. To go with the last of them.
const LACKING: &[Need] = &[
    Need::Bodies,
    Need::QueryEdits,
    Need::DynamicMetadata,
    Need::Tokens,
    Need::Certificates,
];

impl Need {
    fn is_there(self) -> bool {
        !LACKING.contains(&self)
    }
}
