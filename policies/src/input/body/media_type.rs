//! Media types and content dispositions, as Go's `mime.ParseMediaType` reads
//! them.

/// `multipart/form-data; boundary=x`, or `form-data; name="x"`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MediaType {
    /// What is before the parameters, in lower case.
    pub(super) name: String,
    /// Names in lower case.
    parameters: Vec<(String, String)>,
}

/// A parameter in the form of RFC 2231 (`name*=utf-8''x`), which not everybody
/// reads.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Extended;

impl MediaType {
    /// `None` where it does not parse, or has a parameter twice.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let end = text.find(';').unwrap_or(text.len());
        let (name, mut rest) = text.split_at(end);
        let name = name.trim();
        let is_token = |part: &str| !part.is_empty() && part.chars().all(is_token);
        let (kind, subtype) = name.split_once('/').unwrap_or((name, "x"));
        if !is_token(kind) || !is_token(subtype) {
            return None;
        }
        let mut parameters: Vec<(String, String)> = Vec::new();
        while !matches!(rest.trim(), "" | ";") {
            let (parameter, value, after) = parameter(rest)?;
            if parameters.iter().any(|(known, _)| *known == parameter) {
                return None;
            }
            parameters.push((parameter, value));
            rest = after;
        }
        Some(Self {
            name: name.to_ascii_lowercase(),
            parameters,
        })
    }

    /// A parameter's value, if it is there.
    pub(super) fn parameter(&self, name: &str) -> Option<Result<&str, Extended>> {
        self.parameters.iter().find_map(|(known, value)| {
            let rest = known.strip_prefix(name)?;
            match rest.chars().next() {
                None => Some(Ok(value.as_str())),
                Some('*') => Some(Err(Extended)),
                Some(_) => None,
            }
        })
    }
}

/// `; name=value`, and what follows it.
fn parameter(text: &str) -> Option<(String, String, &str)> {
    let text = text.trim_start().strip_prefix(';')?.trim_start();
    let (name, text) = token(text)?;
    let text = text.trim_start().strip_prefix('=')?.trim_start();
    let (value, rest) = match text.strip_prefix('"') {
        Some(text) => quoted(text)?,
        None => token(text).map(|(value, rest)| (value.to_owned(), rest))?,
    };
    Some((name.to_ascii_lowercase(), value, rest))
}

fn token(text: &str) -> Option<(&str, &str)> {
    let end = text
        .find(|character| !is_token(character))
        .unwrap_or(text.len());
    (end > 0).then(|| text.split_at(end))
}

/// What is before the closing quote. A backslash stands for itself unless a
/// special character follows: so Go keeps the paths of old browsers.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices().peekable();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, text.get(index + 1..)?)),
            '\r' | '\n' => return None,
            '\\' => match characters.next_if(|(_, next)| is_special(*next)) {
                Some((_, escaped)) => value.push(escaped),
                None => value.push('\\'),
            },
            other => value.push(other),
        }
    }
    None
}

fn is_token(character: char) -> bool {
    character.is_ascii_graphic() && !is_special(character)
}

fn is_special(character: char) -> bool {
    "()<>@,;:\\\"/[]?=".contains(character)
}
