//! `time.add_date` and `time.diff`: the engine's own have other lengths of
//! months, and do not bring two times into one zone.

use chrono::{
    DateTime, Datelike, Local, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike,
};
use chrono_tz::Tz;
use regorus::Value;

use crate::builtins::values::text;

/// How many years, months or days are added at most; more leave the times that
/// are counted in nanoseconds.
const SPAN: i64 = 1_000_000;

/// Where a time is looked at.
enum Zone {
    Machine,
    Named(Tz),
}

/// `time.add_date(time, years, months, days)`: the 31st of a shorter month is
/// in the next.
pub(in super::super) fn add_date(arguments: &[Value]) -> Option<Value> {
    let [time, years, months, days] = arguments else {
        return None;
    };
    let (time, zone) = time_and_zone(time)?;
    let local = zone.local(&time)?;
    let [years, months, days] = [span(years)?, span(months)?, span(days)?];
    let month = i64::from(local.month0()).checked_add(months)?;
    let year = i64::from(local.year())
        .checked_add(years)?
        .checked_add(month.div_euclid(12))?;
    let month = u32::try_from(month.rem_euclid(12)).ok()?.checked_add(1)?;
    let first = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, month, 1)?;
    let days = days.checked_add(i64::from(local.day0()))?;
    let date = first.checked_add_signed(TimeDelta::try_days(days)?)?;
    let time = zone.instant(date.and_time(local.time()))?;
    time.and_utc().timestamp_nanos_opt().map(Value::from)
}

/// `time.diff(left, right)`: years, months, days, hours, minutes and seconds
/// between two times, both in the zone of the first.
pub(in super::super) fn difference(arguments: &[Value]) -> Option<Value> {
    let [left, right] = arguments else {
        return None;
    };
    let ((left, zone), (right, _)) = (time_and_zone(left)?, time_and_zone(right)?);
    let (first, last) = if left <= right {
        (left, right)
    } else {
        (right, left)
    };
    let (first, last) = (zone.local(&first)?, zone.local(&last)?);
    let mut parts = [
        i64::from(last.year()) - i64::from(first.year()),
        i64::from(last.month()) - i64::from(first.month()),
        i64::from(last.day()) - i64::from(first.day()),
        i64::from(last.hour()) - i64::from(first.hour()),
        i64::from(last.minute()) - i64::from(first.minute()),
        i64::from(last.second()) - i64::from(first.second()),
    ];
    let sizes = [0, 12, days_in_month(first)?, 24, 60, 60];
    let mut borrowed = 0;
    for (part, size) in parts.iter_mut().zip(sizes).rev() {
        *part = part.checked_sub(borrowed)?;
        borrowed = i64::from(*part < 0);
        *part = part.checked_add(borrowed.checked_mul(size)?)?;
    }
    Some(Value::from(parts.map(Value::from).to_vec()))
}

impl Zone {
    /// What clocks show.
    fn local(&self, time: &NaiveDateTime) -> Option<NaiveDateTime> {
        time.checked_add_signed(self.offset(time)?)
    }

    /// When clocks show something. Of two times that is one of them, and of none
    /// one that is near, as in Go.
    fn instant(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        let near = local.checked_sub_signed(self.offset(&local)?)?;
        local.checked_sub_signed(self.offset(&near)?)
    }

    /// What clocks are ahead by.
    fn offset(&self, time: &NaiveDateTime) -> Option<TimeDelta> {
        let offset = match self {
            Self::Machine => Local.offset_from_utc_datetime(time).fix(),
            Self::Named(zone) => zone.offset_from_utc_datetime(time).fix(),
        };
        TimeDelta::try_seconds(offset.local_minus_utc().into())
    }
}

/// Nanoseconds since 1970, or an array of them, the name of a zone and a layout.
fn time_and_zone(value: &Value) -> Option<(NaiveDateTime, Zone)> {
    let (time, zone) = match value {
        Value::Array(parts) => match parts.as_slice() {
            [time] => (time, "UTC"),
            [time, zone] => (time, text(zone)?),
            [time, zone, layout, ..] => (time, text(layout).and(text(zone))?),
            [] => return None,
        },
        time => (time, "UTC"),
    };
    let zone = match zone {
        "" | "UTC" => Zone::Named(Tz::UTC),
        "Local" => Zone::Machine,
        name => Zone::Named(name.parse().ok()?),
    };
    let time = DateTime::from_timestamp_nanos(time.as_i64().ok()?);
    Some((time.naive_utc(), zone))
}

fn span(value: &Value) -> Option<i64> {
    let span = value.as_i64().ok()?;
    (-SPAN..=SPAN).contains(&span).then_some(span)
}

fn days_in_month(time: NaiveDateTime) -> Option<i64> {
    let first = time.date().with_day(1)?;
    // The 32nd is in the next month.
    let next = first.checked_add_signed(TimeDelta::try_days(31)?)?;
    Some(32_i64.saturating_sub(next.day().into()))
}
