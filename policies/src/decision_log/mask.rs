//! Mask rules: what a policy's `system.log.mask` wants hidden, carried out on
//! an event as OPA carries it out.
//!
//! In two things an event is hidden more than OPA hides it. A name in a path
//! is taken as it is written, or else unescaped, where OPA looks for its
//! escaped form and so finds fewer. And indices count in the array as the rule
//! saw it: elements leave only when all rules are done, so that removing the
//! first does not move the second out of another rule's reach.

#[cfg(test)]
mod tests;

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value as Json};

use super::event::Event;

/// Why what a mask answered is no list of mask rules. Names no values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum MaskError {
    #[error("it is not a set of rules")]
    NotASet,
    #[error("a rule is neither a path nor an object")]
    Rule,
    #[error("a rule's `op` is neither `remove` nor `upsert`")]
    Operation,
    #[error("a rule has no `path` that begins with a slash")]
    Path,
    #[error("a rule's path is not below /input, /result or /nd_builtin_cache")]
    Part,
    #[error("a rule's path has an invalid percent-encoding")]
    Escape,
}

/// One thing to hide.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct MaskRule {
    /// The path as it is written.
    path: String,
    part: Part,
    /// What follows the part.
    names: Vec<String>,
    operation: Operation,
}

/// The part of an event that a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Input,
    Result,
    /// Never in our events: no builtin that reaches out is evaluated.
    BuiltinCache,
}

#[derive(Debug, Clone, PartialEq)]
enum Operation {
    Remove,
    Upsert(Json),
}

/// What a rule did.
enum Effect {
    None,
    Done,
    /// An element of an array is to leave: where it is.
    Leaves(Vec<String>),
}

impl MaskRule {
    /// Reads what a mask answered: paths, or objects with `op`, `path` and `value`.
    pub(super) fn list(answer: Json) -> Result<Vec<Self>, MaskError> {
        let Json::Array(rules) = answer else {
            return Err(MaskError::NotASet);
        };
        rules.into_iter().map(Self::read).collect()
    }

    fn read(rule: Json) -> Result<Self, MaskError> {
        match rule {
            Json::String(path) => Self::new(path, Operation::Remove),
            Json::Object(mut rule) => {
                let operation = match rule.get("op").and_then(Json::as_str) {
                    Some("remove") => Operation::Remove,
                    Some("upsert") => Operation::Upsert(rule.remove("value").unwrap_or(Json::Null)),
                    _ => return Err(MaskError::Operation),
                };
                match rule.remove("path") {
                    Some(Json::String(path)) => Self::new(path, operation),
                    _ => Err(MaskError::Path),
                }
            }
            _ => Err(MaskError::Rule),
        }
    }

    fn new(path: String, operation: Operation) -> Result<Self, MaskError> {
        let names = path.strip_prefix('/').ok_or(MaskError::Path)?;
        let mut names = names.split('/').map(str::to_owned);
        let part = match names.next().as_deref() {
            Some("input") => Part::Input,
            Some("result") => Part::Result,
            Some("nd_builtin_cache") => Part::BuiltinCache,
            _ => return Err(MaskError::Part),
        };
        let names: Vec<String> = names.collect();
        if !names.iter().all(|name| is_escaped(name)) {
            return Err(MaskError::Escape);
        }
        Ok(Self {
            path,
            part,
            names,
            operation,
        })
    }
}

impl Part {
    fn of<'e>(self, event: &'e mut Event<'_>) -> Option<&'e mut Option<Json>> {
        match self {
            Self::Input => Some(&mut event.input),
            Self::Result => Some(&mut event.result),
            Self::BuiltinCache => None,
        }
    }
}

/// Carries rules out, and lists those that had something to hide.
pub(super) fn apply(rules: Vec<MaskRule>, event: &mut Event<'_>) {
    let mut leaving = Vec::new();
    for rule in rules {
        let Some(part) = rule.part.of(event) else {
            continue;
        };
        let (effect, list) = match rule.operation {
            Operation::Remove => (remove(part, &rule.names), &mut event.erased),
            Operation::Upsert(value) => (upsert(part, &rule.names, value), &mut event.masked),
        };
        match effect {
            Effect::None => continue,
            Effect::Done => {}
            Effect::Leaves(place) => leaving.push((rule.part, place)),
        }
        list.push(rule.path);
    }
    // From the back: an index is good until those before it are gone.
    leaving.sort_by(|(_, one), (_, other)| natural(other, one));
    leaving.dedup();
    for (part, place) in leaving {
        if let Some(Some(document)) = part.of(event) {
            leave(document, &place);
        }
    }
}

fn remove(part: &mut Option<Json>, names: &[String]) -> Effect {
    let Some(document) = part else {
        return Effect::None;
    };
    let Some((last, way)) = names.split_last() else {
        *part = None;
        return Effect::Done;
    };
    let mut place = Vec::new();
    let mut node = document;
    for name in way {
        let Some(child) = child(node, name, &mut place) else {
            return Effect::None;
        };
        node = child;
    }
    match node {
        Json::Object(object) => match key(object, last) {
            Some(key) => {
                object.remove(&key);
                Effect::Done
            }
            None => Effect::None,
        },
        Json::Array(elements) => match element(elements, last) {
            Some(element) => {
                // Hidden at once, gone later.
                *element = Json::Null;
                place.push(last.clone());
                Effect::Leaves(place)
            }
            None => Effect::None,
        },
        _ => Effect::None,
    }
}

fn upsert(part: &mut Option<Json>, names: &[String], value: Json) -> Effect {
    let Some(document) = part else {
        return Effect::None;
    };
    let Some((last, way)) = names.split_last() else {
        *document = value;
        return Effect::Done;
    };
    let mut node = document;
    for name in way {
        if let Json::Object(object) = &mut *node
            && key(object, name).is_none()
        {
            object.insert(name.clone(), Json::Object(Map::new()));
        }
        let Some(child) = child(node, name, &mut Vec::new()) else {
            return Effect::None;
        };
        node = child;
    }
    match node {
        Json::Object(object) => {
            let key = key(object, last).unwrap_or_else(|| last.clone());
            object.insert(key, value);
            Effect::Done
        }
        Json::Array(elements) => match element(elements, last) {
            Some(element) => {
                *element = value;
                Effect::Done
            }
            None => Effect::None,
        },
        _ => Effect::None,
    }
}

fn leave(document: &mut Json, place: &[String]) {
    let Some((last, way)) = place.split_last() else {
        return;
    };
    let mut node = document;
    for name in way {
        let Some(child) = child(node, name, &mut Vec::new()) else {
            return;
        };
        node = child;
    }
    if let (Json::Array(elements), Ok(index)) = (node, last.parse::<usize>())
        && index < elements.len()
    {
        elements.remove(index);
    }
}

/// One step down; `place` notes the name that was found.
fn child<'j>(node: &'j mut Json, name: &str, place: &mut Vec<String>) -> Option<&'j mut Json> {
    match node {
        Json::Object(object) => {
            let key = key(object, name)?;
            place.push(key.clone());
            object.get_mut(&key)
        }
        Json::Array(elements) => {
            place.push(name.to_owned());
            element(elements, name)
        }
        _ => None,
    }
}

fn element<'j>(elements: &'j mut [Json], name: &str) -> Option<&'j mut Json> {
    elements.get_mut(name.parse::<usize>().ok()?)
}

/// The key that a name stands for: itself, else percent-decoded, else as JSON
/// Pointer unescapes it (RFC 6901 section 4).
fn key(object: &Map<String, Json>, name: &str) -> Option<String> {
    let decoded = percent_decode_str(name).decode_utf8().ok();
    let pointer = name.replace("~1", "/").replace("~0", "~");
    [Some(name), decoded.as_deref(), Some(&pointer)]
        .into_iter()
        .flatten()
        .find(|name| object.contains_key(*name))
        .map(str::to_owned)
}

/// Whether each `%` begins an escape.
fn is_escaped(name: &str) -> bool {
    name.split('%').skip(1).all(|rest| {
        let mut digits = rest.bytes();
        let mut is_digit = || digits.next().is_some_and(|digit| digit.is_ascii_hexdigit());
        is_digit() && is_digit()
    })
}

/// Indices by their number, names by their letters.
fn natural(one: &[String], other: &[String]) -> std::cmp::Ordering {
    let numbered = |names: &[String]| -> Vec<(Option<usize>, String)> {
        let names = names.iter();
        names
            .map(|name| (name.parse().ok(), name.clone()))
            .collect()
    };
    numbered(one).cmp(&numbered(other))
}
