//! Places in a module's text.

use std::ops::Range;

/// How many columns the engine counts for a tab.
const TAB_COLUMNS: usize = 4;

/// Line and column, from 1 and in characters, of a byte.
pub(crate) fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    let lines = before.matches('\n').count();
    (
        lines.saturating_add(1),
        line.chars().count().saturating_add(1),
    )
}

/// A span of the engine's with the quote that it leaves out at its end.
pub(crate) fn closed(text: &str, span: Range<usize>) -> Range<usize> {
    let rest = text.get(span.end..).unwrap_or_default();
    let quote = rest.starts_with(['"', '`']);
    span.start..span.end.saturating_add(usize::from(quote))
}

/// The byte at a line and column, both from 1 and in characters.
pub(super) fn offset_of(text: &str, line: usize, column: usize) -> usize {
    walk_to(text, line, column, 1)
}

/// The same of a place that the engine names.
pub(super) fn engine_offset_of(text: &str, line: usize, column: usize) -> usize {
    walk_to(text, line, column, TAB_COLUMNS)
}

/// The word or sign that begins at a byte.
pub(super) fn word_at(text: &str, start: usize) -> Range<usize> {
    let rest = text.get(start..).unwrap_or_default();
    let word = |it: char| it.is_alphanumeric() || it == '_';
    let length = match rest.chars().next() {
        Some(first) if word(first) => rest.find(|it| !word(it)).unwrap_or(rest.len()),
        Some(first) if first != '\n' => first.len_utf8(),
        _ => 0,
    };
    start..start.saturating_add(length)
}

fn walk_to(text: &str, line: usize, column: usize, tab: usize) -> usize {
    let mut lines = text.split_inclusive('\n');
    let skipped = lines.by_ref().take(line.saturating_sub(1));
    let start: usize = skipped.map(str::len).sum();
    let line = lines.next().unwrap_or_default();
    let mut at = 1_usize;
    for (offset, character) in line.char_indices() {
        if at >= column || character == '\n' {
            return start.saturating_add(offset);
        }
        at = at.saturating_add(if character == '\t' { tab } else { 1 });
    }
    text.len().min(start.saturating_add(line.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_found_both_ways() {
        let text = "one\n\tzwei über\n\ndrei";
        for (line, column, engine_column, rest) in [
            (1, 1, 1, "one"),
            (2, 2, 5, "zwei"),
            (2, 7, 10, "über"),
            (2, 8, 11, "ber"),
            (3, 1, 1, "\n"),
            (4, 3, 3, "ei"),
        ] {
            let offset = offset_of(text, line, column);
            assert!(text[offset..].starts_with(rest), "{line}:{column}");
            assert_eq!(engine_offset_of(text, line, engine_column), offset);
            assert_eq!(line_and_column(text, offset), (line, column));
        }
        assert_eq!(offset_of(text, 2, 99), text.find("\n\n").unwrap());
        assert_eq!(offset_of(text, 9, 9), text.len());
    }

    #[test]
    fn a_word_ends_where_another_sign_begins() {
        let text = "allow.x + é\n";
        assert_eq!(word_at(text, 0), 0..5);
        assert_eq!(word_at(text, 5), 5..6);
        assert_eq!(word_at(text, 10), 10..12);
        assert_eq!(word_at(text, 12), 12..12);
    }
}
