//! From text to the raw configuration, with every problem of form found in one reading.
//!
//! serde stops at the first error. So the offending key is taken out of the parsed document (or,
//! where it is a misspelling of a key that is not there, given its right name) and the rest is
//! deserialized again, until it passes. What was taken out is remembered as *faulty*, so that
//! nothing is reported again as missing.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Deserializer, Error};

use super::codes;
use super::diagnostic::{Diagnostic, did_you_mean};
use super::key::{Key, Segment};
use super::raw::RawConfig;

/// A configuration file after reading.
#[derive(Debug)]
pub(super) struct Document {
    /// What could be read, or `None` where the rest cannot be judged.
    pub(super) raw: Option<RawConfig>,
    pub(super) keys: KeyMap,
    /// Problems of form: syntax, unknown keys, wrong types.
    pub(super) problems: Vec<Diagnostic>,
}

/// Where each key of the file stands.
#[derive(Debug, Default)]
pub(super) struct KeyMap {
    places: BTreeMap<Key, Place>,
    faulty: BTreeSet<Key>,
}

#[derive(Debug)]
struct Place {
    /// The bytes of the key's name, which the elements of an array have none of.
    name: Option<Range<usize>>,
    /// The bytes of the value; of a table, those of its header.
    value: Range<usize>,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Table,
    Array,
    /// serde is shown a date as a table.
    Date,
    Scalar,
}

/// What serde refused.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    UnknownKey { known: Vec<String> },
    WrongType { found: String, expected: String },
    Other,
}

impl Document {
    pub(super) fn read(text: &str) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        if errors.is_empty() {
            return Self::deserialize(root);
        }
        // What follows a syntax error may have landed in another table than was meant: to judge
        // it would report problems that are not there.
        Self {
            raw: None,
            keys: KeyMap::default(),
            problems: syntax_problems(text, &errors),
        }
    }

    fn deserialize(mut root: Spanned<DeTable<'_>>) -> Self {
        let mut faulty = BTreeSet::new();
        let mut problems = Vec::new();
        let raw = loop {
            match RawConfig::deserialize(Deserializer::from(root.clone())) {
                Ok(raw) => break Some(raw),
                Err(error) => {
                    let keys = KeyMap::of(root.get_ref());
                    let mended = mend(root.get_mut(), &keys, &error);
                    problems.push(mended.problem);
                    match mended.outcome {
                        Outcome::Done => {}
                        Outcome::Faulty(key) => {
                            faulty.insert(key);
                        }
                        Outcome::Stuck => break None,
                    }
                }
            }
        };
        let mut keys = KeyMap::of(root.get_ref());
        keys.faulty = faulty;
        Self {
            raw,
            keys,
            problems,
        }
    }
}

impl KeyMap {
    /// The bytes of the value of `key`, or of the nearest part of the file that holds it.
    pub(super) fn value(&self, key: &Key) -> Option<Range<usize>> {
        match self.places.get(key) {
            Some(place) => Some(place.value.clone()),
            None => self.value(&key.parent()?),
        }
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.places.contains_key(key)
    }

    /// Whether `key`, or what it is part of, was taken out and reported already.
    pub(super) fn is_faulty(&self, key: &Key) -> bool {
        self.faulty.iter().any(|faulty| key.is_within(faulty))
    }

    fn of(root: &DeTable<'_>) -> Self {
        let mut keys = Self::default();
        keys.add_table(&Key::default(), root);
        keys
    }

    fn add_table(&mut self, at: &Key, table: &DeTable<'_>) {
        for (name, value) in table {
            self.add(at.child(name.get_ref()), Some(name.span()), value);
        }
    }

    fn add(&mut self, key: Key, name: Option<Range<usize>>, value: &Spanned<DeValue<'_>>) {
        let kind = match value.get_ref() {
            DeValue::Table(table) => {
                self.add_table(&key, table);
                Kind::Table
            }
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    self.add(key.item(index), None, element);
                }
                Kind::Array
            }
            DeValue::Datetime(_) => Kind::Date,
            _ => Kind::Scalar,
        };
        let value = value.span();
        self.places.insert(key, Place { name, value, kind });
    }

    /// The key that serde refused at `span`.
    ///
    /// A table, the array it is an element of and the key that creates it may share one span, so
    /// the kind decides, and then the depth.
    fn refused(&self, refusal: &Refusal, span: &Range<usize>) -> Option<Key> {
        let matches = |place: &Place| match refusal {
            Refusal::UnknownKey { .. } => place.name.as_ref() == Some(span),
            Refusal::WrongType { found, .. } => {
                let is_kind = match found.as_str() {
                    "a table" => matches!(place.kind, Kind::Table | Kind::Date),
                    "an array" => place.kind == Kind::Array,
                    _ => place.kind == Kind::Scalar,
                };
                place.value == *span && is_kind
            }
            Refusal::Other => place.value == *span,
        };
        self.places
            .iter()
            .filter(|(_, place)| matches(place))
            .map(|(key, _)| key)
            .max_by_key(|key| key.segments().len())
            .cloned()
    }
}

impl Refusal {
    /// serde hands its findings over as text only, in a form that golden tests hold.
    fn of(message: &str) -> Self {
        if message.starts_with("unknown field `") {
            let known = message
                .rsplit_once("`, expected ")
                .map_or("", |(_, known)| known);
            let known = known.split('`').skip(1).step_by(2);
            return Self::UnknownKey {
                known: known.map(str::to_owned).collect(),
            };
        }
        message
            .strip_prefix("invalid type: ")
            .or_else(|| message.strip_prefix("invalid value: "))
            .and_then(|rest| rest.rsplit_once(", expected "))
            .map_or(Self::Other, |(found, expected)| Self::WrongType {
                found: in_toml_words(found),
                expected: in_toml_words(expected),
            })
    }
}

struct Mended {
    problem: Diagnostic,
    outcome: Outcome,
}

enum Outcome {
    /// Nothing is missed: the key is unknown, or has its right name now.
    Done,
    /// The value of this key was taken out.
    Faulty(Key),
    /// The document is as it was, and would be refused again.
    Stuck,
}

/// Reports `error` and changes the document so that it cannot happen again.
fn mend(root: &mut DeTable<'_>, keys: &KeyMap, error: &Error) -> Mended {
    let refusal = Refusal::of(error.message());
    let span = error.span();
    let key = span.as_ref().and_then(|span| keys.refused(&refusal, span));
    let Some(key) = key else {
        return Mended {
            problem: Diagnostic::new(codes::WRONG_TYPE, "the file cannot be read", span)
                .label(error.message()),
            outcome: Outcome::Stuck,
        };
    };
    match refusal {
        Refusal::UnknownKey { known } => unknown_key(root, keys, &key, &known, span),
        Refusal::WrongType { found, expected } => Mended {
            problem: match keys.places.get(&key).map(|place| place.kind) {
                Some(Kind::Date) => wrong_type(&key, "a date", &expected, span),
                _ => wrong_type(&key, &found, &expected, span),
            },
            outcome: blank(root, &key, &expected).map_or(Outcome::Stuck, Outcome::Faulty),
        },
        Refusal::Other => Mended {
            problem: Diagnostic::new(codes::WRONG_TYPE, format!("`{key}` cannot be read"), span)
                .label(error.message()),
            outcome: blank(root, &key, "").map_or(Outcome::Stuck, Outcome::Faulty),
        },
    }
}

fn unknown_key(
    root: &mut DeTable<'_>,
    keys: &KeyMap,
    key: &Key,
    known: &[String],
    span: Option<Range<usize>>,
) -> Mended {
    let (Some(Segment::Name(name)), Some(table)) = (key.segments().last(), key.parent()) else {
        return Mended {
            problem: Diagnostic::new(codes::UNKNOWN_KEY, "unknown key", span),
            outcome: Outcome::Stuck,
        };
    };
    let title = match table.parent() {
        None => format!("`{name}` is not a section of the configuration"),
        Some(_) => format!("`{name}` is not a key of {}", table.header()),
    };
    let problem = Diagnostic::new(codes::UNKNOWN_KEY, title, span).label("unknown");
    let absent = known
        .iter()
        .map(String::as_str)
        .filter(|known| !keys.contains(&table.child(known)));
    let meant = did_you_mean(name, absent);
    let problem = match meant {
        Some(meant) => problem.help(format!("did you mean `{meant}`?")),
        None => problem.help(format!("known: `{}`", known.join("`, `"))),
    };
    let removed = table_at(root, &table).and_then(|entries| {
        let (old, value) = entries.remove_entry(name.as_str())?;
        if let Some(meant) = meant {
            let renamed = Spanned::new(old.span(), Cow::Owned(meant.to_owned()));
            entries.insert(renamed, value);
        }
        Some(())
    });
    Mended {
        problem,
        outcome: removed.map_or(Outcome::Stuck, |()| Outcome::Done),
    }
}

fn wrong_type(key: &Key, found: &str, expected: &str, span: Option<Range<usize>>) -> Diagnostic {
    let title = format!("`{key}` has the wrong type");
    let problem = Diagnostic::new(codes::WRONG_TYPE, title, span);
    if expected == "an integer" && found.starts_with("integer ") {
        return problem.label("this number does not fit into 64 bits");
    }
    let problem = problem.label(format!("expected {expected}, found {found}"));
    match (found, expected) {
        ("a table", "an array") => {
            problem.help(format!("this section may be repeated: write `[[{key}]]`"))
        }
        ("an array", "a table") => {
            problem.help(format!("this section is written once: write `[{key}]`"))
        }
        _ => problem,
    }
}

/// Takes the value of `key` out, or puts an empty one in its place where it is the element of an
/// array, so that the others keep their positions.
fn blank(root: &mut DeTable<'_>, key: &Key, expected: &str) -> Option<Key> {
    let parent = key.parent()?;
    match key.segments().last()? {
        Segment::Name(name) => {
            table_at(root, &parent)?.remove(name.as_str())?;
            Some(key.clone())
        }
        Segment::Item(index) => {
            let empty = match expected {
                "a table" => DeValue::Table(DeTable::new()),
                "a string" => DeValue::String(Cow::Borrowed("")),
                _ => return blank(root, &parent, ""),
            };
            let DeValue::Array(array) = value_at(root, &parent)? else {
                return None;
            };
            *array.get_mut(*index)?.get_mut() = empty;
            Some(key.clone())
        }
    }
}

fn table_at<'t, 'text>(root: &'t mut DeTable<'text>, key: &Key) -> Option<&'t mut DeTable<'text>> {
    if key.segments().is_empty() {
        return Some(root);
    }
    match value_at(root, key)? {
        DeValue::Table(table) => Some(table),
        _ => None,
    }
}

fn value_at<'t, 'text>(root: &'t mut DeTable<'text>, key: &Key) -> Option<&'t mut DeValue<'text>> {
    let (first, rest) = key.segments().split_first()?;
    let Segment::Name(first) = first else {
        return None;
    };
    let mut value = root.get_mut(first.as_str())?.get_mut();
    for segment in rest {
        value = match (segment, value) {
            (Segment::Name(name), DeValue::Table(table)) => table.get_mut(name.as_str())?.get_mut(),
            (Segment::Item(index), DeValue::Array(array)) => array.get_mut(*index)?.get_mut(),
            _ => return None,
        };
    }
    Some(value)
}

/// One problem a line: what follows the first on a line is mostly its echo.
fn syntax_problems(text: &str, errors: &[Error]) -> Vec<Diagnostic> {
    let mut lines = BTreeSet::new();
    errors
        .iter()
        .filter(|error| {
            let start = error.span().map_or(0, |span| span.start);
            let before = text.as_bytes().iter().take(start);
            lines.insert(before.filter(|byte| **byte == b'\n').count())
        })
        .map(|error| syntax_problem(text, error))
        .collect()
}

fn syntax_problem(text: &str, error: &Error) -> Diagnostic {
    let span = error.span();
    let found = span.clone().and_then(|span| text.get(span)).unwrap_or("");
    if error.message() == "duplicate key" {
        let title = format!("`{found}` is written twice");
        return Diagnostic::new(codes::DUPLICATE_KEY, title, span)
            .label("there is one above already")
            .help("keep one of the two");
    }
    let problem = Diagnostic::new(codes::SYNTAX, "this is not TOML", span);
    // TOML takes a bare word for a misspelled `true`, `inf` or date.
    let bare_word = found.starts_with(|first: char| first.is_ascii_alphabetic());
    if bare_word && !error.message().contains("escape") {
        return problem
            .label("expected a value")
            .help(format!("text goes into double quotes: \"{found}\""));
    }
    if found.is_empty() && error.message().starts_with("string values must be quoted") {
        return problem.label("expected a value");
    }
    problem.label(error.message())
}

/// serde's names for what it meets, in TOML's words.
fn in_toml_words(what: &str) -> String {
    match what {
        "map" | "a map" => "a table",
        "sequence" | "a sequence" => "an array",
        "i64" => "an integer",
        "f64" => "a number",
        other => return other.trim_end_matches(" as i128").to_owned(),
    }
    .to_owned()
}
