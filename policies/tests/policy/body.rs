//! Which policies read request bodies, and what they see of them.

use bytes::Bytes;
use http::Request;
use http::header::CONTENT_TYPE;
use sidegate_policy::{BodyProblem, DenialReason, InputError, RequestBody, RequestFacts};

use crate::common::{connection, evaluator, request};

const JSON: &str = "application/json";
const FORM: &str = "application/x-www-form-urlencoded";
const MULTIPART: &str = "multipart/form-data; boundary=x";
const TEXT: &str = "text/plain";
const GRPC: &str = "application/grpc";

fn post(content_type: &str, body: &'static str) -> RequestFacts {
    let head = Request::post("/").header(CONTENT_TYPE, content_type);
    RequestFacts {
        body: RequestBody {
            bytes: Bytes::from_static(body.as_bytes()),
            ..RequestBody::default()
        },
        ..request(head)
    }
}

/// The types of bodies that a policy has to see.
fn needed(rules: &str) -> Vec<&'static str> {
    let module = format!("package envoy.authz\n\n{rules}\n");
    let evaluator = evaluator(&module);
    let needs = |content_type: &&str| evaluator.needs_body(&post(content_type, "").head);
    [JSON, FORM, MULTIPART, TEXT, GRPC, ""]
        .into_iter()
        .filter(needs)
        .collect()
}

#[test]
fn only_what_a_policy_may_read_is_needed() {
    let parsed = [JSON, FORM, MULTIPART];
    let whole = [JSON, FORM, MULTIPART, TEXT, ""];
    let cases: &[(&str, &[&str])] = &[
        ("allow := true", &[]),
        ("allow if input.parsed_path[0] == \"parsed_body\"", &[]),
        (
            "allow if input.attributes.request.http.method == \"GET\"",
            &[],
        ),
        (
            "allow if input.attributes.request.http.headers[_] == \"GET\"",
            &[],
        ),
        ("allow if data.parsed_body", &[]),
        (
            "import input.attributes.request.http\n\nallow if http.method == \"GET\"",
            &[],
        ),
        (
            "import input.attributes.request.http as h\n\nallow if h.headers.body == \"x\"",
            &[],
        ),
        (
            "allow if f(1) with input as {\"parsed_body\": 1}\n\nf(x) if x == 1",
            &[],
        ),
        ("allow if input.parsed_body.role == \"x\"", &parsed),
        ("allow if input[\"parsed_body\"].role == \"x\"", &parsed),
        ("allow if not input.truncated_body", &parsed),
        (
            "import input.parsed_body as body\n\nallow if body.x == 1",
            &parsed,
        ),
        ("allow if data.roles[input.parsed_body.role]", &parsed),
        ("allow if [x | x := input.parsed_body[_]] == [1]", &parsed),
        (
            "allow if f(1) with input.parsed_path as input.parsed_body\n\nf(x) if x == 1",
            &parsed,
        ),
        (
            "allow if input.attributes.request.http.body == \"x\"",
            &whole,
        ),
        (
            "allow if input.attributes.request.http.rawBody == \"x\"",
            &whole,
        ),
        (
            "import input.attributes.request.http\n\nallow if http.body == \"x\"",
            &whole,
        ),
        (
            "import input.attributes.request.http\n\nallow if f(http)\n\nf(x) if x.body == 1",
            &whole,
        ),
        ("allow if input.attributes.request.http[_] == \"x\"", &whole),
        ("allow if { some key; input[key] == 1 }", &whole),
        ("allow if f(input)\n\nf(x) if x.parsed_body == 1", &whole),
        ("allow if { x := input; x.parsed_body == 1 }", &parsed),
        (
            "allow if { x := input; f(x) }\n\nf(x) if x.parsed_body == 1",
            &whole,
        ),
        (
            "http := input.attributes.request.http\n\nallow if http.method == \"GET\"",
            &[],
        ),
        (
            "http := input.attributes.request.http\n\nallow if http.body == \"x\"",
            &whole,
        ),
        (
            "http := input.attributes.request.http\n\nallow if data.envoy.authz[\"http\"][_] == \"x\"",
            &whole,
        ),
        (
            "allow if { all := input.attributes; http := all.request.http; http.method == \"GET\" }",
            &[],
        ),
        (
            "allow if { x := input.attributes.request.http; y := x; y.method == \"GET\" }",
            &[],
        ),
        (
            "allow if { http := input.attributes.request.http; http[input.parsed_path[0]] }",
            &whole,
        ),
        (
            "allow if object.get(input, [\"parsed_body\", \"role\"], \"\") == \"x\"",
            &parsed,
        ),
        (
            "allow if object.get(input, \"version\", \"\") == \"x\"",
            &[],
        ),
        ("unused if input.parsed_body\n\nallow := true", &[]),
        ("allow if walk(input, [_, 1])", &whole),
        ("allow if input.attributes[input.parsed_path[0]]", &whole),
    ];
    for (rules, expected) in cases {
        assert_eq!(needed(rules), *expected, "{rules}");
    }
}

#[test]
fn a_caller_cannot_keep_its_body_from_being_looked_at_by_calling_it_grpc_too() {
    let evaluator = evaluator("package envoy.authz\n\nallow if input.parsed_body.x == 1\n");
    for (content_type, is_needed) in [
        ("application/grpc; x=application/json", true),
        ("application/grpc", false),
        (
            "application/grpc; x=application/x-www-form-urlencoded",
            false,
        ),
    ] {
        let head = post(content_type, "").head;
        assert_eq!(evaluator.needs_body(&head), is_needed, "{content_type}");
    }
}

#[test]
fn a_policy_decides_on_what_is_in_the_body() {
    let mut evaluator =
        evaluator("package envoy.authz\n\nallow if input.parsed_body.role == \"reader\"\n");
    let mut decide = |body| evaluator.decide(&connection(), post(JSON, body));
    assert!(decide(r#"{"role": "reader"}"#).is_ok());
    assert!(decide(r#"{"role": "writer"}"#).is_err());
    assert!(decide("").is_err());
    let denial = decide("{").unwrap_err();
    let problem = InputError::Body(BodyProblem::Json);
    assert_eq!(denial.reason, DenialReason::MalformedRequest(problem));
    assert_eq!(
        (denial.status.as_u16(), denial.reason.code()),
        (400, "SG0225")
    );
}
