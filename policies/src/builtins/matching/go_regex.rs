//! Go's syntax of regular expressions, put into that of the `regex` crates.
//!
//! The two look the same and differ where it hurts: `\d`, `\w`, `\s` and `\b`
//! are ASCII in Go, `\<` is a literal, `{` that begins no repetition is one
//! too, and `[a&&b]` and `[[a]]` have no operators.

use super::properties;
use super::regex::push_literal;

/// How often Go repeats an expression at most.
const REPETITIONS: u32 = 1000;

/// How far the end of a repetition or of the name of a class is looked for, in
/// characters: further than any is long.
const NEAR: usize = 24;

/// The names of classes in brackets.
const CLASSES: &[&str] = &[
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
    "space", "upper", "word", "xdigit",
];

/// `None` if the expression is malformed, as far as that is seen here.
pub(super) fn translate(pattern: &str) -> Option<String> {
    let mut translator = Translator {
        rest: pattern,
        regex: String::with_capacity(pattern.len().saturating_add(16)),
    };
    translator.expression()?;
    Some(translator.regex)
}

/// Splits a text at a mark that is near.
fn split_near<'a>(text: &'a str, mark: &str) -> Option<(&'a str, &'a str)> {
    let places = text.char_indices().take(NEAR);
    places
        .map(|(place, _)| text.split_at(place))
        .find_map(|(before, after)| Some((before, after.strip_prefix(mark)?)))
}

struct Translator<'a> {
    rest: &'a str,
    regex: String,
}

impl Translator<'_> {
    fn expression(&mut self) -> Option<()> {
        let mut after_repetition = false;
        while let Some(first) = self.next() {
            let repetition = match first {
                '*' | '+' | '?' => Some(first.to_string()),
                '{' => self.repetition()?,
                _ => None,
            };
            if let Some(repetition) = repetition {
                if after_repetition {
                    return None;
                }
                after_repetition = true;
                self.regex.push_str(&repetition);
                if self.eat("?") {
                    self.regex.push('?');
                }
                continue;
            }
            after_repetition = false;
            match first {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.group()?,
                ')' | '|' | '^' | '$' | '.' => self.regex.push(first),
                literal => push_literal(literal, &mut self.regex),
            }
        }
        Some(())
    }

    /// What follows `{`, if it is a repetition.
    fn repetition(&mut self) -> Option<Option<String>> {
        let Some((counts, rest)) = split_near(self.rest, "}") else {
            return Some(None);
        };
        let (least, most) = counts
            .split_once(',')
            .map_or((counts, None), |(least, most)| (least, Some(most)));
        let number = |text: &str| {
            // A leading zero makes it text.
            let plain = text == "0" || !text.starts_with('0');
            let digits =
                plain && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| text.parse::<u32>().unwrap_or(u32::MAX))
        };
        let Some(lowest) = number(least) else {
            return Some(None);
        };
        let highest = match most {
            None => Some(lowest),
            Some("") => None,
            Some(most) => match number(most) {
                Some(most) => Some(most),
                None => return Some(None),
            },
        };
        self.rest = rest;
        let valid = lowest <= REPETITIONS
            && highest.is_none_or(|highest| lowest <= highest && highest <= REPETITIONS);
        valid.then(|| Some(format!("{{{counts}}}")))
    }

    /// What follows `(`.
    fn group(&mut self) -> Option<()> {
        self.regex.push('(');
        if !self.eat("?") {
            return Some(());
        }
        self.regex.push('?');
        if self.rest.starts_with("P<") || self.rest.starts_with('<') {
            // The other engine knows the same names of groups.
            let (name, rest) = self.rest.split_once('>')?;
            self.rest = rest;
            self.regex.push_str(name);
            self.regex.push('>');
            return Some(());
        }
        let end = self.rest.find([':', ')'])?;
        let (flags, rest) = self.rest.split_at_checked(end)?;
        let (mark, rest) = rest.split_at_checked(1)?;
        let known = flags.chars().all(|flag| "imsU-".contains(flag));
        if !known || (flags.is_empty() && mark == ")") {
            return None;
        }
        self.rest = rest;
        self.regex.push_str(flags);
        self.regex.push_str(mark);
        Some(())
    }

    /// What follows `\` outside of a class.
    fn escape(&mut self) -> Option<()> {
        match self.rest.chars().next()? {
            'A' | 'z' => {
                let assertion = self.next()?;
                self.regex.push('\\');
                self.regex.push(assertion);
            }
            'b' | 'B' => {
                let assertion = self.next()?;
                self.regex.push_str("(?-u:\\");
                self.regex.push(assertion);
                self.regex.push(')');
            }
            'Q' => {
                self.next();
                let (quoted, rest) = self.rest.split_once("\\E").unwrap_or((self.rest, ""));
                self.rest = rest;
                for character in quoted.chars() {
                    push_literal(character, &mut self.regex);
                }
            }
            _ => self.member_escape()?,
        }
        Some(())
    }

    /// What follows `\` anywhere: a class or a character by another name.
    fn member_escape(&mut self) -> Option<()> {
        let first = self.next()?;
        let class = match first {
            'd' => "[0-9]",
            'D' => "[^0-9]",
            's' => r"[\t\n\x0C\r ]",
            'S' => r"[^\t\n\x0C\r ]",
            'w' => "[0-9A-Za-z_]",
            'W' => "[^0-9A-Za-z_]",
            'p' | 'P' => return self.property(first),
            _ => {
                let character = self.named_character(first)?;
                push_literal(character, &mut self.regex);
                return Some(());
            }
        };
        self.regex.push_str(class);
        Some(())
    }

    /// What follows `\p` or `\P`: a script or category of Unicode.
    fn property(&mut self, kind: char) -> Option<()> {
        let name = if self.eat("{") {
            let (name, rest) = self.rest.split_once('}')?;
            self.rest = rest;
            name.to_owned()
        } else {
            self.next()?.to_string()
        };
        let plain = name.strip_prefix('^').unwrap_or(&name);
        let (set, complement) = properties::find(plain)?;
        let negated = (kind == 'P') != name.starts_with('^');
        let kind = if negated == complement { 'p' } else { 'P' };
        self.regex.push_str(&format!("\\{kind}{{{set}}}"));
        Some(())
    }

    /// The character that follows `\`, which was read up to `first`.
    fn named_character(&mut self, first: char) -> Option<char> {
        Some(match first {
            'a' => '\x07',
            'f' => '\x0C',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\x0B',
            'x' => {
                let digits = if self.eat("{") {
                    let (digits, rest) = self.rest.split_once('}')?;
                    self.rest = rest;
                    digits.to_owned()
                } else {
                    String::from_iter([self.next()?, self.next()?])
                };
                if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                    return None;
                }
                char::from_u32(u32::from_str_radix(&digits, 16).ok()?)?
            }
            '0'..='7' => {
                // One digit alone would be a reference back, but for zero.
                let octal = |rest: &str| rest.starts_with(|next| ('0'..='7').contains(&next));
                if first != '0' && !octal(self.rest) {
                    return None;
                }
                let mut code = first.to_digit(8)?;
                for _ in 0..2 {
                    if octal(self.rest) {
                        let digit = self.next()?.to_digit(8)?;
                        code = code.checked_mul(8)?.checked_add(digit)?;
                    }
                }
                char::from_u32(code)?
            }
            other if other.is_ascii() && !other.is_ascii_alphanumeric() => other,
            _ => return None,
        })
    }

    /// What follows `[`.
    fn class(&mut self) -> Option<()> {
        self.regex.push('[');
        if self.eat("^") {
            self.regex.push('^');
        }
        let mut first = true;
        while first || !self.rest.starts_with(']') {
            first = false;
            if let Some(rest) = self.rest.strip_prefix("[:")
                && let Some((name, rest)) = split_near(rest, ":]")
            {
                self.rest = rest;
                let plain = name.strip_prefix('^').unwrap_or(name);
                if !CLASSES.contains(&plain) {
                    return None;
                }
                self.regex.push_str(&format!("[:{name}:]"));
                continue;
            }
            if self.rest.starts_with('\\')
                && self
                    .rest
                    .get(1..)
                    .is_some_and(|rest| rest.starts_with(['d', 'D', 's', 'S', 'w', 'W', 'p', 'P']))
            {
                self.next();
                self.member_escape()?;
                continue;
            }
            let lowest = self.member()?;
            push_literal(lowest, &mut self.regex);
            // A `-` at the end is one.
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.next();
                let highest = self.member()?;
                if highest < lowest {
                    return None;
                }
                self.regex.push('-');
                push_literal(highest, &mut self.regex);
            }
        }
        self.next();
        self.regex.push(']');
        Some(())
    }

    /// One character of a class.
    fn member(&mut self) -> Option<char> {
        match self.next()? {
            '\\' => {
                let first = self.next()?;
                self.named_character(first)
            }
            character => Some(character),
        }
    }

    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let first = characters.next()?;
        self.rest = characters.as_str();
        Some(first)
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}
