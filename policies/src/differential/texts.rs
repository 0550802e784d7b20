//! Texts that match a pattern.

use regex_syntax::hir::{Class, Hir, HirKind};

/// Repetitions of one part, where the pattern asks for more.
const REPETITIONS: u32 = 64;

/// A text that a pattern of `glob.match` matches, for the usual kinds of patterns.
pub(super) fn of_glob(pattern: &str) -> String {
    let mut text = String::new();
    let mut rest = pattern.chars().peekable();
    while let Some(character) = rest.next() {
        match character {
            '\\' => text.extend(rest.next()),
            '*' => {
                while rest.next_if_eq(&'*').is_some() {}
                text.push('x');
            }
            '?' => text.push('x'),
            '[' => {
                let class: String = rest.by_ref().take_while(|next| *next != ']').collect();
                match class.strip_prefix('!').or(class.strip_prefix('^')) {
                    // None of these is a range's end in any usual class.
                    Some(_) => text.push('_'),
                    None => text.extend(class.chars().next()),
                }
            }
            '{' => {
                let choices: String = rest.by_ref().take_while(|next| *next != '}').collect();
                text.push_str(&of_glob(choices.split(',').next().unwrap_or_default()));
            }
            other => text.push(other),
        }
    }
    text
}

/// A text that a regular expression matches, as far as it asks for no boundaries.
pub(super) fn of_regex(pattern: &str) -> Option<String> {
    let mut text = String::new();
    append(&regex_syntax::parse(pattern).ok()?, &mut text)?;
    Some(text)
}

fn append(expression: &Hir, text: &mut String) -> Option<()> {
    match expression.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => text.push_str(str::from_utf8(&literal.0).ok()?),
        HirKind::Class(Class::Unicode(class)) => {
            // A letter or digit, if there is one: controls come first in classes like `[^/]`.
            let ranges = class.ranges();
            let usual = ('a'..='z').chain('0'..='9').find(|one| {
                let within = |range: &regex_syntax::hir::ClassUnicodeRange| {
                    (range.start()..=range.end()).contains(one)
                };
                ranges.iter().any(within)
            });
            text.push(usual.or(ranges.first().map(|range| range.start()))?);
        }
        HirKind::Class(Class::Bytes(class)) => {
            text.push(char::from(class.ranges().first()?.start()));
        }
        HirKind::Repetition(repetition) => {
            let least = match repetition.max {
                Some(0) => 0,
                _ => repetition.min.max(1),
            };
            for _ in 0..least.min(REPETITIONS) {
                append(&repetition.sub, text)?;
            }
        }
        HirKind::Capture(capture) => append(&capture.sub, text)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| append(part, text))?,
        HirKind::Alternation(parts) => append(parts.first()?, text)?,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_match_the_patterns_that_they_are_made_of() {
        let globs = [
            ("/orders/*/items", "/orders/x/items"),
            ("/a/**", "/a/x"),
            ("{GET,POST}", "GET"),
            ("[!a-c]?", "_x"),
            (r"\*", "*"),
        ];
        for (pattern, expected) in globs {
            assert_eq!(of_glob(pattern), expected, "{pattern}");
        }
        for pattern in [
            r"^/api/v[0-9]+/(users|groups)/[^/]+$",
            r"^Bearer \S+$",
            r"(?i)^ADMIN$",
            r"\d{3}-\d{4}",
            "a|b",
        ] {
            let text = of_regex(pattern).unwrap();
            assert!(
                regex::Regex::new(pattern).unwrap().is_match(&text),
                "{pattern}: {text}"
            );
        }
        assert_eq!(of_regex("("), None);
    }
}
