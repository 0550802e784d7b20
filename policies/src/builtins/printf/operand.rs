//! What `sprintf` prints: Rego values as Go has them.

use std::borrow::Cow;

use regorus::Value;

use super::quote;

/// An operand.
#[derive(Debug)]
pub(super) enum Operand<'a> {
    Int(i64),
    /// An integer of more than 64 bits.
    Big {
        number: &'a Value,
    },
    Float(f64),
    /// A string, or anything else as Rego writes it.
    Text(Cow<'a, str>),
}

impl<'a> Operand<'a> {
    pub(super) fn new(value: &'a Value) -> Self {
        match value {
            Value::Number(number) => match (number.as_big(), number.as_i64(), number.as_f64()) {
                // Only of a float that holds a whole number there are digits after its point.
                (Some(_), _, Some(float)) if number.format_decimal_with_width(1).contains('.') => {
                    Self::Float(float)
                }
                (Some(_), Some(number), _) => Self::Int(number),
                (Some(_), None, _) => Self::Big { number: value },
                (None, _, Some(number)) => Self::Float(number),
                (None, _, None) => Self::Text(number.format_decimal().into()),
            },
            Value::String(text) => Self::Text(text.as_ref().into()),
            other => Self::Text(term(other).into()),
        }
    }

    /// Go's name of its type.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "int64",
            Self::Big { .. } => "*big.Int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
        }
    }

    /// The digits of a large integer; of anything else none.
    pub(super) fn digits(&self, base: u32) -> String {
        let Self::Big {
            number: Value::Number(number),
        } = self
        else {
            return String::new();
        };
        let number = number.as_big();
        number.map_or_else(String::new, |number| number.to_str_radix(base))
    }
}

/// A value as Rego writes it.
pub(super) fn term(value: &Value) -> String {
    let mut text = String::new();
    write(value, &mut text);
    text
}

fn write(value: &Value, text: &mut String) {
    match value {
        Value::Null => text.push_str("null"),
        Value::Bool(value) => text.push_str(if *value { "true" } else { "false" }),
        Value::Number(_) => text.push_str(&super::number(value)),
        Value::String(string) => text.push_str(&quote::string(string, false)),
        Value::Array(items) => {
            text.push('[');
            list(items.iter(), text);
            text.push(']');
        }
        Value::Set(items) if items.is_empty() => text.push_str("set()"),
        Value::Set(items) => {
            text.push('{');
            list(items.iter_sorted(), text);
            text.push('}');
        }
        Value::Object(members) => {
            text.push('{');
            for (index, (key, value)) in members.iter_sorted().enumerate() {
                if index > 0 {
                    text.push_str(", ");
                }
                write(key, text);
                text.push_str(": ");
                write(value, text);
            }
            text.push('}');
        }
        Value::Undefined => {}
    }
}

fn list<'a>(items: impl Iterator<Item = &'a Value>, text: &mut String) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push_str(", ");
        }
        write(item, text);
    }
}
