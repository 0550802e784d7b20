//! What `-o json` prints where a command could not do its work.

use std::borrow::Cow;

use serde::Serialize;
use sidegate_policy::lint::Finding;

use super::SCHEMA;
use crate::arguments::OutputFormat;
use crate::failure::{Failure, Reason};
use crate::output;

#[derive(Debug, Serialize)]
struct Document<'a> {
    schema: u32,
    error: Problem<'a>,
}

#[derive(Debug, Serialize)]
struct Problem<'a> {
    code: &'a str,
    message: Cow<'a, str>,
    help: Option<&'a str>,
    /// What is wrong with the policy, as `check` prints it.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    findings: &'a [Finding],
}

/// Prints the document of a failure, if it is asked for. Standard error has it too.
pub(super) fn told<T>(output: OutputFormat, done: Result<T, Failure>) -> Result<T, Failure> {
    if let (OutputFormat::Json, Err(failure)) = (output, &done) {
        // Where that fails too, the first failure is the one that counts.
        let _ = output::print_json(&Document {
            schema: SCHEMA,
            error: Problem::of(failure),
        });
    }
    done
}

impl<'a> Problem<'a> {
    fn of(failure: &'a Failure) -> Self {
        match failure {
            Failure::Other(Reason {
                code,
                message,
                help,
                findings,
            }) => Self {
                code,
                message: message.into(),
                help: help.as_deref(),
                findings,
            },
            Failure::Config(diagnostics) => Self {
                code: diagnostics.each().next().map_or("SG0001", |it| it.0.code),
                message: diagnostics.render(false).into(),
                help: None,
                findings: &[],
            },
        }
    }
}
