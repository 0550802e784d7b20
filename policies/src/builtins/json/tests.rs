use super::*;

#[test]
fn json_is_read_as_by_go() {
    for (json, expected) in [
        (
            r#" {"a" : [1, -2.5e1, true, null], "a": {}} "#,
            Some(r#"{"a":{}}"#),
        ),
        (r#""\ud800""#, Some("\"\u{FFFD}\"")),
        (
            r#""\ud800\u0041\udc00\ud83d\ude00""#,
            Some("\"\u{FFFD}A\u{FFFD}😀\""),
        ),
        (r#""\"\\\/\b\f\n\r\t""#, Some(r#""\"\\/\b\f\n\r\t""#)),
        ("100000000000000000001", Some("100000000000000000001")),
        ("1e21", Some("1000000000000000000000")),
        ("-0", Some("0")),
        ("0e999999999", Some("0")),
        ("[]", Some("[]")),
        ("1e999999999", None),
        ("01", None),
        ("1.", None),
        ("+1", None),
        (".5", None),
        ("[1,]", None),
        ("{\"a\":1,}", None),
        ("{a:1}", None),
        ("\"\t\"", None),
        (r#""\x""#, None),
        (r#""\u+123""#, None),
        ("1 2", None),
        ("nul", None),
        ("", None),
    ] {
        let value = unmarshal(&[Value::from(json)]);
        let text = value.and_then(|value| marshal(&[value]));
        assert_eq!(text, expected.map(Value::from), "{json}");
    }
}

#[test]
fn json_is_not_read_too_deep() {
    let nested = |depth: usize| Value::from("[".repeat(depth) + &"]".repeat(depth));
    assert!(unmarshal(&[nested(128)]).is_some());
    assert_eq!(unmarshal(&[nested(129)]), None);
    assert_eq!(unmarshal(&[nested(1_000_000)]), None);
}

#[test]
fn json_is_written_as_by_go() {
    let value =
        Value::from_json_str(r#"{"b": [1, {}, []], "a": "<&>\u2028\u0001\u007f"}"#).unwrap();
    let compact = "{\"a\":\"\\u003c\\u0026\\u003e\\u2028\\u0001\u{7f}\",\"b\":[1,{},[]]}";
    assert_eq!(marshal(std::slice::from_ref(&value)), Some(compact.into()));
    let options = Value::from_json_str(r#"{"prefix": ">", "indent": " "}"#).unwrap();
    let pretty = ">{\n> \"a\": \"\\u003c\\u0026\\u003e\\u2028\\u0001\u{7f}\",\n> \"b\": [\n>  1,\n>  {},\n>  []\n> ]\n>}";
    assert_eq!(
        marshal_with_options(&[value.clone(), options]),
        Some(pretty.into())
    );
    let options = Value::from_json_str(r#"{"pretty": false, "indent": " "}"#).unwrap();
    assert_eq!(
        marshal_with_options(&[value, options]),
        Some(compact.into())
    );
}
