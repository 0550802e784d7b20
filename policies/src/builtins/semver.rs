//! Semantic versions, as OPA reads them: with a `v` before, if one likes.

use std::cmp::Ordering;

use regorus::Value;

use super::values::text;

/// A version; what comes after `+` does not count.
struct Version<'a> {
    numbers: [i64; 3],
    /// Empty for a release.
    pre_release: &'a str,
}

/// `semver.compare(left, right)`: -1, 0 or 1.
pub(super) fn compare(arguments: &[Value]) -> Option<Value> {
    let [left, right] = arguments else {
        return None;
    };
    let (left, right) = (Version::parse(text(left)?)?, Version::parse(text(right)?)?);
    Some(Value::from(match left.order(&right) {
        Ordering::Less => -1_i64,
        Ordering::Equal => 0,
        Ordering::Greater => 1,
    }))
}

/// `semver.is_valid(version)`: false of what is no string.
pub(super) fn is_valid(arguments: &[Value]) -> Option<Value> {
    let [version] = arguments else { return None };
    Some(text(version).and_then(Version::parse).is_some().into())
}

impl<'a> Version<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let text = match text.split_once('+') {
            Some((text, metadata)) => are_identifiers(metadata).then_some(text)?,
            None => text,
        };
        let (numbers, pre_release) = match text.split_once('-') {
            Some((numbers, pre_release)) => {
                let valid = are_identifiers(pre_release)
                    && pre_release.split('.').all(|identifier| {
                        !is_number(identifier) || identifier == "0" || !identifier.starts_with('0')
                    });
                (numbers, valid.then_some(pre_release)?)
            }
            None => (text, ""),
        };
        let mut parts = numbers.split('.').map(number);
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        parts.next().is_none().then_some(Self {
            numbers,
            pre_release,
        })
    }

    fn order(&self, other: &Self) -> Ordering {
        let numbers = self.numbers.cmp(&other.numbers);
        numbers.then_with(|| match (self.pre_release, other.pre_release) {
            ("", "") => Ordering::Equal,
            ("", _) => Ordering::Greater,
            (_, "") => Ordering::Less,
            (left, right) => {
                let (mut left, mut right) = (left.split('.'), right.split('.'));
                loop {
                    let order = match (left.next(), right.next()) {
                        (None, None) => return Ordering::Equal,
                        (None, Some(_)) => Ordering::Less,
                        (Some(_), None) => Ordering::Greater,
                        (Some(left), Some(right)) => order_identifiers(left, right),
                    };
                    if order.is_ne() {
                        return order;
                    }
                }
            }
        })
    }
}

/// Numbers before words.
fn order_identifiers(left: &str, right: &str) -> Ordering {
    match (is_number(left), is_number(right)) {
        // Numbers of more than 64 bits are the largest of 64 bits.
        (true, true) => saturated(left).cmp(&saturated(right)),
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => left.cmp(right),
    }
}

fn saturated(digits: &str) -> i64 {
    digits.parse().unwrap_or(i64::MAX)
}

fn number(digits: &str) -> Option<i64> {
    let plain = is_number(digits) && (digits == "0" || !digits.starts_with('0'));
    plain.then(|| digits.parse().ok())?
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn are_identifiers(text: &str) -> bool {
    text.split('.').all(|identifier| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        !identifier.is_empty() && identifier.bytes().all(known)
    })
}
