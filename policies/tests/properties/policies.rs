//! Policies by chance: of comparisons, membership, negation, `every`, comprehensions, builtins,
//! helper rules and functions, over OPA-Envoy's document.

use std::fmt;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use sidegate_policy::{Policy, PolicyOptions, PolicySources};

/// What policies look up.
const DATA: &str = r#"{
    "roles": {
        "a": ["a", "GET"],
        "b": ["admin"],
        "spiffe://x.test/a": ["a", "b", "POST"],
        "GET": []
    },
    "names": {"a": "b", "b": "a", "A": 1, "admin": false},
    "globs": ["/a/*", "/public/**"]
}"#;

/// A policy as text.
#[derive(Clone)]
pub(crate) struct Written {
    /// What makes `http` a name for a part of the input.
    naming: &'static str,
    rules: Vec<String>,
}

impl Written {
    fn text(&self) -> String {
        let rules = self.rules.join("\n\n");
        format!("package envoy.authz\n\n{}\n\n{rules}\n", self.naming)
    }

    /// Loads the policy; `more` are rules of the test's own.
    pub(crate) fn load(&self, more: &str, memory_bytes: u64) -> Policy {
        let files = [
            ("policy.rego", format!("{}\n{more}", self.text())),
            ("data.json", DATA.to_owned()),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), text));
        let options = PolicyOptions {
            decision_timeout: std::time::Duration::from_secs(30),
            memory_bytes,
            ..PolicyOptions::default()
        };
        let loaded =
            PolicySources::from_files(files).and_then(|sources| Policy::load(sources, &options));
        loaded.unwrap_or_else(|error| {
            panic!("{error}: {:?}\n{self:?}", std::error::Error::source(&error))
        })
    }
}

impl fmt::Debug for Written {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "\n{}", self.text())
    }
}

/// A policy. Rules ask only for those written before them, so that none asks for itself.
pub(crate) fn policy() -> impl Strategy<Value = Written> {
    let helpers = (
        helper("first", &[]),
        function(),
        members(),
        value(),
        helper("second", &USES),
    );
    let allow = vec(
        prop_oneof![
            6 => body(&ALL).prop_map(|body| format!("allow if {{\n{body}\n}}")),
            1 => body(&ALL).prop_map(|body| format!("allow := false if {{\n{body}\n}}")),
            1 => (field(), body(&ALL)).prop_map(|(field, body)| {
                format!("allow := {{\"allowed\": true, \"headers\": {{\"x-a\": {field}}}}} if {{\n{body}\n}}")
            }),
            1 => (body(&ALL), body(&ALL)).prop_map(|(first, second)| {
                format!("allow := true if {{\n{first}\n}} else := false if {{\n{second}\n}}")
            }),
        ],
        1..4,
    );
    let naming = select(&NAMINGS[..]);
    (naming, helpers, any::<bool>(), allow).prop_map(|(naming, helpers, default, allow)| {
        let (first, function, members, value, second) = helpers;
        let default = default.then(|| "default allow := false".to_owned());
        let rules = [first, function, members, value, second]
            .into_iter()
            .flatten();
        Written {
            naming,
            rules: rules.chain(default).chain(allow).collect(),
        }
    })
}

/// A policy of two long tables. Most of their definitions ask for values of few references.
pub(crate) fn table() -> impl Strategy<Value = Written> {
    let row = || {
        let compared = prop_oneof![
            8 => (field(), text()).prop_map(|(field, text)| format!("{field} == {text}")),
            2 => (text(), field()).prop_map(|(text, field)| format!("{text} = {field}")),
            3 => (text(), text()).prop_map(|(one, other)| format!("input.parsed_path == [{one}, {other}]")),
            1 => (0..3).prop_map(|size| format!("http.size == {size}")),
            1 => text().prop_map(|text| format!("lower(http.path) == {text}")),
        ];
        vec(compared, 1..3).prop_map(|statements| statements.join("\n"))
    };
    let rows = move |rule: &'static str, usual: u32| {
        let body = prop_oneof![usual => row(), 1 => body(&[])];
        vec(body, 9..40).prop_map(move |bodies| {
            let bodies = bodies.into_iter();
            bodies
                .map(|body| format!("{rule} if {{\n{body}\n}}"))
                .collect::<Vec<_>>()
        })
    };
    let uses = select(vec![
        "allow if refused",
        "allow if not refused",
        "allow := false if refused",
    ]);
    (
        select(&NAMINGS[..]),
        rows("allow", 5),
        rows("refused", 20),
        uses,
    )
        .prop_map(|(naming, allow, refused, uses)| Written {
            naming,
            rules: [allow, refused, [uses.to_owned(), EVERY.to_owned()].into()].concat(),
        })
}

const NAMINGS: [&str; 3] = [
    "import input.attributes.request.http as http",
    "http := input.attributes.request.http",
    "http = input.attributes.request.http",
];

/// Statements about the helper rules that come before the second.
const USES: [&str; 14] = [
    "first",
    "not first",
    "judged(FIELD)",
    "not judged(FIELD)",
    "named(FIELD) == TEXT",
    "named(FIELD) != TEXT",
    "TEXT in members",
    "not TEXT in members",
    "count(members) == 2",
    "some one in members\none == FIELD",
    "object[FIELD] == TEXT",
    "object[FIELD]",
    "chosen == FIELD",
    "every one in members { judged(one) }",
];

const ALL: [&str; 17] = [
    USES[0],
    USES[1],
    USES[2],
    USES[3],
    USES[4],
    USES[5],
    USES[6],
    USES[7],
    USES[8],
    USES[9],
    USES[10],
    USES[11],
    USES[12],
    USES[13],
    "second",
    "not second",
    "not chosen",
];

const EVERY: &str = "every_segment if every s in input.parsed_path { s in {\"a\", \"b\"} }";

/// Statements that need no other rule.
const STATEMENTS: [&str; 69] = [
    "FIELD == TEXT",
    "FIELD == TEXT",
    "TEXT == FIELD",
    "FIELD != TEXT",
    "not FIELD == TEXT",
    "not FIELD",
    "FIELD == FIELD",
    "FIELD in {TEXT, TEXT}",
    "not FIELD in [TEXT, TEXT]",
    "TEXT in input.parsed_path",
    "not TEXT in input.parsed_path",
    "some s in input.parsed_path\ns == TEXT",
    "some i, s in input.parsed_path\ns == TEXT\ni > 0",
    "some i\ninput.parsed_path[i] == TEXT",
    "input.parsed_path[_] == TEXT",
    "input.parsed_path == [TEXT, TEXT]",
    "[one, TEXT] = input.parsed_path\none != TEXT",
    "startswith(FIELD, TEXT)",
    "not endswith(FIELD, TEXT)",
    "contains(FIELD, TEXT)",
    "every s in input.parsed_path { s != TEXT }",
    "every k, v in input.parsed_query { k != TEXT; count(v) == 1 }",
    "not every_segment",
    "count(input.parsed_path) > 1",
    "count([s | some s in input.parsed_path; s != TEXT]) == 1",
    "FIELD in {s | some s in input.parsed_path}",
    "{k: v | some k, v in data.names}[FIELD] == TEXT",
    "x := FIELD\nx == TEXT",
    "x := lower(FIELD)\nnot x == TEXT",
    "lower(FIELD) == TEXT",
    "upper(FIELD) == \"GET\"",
    "split(FIELD, \"/\")[1] == TEXT",
    "concat(\"/\", input.parsed_path) == \"a/b\"",
    "sprintf(\"%s-%v\", [FIELD, FIELD]) == \"a-b\"",
    "to_number(FIELD) == 1",
    "object.get(data.names, FIELD, \"none\") == TEXT",
    "object.get(input.parsed_query, TEXT, []) == []",
    "data.names[FIELD]",
    "data.names[FIELD] == TEXT",
    "not data.names[FIELD]",
    "FIELD in data.roles[FIELD]",
    "some role in data.roles[FIELD]\nrole == TEXT",
    "not TEXT in data.roles[FIELD]",
    "count([data.names[s] | some s in input.parsed_path]) == 1",
    "count({data.names[s] | some s in input.parsed_path}) == 1",
    "count({s: data.names[s] | some s in input.parsed_path}) == 1",
    "count([x | some s in input.parsed_path; x := data.names[s]]) != 0",
    "[FIELD, TEXT] == [TEXT, FIELD]",
    "not [FIELD] == [TEXT]",
    "x := [FIELD, TEXT]\nx[1] == TEXT",
    "x := {\"a\": FIELD}\nnot x.a == TEXT",
    "x := {FIELD, TEXT}\ncount(x) == 2",
    "[x, one] := split(FIELD, \"/\")\nnot x == one",
    "every x in data.roles[FIELD] { x != TEXT }",
    "every x in input.parsed_query.k { x != TEXT }",
    "not data.roles[FIELD]",
    "some x in input.parsed_query.k\nnot x == TEXT",
    "x := input.parsed_query[TEXT]\nnot x[0] == TEXT",
    "x := data.names[FIELD]\nnot x == TEXT",
    "x := [y | some y in data.roles[FIELD]]\nx[0] != TEXT",
    "FIELD < TEXT",
    "x := http.headers\nx[\"x-role\"] == TEXT",
    "x := input.attributes.request.http.headers\nnot x[\"x-role\"] == TEXT",
    "x := input.attributes.request.http.headers\nnot x[\"X-Role\"]",
    "x := input.attributes\none := x.request\nnot one.http.path == TEXT",
    "object.get(http.headers, \"x-role\", TEXT) == TEXT",
    "object.get(input, [\"attributes\", \"request\", \"http\", \"host\"], TEXT) != TEXT",
    "not object.get(input.attributes.request.http.headers, \"x-a\", false)",
    "some pattern in data.globs\nglob.match(pattern, [\"/\"], http.path)",
];

const FIELDS: [&str; 17] = [
    "http.method",
    "http.method",
    "http.path",
    "http.host",
    "http.size",
    "http.headers[\"x-role\"]",
    "http.headers[\"x-role\"]",
    "http.headers.authorization",
    "input.parsed_path[0]",
    "input.parsed_path[0]",
    "input.parsed_path[1]",
    "input.parsed_query.k[0]",
    "input.source_principal",
    "input.attributes.source.principal",
    "input.attributes.destination.principal",
    "input.attributes.tlsSession.sni",
    "input.attributes.contextExtensions.listener",
];

const TEXTS: [&str; 12] = [
    "a",
    "b",
    "admin",
    "1",
    "",
    "A",
    "GET",
    "POST",
    "get",
    "public",
    "spiffe://x.test/a",
    "/a",
];

fn field() -> impl Strategy<Value = &'static str> {
    select(&FIELDS[..])
}

fn text() -> impl Strategy<Value = String> {
    select(&TEXTS[..]).prop_map(|text| format!("\"{text}\""))
}

/// One to three statements, each with fields and texts in their places. Each has names of its own,
/// so that a name is not given two values.
fn body(uses: &[&'static str]) -> impl Strategy<Value = String> + use<> {
    let uses = uses.to_vec();
    let statement = match uses.is_empty() {
        true => select(&STATEMENTS[..]).boxed(),
        false => prop_oneof![3 => select(&STATEMENTS[..]), 2 => select(uses)].boxed(),
    };
    let statement = (statement, vec(field(), 4), vec(text(), 4));
    vec(statement, 1..4).prop_map(|statements| {
        let filled =
            statements
                .into_iter()
                .enumerate()
                .map(|(number, (statement, fields, texts))| {
                    let (mut fields, mut texts) = (fields.into_iter(), texts.into_iter());
                    let words = statement
                        .split_inclusive(|character: char| !character.is_ascii_alphabetic());
                    words
                        .map(|word| {
                            let name = word.trim_end_matches(|character: char| {
                                !character.is_ascii_alphabetic()
                            });
                            let rest = word.strip_prefix(name).unwrap_or_default();
                            let replaced = match name {
                                "FIELD" => fields.next().unwrap_or("http.method").to_owned(),
                                "TEXT" => texts.next().unwrap_or_else(|| "\"a\"".to_owned()),
                                "s" | "i" | "k" | "v" | "x" | "one" | "role" | "pattern"
                                    if !rest.starts_with('(') =>
                                {
                                    format!("{name}{number}")
                                }
                                other => other.to_owned(),
                            };
                            format!("{replaced}{rest}")
                        })
                        .collect::<String>()
                });
        filled.collect::<Vec<String>>().join("\n")
    })
}

/// A rule that holds or not, perhaps with a default or more than one body.
fn helper(name: &'static str, uses: &[&'static str]) -> impl Strategy<Value = Vec<String>> + use<> {
    let default = any::<bool>();
    (default, vec(body(uses), 1..3)).prop_map(move |(default, bodies)| {
        let default = default.then(|| format!("default {name} := false"));
        let bodies = bodies
            .into_iter()
            .map(|body| format!("{name} if {{\n{body}\n}}"));
        let every = (name == "first").then(|| EVERY.to_owned());
        default.into_iter().chain(bodies).chain(every).collect()
    })
}

/// A function that judges, and one that gives a value.
fn function() -> impl Strategy<Value = Vec<String>> {
    let judged = select(vec![
        "judged(x) if x == TEXT",
        "judged(x) if x != TEXT\n\njudged(x) if startswith(x, TEXT)",
        "judged(x) if not x in {TEXT, TEXT}",
        "default judged(_) := false\n\njudged(x) if x == TEXT",
        "judged(TEXT) := true\n\njudged(x) if x in data.roles.a",
        "judged(x) if { some y in [TEXT, TEXT]; lower(x) == y }",
        "judged(x) := false if x == TEXT else := true",
        "judged(x) if y := lower(x)",
        "judged(x) if { y := data.names[x]; not y == TEXT }",
    ]);
    let named = select(vec![
        "named(x) := lower(x)",
        "named(x) := data.names[x]",
        "named(x) := TEXT if x == TEXT else := x",
        "named(x) := y if { y := data.names[x] } else := TEXT if startswith(x, TEXT)",
        "named(TEXT) := TEXT",
        "named(x) := data.names[x] if x != TEXT else := TEXT",
        "named(x) := y if y := data.names[x]",
        "named(x) := [y | some y in [x, TEXT]; y != TEXT][0]",
        "default named(_) := \"none\"\n\nnamed(x) := x if x != TEXT",
    ]);
    (judged, named, vec(text(), 8)).prop_map(|(judged, named, texts)| {
        let mut texts = texts.into_iter();
        let mut fill = |rule: &str| {
            rule.split("TEXT")
                .map(str::to_owned)
                .reduce(|filled, part| {
                    format!(
                        "{filled}{}{part}",
                        texts.next().unwrap_or_else(|| "\"a\"".to_owned())
                    )
                })
                .unwrap_or_default()
        };
        vec![fill(judged), fill(named)]
    })
}

/// A set and an object of rules.
fn members() -> impl Strategy<Value = Vec<String>> {
    let set = prop_oneof![
        text().prop_map(|text| format!(
            "members contains s if {{ some s in input.parsed_path; s != {text} }}"
        )),
        (field(), text()).prop_map(|(field, text)| format!(
            "members contains {field} if {field} != {text}\n\nmembers contains {text}"
        )),
        field()
            .prop_map(|field| format!("members contains role if some role in data.roles[{field}]")),
    ];
    let object = prop_oneof![
        Just("object[key] := value if some key, value in data.names".to_owned()),
        text().prop_map(|text| format!(
            "object[s] := count(s) if {{ some s in input.parsed_path; s != {text} }}"
        )),
        (field(), text()).prop_map(|(field, text)| format!("object := {{{field}: {text}}}")),
        field().prop_map(|field| format!("object := {{s: {field} | some s in input.parsed_path}}")),
    ];
    (set, object).prop_map(|(set, object)| vec![set, object])
}

/// A rule with a value.
fn value() -> impl Strategy<Value = Vec<String>> {
    prop_oneof![
        field().prop_map(|field| format!("chosen := {field}")),
        (field(), field(), body(&[])).prop_map(|(first, second, body)| format!(
            "chosen := {first} if {{\n{body}\n}} else := {second}"
        )),
        (field(), body(&[])).prop_map(|(field, body)| format!(
            "default chosen := \"none\"\n\nchosen := {field} if {{\n{body}\n}}"
        )),
        (field(), field()).prop_map(|(first, second)| format!("chosen := [{first}, {second}][_]")),
    ]
    .prop_map(|rule| vec![rule])
}
