//! Policies, inputs, and what is said of them.

use serde_json::{Value as Json, json};

use super::*;
use crate::sources::{Module, RegoVersion};

/// One line for each definition: what fired, or where it stopped and on what.
fn told(explanation: &Explanation) -> Vec<String> {
    let definitions = explanation.definitions.iter();
    definitions
        .map(|it| {
            let line = it.place.line;
            let name = it.rule.rsplit('.').next().unwrap_or_default();
            let mut text = format!(
                "{name}:{line} {:?} {}/{}",
                it.outcome, it.held, it.statements
            );
            if let Some(value) = &it.value {
                text.push_str(&format!(" = {}", shown(value)));
            }
            if let Some(stop) = &it.stopped {
                text.push_str(&format!(" at {}:{}", stop.place.line, stop.place.column));
                if let Some(comparison) = &stop.comparison {
                    let Comparison {
                        operator,
                        actual,
                        expected,
                    } = comparison;
                    text.push_str(&format!(
                        " {} {operator} {}",
                        shown(actual),
                        shown(expected)
                    ));
                }
                for reference in &stop.references {
                    text.push_str(&format!(" [{} {}]", reference.expression, shown(reference)));
                }
                for firing in &stop.stopped_by {
                    text.push_str(&format!(" by {}:{}", firing.rule, firing.place.line));
                }
                if let Some(error) = &stop.error {
                    text.push_str(&format!(" error {error}"));
                }
            }
            text
        })
        .collect()
}

fn shown(it: &Shown) -> String {
    match (it.hidden, it.values.as_slice()) {
        (true, _) => "hidden".to_owned(),
        (false, []) => "undefined".to_owned(),
        (false, values) => {
            let values: Vec<_> = values.iter().map(Json::to_string).collect();
            values.join("|")
        }
    }
}

fn sources(text: &str) -> PolicySources {
    PolicySources::from_modules([("p.rego", text)]).unwrap()
}

fn explained(sources: &PolicySources, input: &Json) -> Explanation {
    let input = InputDocument::parse(&input.to_string()).unwrap();
    explain(sources, &input, &ExplainOptions::default()).unwrap()
}

#[test]
fn each_definition_is_told_with_how_far_it_came() {
    for (note, policy, input, expected) in [
        (
            "fired first, then the closest",
            "allow if input.user == \"root\"\nallow if {\n  input.method == \"GET\"\n  input.user == \"eve\"\n}\nallow if {\n  input.method == \"GET\"\n}",
            json!({"user": "bob", "method": "GET"}),
            &[
                "allow:9 Fired 1/1",
                "allow:5 Stopped 1/2 at 7:3 \"bob\" == \"eve\"",
                "allow:4 Stopped 0/1 at 4:10 \"bob\" == \"root\"",
            ][..],
        ),
        (
            "the side that reads the input is the actual one",
            "allow if \"spiffe://t/a\" == input.source_principal",
            json!({"source_principal": "spiffe://t/b"}),
            &["allow:4 Stopped 0/1 at 4:10 \"spiffe://t/b\" == \"spiffe://t/a\""],
        ),
        (
            "what is absent is undefined",
            "allow if startswith(input.source_principal, \"spiffe://t/\")",
            json!({}),
            &["allow:4 Stopped 0/1 at 4:10 [input.source_principal undefined]"],
        ),
        (
            "a rule that fired under not is what stopped",
            "allow if {\n  input.user == \"root\"\n  not deny\n}\ndeny if input.locked",
            json!({"user": "root", "locked": true}),
            &[
                "deny:8 Fired 1/1",
                "allow:4 Stopped 1/2 at 6:3 [deny true] by data.envoy.authz.deny:8",
            ],
        ),
        (
            "locals have the values that the statements before give them",
            "allow if {\n  some role in input.roles\n  level := role.level\n  level > 3\n}",
            json!({"roles": [{"level": 1}, {"level": 2}]}),
            &["allow:4 Stopped 2/3 at 7:3 1|2 > 3"],
        ),
        (
            "a name that a later statement makes: both are asked together",
            "allow if {\n  level > 3\n  level = input.level\n}",
            json!({"level": 2}),
            &["allow:4 Stopped 0/2 at 5:3 [input.level 2]"],
        ),
        (
            "an else is passed over by what stands before it",
            "allow := true if {\n  input.a\n} else := false if {\n  input.b\n} else := true if {\n  input.c\n}",
            json!({"a": true, "b": true}),
            &[
                "allow:4 Fired 1/1",
                "allow:6 PassedOver 1/1",
                "allow:8 Stopped 0/1 at 9:3 [input.c undefined]",
            ],
        ),
        (
            "a value may be what does not hold",
            "allow := input.user == \"root\"",
            json!({"user": "eve"}),
            &["allow:4 NoValue 0/0 at 4:10 \"eve\" == \"root\""],
        ),
        (
            "a value that is not just true is told",
            "allow := {\"allowed\": false, \"http_status\": 404} if input.path == \"/x\"",
            json!({"path": "/x"}),
            &["allow:4 Fired 1/1 = {\"allowed\":false,\"http_status\":404}"],
        ),
        (
            "membership, text at both ends, parentheses and comments",
            "allow if {\n  (input.a == 1) # one\n  \"x\" in input.b # two; {\n  `y` == input.c\n}",
            json!({"a": 1, "b": ["x"], "c": "z"}),
            &["allow:4 Stopped 2/3 at 7:3 \"z\" == \"y\""],
        ),
        (
            "partial rules, helpers and functions in the statements that call them",
            "allow if {\n  count(reasons) == 0\n}\nreasons contains \"late\" if input.hour > hour_of(\"x\")\nhour_of(_) := 18",
            json!({"hour": 20}),
            &[
                "reasons:7 Fired 1/1 = \"late\"",
                "allow:4 Stopped 0/1 at 5:3 1 == 0 [reasons [\"late\"]]",
            ],
        ),
        (
            "what with replaces is not shown as if it were not",
            "allow if other with input.user as \"bob\"\nother if input.user == \"root\"",
            json!({"user": "root"}),
            &["other:5 Fired 1/1", "allow:4 Stopped 0/1 at 4:10"],
        ),
        (
            "an evaluation that fails is told, without values",
            "allow if {\n  true\n  input.x == clash\n}\nclash := v if some v in [1, 2]",
            json!({"x": 1}),
            &[],
        ),
    ] {
        let policy = format!("package envoy.authz\n\n# rules\n{policy}\n");
        if expected.is_empty() {
            let input = InputDocument::parse(&input.to_string()).unwrap();
            let error = explain(&sources(&policy), &input, &ExplainOptions::default());
            assert_eq!(error.unwrap_err().code(), "SG0223", "{note}");
            continue;
        }
        let found = told(&explained(&sources(&policy), &input));
        assert_eq!(found, expected, "{note}");
    }
}

#[test]
fn functions_are_named_because_they_cannot_be_asked() {
    let policy = "package envoy.authz\nallow if f(input.x)\nf(x) if x > 1\n";
    let found = explained(&sources(policy), &json!({"x": 1}));
    assert_eq!(found.functions, ["data.envoy.authz.f"]);
    assert_eq!(told(&found), ["allow:2 Stopped 0/1 at 2:10 [input.x 1]"]);
    assert_eq!(found.decision.code, Some("SG0221"));
}

#[test]
fn policies_of_both_versions_are_explained() {
    let text = "package envoy.authz\n\nallow {\n  input.a == 1\n  roles[_] == input.b\n}\n\nroles[r] {\n  r := [1, 2][_]\n}\n";
    let sources = sources("package other\n").with_modules(vec![Module {
        file: "p.rego".to_owned(),
        text: text.to_owned(),
        version: RegoVersion::V0,
    }]);
    let found = told(&explained(&sources, &json!({"a": 1, "b": 3})));
    assert_eq!(
        found,
        [
            "roles:8 Fired 1/1 = 1|2",
            "allow:3 Stopped 1/2 at 5:3 3 == 1|2 ",
        ]
        .map(str::trim_end)
    );
}

#[test]
fn credentials_and_what_is_made_of_them_are_never_shown() {
    const SECRET: &str = "s3cret";
    let input = json!({"attributes": {"request": {"http": {
        "method": "GET",
        "headers": {"authorization": "Basic dXNlcjpzM2NyZXQ=", "cookie": "s3cret", "x-team": "blue"},
    }}}});
    for (rules, hides) in [
        (
            "allow if input.attributes.request.http.headers.authorization == \"x\"",
            true,
        ),
        ("allow if http.headers.authorization == \"x\"", true),
        ("allow if http[\"headers\"][\"cookie\"] == \"x\"", true),
        (
            "allow if input.attributes.request.http.headers[data.name] == \"x\"",
            true,
        ),
        (
            "allow if {\n  h := http.headers\n  h.cookie == \"x\"\n}",
            true,
        ),
        (
            "allow if password == \"x\"\npassword := split(base64.decode(split(http.headers.authorization, \" \")[1]), \":\")[1]",
            true,
        ),
        (
            "allow if data.envoy.authz.all == \"x\"\nall := json.marshal(input)",
            true,
        ),
        ("allow if json.marshal(input) == \"x\"", true),
        ("allow if upper(http.headers.cookie) == \"x\"", true),
        (
            "allow if some h in http.headers\nallow if { some n, v in http.headers; v == n }",
            true,
        ),
        ("allow if http.headers.cookie == data.secret", true),
        (
            "allow if startswith(http.headers.cookie, data.secret)",
            true,
        ),
        // That there is none may be told.
        (
            "allow if startswith(http.headers[\"proxy-authorization\"], \"x-absent\")",
            false,
        ),
        // Shown without the credentials in them.
        (
            "allow if input.attributes.request.http.headers == {}",
            false,
        ),
        ("allow if http == {}", false),
        ("allow if input == {}", false),
        ("allow if http.headers[\"x-team\"] == \"red\"", false),
    ] {
        let policy =
            format!("package envoy.authz\nimport input.attributes.request.http\n\n{rules}\n");
        let files =
            [("p.rego", policy.as_str())].map(|(name, text)| (name.to_owned(), text.to_owned()));
        let data = (
            "data.json".to_owned(),
            r#"{"name": "cookie", "secret": "dXNlcjp-data"}"#.to_owned(),
        );
        let sources = PolicySources::from_files(files.into_iter().chain([data])).unwrap();
        let explanation = explained(&sources, &input);
        let text = serde_json::to_string(&explanation).unwrap();
        for secret in [SECRET, "dXNlcjp", "S3CRET"] {
            assert!(!text.contains(secret), "{rules}: {text}");
        }
        assert_eq!(text.contains("\"hidden\":true"), hides, "{rules}: {text}");
        if !hides && !rules.contains("x-absent") {
            assert!(text.contains("blue"), "{rules}: {text}");
        }
    }
}

#[test]
fn what_a_policy_reads_and_what_keeps_it_from_being_remembered() {
    for (policy, remembered, key, prevented, impure) in [
        (
            "allow if input.parsed_path[0] == input.source_principal",
            true,
            &["input.attributes.source.principal", "input.parsed_path[0]"][..],
            None,
            &[][..],
        ),
        (
            "allow if { input.parsed_path[0] == \"a\"; time.now_ns() > 1 }",
            false,
            &[],
            Some("time.now_ns"),
            &["time.now_ns"],
        ),
        (
            "allow if input.parsed_body.x == 1",
            false,
            &[],
            Some("input.parsed_body.x"),
            &[],
        ),
        (
            "allow if other with input.x as 1\nother if input.x",
            false,
            &[],
            Some("with"),
            &[],
        ),
    ] {
        let sources = sources(&format!("package envoy.authz\n\n{policy}\n"));
        let found = read_set(&sources, "envoy/authz/allow").unwrap();
        assert_eq!(found.remembering.remembered, remembered, "{policy}");
        assert_eq!(found.remembering.key, key, "{policy}");
        let prevented_by = found.remembering.prevented_by.as_ref();
        assert_eq!(prevented_by.map(|it| it.expression.as_str()), prevented);
        let names: Vec<_> = found.impure.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(names, impure, "{policy}");
        let options = crate::PolicyOptions::default();
        let loaded = crate::Policy::load(sources, &options).unwrap();
        assert_eq!(loaded.read_set(), found, "{policy}");
    }
}

#[test]
fn an_evaluation_that_fails_quotes_no_credential() {
    let policy = "package envoy.authz\nallow := v if {\n  some v in [input.attributes.request.http.headers.cookie, 2]\n}\n";
    let input = json!({"attributes": {"request": {"http": {"headers": {"cookie": "s3cret"}}}}});
    let input = InputDocument::parse(&input.to_string()).unwrap();
    let error = explain(&sources(policy), &input, &ExplainOptions::default()).unwrap_err();
    assert_eq!(error.code(), "SG0223");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}
