//! Sources as the service runs them, and errors where their author wrote them.

use regorus::Value;

use crate::engine::EvaluationError;
use crate::error::EngineMessage;
use crate::machine::{apply, guarded_members};
use crate::sources::PolicySources;
use crate::syntax::Syntax;

/// What separates the place of an error from what is wrong.
const MESSAGE_START: &str = "\nerror: ";

/// The copy of sources that the service's interpreter runs, which has more on some lines; `None`
/// where that is the sources themselves.
pub(crate) fn served(syntax: &Syntax<'_>, sources: &PolicySources) -> Option<PolicySources> {
    let guarded = guarded_members(syntax);
    (!guarded.is_empty()).then(|| apply(&guarded, sources))
}

/// An error of the copy as the sources themselves have it, if they have it: with the place and the
/// text that their author wrote. `original` evaluates these.
pub(crate) fn in_sources(
    error: EvaluationError,
    original: impl FnOnce() -> Result<Value, EvaluationError>,
) -> EvaluationError {
    let EvaluationError::Failed(message) = &error else {
        return error;
    };
    match original() {
        Err(EvaluationError::Failed(other)) if problem(&other) == problem(message) => {
            EvaluationError::Failed(other)
        }
        _ => error,
    }
}

/// What a message says besides the place.
fn problem(message: &EngineMessage) -> String {
    let text = message.to_string();
    match text.split_once(MESSAGE_START) {
        Some((_, problem)) => problem.to_owned(),
        None => text,
    }
}
