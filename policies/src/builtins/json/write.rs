//! Values to JSON that is safe inside of HTML, as Go writes it.

use std::collections::BTreeMap;

use regorus::Value;

use crate::builtins::printf;

/// A text in the making.
struct Writer<'a> {
    text: String,
    /// What each line begins with, and one step to the right; `None` for one line.
    lines: Option<(&'a str, &'a str)>,
    depth: usize,
}

/// On one line.
pub(super) fn compact(value: &Value) -> String {
    let mut writer = Writer {
        text: String::new(),
        lines: None,
        depth: 0,
    };
    writer.value(value);
    writer.text
}

/// A line for each member.
pub(super) fn pretty(value: &Value, prefix: &str, indent: &str) -> String {
    let mut writer = Writer {
        text: prefix.to_owned(),
        lines: Some((prefix, indent)),
        depth: 0,
    };
    writer.value(value);
    writer.text
}

impl Writer<'_> {
    fn value(&mut self, value: &Value) {
        match value {
            Value::Null | Value::Undefined => self.text.push_str("null"),
            Value::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            number @ Value::Number(_) => self.text.push_str(&printf::number(number)),
            Value::String(text) => self.string(text),
            Value::Array(items) => self.list(items.iter()),
            Value::Set(items) => self.list(items.iter_sorted()),
            Value::Object(members) => {
                let members = members.iter_sorted();
                let members = members.map(|(name, value)| match name {
                    Value::String(name) => (name.to_string(), value),
                    other => (compact(other), value),
                });
                // In the order of their names as texts.
                let members: BTreeMap<String, &Value> = members.collect();
                self.nested('{', '}', members.iter(), |writer, (name, value)| {
                    writer.string(name);
                    writer.text.push(':');
                    if writer.lines.is_some() {
                        writer.text.push(' ');
                    }
                    writer.value(value);
                });
            }
        }
    }

    fn list<'v>(&mut self, items: impl Iterator<Item = &'v Value>) {
        self.nested('[', ']', items, |writer, item| writer.value(item));
    }

    fn nested<T>(
        &mut self,
        open: char,
        close: char,
        items: impl Iterator<Item = T>,
        write: impl Fn(&mut Self, T),
    ) {
        self.text.push(open);
        self.depth = self.depth.saturating_add(1);
        let mut first = true;
        for item in items {
            if !std::mem::take(&mut first) {
                self.text.push(',');
            }
            self.line();
            write(self, item);
        }
        self.depth = self.depth.saturating_sub(1);
        if !first {
            self.line();
        }
        self.text.push(close);
    }

    fn line(&mut self) {
        if let Some((prefix, indent)) = self.lines {
            self.text.push('\n');
            self.text.push_str(prefix);
            self.text.push_str(&indent.repeat(self.depth));
        }
    }

    fn string(&mut self, text: &str) {
        self.text.push('"');
        for character in text.chars() {
            match character {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{C}' => self.text.push_str("\\f"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..' ' => {
                    let code = u32::from(character);
                    self.text.push_str(&format!("\\u{code:04x}"));
                }
                plain => self.text.push(plain),
            }
        }
        self.text.push('"');
    }
}
