//! Calls that the engine cannot evaluate are found wherever they hide, when
//! the policy is loaded.

use sidegate_policy::{CallProblem, Policy, PolicyError, PolicyOptions, PolicySources};

/// Loads modules; the first is the policy itself.
fn load(modules: &[&str]) -> Result<Policy, PolicyError> {
    let named = modules
        .iter()
        .enumerate()
        .map(|(index, text)| (format!("{index}.rego"), *text));
    Policy::load(
        PolicySources::from_modules(named)?,
        &PolicyOptions::default(),
    )
}

/// The calls that are refused, as `file:line:column name`.
#[track_caller]
fn refused(name: &str, modules: &[&str]) -> Vec<String> {
    match load(modules) {
        Ok(_) => Vec::new(),
        Err(PolicyError::UnsupportedCalls { calls }) => {
            let describe = calls.iter().map(|call| {
                format!(
                    "{}:{}:{} {}",
                    call.file, call.line, call.column, call.function
                )
            });
            describe.collect()
        }
        Err(other) => panic!("{name}: {other}"),
    }
}

/// A policy around some rules, which start on line 5.
fn policy(rules: &str) -> String {
    format!("package envoy.authz\n\ndefault allow := false\n\n{rules}\n")
}

#[test]
fn unknown_calls_are_found_wherever_they_hide() {
    let cases = [
        (
            "a rule's body",
            "allow if crypto.parse_private_keys(input.x) == \"\"",
            "5:10 crypto.parse_private_keys",
        ),
        (
            "a rule's value",
            "allow := io.jwt.encode_sign_raw(input.x, 1, 2)[1].ok",
            "5:10 io.jwt.encode_sign_raw",
        ),
        (
            "a negated condition",
            "allow if not http.send({}).body",
            "5:14 http.send",
        ),
        (
            "an argument of a call",
            "allow if count(uri.parse(input.x)) == 3",
            "5:16 uri.parse",
        ),
        (
            "an array comprehension's body",
            "allow if count([x | x := frob(1)]) == 1",
            "5:26 frob",
        ),
        (
            "an array comprehension's term",
            "allow if count([frob(x) | some x in [1]]) == 1",
            "5:17 frob",
        ),
        (
            "a set comprehension",
            "allow if count({x | x := frob(1)}) == 1",
            "5:26 frob",
        ),
        (
            "an object comprehension's key",
            "allow if count({frob(k): 1 | some k in [1]}) == 1",
            "5:17 frob",
        ),
        (
            "an object comprehension's value",
            "allow if count({k: frob(k) | some k in [1]}) == 1",
            "5:20 frob",
        ),
        (
            "the body of every",
            "allow if every x in [1] { frob(x) }",
            "5:27 frob",
        ),
        (
            "the domain of every",
            "allow if every x in frob(1) { x }",
            "5:21 frob",
        ),
        (
            "the domain of some",
            "allow if { some x in frob(1); x }",
            "5:22 frob",
        ),
        (
            "an else branch's body",
            "allow if false else := true if frob(1)",
            "5:32 frob",
        ),
        (
            "an else branch's value",
            "allow if false else := frob(1) if true",
            "5:24 frob",
        ),
        (
            "a function's body",
            "f(x) if frob(x)\n\nallow if f(1)",
            "5:9 frob",
        ),
        (
            "a function's value",
            "f(x) := frob(x)\n\nallow if f(1)",
            "5:9 frob",
        ),
        (
            "a function that nobody calls",
            "f(x) := frob(x)",
            "5:9 frob",
        ),
        ("an object's key", "o := {frob(1): 2}", "5:7 frob"),
        (
            "an object's value",
            "o := {\"a\": {\"b\": frob(1)}}",
            "5:18 frob",
        ),
        ("an array and a set", "o := [{frob(1)}]", "5:8 frob"),
        (
            "a member of a partial set",
            "names contains frob(1) if true",
            "5:16 frob",
        ),
        (
            "a key of a partial object",
            "names[x] := 1 if x := frob(1)",
            "5:23 frob",
        ),
        ("an index", "allow if input.x[frob(1)]", "5:18 frob"),
        ("arithmetic", "allow if 1 + frob(1) > 2", "5:14 frob"),
        (
            "a set operation",
            "allow if count({1} | frob(1)) > 2",
            "5:22 frob",
        ),
        ("membership", "allow if 1 in frob(1)", "5:15 frob"),
        (
            "the value of with",
            "allow if input.x with input.x as frob(1)",
            "5:34 frob",
        ),
        (
            "the target of with",
            "allow if input.x with http.send as {}",
            "5:23 http.send",
        ),
        (
            "the replacement of with",
            "allow if count([]) == 0 with count as rego.metadata.rule",
            "5:39 rego.metadata.rule",
        ),
        (
            "a name of the engine's own",
            "allow if __builtin_host_await(input.x, 1)",
            "5:10 __builtin_host_await",
        ),
        (
            "an interpolated name",
            "allow if json.unmarshall(input.x)",
            "5:10 json.unmarshall",
        ),
        (
            "a local variable as a function",
            "allow if { f := 1; f(2) }",
            "5:20 f",
        ),
        (
            "a member of input as a function",
            "allow if input.f(2)",
            "5:10 input.f",
        ),
        (
            "a member of data as a function",
            "allow if data.nowhere.f(2)",
            "5:10 data.nowhere.f",
        ),
        (
            "another package's function by its bare name",
            "allow if helper(2)",
            "5:10 helper",
        ),
    ];
    for (name, rules, expected) in cases {
        let module = policy(rules);
        assert_eq!(
            refused(name, &[&module]),
            [format!("0.rego:{expected}")],
            "{name}"
        );
    }
    // A default's value is no place for calls in Rego v1, not even known ones.
    let error = load(&["package envoy.authz\n\ndefault allow := frob(1)\n"]).unwrap_err();
    assert!(
        matches!(
            error,
            PolicyError::Parse { .. } | PolicyError::UnsupportedCalls { .. }
        ),
        "{error}"
    );
}

#[test]
fn all_unsupported_calls_are_reported_at_once_in_the_order_of_the_text() {
    let first = policy("allow if {\n\thttp.send({})\n\tgraphql.parse_query(input.x)\n}");
    let second = "package other\n\nx := net.lookup_ip_addr(input.x)\n";
    assert_eq!(
        refused("all", &[&first, second]),
        [
            "0.rego:6:2 http.send",
            "0.rego:7:2 graphql.parse_query",
            "1.rego:3:6 net.lookup_ip_addr"
        ]
    );
    let error = load(&[&first, second]).unwrap_err();
    assert_eq!(error.code(), "SG0211");
    let text = error.to_string();
    assert!(
        text.contains("0.rego:6:2: unknown function `http.send`: a decision makes no requests"),
        "{text}"
    );
    assert_eq!(text.lines().count(), 4, "{text}");
}

#[test]
fn what_only_looks_like_a_call_is_not_one() {
    let library = "package lib.text\n\nhelper(x) := x\n\ndefault fallback(_) := true\n\nfallback(x) if x > 3\n";
    let cases = [
        ("a string", "allow if input.x == \"http.send({})\""),
        ("a raw string", "allow if input.x == `io.jwt.decode(1)`"),
        (
            "a comment",
            "# http.send({})\nallow if input.x # crypto.md5(1)",
        ),
        (
            "a string that looks like a syntax tree",
            r#"allow if input.x == "{\"Call\": {\"fcn\": {\"Var\": 1}}}""#,
        ),
        (
            "an object whose key is the word",
            "o := {\"Call\": {\"fcn\": {\"Var\": {\"value\": \"frob\"}}}}",
        ),
        ("a rule's name", "io.jwt.decode := 1"),
        ("a path of input", "allow if input.http.send"),
        (
            "builtins",
            "allow if startswith(lower(concat(\"\", [input.x])), \"a\")",
        ),
        (
            "a builtin with its result as the last argument",
            "allow if { split(input.x, \",\", parts); parts }",
        ),
        (
            "a builtin of ours with its result as the last argument",
            "allow if { io.jwt.decode(input.x, [_, payload, _]); payload.sub == 1 }",
        ),
        (
            "a builtin of ours replaced in with",
            "allow if { io.jwt.decode(input.x)[0] == 1 with io.jwt.decode as [1] }",
        ),
        (
            "walk",
            "allow if { walk(input, [path, value]); value == 1; path }",
        ),
        ("print", "allow if { print(); print(1, 2, 3, input.x) }"),
        (
            "a function of the same package",
            "f(x) := x\n\nallow if f(1)",
        ),
        (
            "a function named like a builtin",
            "crypto.sha256(x) := x\n\nallow if crypto.sha256(1)",
        ),
        (
            "a function by its whole path",
            "allow if data.lib.text.helper(1)",
        ),
        ("a default function", "allow if data.lib.text.fallback(1)"),
        (
            "a builtin replaced in with",
            "allow if count([]) == 0 with count as 0",
        ),
        (
            "a function replaced in with",
            "f(x) := x\n\ng(x) := x\n\nallow if f(1) with f as g",
        ),
        (
            "documents replaced in with",
            "allow if input.x with input as {} with data.y.z as 1",
        ),
        (
            "operators",
            "allow if { 1 + 2 == 3; 1 in [1]; {1} | {2} == {1, 2}; -1 < 0 }",
        ),
    ];
    for (name, rules) in cases {
        let module = policy(rules);
        assert_eq!(refused(name, &[&module, library]), [""; 0], "{name}");
    }
}

#[test]
fn import_aliases_resolve_to_the_modules_functions() {
    let library = "package lib.http\n\nsend(x) := x\n\nvalue := 1\n";
    let cases: [(&str, &str, &[&str]); 6] = [
        (
            "an import",
            "import data.lib.http\n\nallow if http.send(1)",
            &[],
        ),
        (
            "a renamed import",
            "import data.lib.http as web\n\nallow if web.send(1)",
            &[],
        ),
        (
            "an imported function",
            "import data.lib.http.send\n\nallow if send(1)",
            &[],
        ),
        (
            "an import that lacks the function",
            "import data.lib.http\n\nallow if http.sned(1)",
            &["0.rego:7:10 http.sned"],
        ),
        (
            "an import of input",
            "import input.attributes.request.http\n\nallow if http.send(1)",
            &["0.rego:7:10 http.send"],
        ),
        (
            "another module's import",
            "allow if http.send(1)",
            &["0.rego:5:10 http.send"],
        ),
    ];
    for (name, rules, expected) in cases {
        // Imports come before rules.
        let module = match rules.strip_prefix("import") {
            Some(rest) => format!(
                "package envoy.authz\n\nimport{}",
                rest.replacen("\n\n", "\n\ndefault allow := false\n\n", 1)
            ),
            None => policy(rules),
        };
        assert_eq!(
            refused(name, &[&module, library]),
            expected,
            "{name}\n{module}"
        );
    }
}

#[test]
fn calls_with_too_few_or_too_many_arguments_are_refused() {
    let cases = [
        ("a builtin", "allow if startswith(input.x)", 2, 1),
        ("a builtin with too many", "allow if count(1, 2, 3)", 1, 3),
        ("a function", "f(x) := x\n\nallow if f(1, 2, 3)", 1, 3),
        (
            "a function without arguments given",
            "f(x) := x\n\nallow if f()",
            1,
            0,
        ),
    ];
    for (name, rules, takes, given) in cases {
        match load(&[&policy(rules)]) {
            Err(PolicyError::UnsupportedCalls { calls }) => {
                let problem = CallProblem::Arity {
                    expected: takes,
                    found: given,
                };
                assert_eq!(
                    calls.first().map(|call| &call.problem),
                    Some(&problem),
                    "{name}"
                );
            }
            other => panic!("{name}: {other:?}"),
        }
    }
}
