//! What is known of an expression's value while its input is still being chosen.

use serde_json::{Map, Value as Json};

use super::document::Document;
use crate::syntax::{InputPath, RulePath, Step};

/// A value, or where it comes from.
#[derive(Debug, Clone)]
pub(super) enum Term {
    Known(Json),
    /// What the document has there.
    Input(InputPath),
    /// Something that a builtin such as `lower` makes of the text there.
    Text(InputPath),
    /// The parts of the text there, between separators.
    Parts(InputPath, String),
    /// One of these parts.
    Part(InputPath, String, usize),
    /// The number of members of what is there.
    Count(InputPath),
    /// A path below `data`, to which more steps may come.
    Data(RulePath),
    /// A variable without a value.
    Free(String),
    /// An array or a set.
    List(Vec<Term>),
    Object(Vec<(String, Term)>),
    Unknown,
}

impl Term {
    /// The value, as far as the document has it by now.
    pub(super) fn value(&self, document: &Document) -> Option<Json> {
        match self {
            Self::Known(value) => Some(value.clone()),
            Self::Input(path) | Self::Text(path) => document.at(path).cloned(),
            Self::Parts(path, separator) => {
                let text = document.at(path)?.as_str()?;
                Some(text.split(separator.as_str()).collect())
            }
            Self::Part(path, separator, index) => {
                let text = document.at(path)?.as_str()?;
                text.split(separator.as_str()).nth(*index).map(Json::from)
            }
            Self::Count(path) => match document.at(path)? {
                Json::Array(elements) => Some(elements.len().into()),
                Json::Object(members) => Some(members.len().into()),
                _ => None,
            },
            Self::List(terms) => terms.iter().map(|term| term.value(document)).collect(),
            Self::Object(members) => {
                let values = members
                    .iter()
                    .map(|(key, term)| Some((key.clone(), term.value(document)?)));
                values
                    .collect::<Option<Map<String, Json>>>()
                    .map(Json::Object)
            }
            Self::Data(_) | Self::Free(_) | Self::Unknown => None,
        }
    }

    /// The path, if it is a text of the document as it stands or changed a little.
    pub(super) fn text_path(&self) -> Option<&InputPath> {
        match self {
            Self::Input(path) | Self::Text(path) => Some(path),
            _ => None,
        }
    }
}

/// The path one step further.
pub(super) fn below(path: &[Step], step: Step) -> InputPath {
    path.iter().cloned().chain([step]).collect()
}

/// A member's name or an element's number.
pub(super) fn step(index: &Json) -> Option<Step> {
    match index {
        Json::String(name) => Some(Step::Member(name.clone())),
        Json::Number(number) => number.as_u64().map(Step::Element),
        _ => None,
    }
}
