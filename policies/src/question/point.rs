//! How Sidegate takes an answer at a decision point.

use regorus::Value;
use serde::Serialize;
use uuid::Uuid;

use super::Answer;
use crate::decision::{Decision, DecisionError};
use crate::denial::DenialReason;
use crate::points::admit::AdmitDenial;
use crate::points::connect::ConnectDenial;
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
        let (denial, explanation) = match &answer.original {
            Value::Undefined => (Some(DenialReason::Undefined), None),
            value => match self.taken(value) {
                Ok((true, _)) => (None, None),
                Ok((false, explanation)) => (Some(DenialReason::Policy), explanation),
                Err(error) => (Some(DenialReason::InvalidDecision(error)), None),
            },
        };
        Judgement {
            point: self,
            verdict: match denial {
                None => Verdict::Allow,
                Some(_) => Verdict::Deny,
            },
            code: denial.as_ref().map(DenialReason::code),
            reason: denial.map(|reason| self.words(reason, explanation)),
        }
    }

    /// Whether a value allows, and what it says about a denial.
    fn taken(self, value: &Value) -> Result<(bool, Option<String>), DecisionError> {
        match self {
            Self::Ingress | Self::Egress => {
                let decision = Decision::parse(value)?;
                Ok((matches!(decision, Decision::Allow(_)), None))
            }
            Self::Connect | Self::Admit => {
                let answer = points::Answer::parse(value)?;
                Ok((answer.allowed, answer.reason))
            }
        }
    }

    /// A denial in the words that it has in service.
    fn words(self, reason: DenialReason, explanation: Option<String>) -> String {
        let (decision_id, generation) = (Uuid::nil(), 0);
        match self {
            Self::Ingress | Self::Egress => reason.to_string(),
            Self::Connect => ConnectDenial {
                reason,
                explanation,
                decision_id,
                generation,
            }
            .to_string(),
            Self::Admit => AdmitDenial {
                reason,
                explanation,
                decision_id,
                generation,
            }
            .to_string(),
        }
    }
}
