use super::*;
use crate::bundle::testing::{ALLOW, tarball};
use crate::policy::{Policy, PolicyOptions};

fn read(files: &[(&str, &str)]) -> Result<Bundle, BundleError> {
    Bundle::read(tarball(files).as_slice(), &Limits::default(), None)
}

fn load(bundles: &[(&str, &Bundle)]) -> Result<Policy, BundleError> {
    let sources = merge(bundles.iter().copied())?;
    Ok(Policy::load(sources, &PolicyOptions::default())?)
}

#[test]
fn a_bundle_becomes_a_policy_with_data_placed_by_directory() {
    let tests = r#"package envoy.authz_test
test_data if {
    data.json == 1
    data.deep.er.yaml == 2
    data.deep.yml == 3
    not data.other
}
test_allow if data.envoy.authz.allow
"#;
    let bundle = read(&[
        (
            "/.manifest",
            r#"{"revision": "r1", "unknown": true, "metadata": {"by": "me"}}"#,
        ),
        ("/policy.rego", ALLOW),
        ("/policy_test.rego", tests),
        ("/data.json", r#"{"json": 1}"#),
        ("/deep/data.yml", "yml: 3"),
        ("/deep/er/data.yaml", "yaml: 2"),
        ("/deep/other.json", r#"{"other": 4}"#),
        ("/policy.wasm", "\0asm"),
        ("/plan.json", "{}"),
        ("/README.md", "# Read me"),
    ]);
    let bundle = bundle.unwrap();
    let policy = load(&[("authz", &bundle)]).unwrap();
    assert_eq!(policy.status().tests, 2);
    assert_eq!(policy.status().modules, 2);
    let sources = merge([("authz", &bundle)]).unwrap();
    let expected = BundleRevision {
        name: "authz".to_owned(),
        revision: "r1".to_owned(),
    };
    assert_eq!(sources.bundles(), [expected]);
}

#[test]
fn versions_of_rego_mix_module_by_module() {
    let v0 = "package old\nallow { input.x == 1 }\nnames[name] { name := \"a\" }\n";
    let v0_tests = "package old_test\ntest_allow { data.old.allow with input.x as 1 }\n";
    let v1 = "package envoy.authz\nallow if data.old.allow\n";
    let v1_tests = "package envoy.authz_test\n\
        test_old if data.envoy.authz.allow with input.x as 1\n\
        test_set if \"a\" in data.old.names\n";
    for manifest in [
        r#"{"rego_version": 0, "file_rego_versions": {"/new/*.rego": 1}}"#,
        r#"{"rego_version": 1, "file_rego_versions": {"*/old*.rego": 0}}"#,
        r#"{"file_rego_versions": {"/old{,_test}.rego": 0}}"#,
        r#"{"file_rego_versions": {"old*": 0}}"#,
    ] {
        let files = [
            ("/.manifest", manifest),
            ("/old.rego", v0),
            ("/old_test.rego", v0_tests),
            ("/new/new.rego", v1),
            ("/new/new_test.rego", v1_tests),
        ];
        let bundle = read(&files).unwrap();
        let policy = load(&[("authz", &bundle)]).expect(manifest);
        assert_eq!(policy.status().tests, 3, "{manifest}");
        // In whatever order they come to the engine.
        let mut reversed = bundle.clone();
        reversed.modules.reverse();
        load(&[("authz", &reversed)]).expect(manifest);
    }
    // Without a word, it is v1.
    let bundle = read(&[("/old.rego", v0), ("/new.rego", v1)]).unwrap();
    assert_eq!(load(&[("authz", &bundle)]).unwrap_err().code(), "SG0207");
    // An object made of several rules is asked for by a module of our own.
    let object = "package envoy.authz\nallow[\"allowed\"] = true { true }\n";
    let manifest = r#"{"rego_version": 0}"#;
    let bundle = read(&[("/.manifest", manifest), ("/object.rego", object)]).unwrap();
    load(&[("authz", &bundle)]).unwrap();
}

#[test]
fn what_a_manifest_must_not_say_is_refused() {
    for (manifest, message) in [
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
        (r#"{"roots": "a"}"#, "cannot be read"),
        (r#"{"roots": ["a"]} {}"#, "cannot be read"),
        (r#"{"Roots": ["a"]}"#, "write `roots`"),
        (r#"{"rego_version": 2}"#, "neither 0 nor 1"),
        (r#"{"rego_version": "1"}"#, "cannot be read"),
        (r#"{"file_rego_versions": {"/a.rego": 2}}"#, "for `/a.rego`"),
        (r#"{"file_rego_versions": {"/[a.rego": 0}}"#, "pattern"),
        (r#"{"roots": ["a", "a/b"]}"#, "one is in the other"),
        (r#"{"roots": ["a", ""]}"#, "one is in the other"),
        (r#"{"roots": ["a//b"]}"#, "no path"),
        (
            r#"{"wasm": [{"entrypoint": "a/b", "module": "/policy.wasm"}]}"#,
            "WebAssembly",
        ),
    ] {
        let error = read(&[(".manifest", manifest), ("policy.rego", ALLOW)]).expect_err(manifest);
        assert_eq!(error.code(), "SG0237", "{manifest}: {error}");
        assert!(error.to_string().contains(message), "{manifest}: {error}");
    }
    let ours = (".manifest", "{}");
    for files in [
        [ours, ("a/.manifest", "{}")],
        [ours, ("other.manifest", "{}")],
        [ours, (".manifest.pb", "")],
        [ours, ("a/.signatures.json", "{}")],
        [ours, ("policy.rego", "package \u{fffd}\u{0}")],
    ] {
        let error = match read(&files) {
            Err(error) => error.code(),
            Ok(bundle) => load(&[("authz", &bundle)]).unwrap_err().code(),
        };
        assert!(["SG0237", "SG0207"].contains(&error), "{files:?}: {error}");
    }
    let delta = read(&[("/patch.json", r#"{"data": []}"#)]).unwrap_err();
    assert_eq!(delta.code(), "SG0236");
}

#[test]
fn nothing_lies_outside_of_the_roots() {
    let roots = r#"{"roots": ["envoy/authz", "/bindings/", "x"]}"#;
    let check = |files: &[(&str, &str)]| {
        let files = [&[(".manifest", roots)], files].concat();
        read(&files).map(|_| ()).map_err(|error| {
            assert_eq!(error.code(), "SG0238", "{error}");
            error.to_string()
        })
    };
    for inside in [
        &[("policy.rego", ALLOW)][..],
        &[("p.rego", "package envoy.authz.deeper")],
        &[("p.rego", "package x")],
        &[(
            "data.json",
            r#"{"bindings": {"a": 1}, "envoy": {"authz": 2}}"#,
        )],
        &[("data.json", r#"{"envoy": {}}"#)],
        &[("bindings/data.json", "[1]")],
        &[("envoy/authz/deep/data.yaml", "a: 1")],
    ] {
        assert_eq!(check(inside), Ok(()), "{inside:?}");
    }
    for (outside, what) in [
        (("p.rego", "package envoy"), "`envoy`"),
        (("p.rego", "package envoy.authz_test"), "`envoy/authz_test`"),
        (("p.rego", "package a[\"envoy/authz\"]"), "`a/envoy/authz`"),
        (("data.json", r#"{"other": 1}"#), "`other`"),
        (("data.json", r#"{"envoy": {"more": {}}}"#), "`envoy/more`"),
        (("envoy/data.json", "1"), "`envoy`"),
        (("bind/data.json", "{}"), "`bind`"),
    ] {
        let error = check(&[outside]).expect_err(what);
        assert!(error.contains(what), "{error}");
    }
    // No root is no place.
    let none = [(".manifest", r#"{"roots": []}"#), ("policy.rego", ALLOW)];
    assert_eq!(read(&none).unwrap_err().code(), "SG0238");
}

#[test]
fn bundles_with_disjoint_roots_make_one_policy() {
    let policy = r#"package envoy.authz
allow if input.who in data.bindings.admins
"#;
    let authz = read(&[
        (".manifest", r#"{"revision": "1", "roots": ["envoy"]}"#),
        ("policy.rego", policy),
    ]);
    let data = read(&[
        (".manifest", r#"{"roots": ["bindings"]}"#),
        ("bindings/data.json", r#"{"admins": ["a"]}"#),
    ]);
    let (authz, data) = (authz.unwrap(), data.unwrap());
    load(&[("authz", &authz), ("data", &data)]).unwrap();
    // The same file names are no contradiction, and messages tell them apart.
    let broken = read(&[
        (".manifest", r#"{"roots": ["x"]}"#),
        ("policy.rego", "package x\nbroken"),
    ]);
    let error = load(&[("authz", &authz), ("x", &broken.unwrap())]).unwrap_err();
    let BundleError::Sources { source } = &error else {
        panic!("{error:?}");
    };
    assert!(source.to_string().contains("x/policy.rego"), "{source}");

    for (roots, shared) in [
        (r#"["envoy"]"#, "`envoy`"),
        (r#"["envoy/authz/deeper"]"#, "`envoy/authz/deeper`"),
        (r#"["x", ""]"#, ""),
        (r#"[""]"#, "`envoy`"),
    ] {
        let manifest = format!(r#"{{"roots": {roots}}}"#);
        let Ok(other) = read(&[(".manifest", &manifest)]) else {
            assert!(shared.is_empty(), "{roots}");
            continue;
        };
        let error = load(&[("authz", &authz), ("data", &data), ("other", &other)]).unwrap_err();
        assert_eq!(error.code(), "SG0239");
        let text = error.to_string();
        assert!(
            text.starts_with("the bundles `authz` and `other`"),
            "{text}"
        );
        assert!(text.contains(shared), "{text}");
    }
    let alone = load(&[("data", &data)]).unwrap_err();
    assert_eq!(alone.code(), "SG0204");
}

#[test]
fn brackets_that_are_nested_too_deep_do_not_reach_the_parser() {
    let deep = format!("{ALLOW}\nx := {}1{}\n", "[".repeat(64), "]".repeat(64));
    for manifest in ["{}", r#"{"roots": ["envoy/authz"]}"#] {
        let bundle = read(&[("/.manifest", manifest), ("/policy.rego", &deep)]).unwrap();
        let error = load(&[("authz", &bundle)]).unwrap_err();
        assert_eq!(error.code(), "SG0212", "{manifest}");
    }
}
