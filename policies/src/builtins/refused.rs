//! What to say of builtins that are not here.

use super::{EXTENSIONS, engine::ENGINE};

/// What to do instead, by the beginning of the missing builtin's name.
const HINTS: &[(&str, &str)] = &[
    (
        "__builtin_",
        "this name belongs to the engine and is no builtin of Rego",
    ),
    (
        "crypto.parse_private_keys",
        "private keys do not belong into a policy",
    ),
    (
        "crypto.x509.parse_keypair",
        "private keys do not belong into a policy",
    ),
    (
        "crypto.x509.parse_rsa_private_key",
        "private keys do not belong into a policy",
    ),
    (
        "graphql.",
        "this engine has no GraphQL builtins; decide by path, header and what parsed_body holds",
    ),
    (
        "http.send",
        "a decision makes no requests; put what it needs into a data document",
    ),
    (
        "internal.",
        "this name belongs to OPA's compiler and is no builtin of Rego",
    ),
    (
        "io.jwt.encode_sign",
        "a decision signs nothing; verify tokens with io.jwt.decode_verify",
    ),
    (
        "json.match_schema",
        "this engine has no JSON Schema; check the members that the decision needs",
    ),
    (
        "json.verify_schema",
        "this engine has no JSON Schema; check the members that the decision needs",
    ),
    (
        "net.lookup_ip_addr",
        "a decision makes no requests; put what it needs into a data document",
    ),
    (
        "providers.aws.",
        "a decision signs nothing; let the upstream's client sign its requests",
    ),
    (
        "regex.globs_match",
        "this engine does not compare patterns; match texts with glob.match or regex.match",
    ),
    (
        "rego.",
        "a policy does not read its own source; put what it needs into a data document",
    ),
    (
        "strings.render_template",
        "this engine has no templates; use sprintf",
    ),
    (
        "uri.",
        "this engine does not parse URIs; use input.parsed_path and input.parsed_query, or split",
    ),
];

/// OPA's functions behind the operators.
const OPERATORS: &[(&str, &str)] = &[
    ("and", "&"),
    ("assign", ":="),
    ("div", "/"),
    ("eq", "="),
    ("equal", "=="),
    ("gt", ">"),
    ("gte", ">="),
    ("lt", "<"),
    ("lte", "<="),
    ("minus", "-"),
    ("mul", "*"),
    ("neq", "!="),
    ("or", "|"),
    ("plus", "+"),
    ("rem", "%"),
];

/// How alike two names must be, from 0 to 1, to suppose a slip of the pen.
const LIKENESS: f64 = 0.88;

/// Whether OPA, or the engine for itself, has something of this name that
/// policies may not call here.
pub(crate) fn is_refused(name: &str) -> bool {
    HINTS.iter().any(|(start, _)| name.starts_with(start))
}

/// What to do about a name that nothing defines.
pub(crate) fn hint(name: &str) -> Option<String> {
    if let Some((_, hint)) = HINTS.iter().find(|(start, _)| name.starts_with(start)) {
        return Some((*hint).to_owned());
    }
    if let Some((_, operator)) = OPERATORS.iter().find(|(function, _)| *function == name) {
        return Some(format!("write the operator `{operator}`"));
    }
    let engine = ENGINE.iter().map(|(known, ..)| *known);
    let known = engine.chain(EXTENSIONS.iter().map(|extension| extension.name));
    let alike = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let best = alike.max_by(|left, right| left.0.total_cmp(&right.0));
    best.filter(|(likeness, _)| *likeness >= LIKENESS)
        .map(|(_, known)| format!("did you mean `{known}`?"))
}
