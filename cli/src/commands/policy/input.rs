//! Input documents, and questions made of the command line.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use sidegate_policy::PolicyError;
use sidegate_policy::question::{
    DecisionPoint, InputDocument, Question, QuestionError, QuestionOptions, suggestion,
};

use super::{read, refused, usable};
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
    let question = asked.map_err(|error| match error {
        PolicyError::EntrypointMissing { .. } => match suggestion(&sources, &options.entrypoint) {
            Some(meant) => refused(error).help(format!("did you mean `{meant}`?")),
            None if options.entrypoint == DecisionPoint::Connect.entrypoint() => refused(error)
                .help("without the package sidegate.connect connections are left to ingress"),
            None => refused(error),
        },
        other => refused(other),
    })?;
    Ok((question, input))
}

/// That an evaluation has failed.
pub(super) fn failed(error: &QuestionError) -> Failure {
    Failure::new(error.code(), error)
}

pub(super) fn document(file: &Path) -> Result<InputDocument, Failure> {
    let name = match file.to_str() {
        Some("-") => "standard input".to_owned(),
        _ => file.display().to_string(),
    };
    let mut bytes = Vec::new();
    let read = match file.to_str() {
        Some("-") => std::io::stdin().lock().read_to_end(&mut bytes).map(drop),
        _ => std::fs::read(file).map(|content| bytes = content),
    };
    if let Err(error) = read {
        return Err(Failure::message(
            "SG0286",
            format!("the input {name} cannot be read: {error}"),
        ));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::message("SG0286", format!("the input {name} is not UTF-8")))?;
    InputDocument::parse(&text).map_err(|error| {
        let place = match error.place {
            None => name,
            Some((line, column)) => format!("{name}:{line}:{column}"),
        };
        Failure::message("SG0286", format!("the input is no JSON: {place}: {error}"))
    })
}
