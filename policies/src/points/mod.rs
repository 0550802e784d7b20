//! Decision points other than `ingress`: what each is asked with, and what it
//! may answer.

pub(crate) mod admit;
mod answer;
pub(crate) mod connect;
pub(crate) mod egress;

use serde::Serialize;

pub(crate) use answer::Answer;

/// A place where Rego decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionPoint {
    /// A request to a workload.
    Ingress,
    /// A connection to a listener.
    Connect,
    /// A workload's own request to somewhere else.
    Egress,
    /// The start of a component.
    Admit,
}

impl DecisionPoint {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::Connect, Self::Egress, Self::Admit];

    /// Its name in documentation, metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Connect => "connect",
            Self::Egress => "egress",
            Self::Admit => "admit",
        }
    }

    /// The rule that decides, as OPA writes it, unless another is configured.
    #[must_use]
    pub fn entrypoint(self) -> &'static str {
        match self {
            Self::Ingress => "envoy/authz/allow",
            Self::Connect => "sidegate/connect/allow",
            Self::Egress => "sidegate/egress/allow",
            Self::Admit => "sidegate/admit/allow",
        }
    }
}
