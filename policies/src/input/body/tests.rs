//! Bodies as the plugin parses them; the cases are those of its own tests and
//! what lies at their edges.

use http::HeaderValue;

use super::*;

fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
    let list = list.iter();
    list.map(|(name, value)| {
        (
            HeaderName::from_static(name),
            HeaderValue::from_str(value).unwrap(),
        )
    })
    .collect()
}

fn parsed(headers: &HeaderMap, body: &[u8]) -> Result<(serde_json::Value, bool), InputError> {
    let body = RequestBody {
        bytes: Bytes::copy_from_slice(body),
        ..RequestBody::default()
    };
    let (value, truncated) = parse(headers, &body)?;
    Ok((serde_json::to_value(value).unwrap(), truncated))
}

#[track_caller]
fn check(list: &[(&'static str, &str)], body: &str, expected: &str, truncated: bool) {
    let found = parsed(&headers(list), body.as_bytes());
    let expected: serde_json::Value = serde_json::from_str(expected).unwrap();
    assert_eq!(found, Ok((expected, truncated)), "{list:?} {body}");
}

#[track_caller]
fn refuse(content_type: &'static str, body: &[u8], problem: BodyProblem) {
    let found = parsed(&headers(&[("content-type", content_type)]), body);
    let body = String::from_utf8_lossy(body);
    assert_eq!(found, Err(InputError::Body(problem)), "{body}");
}

#[test]
fn the_content_type_says_how_a_body_is_parsed() {
    for (content_type, body, expected) in [
        ("application/json", r#""foo""#, r#""foo""#),
        ("application/json", "true", "true"),
        ("application/json", "42", "42"),
        ("application/json", " null ", "null"),
        (
            "application/json",
            r#"{"a": {"b": [1, -2, 0.5]}}"#,
            r#"{"a":{"b":[1,-2,0.5]}}"#,
        ),
        (
            "application/json",
            r#"["\"", "\\", "\/", "\u0041\ud83d\ude00"]"#,
            r#"["\"","\\","/","A😀"]"#,
        ),
        (
            "application/json",
            r#"{"$serde_json::private::Number": "1"}"#,
            r#"{"$serde_json::private::Number":"1"}"#,
        ),
        ("application/json", "", "null"),
        ("application/json; charset=utf-8", "[1]", "[1]"),
        ("text/plain, application/json", "[1]", "[1]"),
        // The plugin looks for lower case.
        ("Application/JSON", "[1]", "null"),
        ("application/vnd.api+json", "[1]", "null"),
        ("text/html", "[1]", "null"),
        ("application/grpc", "\0\0\0\0\0", "null"),
        (
            "application/x-www-form-urlencoded",
            "a=1&b=x+y&a=%C3%BC&c",
            r#"{"a":["1","ü"],"b":["x y"],"c":[""]}"#,
        ),
        ("application/x-www-form-urlencoded", "", "null"),
        (
            "application/x-www-form-urlencoded; charset=utf-8",
            "&",
            "{}",
        ),
        ("multipart/form-data; boundary=foo", "", "null"),
        ("multipart/form-data", "--foo--", "null"),
    ] {
        check(&[("content-type", content_type)], body, expected, false);
    }
    check(&[], "[1]", "null", false);
}

#[test]
fn a_body_that_is_not_all_there_is_truncated() {
    let json = ("content-type", "application/json");
    let form = ("content-type", "application/x-www-form-urlencoded");
    for (list, body, truncated) in [
        ([json, ("content-length", "1000")], "true", true),
        ([form, ("content-length", "1000")], "a=1", true),
        ([json, ("x-envoy-auth-partial-body", "true")], "true", true),
        ([json, ("x-envoy-auth-partial-body", "true")], "", true),
        ([json, ("content-length", "5")], "null ", false),
        ([json, ("content-length", "3")], "null ", false),
        ([json, ("content-length", "-1")], "null ", false),
        ([json, ("content-length", "1000")], "", false),
        (
            [json, ("x-envoy-auth-partial-body", "false")],
            "null",
            false,
        ),
        (
            [("content-type", "text/plain"), ("content-length", "1000")],
            "a",
            false,
        ),
    ] {
        check(&list, body, "null", truncated);
    }
    let body = RequestBody {
        bytes: Bytes::from_static(b"[1]"),
        is_partial: true,
        pack_as_bytes: false,
    };
    let found = parse(&headers(&[json]), &body);
    assert_eq!(found, Ok((Value::Null, true)));

    let found = parsed(&headers(&[json, ("content-length", "four")]), b"null");
    assert_eq!(found, Err(BodyProblem::ContentLength.into()));
}

#[test]
fn what_does_not_parse_is_refused_by_name() {
    let json = "application/json";
    for body in [
        &b"[\"foo\" : 42}"[..],
        b" ",
        b"{} {}",
        b"[1] null",
        b"nul",
        b"\"\xff\"",
        b"\"\\ud800\"",
        b"1e999",
        b"\xef\xbb\xbf{}",
    ] {
        refuse(json, body, BodyProblem::Json);
    }
    refuse(json, br#"{"a": 1, "a": 1}"#, BodyProblem::JsonDuplicateKey);
    refuse(
        json,
        br#"[{"a": {"b": 1, "\u0062": 2}}]"#,
        BodyProblem::JsonDuplicateKey,
    );
    let form = "application/x-www-form-urlencoded";
    for body in [&b"a=%"[..], b"a=1;b=2", b"a=%ff", b"a=\xff"] {
        refuse(form, body, BodyProblem::Form);
    }
}

#[test]
fn json_is_parsed_down_to_a_certain_depth() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let json = headers(&[("content-type", "application/json")]);
    assert!(parsed(&json, nested(json::DEPTH).as_bytes()).is_ok());
    for depth in [json::DEPTH + 1, 128, 129, 1_000_000] {
        refuse(
            "application/json",
            nested(depth).as_bytes(),
            BodyProblem::JsonDepth,
        );
    }
    let objects = "{\"a\":".repeat(json::DEPTH + 1);
    refuse(
        "application/json",
        objects.as_bytes(),
        BodyProblem::JsonDepth,
    );
}

#[test]
fn multipart_forms_are_read_as_go_reads_them() {
    let form = "multipart/form-data; boundary=foo";
    let part = |name: &str, rest: &str| {
        format!("--foo\r\nContent-Disposition: form-data; name={name}\r\n{rest}\r\n")
    };
    let cases = [
        // The plugin's own two, with line feeds alone.
        (
            "--foo\nContent-Disposition: form-data; name=\"foo\"\nContent-Type: text/plain\n\nbar\n--foo--\n\t\t\t\t".to_owned(),
            r#"{"foo":["bar"]}"#,
        ),
        (
            "--foo\nContent-Disposition: form-data; name=\"foo\"\n\nbar\n--foo\nContent-Disposition: form-data; name=\"bar\"\nContent-Type: application/json;\n\n{\"name\": \"bar\"}\n--foo--\n".to_owned(),
            r#"{"foo":["bar"],"bar":[{"name":"bar"}]}"#,
        ),
        (format!("{}{}--foo--", part("a", "\r\n1"), part("a", "\r\n2")), r#"{"a":["1","2"]}"#),
        (format!("preamble\r\n{}--foo--\r\nepilogue", part("a", "\r\n1")), r#"{"a":["1"]}"#),
        (format!("{}--foo--", part("\"a b\"; filename=x", "X-Other: 1\r\n\r\n1\r\n2\r\n--fo\r\n--foot")), r#"{"a b":["1\r\n2\r\n--fo\r\n--foot"]}"#),
        (format!("{}--foo--", part("a", "\r\n\r")), "{\"a\":[\"\\r\"]}"),
        // The boundary right after the header: no content.
        ("--foo\r\nContent-Disposition: form-data; name=a\r\n\r\n--foo--".to_owned(), r#"{"a":[""]}"#),
        (format!("--foo \t\r\n\r\nno name\r\n{}--foo-- \t", part("a", "\r\n1")), r#"{"a":["1"]}"#),
        ("--foo\r\nContent-Disposition: attachment; name=a\r\n\r\n1\r\n--foo--".to_owned(), "{}"),
        ("--foo\r\nContent-Disposition: form-data;\r\n name=a\r\n\r\n1\r\n--foo--".to_owned(), r#"{"a":["1"]}"#),
        ("--foo--".to_owned(), "{}"),
    ];
    for (body, expected) in cases {
        check(&[("content-type", form)], &body, expected, false);
    }
    let binary = b"--foo\r\ncontent-disposition: form-data; name=a; filename*=utf-8''x\r\n\r\n\xff\r\n--foo--";
    let found = parsed(&headers(&[("content-type", form)]), binary);
    assert_eq!(found.unwrap().0["a"][0], "\u{fffd}");
    check(
        &[(
            "content-type",
            "Multipart/x, multipart/form-data; boundary=foo",
        )],
        "",
        "null",
        false,
    );
}

#[test]
fn multipart_forms_that_do_not_parse_are_refused() {
    let disposition = "Content-Disposition: form-data; name=a\r\n";
    for body in [
        "nothing".to_owned(),
        "--foo".to_owned(),
        "--foo\r\n".to_owned(),
        format!("--foo\r\n{disposition}"),
        format!("--foo\r\n{disposition}\r\n1"),
        format!("--foo\r\n{disposition}\r\n1\r\n--foo"),
        format!("--foo\r\n{disposition}\r\n1\r\n--foo\n{disposition}\r\n2\r\n--foo--"),
        format!("--foo\r\n{disposition}\r\n1\r\n--foo \tx\r\n--foo--"),
        format!("--foo\r\n{disposition}{disposition}\r\n1\r\n--foo--"),
        format!(
            "--foo\r\n{disposition}Content-Transfer-Encoding: Quoted-Printable\r\n\r\n1\r\n--foo--"
        ),
        format!("--foo\r\n{disposition}Content Type: x\r\n\r\n1\r\n--foo--"),
        format!("--foo\r\n{disposition}no colon\r\n\r\n1\r\n--foo--"),
        "--foo\r\n folded: x\r\n\r\n1\r\n--foo--".to_owned(),
        "--foo\r\nContent-Disposition: form-data; name\r\n\r\n1\r\n--foo--".to_owned(),
        "--foo\r\nContent-Disposition: form-data; name=a; name=b\r\n\r\n1\r\n--foo--".to_owned(),
        "--foo\r\nContent-Disposition: form-data; name*=utf-8''a\r\n\r\n1\r\n--foo--".to_owned(),
        "--foo\r\nContent-Disposition: form-data; name=\"a\r\n\r\n1\r\n--foo--".to_owned(),
    ] {
        refuse(
            "multipart/form-data; boundary=foo",
            body.as_bytes(),
            BodyProblem::Multipart,
        );
    }
    let json = format!("--foo\r\n{disposition}Content-Type: application/json\r\n\r\n{{\r\n--foo--");
    refuse(
        "multipart/form-data; boundary=foo",
        json.as_bytes(),
        BodyProblem::Json,
    );
    refuse(
        "multipart/form-data; boundary=",
        b"--foo--",
        BodyProblem::MediaType,
    );
    refuse(
        "multipart/form-data; boundary=\"\"",
        b"--foo--",
        BodyProblem::Multipart,
    );
    for content_type in [
        "multipart/form-data; boundary=foo; boundary=bar",
        "multipart/form-data; boundary*=utf-8''foo",
        "multipart/form-data; boundary=foo, multipart/form-data; boundary=bar",
        "multipart/form-data boundary=foo",
    ] {
        refuse(content_type, b"--foo--", BodyProblem::MediaType);
    }
}

#[test]
fn a_body_is_shown_as_text_as_envoy_sends_it() {
    for (bytes, expected) in [
        (&b""[..], ""),
        ("Jürgen".as_bytes(), "Jürgen"),
        (b"a\xffb", "a!b"),
        (b"\xe2\x82", "!!"),
        (b"\xf0\x9f\x98\x80\xf0\x9f", "😀!!"),
    ] {
        assert_eq!(text(bytes), expected);
    }
}
