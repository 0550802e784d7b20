//! Patterns and texts, and what Go's matchers say of them.

use regorus::Value;

use super::cache::Matcher;
use super::glob::Glob;
use super::regex::GoRegex;
use super::{glob_match, glob_quote_meta, regex_is_valid, regex_match};

/// The delimiters of a case: `-` for null, else an array of characters.
fn delimiters(given: &str) -> Value {
    if given == "-" {
        return Value::Null;
    }
    let characters = given
        .chars()
        .map(|character| Value::from(character.to_string()));
    Value::from(characters.collect::<Vec<Value>>())
}

fn globbed(pattern: &str, given: &str, text: &str) -> Option<bool> {
    let result = glob_match(&[pattern.into(), delimiters(given), text.into()]);
    result.map(|result| *result.as_bool().unwrap())
}

#[test]
fn globs_match_as_gobwas_matches_them() {
    let cases = [
        ("/orders/*", "/", "/orders/7", true),
        ("/orders/*", "/", "/orders/7/items", false),
        ("/orders/**", "/", "/orders/7/items", true),
        ("/orders/**", "/", "/orders", false),
        ("/**/items/*", "/", "/a/b/items/7", true),
        ("/**/items/*", "/", "/a/b/items/7/8", false),
        ("/**/items/*", "/", "/items/x/items/7", true),
        ("*:github:com", ":", "api:github:com", true),
        ("*:github:com", ":", "a:b:github:com", false),
        ("*.example.org", "", "a.example.org", true),
        ("*.example.org", "", "a.b.example.org", false),
        ("*.example.org", "-", "a.b.example.org", true),
        ("a*b*c", "/", "aXbYc", true),
        ("a*b*c", "/", "abbc", true),
        ("a*b*c", "/", "ab/c", false),
        ("*a*", "/", "bab", true),
        ("*/*", "/", "a/b", true),
        ("*/*", "/", "a/b/c", false),
        ("**/b", "/", "a/x/b", true),
        ("**/b", "/", "b", false),
        ("?", "/", "ß", true),
        ("?", "/", "/", false),
        ("??", "-", "🦀x", true),
        ("[!x]at", "/", "/at", true),
        ("*[!x]*b", "/", "ab/cb", true),
        ("[a-c]", "-", "b", true),
        ("[a-c]", "-", "-", false),
        ("[abc-]", "-", "-", true),
        ("[^a]", "-", "^", true),
        ("{a,b*}c", "/", "bxxc", true),
        ("{a,b*}c", "/", "bx/c", false),
        ("{a,}c", "-", "c", true),
        ("{{a,b},c}", "-", "b", true),
        ("a,b}", "-", "a,b}", true),
        ("a]", "-", "a]", true),
        (r"\*", "-", "*", true),
        (r"\*", "-", "x", false),
        (r"[\]]", "-", "]", true),
        (r"{\,,x}", "-", ",", true),
        ("", "-", "", true),
        ("", "-", "x", false),
        ("*", "/", "", true),
        ("**", "/", "a/b\nc", true),
        ("*", "-", "\n", true),
        ("a**", "/", "a", true),
        ("***", "/", "a/b", true),
    ];
    for (pattern, given, text, expected) in cases {
        assert_eq!(
            globbed(pattern, given, text),
            Some(expected),
            "{pattern} {given} {text}"
        );
        // The pattern's other way, with a group around it.
        if !pattern.contains(['{', '}', ',']) {
            let grouped = format!("{{{pattern}}}");
            assert_eq!(
                globbed(&grouped, given, text),
                Some(expected),
                "{grouped} {given} {text}"
            );
        }
    }
}

#[test]
fn malformed_globs_are_undefined() {
    for pattern in [
        "[", "[]", "[a", "[!]", "[b-a]", "[a-]x", "{a", "{a,b", "a\\", "[\\",
    ] {
        assert_eq!(globbed(pattern, "/", "a"), None, "{pattern}");
    }
    let deep = "{".repeat(100) + &"}".repeat(100);
    assert_eq!(globbed(&deep, "-", ""), None);
    assert_eq!(globbed(&"a".repeat(100_000), "-", "a"), None);
    let long = Value::from(vec![Value::from("ab")]);
    assert_eq!(glob_match(&["a".into(), long, "a".into()]), None);
    assert_eq!(glob_match(&["a".into(), "/".into(), "a".into()]), None);
}

#[test]
fn quoted_texts_match_themselves() {
    for text in ["a*b", "{x,[y]}?", "\\", "ß**"] {
        let quoted = glob_quote_meta(&[text.into()]).unwrap();
        let matched = glob_match(&[quoted, Value::Null, text.into()]);
        assert_eq!(matched, Some(true.into()), "{text}");
    }
}

#[test]
fn regular_expressions_match_as_go_matches_them() {
    let cases = [
        (r"^\d+$", "123", Some(true)),
        (r"^\d+$", "١٢٣", Some(false)),
        (r"^\w+$", "ß", Some(false)),
        (r"^\W+$", "ß", Some(true)),
        (r"^[\w-]+$", "a-b_c", Some(true)),
        (r"^\s$", "\u{b}", Some(false)),
        (r"^[^\S]$", " ", Some(true)),
        (r"\bß", "aß", Some(true)),
        (r"^\<b\>$", "<b>", Some(true)),
        (r"^/users/{id}$", "/users/{id}", Some(true)),
        (r"^a{2}$", "aa", Some(true)),
        (r"^a{,2}$", "a{,2}", Some(true)),
        (r"^a{02}$", "a{02}", Some(true)),
        (r"a{1001}", "a", None),
        (r"a{2,1}", "a", None),
        (r"^[a&&b]$", "&", Some(true)),
        (r"^[[a]$", "[", Some(true)),
        (r"^[a-b-]$", "-", Some(true)),
        (r"^[]a]$", "]", Some(true)),
        (r"^[^]a]$", "b", Some(true)),
        (r"^[[:alpha:]]$", "x", Some(true)),
        (r"^[[:^alpha:]]$", "x", Some(false)),
        (r"^\Qa.b*\E$", "a.b*", Some(true)),
        (r"^\101$", "A", Some(true)),
        (r"^\x41\x{42}$", "AB", Some(true)),
        (r"^\pL$", "ß", Some(true)),
        (r"^\p{Greek}$", "λ", Some(true)),
        (r"^\p{^Greek}$", "λ", Some(false)),
        (r"^\PL$", "1", Some(true)),
        (r"(?i)^ß$", "ẞ", Some(true)),
        (r"(?s)^.$", "\n", Some(true)),
        (r"^.$", "\n", Some(false)),
        (r"(?m)^b$", "a\nb", Some(true)),
        (r"b$", "b\n", Some(false)),
        (r"(?P<name>a)(?<other>b)(?:c)", "abc", Some(true)),
        (r"a*?b", "aab", Some(true)),
        ("", "x", Some(true)),
        ("$^[[[", "x", None),
        ("a**", "a", None),
        (r"\1", "a", None),
        (r"\C", "a", None),
        (r"(?x)a", "a", None),
        (r"(?R)a", "a", None),
        ("(", "a", None),
        (")", "a", None),
        ("*", "a", None),
        (r"\", "a", None),
        ("[a", "a", None),
        ("[b-a]", "a", None),
        (r"(a{1000}){1000}", "a", None),
    ];
    for (pattern, text, expected) in cases {
        let matched = regex_match(&[pattern.into(), text.into()]);
        assert_eq!(matched, expected.map(Value::from), "{pattern} {text}");
        let valid = regex_is_valid(&[pattern.into()]);
        assert_eq!(valid, Some(expected.is_some().into()), "{pattern}");
    }
}

#[test]
fn hostile_patterns_end_soon_and_stay_small() {
    let subject = "a".repeat(20_000);
    for pattern in [
        "*a*a*a*a*b",
        "**a*a*b",
        "{a,aa,*}{a,aa,*}{a,aa,*}b",
        "**a**a**a**b",
    ] {
        let glob = Glob::compile(pattern, "/").unwrap();
        assert!(!glob.matches(&subject), "{pattern}");
    }
    for pattern in ["(a*)*b", "(a|aa)+b", "(.*)(.*)(.*)(.*)b"] {
        let regex = GoRegex::compile(pattern).unwrap();
        assert!(!regex.matches(&subject), "{pattern}");
        assert!(regex.bytes() < 4 * 1024 * 1024, "{pattern}");
    }
    for open in ["{", "[:", "\\Q", "(", "[", "\\x{", "(?P<"] {
        regex_match(&[open.repeat(8_000).into(), "a".into()]);
        glob_match(&[open.repeat(8_000).into(), Value::Null, "a".into()]);
    }
}
