//! Operators and builtins over all pairs of a list of values. What fails for a pair is left out.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::{Answer, Evaluators};

/// Of one operand.
const UNARY: [&str; 44] = [
    "-x",
    "abs(x)",
    "ceil(x)",
    "floor(x)",
    "round(x)",
    "to_number(x)",
    "count(x)",
    "sum(x)",
    "product(x)",
    "min(x)",
    "max(x)",
    "sort(x)",
    "upper(x)",
    "lower(x)",
    "trim_space(x)",
    "strings.reverse(x)",
    "type_name(x)",
    "is_number(x)",
    "is_string(x)",
    "is_array(x)",
    "is_object(x)",
    "is_set(x)",
    "is_boolean(x)",
    "is_null(x)",
    "json.marshal(x)",
    "json.unmarshal(x)",
    "json.is_valid(x)",
    "yaml.unmarshal(x)",
    "base64.encode(x)",
    "base64.decode(x)",
    "base64url.encode(x)",
    "base64url.decode(x)",
    "hex.encode(x)",
    "hex.decode(x)",
    "urlquery.encode(x)",
    "urlquery.decode(x)",
    "units.parse(x)",
    "units.parse_bytes(x)",
    "semver.is_valid(x)",
    "object.keys(x)",
    "bits.negate(x)",
    "time.parse_duration_ns(x)",
    "time.parse_rfc3339_ns(x)",
    "net.cidr_is_valid(x)",
];

/// Of two.
const BINARY: [&str; 53] = [
    "x == y",
    "x != y",
    "x < y",
    "x <= y",
    "x > y",
    "x >= y",
    "x in y",
    "x[y]",
    "{x} & {y}",
    "{x} | {y}",
    "{x, y} - {y}",
    "array.concat(x, y)",
    "concat(x, y)",
    "contains(x, y)",
    "startswith(x, y)",
    "endswith(x, y)",
    "indexof(x, y)",
    "indexof_n(x, y)",
    "split(x, y)",
    "trim(x, y)",
    "trim_left(x, y)",
    "trim_right(x, y)",
    "trim_prefix(x, y)",
    "trim_suffix(x, y)",
    "strings.count(x, y)",
    "format_int(x, y)",
    "sprintf(\"%v %v\", [x, y])",
    "sprintf(x, [y])",
    "sprintf(\"%d|%5d|%x\", [x, y, x])",
    "sprintf(\"%s|%q|%5s\", [x, y, x])",
    "sprintf(\"%.2f|%e|%g\", [x, y, x])",
    "replace(x, y, \"-\")",
    "substring(x, y, 2)",
    "substring(\"abcdef\", x, y)",
    "array.slice([1, 2, 3], x, y)",
    "object.get(x, y, \"none\")",
    "object.union(x, y)",
    "object.remove(x, y)",
    "object.filter(x, y)",
    "object.subset(x, y)",
    "json.filter(x, y)",
    "json.remove(x, y)",
    "glob.match(x, [], y)",
    "glob.match(x, null, y)",
    "glob.match(x, [\".\"], y)",
    "regex.match(x, y)",
    "regex.split(x, y)",
    "regex.find_n(x, y, 2)",
    "regex.replace(x, y, \"-\")",
    "semver.compare(x, y)",
    "net.cidr_contains(x, y)",
    "bits.and(x, y)",
    "bits.or(x, y)",
];

/// Of two numbers. With anything else the engine fails, where OPA is undefined.
const BINARY_OF_NUMBERS: [&str; 4] = ["x + y", "x - y", "x * y", "x / y"];

/// Of two whole numbers, for the same reason: 1e3 is none to the engine.
const BINARY_OF_WHOLE_NUMBERS: [&str; 1] = ["x % y"];

/// Of two small numbers.
const BINARY_OF_SMALL: [&str; 4] = [
    "numbers.range(x, y)",
    "numbers.range_step(x, y, 2)",
    "bits.lsh(x, y)",
    "bits.rsh(x, y)",
];

/// Where they differ, for which operands (none named: for all), and why that is left.
const EXPLAINED: [(&str, &[&str], &str); 6] = [
    (
        "-x",
        &[],
        "the engine takes a minus before literals only, and refuses the policy",
    ),
    (
        "units.parse_bytes(x)",
        &["\"1.5\""],
        "half a byte is rounded",
    ),
    ("bits.negate(x)", &["1e+21"], "bits of 64-bit numbers only"),
    ("bits.and(x, y)", &["1e+21"], "bits of 64-bit numbers only"),
    ("bits.or(x, y)", &["1e+21"], "bits of 64-bit numbers only"),
    (
        "replace(x, y, \"-\")",
        &["\"\""],
        "between characters, not between bytes",
    ),
];

fn values() -> Value {
    json!([
        null, true, false, 0, 1, -1, 2, 7, 1.5, -2.5, 1e3, 1e21, 0.1, 12345678901234567890_u64,
        "", "a", "Ab", "ü", "abc", "b", "1", "1.5", "-3", "0x10", "10.0.0.0/8", "10.1.2.3",
        "fd00::/8", "a.b", "a.*", "a**", "*", "^a+$", "[ab]", "{a,b}", "a b", "1.2.3", "1.10.0-rc",
        "true", "{\"a\": 1}", "YQ==", "YQ", "61", "a%20b+c", "1Mi", "10K", "1h30m",
        "2026-11-22T10:00:00.5Z", "%v", "%", "\t",
        [], [1, 2], ["b", "a"], [[1], "x"], ["a", "b"],
        {}, {"a": 1}, {"a": {"b": 2}, "c": [3]}, {"1": "one"}
    ])
}

#[test]
fn operators_and_builtins_give_the_same_for_all_values() {
    let input = json!({ "values": values() });
    let Some(evaluators) = Evaluators::new("operators_and_builtins", &input) else {
        return;
    };
    let mut wrong = Vec::new();
    let unary = UNARY.map(|of| (of, "some i, x in input.values; j := 0"));
    let binary = BINARY.map(|of| (of, "some i, x in input.values; some j, y in input.values"));
    let numbers = BINARY_OF_NUMBERS.map(|of| {
        let operands = "some i, x in input.values; is_number(x); \
                        some j, y in input.values; is_number(y)";
        (of, operands)
    });
    let whole = BINARY_OF_WHOLE_NUMBERS.map(|of| {
        let operands = "some i, x in input.values; x == floor(x); abs(x) < 999; \
                        some j, y in input.values; y == floor(y); abs(y) < 999";
        (of, operands)
    });
    let small = BINARY_OF_SMALL.map(|of| {
        let operands = "some i, x in input.values; some j, y in input.values; abs(x) + abs(y) < 99";
        (of, operands)
    });
    let pairs = binary.into_iter().chain(numbers).chain(whole).chain(small);
    for (expression, operands) in unary.into_iter().chain(pairs) {
        let rules = format!("answer := [[i, j, z] | {operands}; z := {expression}]");
        let explained: Vec<&str> = EXPLAINED
            .iter()
            .filter(|(of, _, _)| *of == expression)
            .flat_map(|(_, operands, _)| operands.iter().copied())
            .collect();
        let is_explained = EXPLAINED.iter().any(|(of, _, _)| *of == expression);
        let differences = unlike(&evaluators.ask(&rules));
        let count = differences.len();
        let left: Vec<_> = differences
            .into_iter()
            .filter(|(x, y, _)| {
                !is_explained
                    || !(explained.is_empty()
                        || [x, y].iter().any(|of| explained.contains(&of.as_str())))
            })
            .map(|(_, _, line)| line)
            .take(9)
            .collect();
        if !left.is_empty() {
            wrong.push(format!("{expression}: {}", left.join("; ")));
        }
        if is_explained && count == 0 {
            wrong.push(format!(
                "{expression}: they agree, yet a difference is explained"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The operands for which the two differ, as JSON, and how.
fn unlike([theirs, ours]: &[Answer; 2]) -> Vec<(String, String, String)> {
    let (Answer::Value(theirs), Answer::Value(ours)) = (theirs, ours) else {
        if theirs.is(ours) {
            return Vec::new();
        }
        let [theirs, ours] = [theirs, ours].map(|answer| match answer {
            Answer::Value(_) => "has a value",
            Answer::Undefined => "is undefined",
            Answer::Error(text) => text.as_str(),
        });
        let line = format!("OPA {theirs}, Sidegate {ours}");
        return vec![(String::new(), String::new(), line)];
    };
    let [theirs, ours] = [theirs, ours].map(results);
    let keys: BTreeSet<_> = theirs.keys().chain(ours.keys()).collect();
    let values = values();
    keys.into_iter()
        .filter(|key| theirs.get(*key) != ours.get(*key))
        .map(|key| {
            let [x, y] = [key.0, key.1].map(|index| values[index].to_string());
            let shown = |of: Option<&Value>| of.map_or("nothing".to_owned(), Value::to_string);
            let (theirs, ours) = (shown(theirs.get(key)), shown(ours.get(key)));
            let line = format!("of {x} and {y} theirs {theirs}, ours {ours}");
            (x, y, line)
        })
        .collect()
}

/// Results by the indices of their operands.
fn results(list: &Value) -> BTreeMap<(usize, usize), Value> {
    let index = |value: &Value| value.as_f64().expect("an index") as usize;
    let entries = list.as_array().into_iter().flatten();
    entries
        .map(|entry| ((index(&entry[0]), index(&entry[1])), entry[2].clone()))
        .collect()
}
