//! OPA's own test cases for the builtins that are ours.
//!
//! `SIDEGATE_TEST_OPA_CASES` names the directory with OPA's cases, which is
//! `v1/test/cases/testdata` of its Go module. Without it the test is skipped.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use regorus::{Engine, Value};

use super::install;
use super::values::member;
use crate::engine::{forward_builtins, module_bounds};
use crate::sources::PolicySources;

/// The folders whose cases are about builtins that are here.
const FOLDERS: &[&str] = &[
    "aggregates",
    "arithmetic",
    "array",
    "base64builtins",
    "base64urlbuiltins",
    "casts",
    "cryptohmacequal",
    "cryptohmacmd5",
    "cryptohmacsha1",
    "cryptohmacsha256",
    "cryptohmacsha512",
    "cryptomd5",
    "cryptosha1",
    "cryptosha256",
    "cryptox509parseandverifycertificates",
    "cryptox509parsecertificaterequest",
    "cryptox509parsecertificates",
    "globmatch",
    "globquotemeta",
    "hexbuiltins",
    "jsonbuiltins",
    "jsonpatch",
    "jwtbuiltins",
    "jwtdecodeverify",
    "jwtverifyeddsa",
    "jwtverifyhs256",
    "jwtverifyhs384",
    "jwtverifyhs512",
    "jwtverifyrsa",
    "netcidrcontains",
    "netcidrcontainsmatches",
    "netcidrexpand",
    "netcidrintersects",
    "netcidrisvalid",
    "netcidrmerge",
    "netcidroverlap",
    "numbersrange",
    "numbersrangestep",
    "regexfind",
    "regexfindallstringsubmatch",
    "regexisvalid",
    "regexmatch",
    "regexmatchtemplate",
    "regexreplace",
    "regexsplit",
    "replacen",
    "semvercompare",
    "semverisvalid",
    "sets",
    "sprintf",
    "strings",
    "subset",
    "time",
    "toarray",
    "toset",
    "trim",
    "urlbuiltins",
];

/// Cases whose outcome differs, by the beginning of their names, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    (
        "v0/jwtdecodeverify/missing-iss-while-required",
        "makes its token with io.jwt.encode_sign, which is refused",
    ),
    (
        "v0/sprintf/float/exponent",
        "1e2 and 100 are the same number to the engine",
    ),
    (
        "v0/sprintf/float/zero_fraction",
        "the engine's parser wants a digit before the point",
    ),
    (
        "v0/strings/sprintf: float too big",
        "the engine's parser refuses numbers that no float holds",
    ),
    ("v0/time/time caching", "calls test.sleep"),
    (
        "v1/aggregates/member check set with with both key and value",
        "the engine's `in` takes no key of a set",
    ),
    (
        "v1/jsonbuiltins/unmarshal number with large exponent within limits",
        "numbers have no more digits than the largest float",
    ),
    (
        "v1/jwtdecodeverify/missing-iss-while-required",
        "makes its token with io.jwt.encode_sign, which is refused",
    ),
    (
        "v1/sprintf/float/exponent",
        "1e2 and 100 are the same number to the engine",
    ),
    (
        "v1/sprintf/float/zero_fraction",
        "the engine's parser wants a digit before the point",
    ),
    (
        "v1/strings/sprintf: float too big",
        "the engine's parser refuses numbers that no float holds",
    ),
    ("v1/time/time caching", "calls test.sleep"),
];

#[test]
fn the_builtins_answer_opas_own_cases_as_opa_does() {
    #[expect(
        clippy::disallowed_methods,
        reason = "tells the test where OPA's cases are"
    )]
    let Some(directory) = std::env::var_os("SIDEGATE_TEST_OPA_CASES") else {
        eprintln!("SKIPPED: SIDEGATE_TEST_OPA_CASES names no directory with OPA's test cases");
        return;
    };
    let directory = Path::new(&directory);
    let mut passed = 0;
    let mut failures = Vec::new();
    let mut needless: BTreeSet<&str> = EXCEPTIONS.iter().map(|(name, _)| *name).collect();
    for version in ["v0", "v1"] {
        for folder in FOLDERS {
            for file in files(&directory.join(version).join(folder)) {
                for case in cases(&file) {
                    let note = text(&case, "note").unwrap_or_default();
                    let name = format!("{version}/{note}");
                    let known = EXCEPTIONS.iter().find(|(start, _)| name.starts_with(start));
                    match (outcome(&case, version == "v0"), known) {
                        (Ok(()), None) => passed += 1,
                        (Ok(()), Some(_)) => {}
                        (Err(_), Some((start, _))) => {
                            needless.remove(start);
                        }
                        (Err(problem), None) => failures.push(format!("{name}: {problem}")),
                    }
                }
            }
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {}:\n{}",
        failures.len(),
        passed + failures.len(),
        failures.join("\n")
    );
    assert!(needless.is_empty(), "these pass by now: {needless:?}");
    assert!(passed > 500, "only {passed} cases in {directory:?}");
}

/// The files of a folder, if this version of OPA has it.
fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn cases(file: &Path) -> Vec<Value> {
    let document = Value::from_yaml_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let cases = member(&document, "cases").unwrap();
    cases.as_array().unwrap().iter().cloned().collect()
}

fn text<'a>(case: &'a Value, name: &str) -> Option<&'a str> {
    member(case, name).and_then(super::values::text)
}

/// Evaluates one case and compares.
fn outcome(case: &Value, rego_v0: bool) -> Result<(), String> {
    let result = evaluate(case, rego_v0);
    let sorted = member(case, "sort_bindings") == Some(&Value::Bool(true));
    if member(case, "want_error").is_some() || member(case, "want_error_code").is_some() {
        // An error of a builtin is undefined here; others are errors.
        return match result {
            Ok(bindings) if !bindings.is_empty() => {
                Err(format!("an error expected, not {bindings:?}"))
            }
            _ => Ok(()),
        };
    }
    let bindings = result?;
    if let Some(expected) = member(case, "want_result") {
        let expected: Vec<Value> = expected.as_array().unwrap().iter().cloned().collect();
        let plain = |values: &[Value]| {
            let mut plain: Vec<Value> = values.iter().map(|value| plain(value, sorted)).collect();
            plain.sort();
            plain
        };
        let (expected, found) = (plain(&expected), plain(&bindings));
        if expected != found {
            return Err(format!("{expected:?} expected, not {found:?}"));
        }
        return Ok(());
    }
    let defined = member(case, "want_defined") != Some(&Value::Bool(false));
    if bindings.is_empty() == defined {
        return Err(format!("defined: {defined} expected, not {bindings:?}"));
    }
    Ok(())
}

/// Sets as arrays, as the cases write them.
fn plain(value: &Value, sorted: bool) -> Value {
    match value {
        Value::Set(items) => Value::from(
            items
                .iter_sorted()
                .map(|item| plain(item, sorted))
                .collect::<Vec<_>>(),
        ),
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(|item| plain(item, sorted)).collect();
            if sorted {
                items.sort();
            }
            Value::from(items)
        }
        Value::Object(items) => {
            let items = items.iter();
            Value::from(
                items
                    .map(|(key, item)| (plain(key, sorted), plain(item, sorted)))
                    .collect::<std::collections::BTreeMap<_, _>>(),
            )
        }
        other => other.clone(),
    }
}

/// The bindings of a case's query.
fn evaluate(case: &Value, rego_v0: bool) -> Result<Vec<Value>, String> {
    let mut engine = Engine::new();
    install(&mut engine);
    engine.set_rego_v0(rego_v0);
    engine.set_strict_builtin_errors(false);
    engine.set_policy_length_config(module_bounds());
    let modules = member(case, "modules").and_then(|modules| modules.as_array().ok());
    let modules: Vec<(String, String)> = modules
        .into_iter()
        .flat_map(|modules| modules.iter().enumerate())
        .map(|(index, text)| {
            (
                format!("{index}.rego"),
                text.as_string().unwrap().to_string(),
            )
        })
        .collect();
    for (name, text) in &modules {
        let added = engine.add_policy(name.clone(), text.clone());
        added.map_err(|error| error.to_string())?;
    }
    if !modules.is_empty() {
        let sources = PolicySources::from_modules(modules).map_err(|error| error.to_string())?;
        forward_builtins(&mut engine, &sources).map_err(|error| error.to_string())?;
    }
    if let Some(data @ Value::Object(_)) = member(case, "data") {
        engine
            .add_data(data.clone())
            .map_err(|error| error.to_string())?;
    }
    if let Some(term) = text(case, "input_term") {
        let term = engine.eval_query(term.to_owned(), false).unwrap();
        engine.set_input(term.result[0].expressions[0].value.clone());
    } else if let Some(input) = member(case, "input") {
        engine.set_input(input.clone());
    }
    let query = text(case, "query").unwrap().to_owned();
    let results = engine.eval_query(query, false);
    let results = results.map_err(|error| error.to_string())?;
    let bindings = results.result.into_iter().map(|result| result.bindings);
    Ok(bindings.collect())
}
