//! `time.parse_duration_ns`: `1h30m`, with the days, weeks and years that OPA
//! adds.

use regorus::Value;

use crate::builtins::values::text;

const HOUR: u64 = 3_600_000_000_000;

/// Nanoseconds by unit.
const UNITS: &[(&str, u64)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", HOUR),
];

/// Hours by unit.
const LONG_UNITS: &[(&str, f64)] = &[("d", 24.0), ("w", 168.0), ("y", 8760.0)];

/// `time.parse_duration_ns(duration)`.
pub(in super::super) fn parse_duration(arguments: &[Value]) -> Option<Value> {
    let [duration] = arguments else { return None };
    let duration = text(duration)?;
    let negative = duration.starts_with('-');
    let mut rest = duration.strip_prefix(['+', '-']).unwrap_or(duration);
    if rest == "0" {
        return Some(Value::from(0_u64));
    }
    let mut sum = (!rest.is_empty()).then_some(0_u64)?;
    while !rest.is_empty() {
        let digit = |next: char| next.is_ascii_digit() || next == '.';
        let (digits, after) = rest.split_at(rest.find(|next| !digit(next))?);
        let (unit, after) = after.split_at(after.find(digit).unwrap_or(after.len()));
        rest = after;
        let part = match LONG_UNITS.iter().find(|(name, _)| *name == unit) {
            Some((_, hours)) => {
                // One point at most, and a digit.
                let days = digits.parse::<f64>().ok()?;
                nanoseconds(&(days * hours).to_string(), HOUR)?
            }
            None => {
                let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit)?;
                nanoseconds(digits, *factor)?
            }
        };
        sum = sum.checked_add(part).filter(|sum| *sum <= 1 << 63)?;
    }
    let sum = if negative {
        -i128::from(sum)
    } else {
        i128::from(sum)
    };
    i64::try_from(sum).ok().map(Value::from)
}

/// A decimal number of a unit. Digits of the fraction that 64 bits do not hold
/// do not count.
fn nanoseconds(digits: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let known = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !known(fraction) {
        return None;
    }
    let whole = match whole {
        "" => 0,
        digits => digits.parse::<u64>().ok()?,
    };
    let (mut part, mut scale) = (0_u64, 1.0_f64);
    for digit in fraction.chars().map_while(|digit| digit.to_digit(10)) {
        let next = part
            .checked_mul(10)
            .and_then(|part| part.checked_add(digit.into()));
        let Some(next) = next.filter(|next| *next <= 1 << 63) else {
            break;
        };
        part = next;
        scale *= 10.0;
    }
    let part = (part as f64 * (unit as f64 / scale)) as u64;
    let sum = whole.checked_mul(unit)?.checked_add(part)?;
    (sum <= 1 << 63).then_some(sum)
}
