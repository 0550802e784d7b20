//! Texts and characters as Go writes them in its sources.

use std::sync::LazyLock;

use regex_automata::meta::Regex;

/// What Go calls printable: letters, marks, numbers, punctuation, symbols and
/// the space.
static PRINTABLE: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new(r"^[\p{L}\p{M}\p{N}\p{P}\p{S} ]$").ok());

pub(super) fn is_printable(character: char) -> bool {
    if character.is_ascii() {
        return matches!(character, ' '..='~');
    }
    let mut bytes = [0; 4];
    let text: &str = character.encode_utf8(&mut bytes);
    PRINTABLE.as_ref().is_some_and(|regex| regex.is_match(text))
}

/// In double quotes; with escapes for all that is not ASCII, if so asked.
pub(super) fn string(text: &str, ascii: bool) -> String {
    let mut quoted = String::with_capacity(text.len().saturating_add(2));
    quoted.push('"');
    for character in text.chars() {
        escape(character, '"', ascii, &mut quoted);
    }
    quoted.push('"');
    quoted
}

/// In single quotes.
pub(super) fn character(character: char, ascii: bool) -> String {
    let mut quoted = String::from('\'');
    escape(character, '\'', ascii, &mut quoted);
    quoted.push('\'');
    quoted
}

/// Whether a text may stand between backquotes.
pub(super) fn can_be_raw(text: &str) -> bool {
    !text.contains(|next: char| {
        (next < ' ' && next != '\t') || matches!(next, '`' | '\u{7F}' | '\u{FEFF}')
    })
}

fn escape(character: char, quote: char, ascii: bool, quoted: &mut String) {
    let name = match character {
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\u{C}' => 'f',
        '\n' => 'n',
        '\r' => 'r',
        '\t' => 't',
        '\u{B}' => 'v',
        same if same == quote || same == '\\' => same,
        plain if is_printable(plain) && (plain.is_ascii() || !ascii) => {
            quoted.push(plain);
            return;
        }
        other => {
            let code = u32::from(other);
            quoted.push_str(&match code {
                ..0x80 => format!("\\x{code:02x}"),
                0x80..0x10000 => format!("\\u{code:04x}"),
                _ => format!("\\U{code:08x}"),
            });
            return;
        }
    };
    quoted.push('\\');
    quoted.push(name);
}
