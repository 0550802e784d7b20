//! Policies call the builtins that the engine lacks in every way that Rego has
//! for calls, and replace them in their tests.

use sidegate_policy::{Policy, PolicyError, PolicySources};

use crate::common::{connection, evaluator, get, metrics, options};

/// Signed with the secret `secret`; its payload is `{"sub": "alice"}`.
const TOKEN: &str =
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.rSJzVkJH-KnHZ3uThGnEkzcC_XYwqhh3yjQhE5XM8Vc";

/// A policy around some rules that know the token.
fn policy(rules: &str) -> String {
    format!("package envoy.authz\n\ntoken := \"{TOKEN}\"\n\n{rules}\n")
}

#[test]
fn our_builtins_are_called_in_every_form() {
    let cases = [
        (
            "the value of a call",
            "allow if io.jwt.decode(token)[1].sub == \"alice\"",
        ),
        (
            "an assignment",
            "allow if { [_, payload, _] := io.jwt.decode(token); payload.sub == \"alice\" }",
        ),
        (
            "the result as the last argument",
            "allow if { io.jwt.decode(token, [_, payload, _]); payload.sub == \"alice\" }",
        ),
        (
            "the result as a variable",
            "allow if { io.jwt.decode_verify(token, {\"secret\": \"secret\"}, result); result[0] }",
        ),
        (
            "the result as a value",
            "allow if io.jwt.verify_hs256(token, \"secret\", true)",
        ),
        (
            "a result that differs",
            "allow if not io.jwt.verify_hs256(token, \"another\")",
        ),
        (
            "an undefined result",
            "allow if not io.jwt.decode(\"no token\")",
        ),
        (
            "an argument that is undefined",
            "hashed if crypto.sha256(input.absent)\n\nallow if not hashed",
        ),
        (
            "both forms in one package",
            "allow if { io.jwt.decode(token, [header, _, _]); io.jwt.decode(token)[0] == header }",
        ),
        (
            "in a comprehension",
            "allow if { digests := {d | some x in [\"a\", \"b\"]; crypto.md5(x, d)}; count(digests) == 2 }",
        ),
        (
            "a function of its own name",
            "all(x) := false\n\nallow if all([true]) == false",
        ),
        (
            "replaced by a value",
            "allow if io.jwt.decode(token)[1] == 1 with io.jwt.decode as [0, 1, 2]",
        ),
        (
            "replaced by a function",
            "mine(_, _) := [true, {}, {}]\n\nchecked if io.jwt.decode_verify(token, {})[0]\n\nallow if checked with io.jwt.decode_verify as mine",
        ),
        (
            "a replaced builtin of the engine",
            "allow if not glob.match(\"a\", [], \"a\") with glob.match as false",
        ),
        (
            "in place of a function",
            "digest(_) := \"\"\n\nallow if digest(\"a\") == crypto.md5(\"a\") with digest as crypto.md5",
        ),
    ];
    for (name, rules) in cases {
        let mut evaluator = evaluator(&policy(rules));
        assert!(evaluator.decide(&connection(), get("/")).is_ok(), "{name}");
        // And again, on an interpreter that has been used.
        assert!(evaluator.decide(&connection(), get("/")).is_ok(), "{name}");
    }
}

#[test]
fn tests_of_another_package_replace_what_the_policy_calls() -> Result<(), PolicyError> {
    let rules =
        "allow if { io.jwt.decode_verify(token, {\"cert\": data.jwks}, [valid, _, _]); valid }";
    let test = "package envoy.authz_test\n\nimport data.envoy.authz\n\nyes(_, _) := [true, {}, {}]\n\ntest_allowed if authz.allow with io.jwt.decode_verify as yes with data.jwks as \"keys\"\n\ntest_denied if not authz.allow with io.jwt.decode_verify as [false, {}, {}] with data.jwks as \"keys\"\n";
    let module = policy(rules);
    let sources =
        PolicySources::from_modules([("policy.rego", module.as_str()), ("test.rego", test)])?;
    let policy = Policy::load(sources, &options())?;
    assert_eq!(policy.status().tests, 2);
    // Without keys there is no answer.
    let mut evaluator = policy.evaluator(&metrics())?;
    assert!(evaluator.decide(&connection(), get("/")).is_err());
    Ok(())
}

#[test]
fn packages_with_unusual_names_may_call_them_too() -> Result<(), PolicyError> {
    let module =
        policy("allow if data.lib[\"a-b\"].digested == \"0cc175b9c0f1b6a831c399e269772661\"");
    let library = "package lib[\"a-b\"]\n\ndigested := digest if crypto.md5(\"a\", digest)\n";
    let sources =
        PolicySources::from_modules([("policy.rego", module.as_str()), ("library.rego", library)])?;
    let mut evaluator = Policy::load(sources, &options())?.evaluator(&metrics())?;
    assert!(evaluator.decide(&connection(), get("/")).is_ok());
    Ok(())
}
