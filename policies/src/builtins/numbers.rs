//! Ranges of numbers. The engine's own reserve memory for whatever range they
//! are asked for, and panic on a step of zero.

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
