use serde_json::json;

use super::*;

/// What is left of `event` after one rule, in the fields that rules touch.
fn masked(event: Json, rules: Json) -> Json {
    let mut found = Event::for_test(event.get("input").cloned(), event.get("result").cloned());
    apply(MaskRule::list(rules).unwrap(), &mut found);
    let mut left = Map::new();
    if let Some(input) = found.input {
        left.insert("input".into(), input);
    }
    if let Some(result) = found.result {
        left.insert("result".into(), result);
    }
    for (list, rules) in [("erased", found.erased), ("masked", found.masked)] {
        if !rules.is_empty() {
            left.insert(list.into(), rules.into());
        }
    }
    left.into()
}

fn upserts(path: &str, value: Json) -> Json {
    json!([{"op": "upsert", "path": path, "value": value}])
}

#[test]
fn rules_hide_what_opa_hides() {
    let deep = json!({"input": {"foo": [{"bar": [1, 2], "baz": 2}]}});
    let cases = [
        (
            json!({"input": {"a": 1}}),
            json!(["/input"]),
            json!({"erased": ["/input"]}),
        ),
        (
            json!({"input": {"a": 1}}),
            upserts("/input", json!({"b": "c"})),
            json!({"input": {"b": "c"}, "masked": ["/input"]}),
        ),
        (
            json!({"result": "foo"}),
            json!(["/result"]),
            json!({"erased": ["/result"]}),
        ),
        (
            json!({"result": "foo"}),
            upserts("/result", json!("new")),
            json!({"result": "new", "masked": ["/result"]}),
        ),
        (
            json!({}),
            json!(["/input/foo", "/result/foo", "/nd_builtin_cache/a"]),
            json!({}),
        ),
        (json!({}), upserts("/input/foo", json!(1)), json!({})),
        (
            json!({"input": {"bar": 1}}),
            json!(["/input/foo"]),
            json!({"input": {"bar": 1}}),
        ),
        (
            json!({"input": {"bar": 1}}),
            json!([{"op": "upsert", "path": "/input/foo"}]),
            json!({"input": {"bar": 1, "foo": null}, "masked": ["/input/foo"]}),
        ),
        (
            json!({"input": {"foo": 1}}),
            json!(["/input/foo/bar"]),
            json!({"input": {"foo": 1}}),
        ),
        (
            json!({"input": {"foo": "bar"}}),
            upserts("/input/foo/bar", json!(1)),
            json!({"input": {"foo": "bar"}}),
        ),
        (
            json!({"input": {"foo": {}}}),
            json!(["/input/foo/bar/baz"]),
            json!({"input": {"foo": {}}}),
        ),
        (
            json!({"input": {"foo": {}}}),
            upserts("/input/foo/bar/baz", json!(100)),
            json!({"input": {"foo": {"bar": {"baz": 100}}}, "masked": ["/input/foo/bar/baz"]}),
        ),
        (
            deep.clone(),
            json!(["/input/foo/bar/baz", "/input/foo/-1/bar"]),
            deep.clone(),
        ),
        (
            deep.clone(),
            json!(["/input/foo/1/bar", "/input/foo/0/bar/9"]),
            deep.clone(),
        ),
        (
            deep.clone(),
            upserts("/input/foo/1", json!(2)),
            deep.clone(),
        ),
        (
            deep.clone(),
            json!(["/input/foo/0/bar/1"]),
            json!({"input": {"foo": [{"bar": [1], "baz": 2}]}, "erased": ["/input/foo/0/bar/1"]}),
        ),
        (
            deep,
            json!(["/input/foo/0/bar"]),
            json!({"input": {"foo": [{"baz": 2}]}, "erased": ["/input/foo/0/bar"]}),
        ),
        (
            json!({"input": {"foo": [[1]]}}),
            upserts("/input/foo/0/0", json!(2)),
            json!({"input": {"foo": [[2]]}, "masked": ["/input/foo/0/0"]}),
        ),
        (
            json!({"input": {":path": "token"}}),
            json!(["/input/:path"]),
            json!({"input": {}, "erased": ["/input/:path"]}),
        ),
        (
            json!({"input": ["secret", "public"]}),
            json!(["/input/0"]),
            json!({"input": ["public"], "erased": ["/input/0"]}),
        ),
        (
            json!({"result": ["secret", "public"]}),
            upserts("/result/0", json!("**REDACTED**")),
            json!({"result": ["**REDACTED**", "public"], "masked": ["/result/0"]}),
        ),
        (
            json!({"input": {"password": "p"}}),
            json!([{"op": "remove", "path": "/input/password", "value": "**REDACTED**"}]),
            json!({"input": {}, "erased": ["/input/password"]}),
        ),
    ];
    for (event, rules, expected) in cases {
        assert_eq!(masked(event, rules.clone()), expected, "{rules}");
    }
}

#[test]
fn what_a_rule_plainly_means_is_hidden_where_opa_leaves_it() {
    let cases = [
        // OPA removes the first element, and then what was the third.
        (
            json!({"input": {"a": ["s1", "s2", "public", "s4"]}}),
            json!(["/input/a/0", "/input/a/1", "/input/a/3", "/input/a/0"]),
            json!({"input": {"a": ["public"]}}),
        ),
        (
            json!({"input": [["s1", "s2", 3], ["s4", 5]]}),
            json!(["/input/0/0", "/input/0/1", "/input/1/0", "/input/1"]),
            json!({"input": [[3]]}),
        ),
        (
            json!({"input": {"a": ["s", "kept"], "b": 1}}),
            json!(["/input/a/0", "/input/a"]),
            json!({"input": {"b": 1}}),
        ),
        // OPA looks for names in their escaped form only.
        (
            json!({"input": {"credit card": 1, "a/b": 2, "c,d": 3, "e": 4}}),
            json!(["/input/credit card", "/input/a~1b", "/input/c%2Cd"]),
            json!({"input": {"e": 4}}),
        ),
        (
            json!({"input": {"a%2Fb": 1, "a/b": 2}}),
            json!(["/input/a%2Fb"]),
            json!({"input": {"a/b": 2}}),
        ),
    ];
    for (event, rules, expected) in cases {
        let mut found = masked(event, rules.clone());
        let lists = found.as_object_mut().unwrap();
        let erased = lists.remove("erased").unwrap();
        assert_eq!(erased, rules, "every rule had something to hide");
        assert_eq!(found, expected, "{rules}");
    }
}

#[test]
fn what_is_no_rule_refuses_all_of_them() {
    let cases = [
        (json!(null), MaskError::NotASet),
        (json!(true), MaskError::NotASet),
        (json!({"/input/a": true}), MaskError::NotASet),
        (json!([1]), MaskError::Rule),
        (json!(["/input/a", ["/input/b"]]), MaskError::Rule),
        (json!([""]), MaskError::Path),
        (json!(["input"]), MaskError::Path),
        (json!(["/"]), MaskError::Part),
        (json!(["/labels/foo"]), MaskError::Part),
        (json!(["/inputs"]), MaskError::Part),
        (json!(["/input/a/%F/b"]), MaskError::Escape),
        (json!(["/input/%"]), MaskError::Escape),
        (json!([{"path": "/input"}]), MaskError::Operation),
        (json!([{"op": "", "path": "/input"}]), MaskError::Operation),
        (
            json!([{"op": "replace", "path": "/input"}]),
            MaskError::Operation,
        ),
        (json!([{"op": "remove"}]), MaskError::Path),
        (json!([{"op": "remove", "path": 1}]), MaskError::Path),
    ];
    for (answer, expected) in cases {
        assert_eq!(MaskRule::list(answer.clone()), Err(expected), "{answer}");
    }
    for path in [
        "/input/a/%2F%2F/b",
        "/input//foo",
        "/result/a",
        "/nd_builtin_cache/a",
    ] {
        assert_eq!(MaskRule::list(json!([path])).unwrap().len(), 1, "{path}");
    }
}
