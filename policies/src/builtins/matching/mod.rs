//! Globs and regular expressions, with the semantics of OPA, which has them
//! from Go. Compiled matchers are kept by thread.

mod cache;
mod glob;
mod go_regex;
mod properties;
mod regex;
mod searching;

use std::cell::RefCell;

use regorus::Value;

use self::cache::MatcherCache;
use self::glob::Glob;
use self::regex::GoRegex;
use super::values::text;

pub(super) use searching::{find, find_submatches, replace, split, template_match};

/// Longer patterns match nothing, not even themselves: they are undefined.
const PATTERN_BYTES: usize = 32 * 1024;

/// How many bytes of compiled matchers a thread keeps. Two out of three are
/// for those that were used more than once.
const GLOB_BYTES: usize = 8 * 1024 * 1024;
const REGEX_BYTES: usize = 48 * 1024 * 1024;

thread_local! {
    static GLOBS: RefCell<MatcherCache<Glob>> = RefCell::new(MatcherCache::new(GLOB_BYTES));
    static REGEXES: RefCell<MatcherCache<GoRegex>> = RefCell::new(MatcherCache::new(REGEX_BYTES));
}

/// `glob.match(pattern, delimiters, text)`.
pub(super) fn glob_match(arguments: &[Value]) -> Option<Value> {
    let [pattern, delimiters, subject] = arguments else {
        return None;
    };
    let (pattern, subject) = (pattern_of(pattern)?, text(subject)?);
    GLOBS.with_borrow_mut(|globs| {
        let glob = globs.find(
            |key| {
                match delimiters {
                    Value::Null => {}
                    Value::Array(delimiters) if delimiters.is_empty() => key.push('.'),
                    Value::Array(delimiters) => {
                        for delimiter in delimiters.iter() {
                            key.push(only_character(text(delimiter)?)?);
                        }
                    }
                    _ => return None,
                }
                Some(())
            },
            pattern,
            |delimiters, pattern| Glob::compile(pattern, delimiters),
        )?;
        Some(glob.matches(subject).into())
    })
}

/// `glob.quote_meta(text)`.
pub(super) fn glob_quote_meta(arguments: &[Value]) -> Option<Value> {
    let [literal] = arguments else { return None };
    Some(glob::quote(text(literal)?).into())
}

/// `regex.match(pattern, text)`, and its old name `re_match`.
pub(super) fn regex_match(arguments: &[Value]) -> Option<Value> {
    let [pattern, subject] = arguments else {
        return None;
    };
    let (pattern, subject) = (pattern_of(pattern)?, text(subject)?);
    with_regex(pattern, |regex| Some(regex.matches(subject).into()))
}

/// `regex.is_valid(pattern)`: false of what is no string.
pub(super) fn regex_is_valid(arguments: &[Value]) -> Option<Value> {
    let [pattern] = arguments else { return None };
    let valid = pattern_of(pattern).is_some_and(|pattern| GoRegex::compile(pattern).is_some());
    Some(valid.into())
}

/// Does something with a compiled expression. `None` also if it does not compile.
fn with_regex<T>(pattern: &str, action: impl FnOnce(&GoRegex) -> Option<T>) -> Option<T> {
    REGEXES.with_borrow_mut(|regexes| {
        let compile = |_: &str, pattern: &str| GoRegex::compile(pattern);
        action(regexes.find(|_| Some(()), pattern, compile)?)
    })
}

fn pattern_of(value: &Value) -> Option<&str> {
    text(value).filter(|pattern| pattern.len() <= PATTERN_BYTES)
}

fn only_character(delimiter: &str) -> Option<char> {
    let mut characters = delimiter.chars();
    let character = characters.next()?;
    characters.next().is_none().then_some(character)
}

#[cfg(test)]
mod tests;
