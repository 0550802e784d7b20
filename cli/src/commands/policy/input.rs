//! Input documents, and questions made of the command line.

use std::fs::File;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use sidegate_policy::question::{
    DecisionPoint, InputDocument, Question, QuestionError, QuestionOptions,
};
use sidegate_policy::read_bounded;

use super::{read, refused_entrypoint, usable};
use crate::arguments::QuestionArguments;
use crate::failure::Failure;

/// How long one evaluation may take.
pub(super) const TIME_LIMIT: Duration = Duration::from_secs(5);

/// The question that the arguments ask, and its input.
pub(super) fn question(
    arguments: &QuestionArguments,
    point: Option<DecisionPoint>,
) -> Result<(Question, InputDocument), Failure> {
    let sources = usable(&read(&arguments.paths)?)?;
    let input = match &arguments.input {
        None => InputDocument::none(),
        Some(file) => document(file)?,
    };
    let point = point.unwrap_or(DecisionPoint::Ingress);
    let entrypoint = arguments.entrypoint.as_deref();
    let options = QuestionOptions {
        entrypoint: entrypoint.unwrap_or(point.entrypoint()).to_owned(),
        strict_builtin_errors: arguments.strict_builtin_errors,
        time_limit: TIME_LIMIT,
    };
    let asked = Question::new(sources.clone(), options.clone());
    let question =
        asked.map_err(|error| refused_entrypoint(error, &sources, &options.entrypoint))?;
    Ok((question, input))
}

/// That an evaluation has failed.
pub(super) fn failed(error: &QuestionError) -> Failure {
    Failure::new(error.code(), error)
}

/// The document in a file; `-` is standard input.
pub(super) fn document(file: &Path) -> Result<InputDocument, Failure> {
    let name = match file.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => file.display().to_string(),
    };
    let text = match file.to_str() {
        Some("-") => read_bounded(std::io::stdin().lock()),
        _ => File::open(file).and_then(read_bounded),
    };
    let text = text.map_err(|error| {
        let problem = match error.kind() {
            ErrorKind::InvalidData => "is not UTF-8".to_owned(),
            _ => format!("cannot be read: {error}"),
        };
        Failure::message("SG0286", format!("the input {name} {problem}"))
    })?;
    InputDocument::parse(&text).map_err(|error| {
        let place = match error.place {
            None => name,
            Some((line, column)) => format!("{name}:{line}:{column}"),
        };
        Failure::message(
            "SG0286",
            format!("the input cannot be used: {place}: {error}"),
        )
    })
}
