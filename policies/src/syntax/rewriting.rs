//! Copies of modules with something inserted.

use serde_json::Value as Json;

use super::{Module, offset};

/// Insertions into a module's text, each with its place in bytes.
pub(crate) type Insertions = Vec<(usize, String)>;

/// The text with the insertions; where several have the same place, in their order.
pub(crate) fn inserted(text: &str, mut insertions: Insertions) -> String {
    insertions.sort_by_key(|(place, _)| *place);
    let mut result = String::with_capacity(text.len());
    let mut done = 0;
    for (place, insertion) in insertions {
        result.push_str(text.get(done..place).unwrap_or_default());
        result.push_str(&insertion);
        done = place;
    }
    result.push_str(text.get(done..).unwrap_or_default());
    result
}

/// The text of an expression.
pub(crate) fn text_of<'a>(expression: &Json, module: &Module<'a>) -> Option<&'a str> {
    let span = expression.as_object()?.values().next()?.get("span")?;
    let start = match expression.pointer("/Object/fields/0/1") {
        // The engine says where the last member begins, not the object.
        Some(key) => {
            let before = module.text.get(..start_of(key, module)?)?.trim_end();
            before.strip_suffix('{')?.len()
        }
        None => outside_quotes(offset(span, "start")?, module.text),
    };
    module
        .text
        .get(start..after_quote(offset(span, "end")?, module.text))
}

/// Where an expression begins, in bytes of the module.
pub(crate) fn start_of(expression: &Json, module: &Module<'_>) -> Option<usize> {
    let text = text_of(expression, module)?;
    let start = text
        .as_ptr()
        .addr()
        .checked_sub(module.text.as_ptr().addr())?;
    Some(start)
}

/// The engine says where the text of a string begins, not its quote.
pub(crate) fn outside_quotes(start: usize, text: &str) -> usize {
    let before = text.get(..start).unwrap_or_default();
    match before.ends_with(['"', '`']) {
        true => start.saturating_sub(1),
        false => start,
    }
}

/// The engine says where the text of a string ends, not its quote.
pub(crate) fn after_quote(end: usize, text: &str) -> usize {
    let quoted = text
        .get(end..)
        .is_some_and(|rest| rest.starts_with(['"', '`']));
    end.saturating_add(usize::from(quoted))
}
