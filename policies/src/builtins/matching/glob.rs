//! Globs as `gobwas/glob` reads them, which OPA uses: `*` and `?` do not match
//! a delimiter, `**` does; `[abc]`, `[a-z]`, `[!a-z]`; `{a,b}`; `\` before a
//! character takes it literally.

use super::cache::Matcher;
use super::regex::{CompiledRegex, push_literal};

/// Groups in groups. Deeper patterns are refused.
const GROUP_DEPTH: usize = 32;

/// A compiled glob.
pub(super) enum Glob {
    Sequence(Sequence),
    /// What takes more than one way back: groups, classes, `*` after `**`.
    Regex(CompiledRegex),
}

/// Tokens that are matched one after the other. There is one place to go back
/// to, the last wildcard, because no `*` follows a `**`: between two wildcards
/// of one kind, the earliest match leaves the most to the second.
pub(super) struct Sequence {
    tokens: Box<[Token]>,
    delimiters: Box<[char]>,
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Literal(Box<str>),
    /// `?`
    One,
    /// `*`
    Star,
    /// `**`
    Super,
}

/// A pattern as it is read.
#[derive(Debug)]
enum Item {
    Token(Token),
    Class {
        negated: bool,
        members: Vec<(char, char)>,
    },
    Alternatives(Vec<Vec<Item>>),
}

/// Takes all characters of a text literally.
pub(super) fn quote(literal: &str) -> String {
    let mut quoted = String::with_capacity(literal.len());
    for character in literal.chars() {
        if "*?\\[]{}".contains(character) {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted
}

impl Glob {
    /// `None` if the pattern is malformed.
    pub(super) fn compile(pattern: &str, delimiters: &str) -> Option<Self> {
        let mut parser = Parser { rest: pattern };
        let items = parser.sequence(0)?;
        match tokens(items, !delimiters.is_empty()) {
            Ok(tokens) => Some(Self::Sequence(Sequence {
                tokens: tokens.into_boxed_slice(),
                delimiters: delimiters.chars().collect(),
            })),
            Err(items) => {
                let mut regex = String::from(r"(?s)\A");
                push_regex(&items, delimiters, &mut regex);
                regex.push_str(r"\z");
                CompiledRegex::new(&regex).map(Self::Regex)
            }
        }
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Sequence(sequence) => sequence.matches(text),
            Self::Regex(regex) => regex.matches(text),
        }
    }
}

impl Matcher for Glob {
    fn bytes(&self) -> usize {
        match self {
            Self::Sequence(sequence) => sequence
                .tokens
                .iter()
                .map(|token| match token {
                    Token::Literal(text) => text.len(),
                    Token::One | Token::Star | Token::Super => 0,
                })
                .fold(size_of_val(&*sequence.tokens), usize::saturating_add),
            Self::Regex(regex) => regex.bytes(),
        }
    }
}

impl Sequence {
    fn matches(&self, text: &str) -> bool {
        let mut tokens = &*self.tokens;
        let mut rest = text;
        // Where the last wildcard began, and what comes after it.
        let mut wildcard: Option<(&Token, &[Token], &str)> = None;
        loop {
            let advanced = match tokens.split_first() {
                None if rest.is_empty() => return true,
                None => None,
                Some((Token::Literal(literal), after)) => {
                    rest.strip_prefix(&**literal).map(|rest| (after, rest))
                }
                Some((Token::One, after)) => self.skip(rest).map(|rest| (after, rest)),
                // Nothing is left to be matched after it.
                Some((Token::Super, [])) => return true,
                Some((token, after)) => {
                    wildcard = Some((token, after, rest));
                    Some((after, rest))
                }
            };
            if let Some(next) = advanced {
                (tokens, rest) = next;
                continue;
            }
            let Some((token, after, from)) = wildcard else {
                return false;
            };
            let longer = if *token == Token::Star {
                self.skip(from)
            } else {
                without_first(from).map(|(_, rest)| rest)
            };
            let Some(from) = longer else { return false };
            wildcard = Some((token, after, from));
            (tokens, rest) = (after, from);
        }
    }

    /// The text after one character that is no delimiter.
    fn skip<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (first, rest) = without_first(text)?;
        (!self.delimiters.contains(&first)).then_some(rest)
    }
}

fn without_first(text: &str) -> Option<(char, &str)> {
    let mut characters = text.chars();
    let first = characters.next()?;
    Some((first, characters.as_str()))
}

/// The tokens of items that one way back is enough for, or the items again.
fn tokens(items: Vec<Item>, delimited: bool) -> Result<Vec<Token>, Vec<Item>> {
    let star = |item: &Item| matches!(item, Item::Token(Token::Star));
    let wide = |item: &Item| matches!(item, Item::Token(Token::Super));
    let first_wide = items.iter().position(wide).unwrap_or(items.len());
    let mixed = delimited && items.iter().skip(first_wide).any(star);
    if mixed || !items.iter().all(|item| matches!(item, Item::Token(_))) {
        return Err(items);
    }
    let mut tokens: Vec<Token> = Vec::new();
    for item in items {
        let Item::Token(token) = item else { continue };
        match (token, tokens.last()) {
            // Without delimiters the two are the same.
            (Token::Star, _) if !delimited => {
                if tokens.last() != Some(&Token::Super) {
                    tokens.push(Token::Super);
                }
            }
            // Two wildcards in a row are the wider one.
            (Token::Star, Some(Token::Star)) | (Token::Super, Some(Token::Super)) => {}
            (Token::Super, Some(Token::Star)) => {
                tokens.pop();
                tokens.push(Token::Super);
            }
            (token, _) => tokens.push(token),
        }
    }
    Ok(tokens)
}

fn push_regex(items: &[Item], delimiters: &str, regex: &mut String) {
    for item in items {
        match item {
            Item::Token(Token::Literal(literal)) => {
                literal
                    .chars()
                    .for_each(|character| push_literal(character, regex));
            }
            Item::Token(Token::One) => push_undelimited(delimiters, regex),
            Item::Token(Token::Star) => {
                push_undelimited(delimiters, regex);
                regex.push('*');
            }
            Item::Token(Token::Super) => regex.push_str(".*"),
            Item::Class { negated, members } => {
                regex.push_str(if *negated { "[^" } else { "[" });
                for (first, last) in members {
                    push_literal(*first, regex);
                    regex.push('-');
                    push_literal(*last, regex);
                }
                regex.push(']');
            }
            Item::Alternatives(alternatives) => {
                regex.push_str("(?:");
                for (index, alternative) in alternatives.iter().enumerate() {
                    if index > 0 {
                        regex.push('|');
                    }
                    push_regex(alternative, delimiters, regex);
                }
                regex.push(')');
            }
        }
    }
}

/// One character that is no delimiter.
fn push_undelimited(delimiters: &str, regex: &mut String) {
    if delimiters.is_empty() {
        regex.push('.');
        return;
    }
    regex.push_str("[^");
    delimiters
        .chars()
        .for_each(|character| push_literal(character, regex));
    regex.push(']');
}

struct Parser<'a> {
    rest: &'a str,
}

impl Parser<'_> {
    /// Items up to the end, or inside a group to its next `,` or `}`.
    fn sequence(&mut self, depth: usize) -> Option<Vec<Item>> {
        if depth > GROUP_DEPTH {
            return None;
        }
        let mut items = Vec::new();
        while let Some((first, rest)) = without_first(self.rest) {
            let item = match first {
                ',' | '}' if depth > 0 => return Some(items),
                '?' => Item::Token(Token::One),
                '*' => {
                    if let Some(rest) = rest.strip_prefix('*') {
                        self.rest = rest;
                        items.push(Item::Token(Token::Super));
                        continue;
                    }
                    Item::Token(Token::Star)
                }
                '[' => {
                    self.rest = rest;
                    items.push(self.class()?);
                    continue;
                }
                '{' => {
                    self.rest = rest;
                    items.push(self.alternatives(depth)?);
                    continue;
                }
                _ => {
                    let stops = if depth > 0 { "?*[{}," } else { "?*[{" };
                    items.push(Item::Token(Token::Literal(self.literal(stops)?.into())));
                    continue;
                }
            };
            self.rest = rest;
            items.push(item);
        }
        // The end of the pattern inside a group is no end.
        (depth == 0).then_some(items)
    }

    fn alternatives(&mut self, depth: usize) -> Option<Item> {
        let mut alternatives = Vec::new();
        loop {
            alternatives.push(self.sequence(depth.saturating_add(1))?);
            match self.next()? {
                ',' => {}
                _ => return Some(Item::Alternatives(alternatives)),
            }
        }
    }

    /// What follows `[`: one range or a list of characters.
    fn class(&mut self) -> Option<Item> {
        let negated = self.rest.starts_with('!');
        if negated {
            self.next();
        }
        let (first, rest) = without_first(self.rest)?;
        let members = if let Some(rest) = rest.strip_prefix('-') {
            self.rest = rest;
            let last = self.next()?;
            if last < first {
                return None;
            }
            vec![(first, last)]
        } else {
            let listed = self.literal("]")?;
            listed
                .chars()
                .map(|character| (character, character))
                .collect()
        };
        (self.next()? == ']' && !members.is_empty()).then_some(Item::Class { negated, members })
    }

    /// Text up to one of some characters, without its escapes.
    fn literal(&mut self, stops: &str) -> Option<String> {
        let mut literal = String::new();
        while let Some((first, rest)) = without_first(self.rest) {
            if stops.contains(first) {
                break;
            }
            self.rest = rest;
            literal.push(if first == '\\' { self.next()? } else { first });
        }
        Some(literal)
    }

    fn next(&mut self) -> Option<char> {
        let (first, rest) = without_first(self.rest)?;
        self.rest = rest;
        Some(first)
    }
}
