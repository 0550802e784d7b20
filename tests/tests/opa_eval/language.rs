//! Small policies, each for a part of the language.

use serde_json::json;

use super::Evaluators;

/// Rules by name. What is asked is `answer`.
const CASES: [(&str, &str); 60] = [
    ("a constant", "answer := 1"),
    (
        "a default",
        "default answer := false\nanswer if input.absent",
    ),
    ("undefined", "answer if input.absent"),
    ("not undefined", "answer if not input.absent"),
    ("not false", "answer if not input.no"),
    (
        "an else",
        "answer := 1 if input.no else := 2 if input.yes else := 3",
    ),
    (
        "a conflict",
        "answer := 1 if input.yes\nanswer := 2 if input.yes",
    ),
    (
        "no conflict of equals",
        "answer := 1 if input.yes\nanswer := 1 if input.list",
    ),
    (
        "a set by parts",
        "answer contains x if some x in input.list\nanswer contains 9",
    ),
    (
        "an object by parts",
        "answer[k] := v if some k, v in input.object",
    ),
    (
        "an object by parts in conflict",
        "answer.a := 1\nanswer.a := 2 if input.yes",
    ),
    (
        "nested parts",
        "answer[k][i] := v if { some k in [\"x\", \"y\"]; some i, v in input.list }",
    ),
    ("every", "answer if every x in input.list { x > 0 }"),
    ("every of nothing", "answer if every x in [] { x > 0 }"),
    (
        "every of what is undefined",
        "answer if every x in input.absent { x > 0 }",
    ),
    (
        "every that fails",
        "answer if every x in input.list { x > 1 }",
    ),
    (
        "every with keys",
        "answer if every k, v in input.object { startswith(v, k) }",
    ),
    (
        "some with keys",
        "answer := [k | some k, v in input.object; v != \"a1\"]",
    ),
    (
        "in",
        "answer := [2 in input.list, 7 in input.list, \"a1\" in input.object]",
    ),
    (
        "in with keys",
        "answer := [\"a\", \"a1\"] in [[k, v] | some k, v in input.object]",
    ),
    (
        "an array by comprehension",
        "answer := [y | some x in input.list; y := x * 2]",
    ),
    (
        "a set by comprehension",
        "answer := {y | some x in input.list; y := x % 2}",
    ),
    (
        "an object by comprehension",
        "answer := {k: count(v) | some k, v in input.object}",
    ),
    (
        "an object in conflict",
        "answer := {\"k\": v | some v in input.list}",
    ),
    ("a function", "f(x) := x + 1\nanswer := f(1)"),
    (
        "a function by pattern",
        "f(1) := \"one\"\nf(x) := \"more\" if x > 1\nanswer := [f(1), f(2)]",
    ),
    (
        "a function that is undefined",
        "f(x) := 1 if x > 5\nanswer := f(2)",
    ),
    (
        "a default function",
        "default f(_) := 0\nf(x) := 1 if x > 5\nanswer := [f(2), f(9)]",
    ),
    (
        "a function in conflict",
        "f(x) := x\nf(x) := x + 1\nanswer := f(1)",
    ),
    (
        "a function with an else",
        "f(x) := 1 if x > 5 else := 2\nanswer := [f(6), f(1)]",
    ),
    (
        "an error in one of two rules",
        "answer if to_number(input.text) > 1\nanswer if input.yes",
    ),
    (
        "arithmetic on text in one of two rules",
        "answer if input.text + 1 > 1\nanswer if input.yes",
    ),
    (
        "a division by zero in one of two rules",
        "answer if 1 / input.zero > 1\nanswer if input.yes",
    ),
    ("a minus of a variable", "answer := -input.zero"),
    (
        "with",
        "f := input.yes\nanswer := [f, x] if x := f with input.yes as 7",
    ),
    (
        "with on data",
        "answer := x if x := data.other with data.other as {\"a\": 1}",
    ),
    (
        "with on a function",
        "answer := x if x := count([1]) with count as 5",
    ),
    (
        "unification",
        "answer := [a, b] if [a, [b, 3]] = [1, [2, 3]]",
    ),
    ("unification that fails", "answer := a if [a, 4] = [1, 3]"),
    (
        "unification with input",
        "answer := x if {\"a\": x, \"b\": \"b1\"} = input.object",
    ),
    (
        "destructuring of another length",
        "answer := a if [a, b] = input.list",
    ),
    (
        "a reference through a variable",
        "answer := {i | input.list[i] == 2}",
    ),
    (
        "a reference that is dynamic",
        "key := \"a\"\nanswer := input.object[key]",
    ),
    (
        "a reference to nothing",
        "answer := object.get(input, [\"object\", \"z\"], \"none\")",
    ),
    ("negative indices", "answer := input.list[-1]"),
    ("an index of text", "answer := input.text[0]"),
    (
        "comparison across types",
        "answer := sort([\"a\", 1, null, true, [1], {\"a\": 1}, false, -1])",
    ),
    ("sets of sets", "answer := {{1, 2}, {2, 1}, {3}}"),
    ("strings", "answer := [`a\\n`, \"\\u00fc\", \"a\\tb\"]"),
    (
        "strings with expressions",
        "answer := $\"{1 + 1}-{input.text}\"",
    ),
    ("numbers with a rest", "answer := [0.1 + 0.2, 1 / 3]"),
    (
        "numbers",
        "answer := [1e3, 10 / 4, 7 % 3, 100000000000000000000 + 1]",
    ),
    (
        "walk",
        "answer := {concat(\"/\", [sprintf(\"%v\", [p]) | some p in path]) | walk(input.object, [path, _])}",
    ),
    (
        "graphs",
        "answer := graph.reachable({\"a\": [\"b\"], \"b\": [\"c\"], \"c\": []}, {\"a\"})",
    ),
    (
        "json paths",
        "answer := json.patch(input.object, [{\"op\": \"add\", \"path\": \"/z\", \"value\": 1}])",
    ),
    ("recursion", "answer if answer"),
    ("an unsafe variable", "answer if x == 1"),
    (
        "an unsafe variable under some",
        "answer if { some x; [x, 1] == input.list }",
    ),
    (
        "an assignment to text",
        "answer := b if { [\"a\", b] := [\"a\", 1] }",
    ),
    ("an unknown function", "answer := no.such(1)"),
];

/// Where they differ, and why that is left.
const EXPLAINED: [(&str, &str); 6] = [
    (
        "unification with input",
        "the engine's object patterns hold of larger objects: the policy is refused",
    ),
    (
        "arithmetic on text in one of two rules",
        "the engine fails where OPA is undefined: a request is denied",
    ),
    (
        "a minus of a variable",
        "the engine takes a minus before literals only, and refuses the policy",
    ),
    (
        "strings with expressions",
        "the engine does not know them, and refuses the policy",
    ),
    (
        "an unsafe variable under some",
        "the engine takes it, as undefined",
    ),
    (
        "an assignment to text",
        "the engine takes it, as a comparison",
    ),
];

#[test]
fn each_part_of_the_language_means_the_same() {
    let input = json!({
        "yes": true, "no": false, "zero": 0, "text": "text",
        "list": [1, 2, 3], "object": {"a": "a1", "b": "b1"},
    });
    let Some(evaluators) = Evaluators::new("each_part_of_the_language", &input) else {
        return;
    };
    let mut wrong = Vec::new();
    for (name, rules) in CASES {
        let [theirs, ours] = evaluators.ask(rules);
        let explanation = EXPLAINED.iter().find(|(of, _)| *of == name);
        match (theirs.is(&ours), explanation) {
            (true, None) | (false, Some(_)) => {}
            (true, Some((_, why))) => wrong.push(format!("{name}: they agree, yet: {why}")),
            (false, None) => {
                wrong.push(format!("{name}: theirs {theirs:?}, ours {ours:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
