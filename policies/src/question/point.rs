//! How Sidegate takes an answer at a decision point.

use regorus::Value;
use serde::Serialize;

use super::Answer;
use crate::decision::{Decision, DecisionError};
use crate::denial::DenialReason;
use crate::points::{self, DecisionPoint};

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
            Self::Ingress | Self::Egress => {
                let decision = Decision::parse(value)?;
                Ok(matches!(decision, Decision::Allow(_)))
            }
            Self::Connect | Self::Admit => Ok(points::Answer::parse(value)?.allowed),
        }
    }
}
