//! Texts as Go sees them: characters are code points, and their case is that of
//! each alone.

use regorus::Value;

use super::values::text;

/// How much `indexof_n` compares at most, in bytes.
const COMPARED: usize = 64 * 1024 * 1024;

/// `count(value)`: members, or the characters of a string.
pub(super) fn count(arguments: &[Value]) -> Option<Value> {
    let count = match arguments {
        [Value::String(text)] => text.chars().count(),
        [Value::Array(items)] => items.len(),
        [Value::Object(members)] => members.len(),
        [Value::Set(items)] => items.len(),
        _ => return None,
    };
    Some(count.into())
}

/// `upper(text)`: "ß" stays.
pub(super) fn upper(arguments: &[Value]) -> Option<Value> {
    let [subject] = arguments else { return None };
    let upper: String = text(subject)?.chars().map(uppercase).collect();
    Some(upper.into())
}

/// `lower(text)`: a sigma is the same at the end of a word.
pub(super) fn lower(arguments: &[Value]) -> Option<Value> {
    let [subject] = arguments else { return None };
    // The first is the whole, but for "İ", which Go leaves without its dot.
    let lowercase = |character: char| character.to_lowercase().next().unwrap_or(character);
    let lower: String = text(subject)?.chars().map(lowercase).collect();
    Some(lower.into())
}

/// `indexof(text, part)`: the characters before the first place, or -1.
pub(super) fn indexof(arguments: &[Value]) -> Option<Value> {
    let (subject, part) = searched(arguments)?;
    let Some(place) = subject.find(part) else {
        return Some(Value::from(-1_i64));
    };
    Some(subject.get(..place)?.chars().count().into())
}

/// `indexof_n(text, part)`: the characters before every place; places overlap.
pub(super) fn indexof_n(arguments: &[Value]) -> Option<Value> {
    let (subject, part) = searched(arguments)?;
    let mut places: Vec<Value> = Vec::new();
    let (mut rest, mut before) = (subject, 0_usize);
    while let Some(place) = rest.find(part) {
        before = before.saturating_add(rest.get(..place)?.chars().count());
        places.push(before.into());
        if places.len().saturating_mul(part.len()) > COMPARED {
            return None;
        }
        let mut characters = rest.get(place..)?.chars();
        characters.next();
        before = before.saturating_add(1);
        rest = characters.as_str();
    }
    Some(Value::from(places))
}

/// `substring(text, offset, length)`, all that is left with a negative length.
pub(super) fn substring(arguments: &[Value]) -> Option<Value> {
    let [subject, offset, length] = arguments else {
        return None;
    };
    let (offset, length) = (offset.as_i64().ok()?, length.as_i64().ok()?);
    let offset = usize::try_from(offset).ok()?;
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let characters = text(subject)?.chars().skip(offset).take(length);
    Some(characters.collect::<String>().into())
}

/// `trace(text)`: nobody listens.
pub(super) fn trace(arguments: &[Value]) -> Option<Value> {
    let [note] = arguments else { return None };
    text(note).map(|_| true.into())
}

/// What is searched for what; nobody searches for nothing.
fn searched(arguments: &[Value]) -> Option<(&str, &str)> {
    let [subject, part] = arguments else {
        return None;
    };
    Some((text(subject)?, text(part).filter(|part| !part.is_empty())?))
}

/// The one character that is the upper case of another, if there is one.
fn uppercase(character: char) -> char {
    let mut upper = character.to_uppercase();
    match (upper.next(), upper.next()) {
        (Some(upper), None) => upper,
        _ => with_iota(character).unwrap_or(character),
    }
}

/// Greek letters with an iota below have upper cases of one character, which
/// are no whole words' upper cases.
fn with_iota(character: char) -> Option<char> {
    let code = u32::from(character);
    let distance = match code {
        0x1F80..=0x1FAF if code & 8 == 0 => 8,
        0x1FB3 | 0x1FC3 | 0x1FF3 => 9,
        _ => return None,
    };
    char::from_u32(code.checked_add(distance)?)
}
