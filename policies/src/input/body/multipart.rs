//! `multipart/form-data` bodies, as Go's `mime/multipart` reads them.
//!
//! Stricter where readers differ: a part without an end, a header that a part
//! has twice, and a transfer encoding refuse the whole body.

use regorus::Value;

use super::media_type::MediaType;
use super::{BodyProblem, json};

/// The values of the fields that have a name, in their order.
///
/// A part of type `application/json` is parsed; every other is text, in which
/// U+FFFD stands for what is not UTF-8, such as the content of a file.
pub(super) fn parse(body: &[u8], boundary: &str) -> Result<Vec<(String, Value)>, BodyProblem> {
    if boundary.is_empty() {
        return Err(BodyProblem::Multipart);
    }
    let dashes = format!("--{boundary}").into_bytes();
    // Whoever ends the first boundary with a mere line feed ends all so.
    let (mut rest, newline) = match preamble(body, &dashes)? {
        Start::Parts { rest, newline } => (rest, newline),
        Start::End => return Ok(Vec::new()),
    };
    let delimiter = [newline, &dashes].concat();
    let mut fields = Vec::new();
    loop {
        let (header, content) = Header::parse(rest)?;
        let end = end_of_part(content, &dashes, &delimiter).ok_or(BodyProblem::Multipart)?;
        let (content, after) = content.split_at(end);
        if let Some(name) = header.name {
            let value = if header.is_json {
                json::parse(content)?
            } else {
                Value::from(String::from_utf8_lossy(content).into_owned())
            };
            fields.push((name, value));
        }
        let boundary = after.strip_prefix(newline).unwrap_or(after);
        let (line, next) = split_line(boundary);
        match Line::of(line, &dashes) {
            Line::Boundary { newline: own } if own == newline => rest = next,
            Line::Last => return Ok(fields),
            Line::Boundary { .. } | Line::Other => return Err(BodyProblem::Multipart),
        }
    }
}

/// Where the parts begin.
enum Start<'a> {
    Parts {
        rest: &'a [u8],
        newline: &'static [u8],
    },
    /// There are none.
    End,
}

/// What a line is.
enum Line {
    Boundary { newline: &'static [u8] },
    Last,
    Other,
}

impl Line {
    fn of(line: &[u8], dashes: &[u8]) -> Self {
        let Some(rest) = line.strip_prefix(dashes) else {
            return Self::Other;
        };
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let after_blanks = |rest: &[u8]| -> Option<&'static [u8]> {
            let start = rest.iter().position(|byte| !blank(byte));
            match start.and_then(|start| rest.get(start..)) {
                None => Some(b""),
                Some(b"\n") => Some(b"\n"),
                Some(b"\r\n") => Some(b"\r\n"),
                Some(_) => None,
            }
        };
        if let Some(newline) = after_blanks(rest) {
            return if newline.is_empty() {
                Self::Other
            } else {
                Self::Boundary { newline }
            };
        }
        match rest.strip_prefix(b"--").and_then(after_blanks) {
            Some(_) => Self::Last,
            None => Self::Other,
        }
    }
}

/// Passes over what is before the first boundary.
fn preamble<'a>(body: &'a [u8], dashes: &[u8]) -> Result<Start<'a>, BodyProblem> {
    let mut rest = body;
    while !rest.is_empty() {
        let (line, next) = split_line(rest);
        match Line::of(line, dashes) {
            Line::Boundary { newline } => {
                return Ok(Start::Parts {
                    rest: next,
                    newline,
                });
            }
            Line::Last => return Ok(Start::End),
            Line::Other => rest = next,
        }
    }
    Err(BodyProblem::Multipart)
}

/// Where a part's content ends: before the line end that belongs to the next
/// boundary, or at once if the boundary follows the header.
fn end_of_part(content: &[u8], dashes: &[u8], delimiter: &[u8]) -> Option<usize> {
    let ends = |rest: &[u8]| match rest {
        [] => true,
        [byte, ..] if b" \t\r\n".contains(byte) => true,
        rest => rest.starts_with(b"--"),
    };
    if content.strip_prefix(dashes).is_some_and(ends) {
        return Some(0);
    }
    let mut windows = content.windows(delimiter.len()).enumerate();
    windows.find_map(|(start, window)| {
        let after = content.get(start.checked_add(delimiter.len())?..)?;
        (window == delimiter && ends(after)).then_some(start)
    })
}

/// What a part's header says.
#[derive(Default)]
struct Header {
    /// The field's name; a part without one is passed over.
    name: Option<String>,
    is_json: bool,
}

impl Header {
    /// Reads a part's header and gives what follows it.
    fn parse(part: &[u8]) -> Result<(Self, &[u8]), BodyProblem> {
        let mut lines: Vec<String> = Vec::new();
        let mut rest = part;
        loop {
            let (line, next) = split_line(rest);
            let line = line.strip_suffix(b"\n").ok_or(BodyProblem::Multipart)?;
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let line = std::str::from_utf8(line).map_err(|_| BodyProblem::Multipart)?;
            rest = next;
            if line.is_empty() {
                break;
            }
            if line.starts_with([' ', '\t']) {
                let last = lines.last_mut().ok_or(BodyProblem::Multipart)?;
                last.push(' ');
                last.push_str(line.trim());
            } else {
                lines.push(line.to_owned());
            }
        }
        let (mut disposition, mut content_type) = (None, None);
        for line in &lines {
            let (name, value) = line.split_once(':').ok_or(BodyProblem::Multipart)?;
            if http::HeaderName::from_bytes(name.as_bytes()).is_err() {
                return Err(BodyProblem::Multipart);
            }
            let value = value.trim_start_matches([' ', '\t']);
            let place = match name.to_ascii_lowercase().as_str() {
                "content-disposition" => &mut disposition,
                "content-type" => &mut content_type,
                "content-transfer-encoding" if value.eq_ignore_ascii_case("quoted-printable") => {
                    return Err(BodyProblem::Multipart);
                }
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(BodyProblem::Multipart);
            }
        }
        Ok((
            Self {
                name: disposition.map(field_name).transpose()?.flatten(),
                is_json: content_type.is_some_and(|value| value.contains("application/json")),
            },
            rest,
        ))
    }
}

/// The `name` of `form-data; name="…"`.
fn field_name(disposition: &str) -> Result<Option<String>, BodyProblem> {
    let disposition = MediaType::parse(disposition).ok_or(BodyProblem::Multipart)?;
    if disposition.name != "form-data" {
        return Ok(None);
    }
    match disposition.parameter("name") {
        Some(Ok(name)) => Ok((!name.is_empty()).then(|| name.to_owned())),
        Some(Err(_)) => Err(BodyProblem::Multipart),
        None => Ok(None),
    }
}

/// A line with its end, and what follows it.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let length = end.map_or(bytes.len(), |end| end.saturating_add(1));
    bytes.split_at(length)
}
