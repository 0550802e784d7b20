//! `time.parse_rfc3339_ns`, which is no laxer than Go: `T` and `Z` are upper
//! case, a minute has no second 60, a comma may stand for the point.

use chrono::{NaiveDate, NaiveDateTime};
use regorus::Value;

use crate::builtins::values::text;

/// `time.parse_rfc3339_ns(time)`.
pub(in super::super) fn parse_rfc3339(arguments: &[Value]) -> Option<Value> {
    let [time] = arguments else { return None };
    let mut reader = Reader { rest: text(time)? };
    let local = reader.date_and_time()?;
    let offset = reader.offset()?;
    reader.rest.is_empty().then_some(())?;
    let nanoseconds = local
        .checked_sub_signed(chrono::TimeDelta::try_seconds(offset)?)?
        .and_utc()
        .timestamp_nanos_opt()?;
    Some(Value::from(nanoseconds))
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn date_and_time(&mut self) -> Option<NaiveDateTime> {
        let year = i32::try_from(self.number(4)?).ok()?;
        self.expect("-")?;
        let month = self.number(2)?;
        self.expect("-")?;
        let day = self.number(2)?;
        self.expect("T")?;
        let hour = self.hour()?;
        self.expect(":")?;
        let minute = self.number(2)?;
        self.expect(":")?;
        let second = self.number(2)?;
        let nanosecond = self.fraction()?;
        NaiveDate::from_ymd_opt(year, month, day)?
            .and_hms_nano_opt(hour, minute, second, nanosecond)
    }

    /// Go takes an hour of one digit.
    fn hour(&mut self) -> Option<u32> {
        let one = self.rest.as_bytes().get(1) == Some(&b':');
        self.number(if one { 1 } else { 2 })
    }

    /// Nanoseconds; further digits do not count.
    fn fraction(&mut self) -> Option<u32> {
        let Some(rest) = self.rest.strip_prefix(['.', ',']) else {
            return Some(0);
        };
        let end = rest.find(|next: char| !next.is_ascii_digit());
        let (digits, rest) = rest.split_at(end.unwrap_or(rest.len()));
        if digits.is_empty() {
            return None;
        }
        self.rest = rest;
        let nine = digits.bytes().chain(std::iter::repeat(b'0')).take(9);
        let nine = nine.map(char::from).collect::<String>();
        nine.parse().ok()
    }

    /// Seconds east.
    fn offset(&mut self) -> Option<i64> {
        if self.expect("Z").is_some() {
            return Some(0);
        }
        let sign = if self.expect("-").is_some() {
            -1
        } else {
            self.expect("+")?;
            1
        };
        let hours = self.number(2)?;
        self.expect(":")?;
        let minutes = self.number(2)?;
        let seconds = hours
            .checked_mul(60)?
            .checked_add(minutes)?
            .checked_mul(60)?;
        (hours <= 24 && minutes <= 60).then(|| i64::from(seconds).checked_mul(sign))?
    }

    fn number(&mut self, digits: usize) -> Option<u32> {
        let (number, rest) = self.rest.split_at_checked(digits)?;
        self.rest = rest;
        let plain = number.bytes().all(|byte| byte.is_ascii_digit());
        plain.then(|| number.parse().ok())?
    }

    fn expect(&mut self, text: &str) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }
}
