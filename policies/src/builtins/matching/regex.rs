//! Regular expressions, compiled: linear in the text, whatever the pattern.

use regex_automata::util::captures::Captures;
use regex_automata::util::syntax;
use regex_automata::{Input, meta};

use super::cache::Matcher;
use super::go_regex;

/// How large one compiled expression may be, in bytes. Larger ones are
/// undefined; Go has a limit too, but a higher one.
const PROGRAM_BYTES: usize = 1024 * 1024;

/// What an expression may hold besides, built as it is used.
const WORKING_BYTES: usize = 128 * 1024;

/// How many matches of one expression are looked for in one text at most.
const MATCHES: usize = 1_000_000;

/// A compiled expression in the syntax of the `regex` crates.
pub(super) struct CompiledRegex {
    regex: meta::Regex,
}

/// A compiled expression in Go's syntax.
pub(super) struct GoRegex {
    regex: CompiledRegex,
}

/// Adds one character to an expression or to a class in it.
pub(super) fn push_literal(character: char, regex: &mut String) {
    if character.is_ascii_alphanumeric() || !character.is_ascii() {
        regex.push(character);
    } else {
        regex.push_str(&format!("\\x{:02X}", u32::from(character)));
    }
}

impl CompiledRegex {
    /// `None` if the expression is malformed or too large.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let limits = meta::Config::new()
            .nfa_size_limit(Some(PROGRAM_BYTES))
            .onepass_size_limit(Some(WORKING_BYTES))
            .dfa_size_limit(Some(WORKING_BYTES))
            .hybrid_cache_capacity(WORKING_BYTES)
            .utf8_empty(false);
        let regex = meta::Regex::builder()
            .configure(limits)
            // Go's `\B` may stand between the bytes of a character.
            .syntax(syntax::Config::new().utf8(false))
            .build(pattern);
        regex.ok().map(|regex| Self { regex })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    /// The first match that begins at a place or after it: its groups, the first
    /// of which is all of it.
    fn find(&self, text: &str, start: usize) -> Option<Captures> {
        let mut start = start;
        let mut captures = self.regex.create_captures();
        loop {
            let input = Input::new(text).range(start..);
            self.regex.search_captures(&input, &mut captures);
            let whole = captures.get_match()?;
            // Nothing is found between the bytes of a character.
            if text.is_char_boundary(whole.start()) {
                return Some(captures);
            }
            start = whole.start().checked_add(1)?;
        }
    }
}

impl Matcher for CompiledRegex {
    fn bytes(&self) -> usize {
        self.regex.memory_usage().saturating_add(WORKING_BYTES)
    }
}

impl GoRegex {
    /// `None` if the expression is malformed or too large.
    pub(super) fn compile(pattern: &str) -> Option<Self> {
        let regex = CompiledRegex::new(&go_regex::translate(pattern)?)?;
        Some(Self { regex })
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        self.regex.matches(text)
    }

    /// Up to so many matches, one after the other, as Go finds them: an empty one
    /// is none right after another. `None` if there are too many.
    pub(super) fn all(&self, text: &str, most: usize) -> Option<Vec<Captures>> {
        let mut all = Vec::new();
        let (mut start, mut end_before) = (0, None);
        while all.len() < most
            && start <= text.len()
            && let Some(captures) = self.regex.find(text, start)
        {
            let whole = captures.get_match()?;
            let end = whole.end();
            let next = if end == start {
                let after = text.get(end..).and_then(|rest| rest.chars().next());
                end.checked_add(after.map_or(1, char::len_utf8))?
            } else {
                end
            };
            start = next;
            if !whole.is_empty() || end_before != Some(end) {
                all.push(captures);
            }
            if all.len() > MATCHES {
                return None;
            }
            end_before = Some(end);
        }
        Some(all)
    }
}

impl Matcher for GoRegex {
    fn bytes(&self) -> usize {
        self.regex.bytes()
    }
}
