//! One operand, printed by a verb and its flags.

use super::operand::Operand;
use super::{float, quote};

/// What stands between `%` and the verb.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flags {
    pub(super) plus: bool,
    pub(super) minus: bool,
    /// `#`.
    pub(super) alternate: bool,
    pub(super) space: bool,
    pub(super) zero: bool,
    /// `#` before `v`, where it means something else.
    pub(super) go_syntax: bool,
    /// `+` before `v`.
    pub(super) plus_value: bool,
    pub(super) width: Option<usize>,
    pub(super) precision: Option<usize>,
}

/// What is printed so far, and the flags of the directive that prints.
#[derive(Default)]
pub(super) struct Printer {
    pub(super) text: String,
    pub(super) flags: Flags,
}

impl Printer {
    /// Prints an operand; where the verb is none for it, that.
    pub(super) fn operand(&mut self, operand: &Operand, verb: char) {
        match (verb, operand) {
            ('T', _) => self.string(operand.kind()),
            // Where in memory it is nobody should know.
            ('p' | 'w', Operand::Big { .. }) => self.text.push_str(&bad_big(operand, verb)),
            ('p' | 'w', _) => self.bad(operand, verb),
            (_, Operand::Int(number)) => self.integer(operand, *number, verb),
            (_, Operand::Big { .. }) => self.big(operand, verb),
            (_, Operand::Float(number)) => self.float(operand, *number, verb),
            (_, Operand::Text(text)) => self.textual(operand, text, verb),
        }
    }

    fn bad(&mut self, operand: &Operand, verb: char) {
        self.text.push_str(&format!("%!{verb}({}=", operand.kind()));
        self.operand(operand, 'v');
        self.text.push(')');
    }

    fn textual(&mut self, operand: &Operand, text: &str, verb: char) {
        match verb {
            'v' if self.flags.go_syntax => self.quoted(text),
            'v' | 's' => self.string(text),
            'q' => self.quoted(text),
            'x' | 'X' => self.bytes(text, verb),
            _ => self.bad(operand, verb),
        }
    }

    /// As much of a text as the precision allows.
    fn string(&mut self, text: &str) {
        let text = self.truncated(text).to_owned();
        self.pad(&text, self.flags.zero);
    }

    fn quoted(&mut self, text: &str) {
        let text = self.truncated(text);
        let quoted = if self.flags.alternate && quote::can_be_raw(text) {
            format!("`{text}`")
        } else {
            quote::string(text, self.flags.plus)
        };
        self.pad(&quoted, self.flags.zero);
    }

    fn truncated<'a>(&self, text: &'a str) -> &'a str {
        let end = self
            .flags
            .precision
            .and_then(|precision| text.char_indices().nth(precision));
        end.and_then(|(end, _)| text.get(..end)).unwrap_or(text)
    }

    /// The bytes of a text in hexadecimal digits.
    fn bytes(&mut self, text: &str, verb: char) {
        let length = self.flags.precision.unwrap_or(usize::MAX);
        let prefix = if verb == 'X' { "0X" } else { "0x" };
        let mut digits = String::new();
        for (index, byte) in text.bytes().take(length).enumerate() {
            let first = index == 0;
            if self.flags.space && !first {
                digits.push(' ');
            }
            if self.flags.alternate && (first || self.flags.space) {
                digits.push_str(prefix);
            }
            digits.push_str(&if verb == 'X' {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            });
        }
        self.pad(&digits, self.flags.zero);
    }

    fn integer(&mut self, operand: &Operand, number: i64, verb: char) {
        // As a character, a negative number is one that is too large.
        let code = u32::try_from(number).ok().and_then(char::from_u32);
        let character = code.unwrap_or(char::REPLACEMENT_CHARACTER);
        match verb {
            'v' | 'd' | 'b' | 'o' | 'O' | 'x' | 'X' => self.number(number, verb),
            'c' => self.pad(&character.to_string(), self.flags.zero),
            'q' => {
                let quoted = quote::character(character, self.flags.plus);
                self.pad(&quoted, self.flags.zero);
            }
            'U' => {
                let digits = self.flags.precision.unwrap_or(0).max(4);
                let mut text = format!("{:X}", number.cast_unsigned());
                text = format!("U+{}{text}", zeros(digits, text.len()));
                if let Some(code) = code.filter(|code| quote::is_printable(*code))
                    && self.flags.alternate
                {
                    text.push_str(&format!(" '{code}'"));
                }
                self.pad(&text, false);
            }
            _ => self.bad(operand, verb),
        }
    }

    fn number(&mut self, number: i64, verb: char) {
        let flags = self.flags;
        let magnitude = number.unsigned_abs();
        let sign = flags.sign(number < 0);
        let least = match (flags.precision, flags.width) {
            (Some(0), _) if magnitude == 0 => return self.pad("", false),
            (Some(precision), _) => precision,
            (None, Some(width)) if flags.zero && !flags.minus => width.saturating_sub(sign.len()),
            (None, _) => 0,
        };
        let digits = match verb {
            'b' => format!("{magnitude:b}"),
            'o' | 'O' => format!("{magnitude:o}"),
            'x' => format!("{magnitude:x}"),
            'X' => format!("{magnitude:X}"),
            _ => magnitude.to_string(),
        };
        let digits = zeros(least, digits.len()) + &digits;
        let octal = match verb {
            'o' | 'O' if flags.alternate && !digits.starts_with('0') => "0",
            _ => "",
        };
        let prefix = match verb {
            'b' | 'x' | 'X' if flags.alternate => prefix(verb),
            'O' => "0o",
            _ => "",
        };
        self.pad(&format!("{sign}{prefix}{octal}{digits}"), false);
    }

    /// Integers of more than 64 bits print themselves, a little differently.
    fn big(&mut self, operand: &Operand, verb: char) {
        let base = match verb {
            'b' => 2,
            'o' | 'O' => 8,
            'd' | 's' | 'v' => 10,
            'x' | 'X' => 16,
            _ => return self.text.push_str(&bad_big(operand, verb)),
        };
        let flags = self.flags;
        let number = operand.digits(base);
        let digits = number.trim_start_matches('-');
        let sign = Flags {
            plus: flags.plus || flags.plus_value,
            ..flags
        }
        .sign(number.starts_with('-'));
        let digits = if verb == 'X' {
            digits.to_ascii_uppercase()
        } else {
            digits.to_owned()
        };
        let prefix = match verb {
            'O' => "0o",
            'b' | 'o' | 'x' | 'X' if flags.alternate => prefix(verb),
            _ => "",
        };
        let mut digits = zeros(flags.precision.unwrap_or(0), digits.len()) + &digits;
        if flags.zero && !flags.minus && flags.precision.is_none() {
            let width = flags.width.unwrap_or(0);
            let width = width.saturating_sub(sign.len().saturating_add(prefix.len()));
            digits = zeros(width, digits.len()) + &digits;
        }
        self.pad(&format!("{sign}{prefix}{digits}"), false);
    }

    fn float(&mut self, operand: &Operand, number: f64, verb: char) {
        let flags = self.flags;
        let (form, precision) = match verb {
            'v' => ('g', None),
            'b' | 'g' | 'G' | 'x' | 'X' => (verb, None),
            'f' | 'e' | 'E' => (verb, Some(6)),
            'F' => ('f', Some(6)),
            _ => return self.bad(operand, verb),
        };
        let precision = flags.precision.or(precision);
        let sign = flags.sign(number.is_sign_negative() && !number.is_nan());
        if !number.is_finite() {
            let sign = if number.is_infinite() && sign.is_empty() {
                "+"
            } else {
                sign
            };
            let name = if number.is_nan() { "NaN" } else { "Inf" };
            return self.pad(&format!("{sign}{name}"), false);
        }
        let mut digits = float::digits(number.abs(), form, precision);
        if flags.alternate && form != 'b' {
            digits = float::with_point(&digits, form, precision);
        }
        let width = flags.width.unwrap_or(0);
        if flags.zero && !flags.minus && !sign.is_empty() {
            digits = zeros(width.saturating_sub(sign.len()), digits.len()) + &digits;
        }
        self.pad(&format!("{sign}{digits}"), flags.zero);
    }

    /// A text, filled up to the width; on its left with zeros, if so asked.
    fn pad(&mut self, text: &str, zero: bool) {
        let width = self.flags.width.unwrap_or(0);
        let missing = width.saturating_sub(text.chars().count());
        let fill = |character| std::iter::repeat_n(character, missing);
        if self.flags.minus {
            self.text.push_str(text);
            self.text.extend(fill(' '));
        } else {
            self.text.extend(fill(if zero { '0' } else { ' ' }));
            self.text.push_str(text);
        }
    }
}

impl Flags {
    fn sign(self, negative: bool) -> &'static str {
        match self {
            _ if negative => "-",
            Self { plus: true, .. } => "+",
            Self { space: true, .. } => " ",
            _ => "",
        }
    }
}

fn prefix(verb: char) -> &'static str {
    match verb {
        'b' => "0b",
        'o' => "0",
        'X' => "0X",
        _ => "0x",
    }
}

/// The zeros that are missing before so many digits.
fn zeros(wanted: usize, present: usize) -> String {
    "0".repeat(wanted.saturating_sub(present))
}

/// What a large integer says to a verb that it does not know.
fn bad_big(operand: &Operand, verb: char) -> String {
    format!("%!{verb}(big.Int={})", operand.digits(10))
}
