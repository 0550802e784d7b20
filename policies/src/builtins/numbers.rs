//! Numbers: rounded, from texts and to texts as OPA does, and ranges of them. The
//! engine's own ranges reserve memory for whatever they are asked for, and panic
//! on a step of zero.

use regorus::Value;

/// How many numbers a range holds at most.
const RANGE: u128 = 100_000;

/// `numbers.range(first, last)`.
pub(super) fn range(arguments: &[Value]) -> Option<Value> {
    let [first, last] = arguments else {
        return None;
    };
    between(integer(first)?, integer(last)?, 1)
}

/// `numbers.range_step(first, last, step)`, upwards or downwards.
pub(super) fn range_step(arguments: &[Value]) -> Option<Value> {
    let [first, last, step] = arguments else {
        return None;
    };
    between(integer(first)?, integer(last)?, integer(step)?)
}

/// `floor(number)`. What is between -1 and 0 becomes 0, as in OPA.
pub(super) fn floor(arguments: &[Value]) -> Option<Value> {
    rounded(
        arguments,
        |number, whole| number == whole || whole >= 0.0,
        -1.0,
    )
}

/// `ceil(number)`. What is between -1 and 0 becomes 1, as in OPA.
pub(super) fn ceil(arguments: &[Value]) -> Option<Value> {
    rounded(
        arguments,
        |number, whole| number == whole || whole < 0.0,
        1.0,
    )
}

/// `to_number(value)`: of null, a boolean, a number or the text of one, in Go's
/// syntax.
pub(super) fn to_number(arguments: &[Value]) -> Option<Value> {
    match arguments {
        [Value::Null | Value::Bool(false)] => Some(Value::from(0_u64)),
        [Value::Bool(true)] => Some(Value::from(1_u64)),
        [number @ Value::Number(_)] => Some(number.clone()),
        [Value::String(text)] => parse(text),
        _ => None,
    }
}

/// `format_int(number, base)`; a fraction is left out.
pub(super) fn format_int(arguments: &[Value]) -> Option<Value> {
    let [Value::Number(number), base] = arguments else {
        return None;
    };
    let base = u32::try_from(base.as_i64().ok()?).ok()?;
    if ![2, 8, 10, 16].contains(&base) {
        return None;
    }
    let whole = match (number.as_big(), number.as_f64()) {
        (Some(whole), _) => whole,
        (None, Some(float)) => {
            let whole = Value::from_numeric_string(&float.trunc().to_string()).ok()?;
            let Value::Number(whole) = whole else {
                return None;
            };
            whole.as_big()?
        }
        (None, None) => return None,
    };
    Some(whole.to_str_radix(base).into())
}

/// A number without its fraction, and one more or less where that is not it.
fn rounded(arguments: &[Value], is_it: impl Fn(f64, f64) -> bool, step: f64) -> Option<Value> {
    let [value @ Value::Number(number)] = arguments else {
        return None;
    };
    if number.is_integer() {
        return Some(value.clone());
    }
    let number = number.as_f64()?;
    // A number with a fraction is small.
    let whole = number.trunc() + 0.0;
    let whole = if is_it(number, whole) {
        whole
    } else {
        whole + step
    };
    Value::from_numeric_string(&(whole + 0.0).to_string()).ok()
}

/// A number as Go's `strconv.ParseFloat` takes it.
fn parse(text: &str) -> Option<Value> {
    let negative = text.starts_with('-');
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let digits = unsigned.strip_prefix("0x");
    let digits = digits.or_else(|| unsigned.strip_prefix("0X"));
    if !underscores_are_between_digits(digits.unwrap_or(unsigned), digits.is_some()) {
        return None;
    }
    let plain = digits.unwrap_or(unsigned).replace('_', "");
    if digits.is_some() {
        let number = hexadecimal(&plain)?;
        return Some(Value::from(if negative { -number } else { number }));
    }
    let known = |next: char| next.is_ascii_digit() || matches!(next, '.' | 'e' | 'E' | '+' | '-');
    if plain.starts_with(['+', '-']) || !plain.chars().all(known) {
        return None;
    }
    // What is larger than any float is no number, however it is written.
    let float = plain.parse::<f64>().ok()?;
    if float == 0.0 {
        return Some(Value::from(0_u64));
    }
    let sign = if negative { "-" } else { "" };
    float
        .is_finite()
        .then(|| Value::from_numeric_string(&format!("{sign}{plain}")).ok())?
}

/// The prefix of hexadecimal digits counts as a digit.
fn underscores_are_between_digits(text: &str, hexadecimal: bool) -> bool {
    let base = if hexadecimal { 16 } else { 10 };
    let mut after_digit = hexadecimal;
    let mut after_underscore = false;
    for next in text.chars() {
        let digit = next.is_digit(base);
        let underscore = next == '_';
        if (underscore && !after_digit) || (after_underscore && !digit) {
            return false;
        }
        (after_digit, after_underscore) = (digit, underscore);
    }
    !after_underscore
}

/// `1.8p3` in hexadecimal digits: the exponent is of two, and must be there.
fn hexadecimal(text: &str) -> Option<f64> {
    let (mantissa, exponent) = text.split_once(['p', 'P'])?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(&digits, 16).ok()?;
    let below = i32::try_from(fraction.len()).ok()?.checked_mul(4)?;
    let exponent = exponent.parse::<i32>().ok()?.checked_sub(below)?;
    let number = number as f64 * 2_f64.powi(exponent);
    number.is_finite().then_some(number)
}

fn between(first: i128, last: i128, step: i128) -> Option<Value> {
    if step <= 0 {
        return None;
    }
    if first.abs_diff(last).checked_div(step.unsigned_abs())? >= RANGE {
        return None;
    }
    let mut numbers = Vec::new();
    let mut next = Some(first);
    let (lowest, highest) = (first.min(last), first.max(last));
    while let Some(number) = next.filter(|number| (lowest..=highest).contains(number)) {
        numbers.push(Value::from(number));
        next = if first <= last {
            number.checked_add(step)
        } else {
            number.checked_sub(step)
        };
    }
    Some(Value::from(numbers))
}

fn integer(value: &Value) -> Option<i128> {
    value.as_i128().ok()
}
