//! Expressions, one a line of a file, each as both evaluate it.

use serde_json::{Value, json};

use super::{Answer, Evaluators};

const EXPRESSIONS: &str = include_str!("expressions.txt");

/// Where they differ, and why that is left.
const EXPLAINED: &[(&str, &str)] = &[
    (
        r#"sprintf("%d", [1e20])"#,
        "a literal with an exponent is a whole number",
    ),
    (
        r#"sprintf("%v", [1e300])"#,
        "a literal with an exponent is a whole number",
    ),
    (
        "json.marshal(1e21)",
        "a literal with an exponent is a whole number",
    ),
    (
        "json.marshal(0.0000001)",
        "numbers keep no digits as they were written",
    ),
    (
        r#"sprintf("%v", [{"k\n": "ü\u0001\"<", 1: 2.50, "big": 123456789012345678901, "f": 0.1}])"#,
        "numbers keep no digits as they were written",
    ),
    ("{} < set()", "sets come before objects"),
    (
        r#"sort([3,"a",null,true,[1],{"a":1},{1}])"#,
        "sets come before objects",
    ),
    (r#"yaml.marshal({"a":[1,"x"]})"#, "lists are not indented"),
    (
        r#"time.parse_duration_ns("1μs1d")"#,
        "OPA takes one of the two letters only beside days",
    ),
    (
        r#"yaml.unmarshal("[0x1F, 0o17, 017, 0b11, 1_000, +1, -1, 08, 1., .5, 1e3, 1E3, +.5]")"#,
        "numbers with a zero before or with underscores are texts",
    ),
    (
        r#"yaml.unmarshal("a: !foo 1\nb: !!str 1\nc: !!int '1'\nd: !!float 1")"#,
        "a tag of one's own says nothing",
    ),
    (
        r#"yaml.unmarshal("a: !!binary aGk=")"#,
        "a tag of one's own says nothing",
    ),
    (
        r#"regex.match("(?P<a>x)(?P<a>y)", "xy")"#,
        "a name is for one group",
    ),
    (
        r#"regex.match("(a{500}){3}", "a")"#,
        "Go counts repetitions within repetitions",
    ),
];

#[test]
fn expressions_have_the_same_values() {
    let Some(evaluators) = Evaluators::new("expressions", &json!({})) else {
        return;
    };
    let expressions: Vec<&str> = EXPRESSIONS.lines().collect();
    assert!(expressions.len() > 900, "{}", expressions.len());
    let rules = expressions.iter().enumerate().map(|(index, expression)| {
        format!("answer[\"{index}\"] := found if found := {expression}")
    });
    let rules = rules.collect::<Vec<String>>().join("\n");
    let answers = evaluators.ask(&rules);
    let [Answer::Value(theirs), Answer::Value(ours)] = &answers else {
        panic!("both have a value: {answers:?}");
    };
    let mut wrong = Vec::new();
    for (index, expression) in expressions.iter().enumerate() {
        let [theirs, ours] = [theirs, ours].map(|all| all.get(index.to_string()));
        let explained = EXPLAINED.iter().any(|(known, _)| known == expression);
        if (theirs == ours) == explained {
            let shown = |of: Option<&Value>| of.map_or("nothing".to_owned(), Value::to_string);
            let (theirs, ours) = (shown(theirs), shown(ours));
            wrong.push(format!("{expression}: theirs {theirs}, ours {ours}"));
        }
    }
    for (known, _) in EXPLAINED {
        if !expressions.contains(known) {
            wrong.push(format!("{known}: is not asked"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
