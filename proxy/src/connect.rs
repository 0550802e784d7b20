//! Asks the policy whether a peer may have a connection, or keep the one that it has.

use std::time::SystemTime;

use sidegate_policy::{ConnectDenial, ConnectPermit, ConnectionFacts};
use uuid::Uuid;

use crate::error::ProxyError;
use crate::generation::{current, with_evaluator};
use crate::protocol::Protocol;
use crate::worker::Listener;

/// What nobody has said yes to.
const UNDECLARED: &str =
    "the policy declares nothing in the package sidegate.connect, which alone decides here";

/// A connection that must not be.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The stable diagnostic code, where it is not the policy's own no.
    pub(crate) code: Option<&'static str>,
    /// In logs.
    pub(crate) reason: &'static str,
    /// In the decision log.
    pub(crate) decision_id: Option<Uuid>,
    pub(crate) generation: u64,
    /// For the operator.
    pub(crate) error: String,
}

/// Asks about a connection to a listener. Where it is no more than bytes there are no requests that
/// would be decided on: a policy that says nothing about connections has not allowed it.
pub(crate) fn ask(
    listener: &Listener,
    facts: &ConnectionFacts,
    now: SystemTime,
) -> Result<ConnectPermit, Refusal> {
    let asked = with_evaluator(|evaluator| evaluator.connect(facts, now));
    let permit = asked.ok_or_else(Refusal::no_policy)??;
    if listener.protocol == Protocol::Tcp && permit.decision_id().is_none() {
        return Err(Refusal {
            code: Some("SG0385"),
            reason: "undeclared",
            decision_id: None,
            generation: permit.generation(),
            error: UNDECLARED.to_owned(),
        });
    }
    Ok(permit)
}

impl Refusal {
    fn no_policy() -> Self {
        Self {
            code: Some("SG0311"),
            reason: "no_policy",
            decision_id: None,
            generation: current(),
            error: ProxyError::NoPolicy.to_string(),
        }
    }
}

impl From<Box<ConnectDenial>> for Refusal {
    fn from(denial: Box<ConnectDenial>) -> Self {
        Self {
            code: None,
            reason: denial.reason.label(),
            decision_id: Some(denial.decision_id),
            generation: denial.generation,
            error: denial.to_string(),
        }
    }
}
