//! A policy for OPA's Envoy plugin decides the same here: each request is sent twice, through an
//! Envoy that asks that plugin, and through Sidegate, with the same policy and the same certificate.

mod bodies;
mod decisions;
mod difference;
mod documents;
mod explained;
mod logs;
mod pair;
mod published;
mod sidecar;

use pair::{Ask, Pair, Protocol};
