//! `not`, above all of what has no value; and what is refused because the engine would allow what
//! OPA does not.

use serde_json::json;

use super::{Answer, Evaluators};

/// Conditions, each with the rules that it needs.
const CONDITIONS: [(&str, &str); 68] = [
    ("not startswith(input.tenant, \"evil\")", ""),
    ("not startswith(input.user, \"evil\")", ""),
    ("not input.nope in [\"a\"]", ""),
    ("not input.user in input.nope", ""),
    ("not \"a\" in nope", "nope := 1 if false"),
    ("not blocked(input.nope)", "blocked(x) if x == 1"),
    ("not blocked(input.user)", "blocked(x) if x == 1"),
    ("not input.nope > 3", ""),
    ("not input.nope != \"a\"", ""),
    ("not input.nope == 1", ""),
    ("not input.nope", ""),
    ("not input.nope.x", ""),
    ("not input.o[input.nope]", ""),
    ("not input.o[input.user]", ""),
    ("not data.roles[input.user]", ""),
    ("not data.roles[input.nope]", ""),
    ("not io.jwt.decode(\"bad\")[1].admin", ""),
    ("not lower(input.nope) == \"evil\"", ""),
    ("not lower(input.user) == \"evil\"", ""),
    ("not [input.nope] == [1]", ""),
    ("not {\"a\": input.nope} == {\"a\": 1}", ""),
    ("not {input.nope} == {1}", ""),
    ("not to_number(\"s\") == 3", ""),
    ("not to_number(\"s\")", ""),
    ("not net.cidr_contains(\"10.0.0.0/8\", input.nope)", ""),
    ("not regex.match(\"x\", input.nope)", ""),
    ("not input.list[0] + input.nope == 3", ""),
    ("not input.list[0] + 1 == 3", ""),
    ("not input.list[0] + 1 > 3", ""),
    ("not -input.nope == 1", ""),
    ("not input.nope == input.nope2", ""),
    ("not input.o.a == helper", "helper := 1 if false"),
    ("not helper == input.o.a", "helper := 1 if false"),
    ("not helper", "helper := 1 if false"),
    ("not helper(1)", "helper(x) := 2 if x == 2"),
    ("not count([1 | input.nope]) == 1", ""),
    ("not count({x | some x in input.nope}) > 0", ""),
    (
        "count([x | some x in input.list; not startswith(input.nope, \"a\")]) == 0",
        "",
    ),
    ("not input.f", ""),
    ("not input.n", ""),
    ("not is_null(input.n)", ""),
    ("not f(input.f)", "f(x) if x == true"),
    ("not input.o[\"a\"] == 1", ""),
    ("not input.list[input.o.a] == 2", ""),
    ("not input.list[helper] == 2", "helper := 1 if false"),
    (
        "not any_bad",
        "any_bad if { some x in input.roles; x.role == \"admin\" }",
    ),
    ("not count(input.nope) == 0", ""),
    ("not count(input.list) == 0", ""),
    ("not input.user == input.o[input.nope]", ""),
    ("not (input.nope == 1)", ""),
    ("not input.nope in {\"a\": 1}", ""),
    ("not \"k\", input.nope in {\"k\": 1}", ""),
    ("not f(input.nope) with input.nope as 1", "f(x) if x == 2"),
    ("not f(input.nope) with input.user as 1", "f(x) if x == 2"),
    (
        "not startswith(input.nope, \"a\") with input as {\"nope\": \"b\"}",
        "",
    ),
    ("not time.parse_rfc3339_ns(input.nope) > 0", ""),
    (
        "not f(g(input.user))",
        "f(x) if x == 2\ng(x) := 1 if x == 2",
    ),
    ("not array.concat(input.list, [input.nope]) == [1]", ""),
    ("not sprintf(\"%s\", [input.nope]) == \"a\"", ""),
    ("not sprintf(\"%s\", [input.user]) == \"a\"", ""),
    ("not object.get(input, \"nope\", \"d\") == \"x\"", ""),
    ("not object.get(input.nope, \"nope\", \"d\") == \"x\"", ""),
    (
        "x := input.user; not x == \"a\"; not startswith(x, \"y\")",
        "",
    ),
    ("some x in input.list; not x in input.nope", ""),
    ("some x in input.list; not x > 5", ""),
    ("not input.list == [1, input.nope]", ""),
    ("not {1} & input.nope == {1}", ""),
    ("not union({{1}, input.nope}) == {1}", ""),
];

/// Conditions that do not hold in OPA, or are refused there as well.
const REFUSED: [&str; 8] = [
    "every x in input.list { x = 5 }",
    "every x in input.list { some y in [5]; y = x }",
    "{\"a\": y} := input.o; y == 1",
    "some {\"role\": r} in input.roles; r == \"admin\"",
    "[{\"a\": y}] = [input.o]; y == 1",
    "not input.list[_] == 1",
    "some i; not input.list[i] == 5",
    "[p, v] := walk(input.o); v == 2",
];

fn evaluators(test: &str) -> Option<Evaluators> {
    let input = json!({
        "user": "x", "admin": true, "f": false, "n": null, "s": "str",
        "roles": [{"role": "admin", "tenant": "other"}],
        "list": [1, 2], "o": {"a": 1, "b": 2},
    });
    Evaluators::new(test, &input)
}

#[test]
fn what_has_no_value_is_negated_as_in_opa() {
    let Some(evaluators) = evaluators("what_has_no_value_is_negated_as_in_opa") else {
        return;
    };
    for (condition, rules) in CONDITIONS {
        let [theirs, ours] = evaluators.ask(&format!("answer if {{ {condition} }}\n{rules}"));
        assert_eq!(theirs, ours, "{condition}");
        assert!(
            !matches!(theirs, Answer::Error(_)),
            "{condition}: {theirs:?}"
        );
    }
}

#[test]
fn what_would_be_allowed_here_alone_is_refused() {
    let Some(evaluators) = evaluators("what_would_be_allowed_here_alone_is_refused") else {
        return;
    };
    for condition in REFUSED {
        let [_, ours] = evaluators.ask(&format!("answer if {{ {condition} }}"));
        let Answer::Error(text) = ours else {
            panic!("{condition}: {ours:?}");
        };
        assert!(text.contains("SG0291"), "{condition}: {text}");
    }
}
