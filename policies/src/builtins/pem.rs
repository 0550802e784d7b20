//! Blocks of PEM, as Go's `encoding/pem` finds them in a text.

use super::values::from_base64;

const BEGIN: &str = "-----BEGIN ";
const END: &str = "-----END ";
const DASHES: &str = "-----";

/// One block and what follows it.
pub(super) struct Block<'a> {
    /// What the block holds, e.g. `CERTIFICATE`.
    pub(super) label: &'a str,
    pub(super) contents: Vec<u8>,
    pub(super) rest: &'a str,
}

/// Whether a text is meant as PEM.
pub(super) fn is_pem(text: &str) -> bool {
    text.starts_with("-----BEGIN")
}

/// The first whole block of a text. What stands before it, and blocks that
/// are broken, are passed over.
pub(super) fn first_block(text: &str) -> Option<Block<'_>> {
    let mut rest = text;
    loop {
        rest = after_line_start(rest, BEGIN)?;
        let (line, body) = split_line(rest);
        if let Some(label) = line.strip_suffix(DASHES)
            && let Some(block) = block(label, body)
        {
            return Some(block);
        }
        rest = body;
    }
}

fn block<'a>(label: &'a str, body: &'a str) -> Option<Block<'a>> {
    let mut contents = body;
    loop {
        let (line, after) = split_line(contents);
        // Headers, e.g. `Proc-Type: 4,ENCRYPTED`, come before the contents.
        if !line.contains(':') {
            break;
        }
        contents = after;
    }
    let after_mark = after_line_start(contents, END)?;
    let length = contents.len().checked_sub(after_mark.len())?;
    let encoded = contents.get(..length.checked_sub(END.len())?)?;
    let (line, rest) = split_line(after_mark);
    if line.strip_suffix(DASHES)? != label {
        return None;
    }
    let encoded = encoded.replace([' ', '\t'], "");
    Some(Block {
        label,
        contents: from_base64(&encoded)?,
        rest,
    })
}

/// What follows a mark that stands at the start of a line.
fn after_line_start<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    if let Some(rest) = text.strip_prefix(mark) {
        return Some(rest);
    }
    text.split_once(&format!("\n{mark}")).map(|(_, rest)| rest)
}

/// The first line, without white space at its end, and the lines after it.
fn split_line(text: &str) -> (&str, &str) {
    let (line, rest) = text.split_once('\n').unwrap_or((text, ""));
    (line.trim_end_matches([' ', '\t', '\r']), rest)
}
