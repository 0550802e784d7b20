//! `sprintf`: Go's `fmt.Sprintf`, as OPA calls it.
//!
//! What does not fit is told in the text, as Go does (`%!d(string=a)`,
//! `%!s(MISSING)`): a rule whose message has a wrong format still has a
//! message.

mod float;
mod operand;
mod print;
mod quote;

use regorus::Value;

use super::values::text;
use operand::Operand;
use print::{Flags, Printer};

/// How many characters a width or a precision stands for at most; Go takes as
/// many of an operand.
const WIDTH: usize = 1_000_000;

/// How long the text may become, in bytes.
const LENGTH: usize = 4 * 1024 * 1024;

/// `sprintf(format, operands)`.
pub(super) fn sprintf(arguments: &[Value]) -> Option<Value> {
    let [format, Value::Array(operands)] = arguments else {
        return None;
    };
    let operands: Vec<Operand> = operands.iter().map(Operand::new).collect();
    let mut formatter = Formatter {
        rest: text(format)?,
        operands: &operands,
        next: 0,
        reordered: false,
        index_is_good: true,
        printer: Printer::default(),
    };
    formatter.format()?;
    Some(formatter.printer.text.into())
}

/// A number as it mostly stands in JSON and in policies.
pub(super) fn number(value: &Value) -> String {
    match Operand::new(value) {
        Operand::Int(number) => number.to_string(),
        Operand::Float(number) => match number.abs() {
            0.0 => "0.0".to_owned(),
            // From there on floats are whole, and mostly come from longer digits.
            1e-6..9_007_199_254_740_992.0 => format!("{number:?}"),
            9_007_199_254_740_992.0..1e21 => number.to_string(),
            _ => float::digits(number, 'e', None).replace("e-0", "e-"),
        },
        Operand::Text(text) => text.into_owned(),
        big @ Operand::Big { .. } => big.digits(10),
    }
}

/// A format on its way through its operands.
struct Formatter<'a> {
    /// What of the format is not read yet.
    rest: &'a str,
    operands: &'a [Operand<'a>],
    /// The operand whose turn it is.
    next: usize,
    /// Whether any directive has named its operand.
    reordered: bool,
    /// Whether this directive names an operand that is there.
    index_is_good: bool,
    printer: Printer,
}

impl Formatter<'_> {
    fn format(&mut self) -> Option<()> {
        while let Some((before, after)) = self.rest.split_once('%') {
            self.printer.text.push_str(before);
            self.rest = after;
            self.directive()?;
            if self.printer.text.len() > LENGTH {
                return None;
            }
        }
        self.printer.text.push_str(self.rest);
        self.extra()
    }

    /// What follows `%`. `None` where the text would become too long.
    fn directive(&mut self) -> Option<()> {
        self.printer.flags = Flags::default();
        self.index_is_good = true;
        self.flags();
        let mut indexed = self.index();
        if self.eat('*') {
            self.width_of_operand();
            indexed = false;
        } else {
            let width = self.number()?;
            self.printer.flags.width = width;
            if indexed && width.is_some() {
                self.index_is_good = false;
            }
        }
        // A point at the very end is the verb.
        if self.rest.len() > 1 && self.eat('.') {
            if indexed {
                self.index_is_good = false;
            }
            indexed = self.index();
            if self.eat('*') {
                self.precision_of_operand();
                indexed = false;
            } else {
                let precision = self.number()?;
                self.printer.flags.precision = Some(precision.unwrap_or(0));
            }
        }
        if !indexed {
            self.index();
        }
        self.verb();
        Some(())
    }

    fn verb(&mut self) {
        let mut characters = self.rest.chars();
        let Some(verb) = characters.next() else {
            self.printer.text.push_str("%!(NOVERB)");
            return;
        };
        self.rest = characters.as_str();
        let operand = self.operands.get(self.next);
        match operand {
            _ if verb == '%' => self.printer.text.push('%'),
            _ if !self.index_is_good => {
                self.printer.text.push_str(&format!("%!{verb}(BADINDEX)"));
            }
            None => self.printer.text.push_str(&format!("%!{verb}(MISSING)")),
            Some(operand) => {
                if matches!(verb, 'v' | 'w') {
                    let flags = &mut self.printer.flags;
                    flags.go_syntax = std::mem::take(&mut flags.alternate);
                    flags.plus_value = std::mem::take(&mut flags.plus);
                }
                self.printer.operand(operand, verb);
                self.next = self.next.saturating_add(1);
            }
        }
    }

    /// Operands that no directive has taken.
    fn extra(&mut self) -> Option<()> {
        let rest = self.operands.get(self.next..).unwrap_or_default();
        if self.reordered || rest.is_empty() {
            return Some(());
        }
        self.printer.flags = Flags::default();
        self.printer.text.push_str("%!(EXTRA ");
        for (index, operand) in rest.iter().enumerate() {
            if index > 0 {
                self.printer.text.push_str(", ");
            }
            self.printer.text.push_str(operand.kind());
            self.printer.text.push('=');
            self.printer.operand(operand, 'v');
            if self.printer.text.len() > LENGTH {
                return None;
            }
        }
        self.printer.text.push(')');
        Some(())
    }

    fn flags(&mut self) {
        let flags = &mut self.printer.flags;
        let mut characters = self.rest.chars();
        loop {
            self.rest = characters.as_str();
            match characters.next() {
                Some('#') => flags.alternate = true,
                Some('0') => flags.zero = true,
                Some('+') => flags.plus = true,
                Some('-') => flags.minus = true,
                Some(' ') => flags.space = true,
                _ => return,
            }
        }
    }

    /// `[2]`, which makes the second operand the next. Whether it was there and a number.
    fn index(&mut self) -> bool {
        let Some(rest) = self.rest.strip_prefix('[') else {
            return false;
        };
        self.reordered = true;
        let Some((number, after)) = rest.split_once(']') else {
            self.rest = rest;
            self.index_is_good = false;
            return false;
        };
        self.rest = after;
        let digits = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        let place = number.parse::<usize>().unwrap_or(usize::MAX);
        if digits && (1..=self.operands.len()).contains(&place) {
            self.next = place.saturating_sub(1);
            return true;
        }
        self.index_is_good = false;
        digits && place <= WIDTH
    }

    fn width_of_operand(&mut self) {
        let number = self.number_of_operand();
        let Some(number) = number else {
            self.printer.text.push_str("%!(BADWIDTH)");
            return;
        };
        let flags = &mut self.printer.flags;
        if number < 0 {
            flags.minus = true;
            flags.zero = false;
        }
        flags.width = usize::try_from(number.unsigned_abs()).ok();
    }

    fn precision_of_operand(&mut self) {
        let number = self.number_of_operand();
        let precision = number.and_then(|number| usize::try_from(number).ok());
        self.printer.flags.precision = precision;
        if precision.is_none() {
            self.printer.text.push_str("%!(BADPREC)");
        }
    }

    /// The next operand, if it is a number that is not too large.
    fn number_of_operand(&mut self) -> Option<i64> {
        let operand = self.operands.get(self.next)?;
        self.next = self.next.saturating_add(1);
        let Operand::Int(number) = operand else {
            return None;
        };
        let most = u64::try_from(WIDTH).unwrap_or(u64::MAX);
        (number.unsigned_abs() <= most).then_some(*number)
    }

    /// Digits. `None` where they stand for more than anything may be long; Go
    /// takes a little more.
    fn number(&mut self) -> Option<Option<usize>> {
        let end = self.rest.find(|next: char| !next.is_ascii_digit());
        let (digits, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        if digits.is_empty() {
            return Some(None);
        }
        self.rest = rest;
        let number = digits.parse::<usize>().ok();
        number.filter(|number| *number <= WIDTH).map(Some)
    }

    fn eat(&mut self, character: char) -> bool {
        let rest = self.rest.strip_prefix(character);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }
}

#[cfg(test)]
mod tests;
