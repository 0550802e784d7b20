//! The denial: what the caller gets instead, and what the operator may know.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use uuid::Uuid;

use crate::decision::{DecisionError, DynamicMetadata};
use crate::error::EngineMessage;
use crate::input::InputError;

/// Why a request was denied. `Display` is for the operator: it may name rules
/// and files, so it never goes to the caller. Nor does it hold values of the
/// request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DenialReason {
    /// The policy said no.
    Policy,
    /// The policy said nothing: no rule applied and there is no default.
    Undefined,
    /// The decision took longer than this.
    Timeout(Duration),
    /// The engine gave up, for instance because rules contradict each other.
    Evaluation(EngineMessage),
    /// The policy's answer is not one that can be carried out.
    InvalidDecision(DecisionError),
    /// The request cannot be put before the policy.
    MalformedRequest(InputError),
}

impl DenialReason {
    /// Every [label](Self::label).
    pub(crate) const LABELS: [&'static str; 6] = [
        "policy",
        "undefined",
        "timeout",
        "evaluation_error",
        "invalid_decision",
        "malformed_request",
    ];

    /// The `reason` label of `sidegate_authz_decisions_total`.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Undefined => "undefined",
            Self::Timeout(_) => "timeout",
            Self::Evaluation(_) => "evaluation_error",
            Self::InvalidDecision(_) => "invalid_decision",
            Self::MalformedRequest(_) => "malformed_request",
        }
    }

    /// The stable diagnostic code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Policy => "SG0220",
            Self::Undefined => "SG0221",
            Self::Timeout(_) => "SG0222",
            Self::Evaluation(_) => "SG0223",
            Self::InvalidDecision(_) => "SG0224",
            Self::MalformedRequest(_) => "SG0225",
        }
    }

    /// The status of the response, where the policy names none. As in Envoy a
    /// decision that fails is 403, and a request that OPA cannot parse is 400.
    #[must_use]
    pub fn default_status(&self) -> StatusCode {
        match self {
            Self::Policy
            | Self::Undefined
            | Self::Timeout(_)
            | Self::Evaluation(_)
            | Self::InvalidDecision(_) => StatusCode::FORBIDDEN,
            Self::MalformedRequest(_) => StatusCode::BAD_REQUEST,
        }
    }
}

impl fmt::Display for DenialReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy => formatter.write_str("the policy denies the request"),
            Self::Undefined => {
                formatter.write_str("the policy's entrypoint is undefined for the request")
            }
            Self::Timeout(limit) => write!(formatter, "the decision took longer than {limit:?}"),
            Self::Evaluation(message) => {
                write!(formatter, "the policy could not be evaluated: {message}")
            }
            Self::InvalidDecision(error) => write!(
                formatter,
                "the policy's decision cannot be carried out: {error}"
            ),
            Self::MalformedRequest(error) => {
                write!(formatter, "the request cannot be decided: {error}")
            }
        }
    }
}

/// A request that must not be forwarded, and the response to give instead.
#[derive(Debug)]
pub struct Denial {
    /// The status of the response: the policy's, else 403, or 400 if the
    /// request is malformed.
    pub status: StatusCode,
    /// Headers of the response, by the policy.
    pub headers: HeaderMap,
    /// The body of the response, by the policy; otherwise empty.
    pub body: Bytes,
    /// What the policy tells whoever comes after it, if anything.
    pub dynamic_metadata: Option<DynamicMetadata>,
    /// Why, for metrics and the operator. Not for the caller.
    pub reason: DenialReason,
    /// The head that was denied, for the access log.
    pub head: Parts,
    /// Identifies the decision in the decision log.
    pub decision_id: Uuid,
    /// The policy generation that decided.
    pub generation: u64,
}
