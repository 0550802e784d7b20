//! The form over which OPA hashes structured files: no white space, and keys in the order of their
//! bytes. Numbers stay as they are written.

use std::collections::BTreeMap;

use regorus::Value;
use serde_json::value::RawValue;

/// How deep a document may be nested. The engine reads no deeper.
const DEPTH: usize = 128;

/// Feeds the canonical form of a JSON or YAML document to `sink`.
///
/// # Errors
/// What is wrong with the document.
pub(super) fn feed(document: &[u8], sink: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    let text = std::str::from_utf8(document).map_err(|error| error.to_string())?;
    if serde_json::from_str::<&RawValue>(text).is_ok() {
        return feed_json(text.trim(), DEPTH, sink);
    }
    let value = Value::from_yaml_str(text).map_err(|error| error.to_string())?;
    feed_value(&value, DEPTH, sink)
}

fn feed_json(text: &str, depth: usize, sink: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    let depth = below(depth)?;
    let failed = |error: serde_json::Error| error.to_string();
    match text.bytes().next() {
        Some(b'{') => {
            // Of a key that is there twice the last counts, as in the engine.
            let members: BTreeMap<String, &RawValue> =
                serde_json::from_str(text).map_err(failed)?;
            let members = members.iter();
            each(b"{", b"}", members, sink, |(key, value), sink| {
                feed_string(key, sink)?;
                sink(b":");
                feed_json(value.get(), depth, sink)
            })
        }
        Some(b'[') => {
            let items: Vec<&RawValue> = serde_json::from_str(text).map_err(failed)?;
            each(b"[", b"]", items.iter(), sink, |item, sink| {
                feed_json(item.get(), depth, sink)
            })
        }
        Some(b'"') => feed_string(&serde_json::from_str::<String>(text).map_err(failed)?, sink),
        _ => {
            sink(text.as_bytes());
            Ok(())
        }
    }
}

fn feed_value(value: &Value, depth: usize, sink: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    let depth = below(depth)?;
    match value {
        Value::Object(members) => {
            let by_text: Result<BTreeMap<&str, &Value>, String> = members
                .iter()
                .map(|(key, value)| match key {
                    Value::String(key) => Ok((&**key, value)),
                    _ => Err(format!("the key {key} is not a string")),
                })
                .collect();
            let by_text = by_text?;
            each(b"{", b"}", by_text.iter(), sink, |(key, value), sink| {
                feed_string(key, sink)?;
                sink(b":");
                feed_value(value, depth, sink)
            })
        }
        Value::Array(items) => each(b"[", b"]", items.iter(), sink, |item, sink| {
            feed_value(item, depth, sink)
        }),
        Value::String(text) => feed_string(text, sink),
        Value::Number(_) => {
            sink(number(&value.to_string()).as_bytes());
            Ok(())
        }
        other => {
            sink(other.to_string().as_bytes());
            Ok(())
        }
    }
}

fn below(depth: usize) -> Result<usize, String> {
    depth
        .checked_sub(1)
        .ok_or_else(|| format!("is nested more than {DEPTH} levels deep"))
}

fn each<Item>(
    open: &[u8],
    close: &[u8],
    items: impl Iterator<Item = Item>,
    sink: &mut dyn FnMut(&[u8]),
    mut feed: impl FnMut(Item, &mut dyn FnMut(&[u8])) -> Result<(), String>,
) -> Result<(), String> {
    sink(open);
    for (index, item) in items.enumerate() {
        if index > 0 {
            sink(b",");
        }
        feed(item, sink)?;
    }
    sink(close);
    Ok(())
}

/// JSON's form, with the two line separators escaped that JavaScript knows, as Go does.
fn feed_string(text: &str, sink: &mut dyn FnMut(&[u8])) -> Result<(), String> {
    let quoted = serde_json::to_string(text).map_err(|error| error.to_string())?;
    let quoted = quoted
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029");
    sink(quoted.as_bytes());
    Ok(())
}

/// A number of a YAML document in Go's form: only those have gone through a float there.
fn number(text: &str) -> String {
    let is_float = text.contains(['.', 'e', 'E']);
    let Some(number) = text.parse::<f64>().ok().filter(|_| is_float) else {
        return text.to_owned();
    };
    let size = number.abs();
    if size == 0.0 || (1e-6..1e21).contains(&size) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.contains("e-") {
        true => text,
        false => text.replace('e', "e+"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(document: &str) -> Result<String, String> {
        let mut bytes = Vec::new();
        feed(document.as_bytes(), &mut |part| {
            bytes.extend_from_slice(part)
        })?;
        Ok(String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn the_canonical_form_is_opas() {
        for (document, expected) in [
            (
                " { \"b\" : [ 1 , 2 ] , \"a\" : {} }\n",
                r#"{"a":{},"b":[1,2]}"#,
            ),
            // Numbers of JSON as they are written.
            (
                "[1.0, 1e3, -0, 12345678901234567890123]",
                "[1.0,1e3,-0,12345678901234567890123]",
            ),
            (
                r#""<a&b> \u00e9 \u2028 \u0001 \/""#,
                "\"<a&b> é \\u2028 \\u0001 /\"",
            ),
            (r#"{"a": 1, "a": 2}"#, r#"{"a":2}"#),
            // Keys by their bytes: upper case first, then what is not ASCII.
            (r#"{"é": 1, "a": 2, "B": 3}"#, r#"{"B":3,"a":2,"é":1}"#),
            ("null", "null"),
            // YAML goes through JSON.
            (
                "b: [1, 1.50, 1.0]\na:\n  c: yes it is\n",
                r#"{"a":{"c":"yes it is"},"b":[1,1.5,1]}"#,
            ),
            (
                "big: 1.0e+21\nsmall: 1.0e-7\n",
                r#"{"big":1e+21,"small":1e-7}"#,
            ),
        ] {
            assert_eq!(canonical(document).as_deref(), Ok(expected), "{document}");
        }
    }

    #[test]
    fn what_is_no_document_has_no_canonical_form() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for document in ["{\"a\": ", "1: one\n", deep.as_str()] {
            assert!(canonical(document).is_err(), "{document}");
        }
    }
}
