//! How Sidegate takes an answer at a decision point.

use regorus::Value;
use serde::Serialize;

use super::Answer;
use crate::decision::{Decision, DecisionError};
use crate::denial::DenialReason;

/// A place where a policy decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DecisionPoint {
    /// An HTTP request to a workload.
    Ingress,
    /// A connection to a workload.
    Connect,
    /// A request that a workload makes.
    Egress,
    /// The start of a component.
    Admit,
}

/// What comes of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// A clear yes.
    Allow,
    /// Anything else.
    Deny,
}

/// How an answer is taken, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// Where.
    pub point: DecisionPoint,
    /// What comes of it.
    pub verdict: Verdict,
    /// The stable diagnostic code of a denial.
    pub code: Option<&'static str>,
    /// Why it is denied.
    pub reason: Option<String>,
}

impl DecisionPoint {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ingress, Self::Connect, Self::Egress, Self::Admit];

    /// The rule that decides where nothing else is configured.
    #[must_use]
    pub fn entrypoint(self) -> &'static str {
        match self {
            Self::Ingress => "envoy/authz/allow",
            Self::Connect => "sidegate/connect/allow",
            Self::Egress => "sidegate/egress/allow",
            Self::Admit => "sidegate/admit/allow",
        }
    }

    /// How an answer is taken here.
    #[must_use]
    pub fn judge(self, answer: &Answer) -> Judgement {
        let denial = match &answer.original {
            Value::Undefined => Some(DenialReason::Undefined),
            value => match self.allows(value) {
                Ok(true) => None,
                Ok(false) => Some(DenialReason::Policy),
                Err(error) => Some(DenialReason::InvalidDecision(error)),
            },
        };
        Judgement {
            point: self,
            verdict: match denial {
                None => Verdict::Allow,
                Some(_) => Verdict::Deny,
            },
            code: denial.as_ref().map(DenialReason::code),
            reason: denial.as_ref().map(ToString::to_string),
        }
    }

    fn allows(self, value: &Value) -> Result<bool, DecisionError> {
        match self {
            Self::Ingress => {
                let decision = Decision::parse(value)?;
                Ok(matches!(decision, Decision::Allow(_)))
            }
            Self::Connect | Self::Egress | Self::Admit => allowed(value),
        }
    }
}

/// A boolean, or an object with `allowed` and, for the operator, `reason`.
fn allowed(value: &Value) -> Result<bool, DecisionError> {
    let Value::Object(object) = value else {
        return match value {
            Value::Bool(allowed) => Ok(*allowed),
            // It says of which type the value is.
            other => Decision::parse(other).map(|_| false),
        };
    };
    let mut allowed = None;
    for (key, value) in object.iter() {
        match (key, value) {
            (Value::String(key), Value::Bool(value)) if key.as_ref() == "allowed" => {
                allowed = Some(*value);
            }
            (Value::String(key), Value::String(_)) if key.as_ref() == "reason" => {}
            (Value::String(key), _) => return Err(wrong_member(key)),
            (other, _) => {
                return Err(DecisionError::Key {
                    key: other.to_string().escape_debug().to_string(),
                });
            }
        }
    }
    allowed.ok_or(DecisionError::AllowedMissing)
}

fn wrong_member(key: &str) -> DecisionError {
    match key {
        "allowed" => DecisionError::ValueType {
            key: "allowed",
            expected: "a boolean",
        },
        "reason" => DecisionError::ValueType {
            key: "reason",
            expected: "a string",
        },
        other => DecisionError::Key {
            key: other.escape_debug().to_string(),
        },
    }
}
