use regorus::Value;

use super::*;

fn integer(value: Option<Value>) -> Option<i64> {
    value.map(|value| value.as_i64().unwrap())
}

#[test]
fn durations_have_days_weeks_and_years() {
    let day: i64 = 86_400_000_000_000;
    for (duration, expected) in [
        ("1d", Some(day)),
        ("1w1d", Some(8 * day)),
        ("1y", Some(365 * day)),
        ("-1.5d", Some(-day * 3 / 2)),
        ("1d2h30m", Some(day + 9_000_000_000_000)),
        ("1h1ns", Some(3_600_000_000_001)),
        (".5s", Some(500_000_000)),
        ("1.s", Some(1_000_000_000)),
        ("1µs1us1μs", Some(3_000)),
        ("0", Some(0)),
        ("+0", Some(0)),
        ("-9223372036854775808ns", Some(i64::MIN)),
        ("9223372036854775808ns", None),
        ("300y", None),
        ("1", None),
        ("", None),
        ("-", None),
        (".d", None),
        ("1..5h", None),
        ("1x", None),
        ("1 d", None),
        ("d", None),
    ] {
        assert_eq!(
            integer(parse_duration(&[Value::from(duration)])),
            expected,
            "{duration}"
        );
    }
}

#[test]
fn times_are_strict() {
    for (time, expected) in [
        ("2020-01-01T00:00:00Z", Some(1_577_836_800_000_000_000)),
        (
            "2020-01-01T01:00:00.5+01:00",
            Some(1_577_836_800_500_000_000),
        ),
        (
            "2020-01-01T00:00:00,123456789123Z",
            Some(1_577_836_800_123_456_789),
        ),
        ("2020-01-01T0:00:00Z", Some(1_577_836_800_000_000_000)),
        ("2020-01-01 00:00:00Z", None),
        ("2020-01-01t00:00:00z", None),
        ("2016-12-31T23:59:60Z", None),
        ("2020-02-30T00:00:00Z", None),
        ("2020-01-01T00:00:00", None),
        ("2020-01-01T00:00:00.Z", None),
        ("9999-01-01T00:00:00Z", None),
    ] {
        assert_eq!(
            integer(parse_rfc3339(&[Value::from(time)])),
            expected,
            "{time}"
        );
    }
}

#[test]
fn dates_are_added_and_subtracted_in_their_zone() {
    let json = |text: &str| Value::from_json_str(text).unwrap();
    let sum = |time: &str, added: [i64; 3]| {
        let [years, months, days] = added.map(Value::from);
        integer(add_date(&[json(time), years, months, days]))
    };
    let january_31 = "1580428800000000000";
    assert_eq!(sum(january_31, [0, 1, 0]), Some(1_583_107_200_000_000_000));
    // The day of 23 hours.
    let before = r#"[1585436400000000000, "Europe/Berlin"]"#;
    assert_eq!(sum(before, [0, 0, 1]), Some(1_585_519_200_000_000_000));
    assert_eq!(sum("0", [400, 0, 0]), None);
    let apart = |left: &str, right: &str| difference(&[json(left), json(right)]);
    assert_eq!(
        apart(
            r#"[0, "America/New_York"]"#,
            r#"[1000000000000000000, "UTC"]"#
        ),
        Some(json("[31, 8, 8, 2, 46, 40]"))
    );
    assert_eq!(apart("0", r#"[0, "Nowhere"]"#), None);
}
