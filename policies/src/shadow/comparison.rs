//! What differs between a live decision and the candidate's.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, StatusCode};

use crate::decision::{Decision, Response};
use crate::decision_log::Record;
use crate::denial::DenialReason;

/// How a candidate decides otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    AllowedToDenied,
    DeniedToAllowed,
    /// The same verdict with other edits, or another response.
    Edits,
    /// The candidate has no answer.
    Error,
}

/// What a policy makes of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Verdict {
    /// What is carried out.
    decision: Decision,
    /// Why it is a denial.
    denied: Option<DenialReason>,
}

impl Difference {
    /// The `result` label of `sidegate_policy_shadow_total`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::AllowedToDenied => "allowed_to_denied",
            Self::DeniedToAllowed => "denied_to_allowed",
            Self::Edits => "edits",
            Self::Error => "error",
        }
    }

    pub(super) fn between(live: &Verdict, candidate: &Verdict) -> Option<Self> {
        if candidate.failure().is_some() {
            return Some(Self::Error);
        }
        match (live.is_allowed(), candidate.is_allowed()) {
            (true, false) => Some(Self::AllowedToDenied),
            (false, true) => Some(Self::DeniedToAllowed),
            _ if live.decision == candidate.decision => None,
            _ => Some(Self::Edits),
        }
    }
}

impl Verdict {
    /// That of an outcome.
    pub(super) fn of(outcome: Result<Decision, DenialReason>) -> Self {
        match outcome {
            Ok(decision) => {
                let is_denied = matches!(decision, Decision::Deny(_));
                Self {
                    decision: plain(decision),
                    denied: is_denied.then_some(DenialReason::Policy),
                }
            }
            Err(reason) => Self {
                decision: Decision::Deny(Response::empty(reason.default_status())),
                denied: Some(reason),
            },
        }
    }

    /// That of a decision that was made.
    pub(super) fn made(record: &Record) -> Self {
        Self::of(match &record.denied {
            None | Some(DenialReason::Policy) => {
                Decision::parse(&record.answer.value).map_err(DenialReason::InvalidDecision)
            }
            Some(reason) => Err(reason.clone()),
        })
    }

    /// Why there is no answer, if there is none. That no rule applies is one.
    pub(super) fn failure(&self) -> Option<&DenialReason> {
        let reason = self.denied.as_ref()?;
        match reason {
            DenialReason::Policy | DenialReason::Undefined | DenialReason::MalformedRequest(_) => {
                None
            }
            DenialReason::Timeout(_)
            | DenialReason::Evaluation(_)
            | DenialReason::InvalidDecision(_) => Some(reason),
        }
    }

    fn is_allowed(&self) -> bool {
        self.denied.is_none()
    }

    /// What differs in two verdicts that are the same. Names headers, never
    /// their values: those may be secret.
    pub(super) fn parts(&self, other: &Self) -> Vec<String> {
        let mut parts = Vec::new();
        match (&self.decision, &other.decision) {
            (Decision::Allow(mine), Decision::Allow(theirs)) => {
                name(&mut parts, "request header", &mine.set, &theirs.set);
                let (mine_removed, theirs_removed): (BTreeSet<_>, BTreeSet<_>) = (
                    mine.remove.iter().map(|name| name.as_str()).collect(),
                    theirs.remove.iter().map(|name| name.as_str()).collect(),
                );
                for name in mine_removed.symmetric_difference(&theirs_removed) {
                    parts.push(format!("removed header {name}"));
                }
                name(
                    &mut parts,
                    "response header",
                    &mine.response,
                    &theirs.response,
                );
                if mine.query != theirs.query {
                    parts.push("query parameters".to_owned());
                }
                if mine.dynamic_metadata != theirs.dynamic_metadata {
                    parts.push("dynamic metadata".to_owned());
                }
            }
            (Decision::Deny(mine), Decision::Deny(theirs)) => {
                if mine.status != theirs.status {
                    parts.push(format!("status {}", changed(mine.status, theirs.status)));
                }
                name(&mut parts, "header", &mine.headers, &theirs.headers);
                if mine.body != theirs.body {
                    parts.push("body".to_owned());
                }
                if mine.dynamic_metadata != theirs.dynamic_metadata {
                    parts.push("dynamic metadata".to_owned());
                }
            }
            _ => {}
        }
        parts
    }
}

impl fmt::Display for Verdict {
    /// For the operator: it may name rules and files.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.denied, &self.decision) {
            (None, _) => formatter.write_str("allow"),
            (Some(reason), Decision::Deny(response)) => {
                write!(
                    formatter,
                    "deny with {}: {reason}",
                    response.status.as_u16()
                )
            }
            (Some(reason), Decision::Allow(_)) => write!(formatter, "deny: {reason}"),
        }
    }
}

/// In which order headers are removed is all the same.
fn plain(mut decision: Decision) -> Decision {
    if let Decision::Allow(edits) = &mut decision {
        let edits = Arc::make_mut(edits);
        edits.remove.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        edits.remove.dedup();
    }
    decision
}

fn changed(from: StatusCode, to: StatusCode) -> String {
    format!("{} to {}", from.as_u16(), to.as_u16())
}

/// Names the headers that one of two maps has not, or has otherwise.
fn name(parts: &mut Vec<String>, what: &str, mine: &HeaderMap, theirs: &HeaderMap) {
    let names: BTreeSet<&str> = [mine, theirs]
        .into_iter()
        .flat_map(|headers| headers.keys().map(|name| name.as_str()))
        .collect();
    for name in names {
        if !mine.get_all(name).iter().eq(theirs.get_all(name).iter()) {
            parts.push(format!("{what} {name}"));
        }
    }
}
