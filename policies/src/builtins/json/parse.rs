//! JSON to values, with integers of any size.

use std::collections::BTreeMap;

use regorus::Value;

/// How many arrays and objects may be inside each other. Whoever compares or
/// drops values goes down as deep.
const DEPTH: usize = 128;

/// How many digits a number has at most, exponent included: those of the
/// largest float.
const DIGITS: usize = 400;

/// A document that is read.
pub(super) struct Parser<'a> {
    rest: &'a str,
    depth: usize,
    /// Numbers that cannot be held are well-formed all the same.
    only_syntax: bool,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            depth: 0,
            only_syntax: false,
        }
    }

    /// The value, if it is the whole text.
    pub(super) fn document(mut self) -> Option<Value> {
        let value = self.value()?;
        self.space();
        self.rest.is_empty().then_some(value)
    }

    /// Whether the text is JSON.
    pub(super) fn syntax(mut self) -> Option<()> {
        self.only_syntax = true;
        self.document().map(drop)
    }

    fn value(&mut self) -> Option<Value> {
        self.space();
        if self.eat("null") {
            return Some(Value::Null);
        }
        if self.eat("true") {
            return Some(Value::Bool(true));
        }
        if self.eat("false") {
            return Some(Value::Bool(false));
        }
        match self.rest.chars().next()? {
            '"' => self.string().map(Value::from),
            '[' => self.nested(Self::array),
            '{' => self.nested(Self::object),
            _ => self.number(),
        }
    }

    fn nested(&mut self, inner: impl FnOnce(&mut Self) -> Option<Value>) -> Option<Value> {
        self.depth = self.depth.checked_add(1).filter(|depth| *depth <= DEPTH)?;
        let value = inner(self);
        self.depth = self.depth.saturating_sub(1);
        value
    }

    fn array(&mut self) -> Option<Value> {
        self.expect("[")?;
        let mut items = Vec::new();
        if !self.token("]") {
            loop {
                items.push(self.value()?);
                if self.token("]") {
                    break;
                }
                self.expect(",")?;
            }
        }
        Some(Value::from(items))
    }

    fn object(&mut self) -> Option<Value> {
        self.expect("{")?;
        let mut members = BTreeMap::new();
        if !self.token("}") {
            loop {
                self.space();
                let name = self.string()?;
                self.expect(":")?;
                members.insert(Value::from(name), self.value()?);
                if self.token("}") {
                    break;
                }
                self.expect(",")?;
            }
        }
        Some(Value::from(members))
    }

    fn number(&mut self) -> Option<Value> {
        let known =
            |next: char| next.is_ascii_digit() || matches!(next, '-' | '+' | '.' | 'e' | 'E');
        let end = self.rest.find(|next| !known(next));
        let (number, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        let unsigned = number.strip_prefix('-').unwrap_or(number);
        let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
            Some((mantissa, exponent)) => (
                mantissa,
                Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent)),
            ),
            None => (unsigned, None),
        };
        let (whole, fraction) = match mantissa.split_once('.') {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (mantissa, None),
        };
        let plain = is_digits(whole) && (whole == "0" || !whole.starts_with('0'));
        if !plain || ![fraction, exponent].into_iter().flatten().all(is_digits) {
            return None;
        }
        if self.only_syntax {
            return Some(Value::Null);
        }
        let float = number.parse::<f64>().ok()?;
        if float == 0.0 {
            return Some(Value::from(0_u64));
        }
        let exact = float.is_finite() || (exponent.is_none() && whole.len() <= DIGITS);
        exact.then(|| Value::from_numeric_string(number).ok())?
    }

    fn string(&mut self) -> Option<String> {
        self.rest = self.rest.strip_prefix('"')?;
        let mut text = String::new();
        loop {
            let end = self
                .rest
                .find(|next| next < ' ' || matches!(next, '"' | '\\'))?;
            let (plain, rest) = self.rest.split_at(end);
            text.push_str(plain);
            if let Some(rest) = rest.strip_prefix('"') {
                self.rest = rest;
                return Some(text);
            }
            self.rest = rest.strip_prefix('\\')?;
            text.push(self.escape()?);
        }
    }

    /// What follows a backslash.
    fn escape(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let escape = characters.next()?;
        self.rest = characters.as_str();
        Some(match escape {
            '"' | '\\' | '/' => escape,
            'b' => '\u{8}',
            'f' => '\u{C}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => {
                let unit = self.unit()?;
                let before = self.rest;
                let second = match unit {
                    0xD800..0xDC00 if self.eat("\\u") => Some(self.unit()?),
                    _ => None,
                };
                let units = [Some(unit), second].into_iter().flatten();
                match char::decode_utf16(units).next()? {
                    Ok(character) => character,
                    Err(_) => {
                        // The second stands for itself.
                        self.rest = before;
                        char::REPLACEMENT_CHARACTER
                    }
                }
            }
            _ => return None,
        })
    }

    fn unit(&mut self) -> Option<u16> {
        let (digits, rest) = self.rest.split_at_checked(4)?;
        self.rest = rest;
        let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        hexadecimal.then(|| u16::from_str_radix(digits, 16).ok())?
    }

    fn expect(&mut self, token: &str) -> Option<()> {
        self.token(token).then_some(())
    }

    fn token(&mut self, token: &str) -> bool {
        self.space();
        self.eat(token)
    }

    fn eat(&mut self, text: &str) -> bool {
        let rest = self.rest.strip_prefix(text);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\n', '\r']);
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}
