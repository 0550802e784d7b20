//! JSON as Go reads and writes it.

mod parse;
mod write;

use regorus::Value;

use super::values::text;
use parse::Parser;

/// `json.unmarshal(text)`. Half a character (`\ud800` alone) is U+FFFD; of equal
/// keys the last counts.
pub(super) fn unmarshal(arguments: &[Value]) -> Option<Value> {
    let [json] = arguments else { return None };
    Parser::new(text(json)?).document()
}

/// `json.is_valid(text)`: false of what is no string.
pub(super) fn is_valid(arguments: &[Value]) -> Option<Value> {
    let [json] = arguments else { return None };
    let document = text(json).and_then(|json| Parser::new(json).syntax());
    Some(document.is_some().into())
}

/// `json.marshal(value)`.
pub(super) fn marshal(arguments: &[Value]) -> Option<Value> {
    let [value] = arguments else { return None };
    Some(write::compact(value).into())
}

/// `json.marshal_with_options(value, options)`: `prefix` and `indent` of lines,
/// and whether they are wanted (`pretty`).
pub(super) fn marshal_with_options(arguments: &[Value]) -> Option<Value> {
    let [value, Value::Object(options)] = arguments else {
        return None;
    };
    let (mut prefix, mut indent, mut implied, mut pretty) = ("", "\t", false, None);
    for (name, option) in options.iter() {
        match text(name)? {
            "prefix" => (prefix, implied) = (text(option)?, true),
            "indent" => (indent, implied) = (text(option)?, true),
            "pretty" => pretty = Some(*option.as_bool().ok()?),
            _ => return None,
        }
    }
    Some(if pretty.unwrap_or(implied) {
        write::pretty(value, prefix, indent).into()
    } else {
        write::compact(value).into()
    })
}

#[cfg(test)]
mod tests;
