//! `sidegate policy eval`.

use serde::Serialize;
use sidegate_policy::question::{Answer, DecisionPoint, Judgement, Verdict};

use super::{SCHEMA, findings, input};
use crate::arguments::{EvalArguments, OutputFormat, PointName};
use crate::failure::Failure;
use crate::output;

/// What `-o json` prints.
#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    defined: bool,
    #[serde(flatten)]
    answer: &'a Answer,
    #[serde(skip_serializing_if = "Option::is_none")]
    decision: Option<&'a Judgement>,
}

/// Asks, and prints the value. `false` where there is none, or it does not allow.
pub(super) fn execute(arguments: &EvalArguments) -> Result<bool, Failure> {
    let point = arguments.point.map(DecisionPoint::from);
    let (mut question, input) = input::question(&arguments.question, point)?;
    let answer = question
        .ask(&input)
        .map_err(|error| input::failed(&error))?;
    let decision = point.map(|point| point.judge(&answer));
    match arguments.question.output {
        OutputFormat::Json => output::print_json(&Document {
            schema: SCHEMA,
            defined: answer.value.is_some(),
            answer: &answer,
            decision: decision.as_ref(),
        })?,
        OutputFormat::Text => {
            for line in &answer.prints {
                findings::tell(&format!("{line}\n"));
            }
            match &answer.value {
                Some(value) => {
                    let text = serde_json::to_string_pretty(value);
                    let text = text.map_err(|error| Failure::new("SG0009", &error))?;
                    output::print(&format!("{text}\n"))?;
                }
                None => findings::tell(&format!("{} is undefined\n", answer.asked)),
            }
            if let Some(decision) = &decision {
                findings::tell(&told(decision));
            }
        }
    }
    let allows = decision.is_none_or(|decision| decision.verdict == Verdict::Allow);
    Ok(answer.value.is_some() && allows)
}

/// A decision in one line.
fn told(decision: &Judgement) -> String {
    let point = DecisionPointName(decision.point);
    match (&decision.code, &decision.reason) {
        (Some(code), Some(reason)) => format!("{}: deny: {reason} [{code}]\n", point.text()),
        _ => format!("{}: allow\n", point.text()),
    }
}

/// A decision point as it is written.
struct DecisionPointName(DecisionPoint);

impl DecisionPointName {
    fn text(&self) -> &'static str {
        match self.0 {
            DecisionPoint::Ingress => "ingress",
            DecisionPoint::Connect => "connect",
            DecisionPoint::Egress => "egress",
            DecisionPoint::Admit => "admit",
        }
    }
}

impl From<PointName> for DecisionPoint {
    fn from(name: PointName) -> Self {
        match name {
            PointName::Ingress => Self::Ingress,
            PointName::Connect => Self::Connect,
            PointName::Egress => Self::Egress,
            PointName::Admit => Self::Admit,
        }
    }
}
