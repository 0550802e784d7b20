//! What regular expressions find in texts, as Go finds it.

use regex_automata::util::captures::Captures;
use regex_automata::util::primitives::PatternID;
use regorus::Value;

use super::{pattern_of, with_regex};
use crate::builtins::values::text;

/// How long a text with replacements may become, in bytes.
const REPLACED: usize = 16 * 1024 * 1024;

/// `regex.find_n(pattern, text, count)`; all, if the count is negative.
pub(in super::super) fn find(arguments: &[Value]) -> Option<Value> {
    matches(arguments, |subject, captures| {
        subject.get(captures.get_match()?.range()).map(Value::from)
    })
}

/// `regex.find_all_string_submatch_n(pattern, text, count)`: each match with its
/// groups.
pub(in super::super) fn find_submatches(arguments: &[Value]) -> Option<Value> {
    matches(arguments, |subject, captures| {
        let groups = (0..captures.group_len()).map(|index| group(subject, captures, index).into());
        Some(Value::from(groups.collect::<Vec<Value>>()))
    })
}

/// `regex.split(pattern, text)`.
pub(in super::super) fn split(arguments: &[Value]) -> Option<Value> {
    let [pattern, subject] = arguments else {
        return None;
    };
    let (pattern, subject) = (pattern_of(pattern)?, text(subject)?);
    with_regex(pattern, |regex| {
        if subject.is_empty() && !pattern.is_empty() {
            return Some(Value::from(vec![Value::from("")]));
        }
        let mut parts: Vec<Value> = Vec::new();
        let mut begin = 0;
        let mut end = 0;
        for captures in regex.all(subject, usize::MAX)? {
            let separator = captures.get_match()?;
            end = separator.start();
            // Nothing is before an empty match at the beginning.
            if separator.end() != 0 {
                parts.push(subject.get(begin..end)?.into());
            }
            begin = separator.end();
        }
        if end != subject.len() {
            parts.push(subject.get(begin..)?.into());
        }
        Some(Value::from(parts))
    })
}

/// `regex.replace(text, pattern, replacement)`, in which `$1` and `${name}` are
/// groups.
pub(in super::super) fn replace(arguments: &[Value]) -> Option<Value> {
    let [subject, pattern, replacement] = arguments else {
        return None;
    };
    let (subject, pattern) = (text(subject)?, pattern_of(pattern)?);
    let replacement = text(replacement)?;
    with_regex(pattern, |regex| {
        let mut replaced = String::with_capacity(subject.len());
        let mut end = 0;
        for captures in regex.all(subject, usize::MAX)? {
            let found = captures.get_match()?;
            replaced.push_str(subject.get(end..found.start())?);
            expand(replacement, subject, &captures, &mut replaced);
            if replaced.len() > REPLACED {
                return None;
            }
            end = found.end();
        }
        replaced.push_str(subject.get(end..)?);
        Some(replaced.into())
    })
}

/// `regex.template_match(template, text, start, end)`: a text with expressions
/// between two marks.
pub(in super::super) fn template_match(arguments: &[Value]) -> Option<Value> {
    let [template, subject, start, end] = arguments else {
        return None;
    };
    let (template, subject) = (pattern_of(template)?, text(subject)?);
    let ([start], [end]) = (text(start)?.as_bytes(), text(end)?.as_bytes()) else {
        return None;
    };
    let mut pattern = String::from("^");
    let (mut depth, mut from) = (0_usize, 0);
    for (place, byte) in template.bytes().enumerate() {
        let part = template.get(from..place);
        let after = place.saturating_add(1);
        if byte == *start {
            if depth == 0 {
                quote(part?, &mut pattern);
                from = after;
            }
            depth = depth.saturating_add(1);
        } else if byte == *end {
            depth = depth.checked_sub(1)?;
            if depth == 0 {
                with_regex(&format!("^{}$", part?), |_| Some(()))?;
                pattern.push_str(&format!("({})", part?));
                from = after;
            }
        }
    }
    if depth > 0 {
        return None;
    }
    quote(template.get(from..)?, &mut pattern);
    pattern.push('$');
    with_regex(&pattern, |regex| Some(regex.matches(subject).into()))
}

/// Makes something of the first matches.
fn matches(
    arguments: &[Value],
    result: impl Fn(&str, &Captures) -> Option<Value>,
) -> Option<Value> {
    let [pattern, subject, count] = arguments else {
        return None;
    };
    let (pattern, subject) = (pattern_of(pattern)?, text(subject)?);
    let most = usize::try_from(count.as_i64().ok()?).unwrap_or(usize::MAX);
    with_regex(pattern, |regex| {
        let all = regex.all(subject, most)?;
        let all = all.iter().map(|captures| result(subject, captures));
        all.collect::<Option<Vec<Value>>>().map(Value::from)
    })
}

/// What a group holds; nothing, if it has no part in the match.
fn group<'a>(subject: &'a str, captures: &Captures, index: usize) -> &'a str {
    let span = captures.get_group(index);
    span.and_then(|span| subject.get(span.range()))
        .unwrap_or("")
}

fn expand(replacement: &str, subject: &str, captures: &Captures, replaced: &mut String) {
    let mut rest = replacement;
    while let Some((before, after)) = rest.split_once('$') {
        replaced.push_str(before);
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            replaced.push('$');
            rest = after;
        } else if let Some((name, after)) = group_name(rest) {
            rest = after;
            let number = name.bytes().all(|byte| byte.is_ascii_digit())
                && (name == "0" || !name.starts_with('0'));
            let index = if number {
                name.parse().ok()
            } else {
                captures.group_info().to_index(PatternID::ZERO, name)
            };
            replaced.push_str(index.map_or("", |index| group(subject, captures, index)));
        } else {
            replaced.push('$');
        }
    }
    replaced.push_str(rest);
}

/// What `$` names, and what follows.
fn group_name(text: &str) -> Option<(&str, &str)> {
    let braced = text.strip_prefix('{');
    let text = braced.unwrap_or(text);
    let end = text.find(|next: char| !next.is_alphanumeric() && next != '_');
    let (name, rest) = text.split_at(end.unwrap_or(text.len()));
    let rest = match braced {
        Some(_) => rest.strip_prefix('}')?,
        None => rest,
    };
    (!name.is_empty()).then_some((name, rest))
}

fn quote(literal: &str, pattern: &mut String) {
    for character in literal.chars() {
        if character.is_ascii_punctuation() {
            pattern.push('\\');
        }
        pattern.push(character);
    }
}
