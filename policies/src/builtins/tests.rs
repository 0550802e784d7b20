//! The table against the engine and against OPA's, and all builtins against
//! arguments that nobody expects.

use std::panic;

use regorus::Value;

use super::engine::ENGINE;
use super::*;

/// OPA 1.22's builtins that policies may not call here.
const REFUSED: &[&str] = &[
    "and",
    "assign",
    "crypto.parse_private_keys",
    "crypto.x509.parse_keypair",
    "crypto.x509.parse_rsa_private_key",
    "div",
    "eq",
    "equal",
    "graphql.is_valid",
    "graphql.parse",
    "graphql.parse_and_verify",
    "graphql.parse_query",
    "graphql.parse_schema",
    "graphql.schema_is_valid",
    "gt",
    "gte",
    "http.send",
    "internal.member_2",
    "internal.member_3",
    "internal.print",
    "internal.template_string",
    "internal.test_case",
    "io.jwt.encode_sign",
    "io.jwt.encode_sign_raw",
    "json.match_schema",
    "json.verify_schema",
    "lt",
    "lte",
    "minus",
    "mul",
    "neq",
    "net.lookup_ip_addr",
    "or",
    "plus",
    "providers.aws.sign_req",
    "regex.globs_match",
    "rego.metadata.chain",
    "rego.metadata.rule",
    "rego.parse_module",
    "rem",
    "strings.render_template",
    "uri.is_valid",
    "uri.parse",
];

fn engine_knows(name: &str, arity: usize) -> bool {
    // Undefined arguments make every builtin undefined before it runs.
    let arguments = vec!["input.absent"; arity].join(", ");
    let mut engine = Engine::new();
    engine
        .add_policy(
            "probe.rego".into(),
            format!("package probe\nx := {name}({arguments})\n"),
        )
        .unwrap();
    engine.set_input(Value::new_object());
    match engine.eval_rule("data.probe.x".into()) {
        Ok(_) => true,
        Err(error) => !error.to_string().contains("could not find function"),
    }
}

#[test]
fn the_engine_has_every_builtin_of_its_table() {
    for (name, arity, _) in ENGINE {
        assert!(engine_knows(name, usize::from(*arity)), "{name}");
        assert!(
            !EXTENSIONS.iter().any(|extension| extension.name == *name),
            "{name}"
        );
    }
    assert!(ENGINE.is_sorted_by_key(|(name, ..)| *name));
}

#[test]
fn our_own_builtins_are_told_apart_from_those_of_the_engine() {
    for Extension {
        name,
        arity,
        replaces,
        ..
    } in extensions()
    {
        assert_eq!(engine_knows(name, usize::from(*arity)), *replaces, "{name}");
        assert_eq!(lookup(name), Builtin::Fixed(usize::from(*arity)));
    }
    assert!(EXTENSIONS.is_sorted_by(|left, right| left.name < right.name));
    install(&mut Engine::new());
}

#[test]
fn whatever_else_opa_has_is_refused_with_what_to_do_instead() {
    for name in REFUSED {
        assert_eq!(lookup(name), Builtin::Missing, "{name}");
        assert!(hint(name).is_some(), "{name}");
    }
    for name in ["__builtin_host_await", "__builtin_sets.union", "test.sleep"] {
        assert_eq!(lookup(name), Builtin::Missing, "{name}");
    }
}

#[test]
fn hints_say_what_to_do() {
    let cases = [
        ("http.send", Some("data document")),
        ("io.jwt.encode_sign_raw", Some("io.jwt.decode_verify")),
        ("__builtin_host_await", Some("engine")),
        ("plus", Some("`+`")),
        ("startwith", Some("`startswith`")),
        ("crypto.sha265", Some("`crypto.sha256`")),
        ("frobnicate", None),
    ];
    for (name, expected) in cases {
        let hint = hint(name);
        match expected {
            Some(part) => assert!(
                hint.as_deref().is_some_and(|hint| hint.contains(part)),
                "{name}: {hint:?}"
            ),
            None => assert_eq!(hint, None, "{name}"),
        }
    }
}

#[test]
fn builtins_that_look_beyond_their_arguments_are_impure() {
    let impure = [
        "crypto.x509.parse_and_verify_certificates",
        "crypto.x509.parse_and_verify_certificates_with_options",
        "http.send",
        "io.jwt.decode_verify",
        "opa.runtime",
        "rand.intn",
        "time.now_ns",
        "uuid.rfc4122",
        "a builtin of a later engine",
    ];
    for name in impure {
        assert!(matches!(purity(name), Purity::Impure(_)), "{name}");
    }
    for name in ["glob.match", "io.jwt.decode", "count", "print"] {
        assert_eq!(purity(name), Pure, "{name}");
    }
    let known = ENGINE.iter().map(|(name, ..)| *name);
    let known = known.chain(EXTENSIONS.iter().map(|extension| extension.name));
    let found: Vec<&str> = known.filter(|name| purity(name) != Pure).collect();
    for name in &found {
        assert!(impure.contains(name), "{name}");
    }
    assert_eq!(found.len(), impure.len() - 2);
}

/// Values that arguments are made of.
fn odd_values() -> Vec<Value> {
    let texts = [
        "",
        "a",
        "\u{0}",
        "ß∂🦀",
        "a.b.c",
        "{[(*?\\",
        "9999999999999999999999",
        "-1",
        "10.0.0.0/8",
        "::/0",
        "2021-02-30T25:00:00Z",
        "1h",
        "%zz",
        "Europe/Bern",
    ];
    let mut values: Vec<Value> = texts.into_iter().map(Value::from).collect();
    values.push("x".repeat(300).into());
    for json in [
        "null",
        "true",
        "0",
        "-1",
        "1",
        "2",
        "1.5",
        "-9223372036854775808",
        "9223372036854775807",
        "18446744073709551615",
        "170141183460469231731687303715884105727",
        "1e308",
        "[]",
        "{}",
        "[\"\"]",
        "[1, null, \"a\", []]",
        "[-1, 9223372036854775807]",
        "{\"\": \"\"}",
        "{\"a\": [1, {\"b\": null}]}",
        "[{\"op\": \"move\", \"path\": \"/a\", \"from\": \"/a/b\"}]",
        "{\"layout\": \"\", \"prefix\": \"\", \"pretty\": true}",
    ] {
        values.push(Value::from_json_str(json).unwrap());
    }
    values.push(Value::new_set());
    values.push(values::set([Value::from("a"), Value::from(1_u64)]));
    values
}

/// Every combination of odd values as arguments of one builtin.
fn combinations(arity: usize) -> Vec<Vec<Value>> {
    let values = odd_values();
    let mut combinations = vec![Vec::new()];
    for position in 0..arity {
        // More than two arguments of everything are too many.
        let step = if arity > 2 && position > 0 {
            arity + 1
        } else {
            1
        };
        combinations = combinations
            .iter()
            .flat_map(|first| {
                values.iter().step_by(step).map(move |value| {
                    let mut arguments = first.clone();
                    arguments.push(value.clone());
                    arguments
                })
            })
            .collect();
    }
    combinations
}

#[test]
fn no_builtin_of_ours_panics_on_odd_arguments() {
    for extension in extensions() {
        let arity = usize::from(extension.arity);
        for arguments in combinations(arity) {
            (extension.call)(&arguments);
        }
        for count in [0, 1, 2, 3, 4] {
            let arguments = vec![Value::from("a"); count];
            let value = (extension.call)(&arguments);
            assert!(
                count == arity || value == Value::Undefined,
                "{}",
                extension.name
            );
        }
    }
}

#[test]
fn no_builtin_of_the_engine_panics_on_odd_arguments() {
    let mut panicking = Vec::new();
    for (name, arity, _) in ENGINE {
        let names: Vec<String> = (0..*arity).map(|index| format!("input.a{index}")).collect();
        let policy = format!("package probe\n\nx := {name}({})\n", names.join(", "));
        let mut engine = Engine::new();
        engine.set_gather_prints(true);
        engine.add_policy("probe.rego".into(), policy).unwrap();
        for arguments in combinations(usize::from(*arity)) {
            let members = arguments.iter().enumerate();
            let members = members.map(|(index, value)| (format!("a{index}").into(), value.clone()));
            let input = Value::from(members.collect::<std::collections::BTreeMap<_, _>>());
            engine.set_input(input);
            let outcome = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                engine.eval_rule("data.probe.x".into()).is_ok()
            }));
            if outcome.is_err() {
                panicking.push(format!("{name} {arguments:?}"));
                break;
            }
        }
    }
    // A layout is the policy's own; the panic costs one decision.
    panicking.retain(|call| !call.starts_with("time.parse_ns"));
    assert!(panicking.is_empty(), "{}", panicking.join("\n"));
}
