//! The builtins that the engine has, and what to say of those it lacks.
//!
//! The engine does not list its builtins, so this table does; a test asks the
//! engine for each. A builtin that a later engine adds stays unknown until it
//! is added here, after someone has looked at what it may do.

/// Names of builtins and how many arguments each takes, in the order of names.
const BUILTINS: &[(&str, usize)] = &[
    ("abs", 1),
    ("array.concat", 2),
    ("array.reverse", 1),
    ("array.slice", 3),
    ("base64.decode", 1),
    ("base64.encode", 1),
    ("base64.is_valid", 1),
    ("base64url.decode", 1),
    ("base64url.encode", 1),
    ("base64url.encode_no_pad", 1),
    ("bits.and", 2),
    ("bits.lsh", 2),
    ("bits.negate", 1),
    ("bits.or", 2),
    ("bits.rsh", 2),
    ("bits.xor", 2),
    ("ceil", 1),
    ("concat", 2),
    ("contains", 2),
    ("count", 1),
    ("endswith", 2),
    ("floor", 1),
    ("format_int", 2),
    ("glob.match", 3),
    ("glob.quote_meta", 1),
    ("graph.reachable", 2),
    ("graph.reachable_paths", 2),
    ("hex.decode", 1),
    ("hex.encode", 1),
    ("indexof", 2),
    ("indexof_n", 2),
    ("intersection", 1),
    ("is_array", 1),
    ("is_boolean", 1),
    ("is_null", 1),
    ("is_number", 1),
    ("is_object", 1),
    ("is_set", 1),
    ("is_string", 1),
    ("json.filter", 2),
    ("json.is_valid", 1),
    ("json.marshal", 1),
    ("json.marshal_with_options", 2),
    ("json.remove", 2),
    ("json.unmarshal", 1),
    ("lower", 1),
    ("max", 1),
    ("min", 1),
    ("net.cidr_contains", 2),
    ("net.cidr_expand", 1),
    ("net.cidr_is_valid", 1),
    ("numbers.range", 2),
    ("numbers.range_step", 3),
    ("object.filter", 2),
    ("object.get", 3),
    ("object.keys", 1),
    ("object.remove", 2),
    ("object.subset", 2),
    ("object.union", 2),
    ("object.union_n", 1),
    ("opa.runtime", 0),
    ("product", 1),
    ("rand.intn", 2),
    ("regex.find_all_string_submatch_n", 3),
    ("regex.find_n", 3),
    ("regex.is_valid", 1),
    ("regex.match", 2),
    ("regex.replace", 3),
    ("regex.split", 2),
    ("regex.template_match", 4),
    ("replace", 3),
    ("round", 1),
    ("semver.compare", 2),
    ("semver.is_valid", 1),
    ("sort", 1),
    ("split", 2),
    ("sprintf", 2),
    ("startswith", 2),
    ("strings.any_prefix_match", 2),
    ("strings.any_suffix_match", 2),
    ("strings.count", 2),
    ("strings.replace_n", 2),
    ("strings.reverse", 1),
    ("substring", 3),
    ("sum", 1),
    ("time.add_date", 4),
    ("time.clock", 1),
    ("time.date", 1),
    ("time.diff", 2),
    ("time.format", 1),
    ("time.now_ns", 0),
    ("time.parse_duration_ns", 1),
    ("time.parse_ns", 2),
    ("time.parse_rfc3339_ns", 1),
    ("time.weekday", 1),
    ("to_number", 1),
    ("trace", 1),
    ("trim", 2),
    ("trim_left", 2),
    ("trim_prefix", 2),
    ("trim_right", 2),
    ("trim_space", 1),
    ("trim_suffix", 2),
    ("type_name", 1),
    ("union", 1),
    ("units.parse", 1),
    ("units.parse_bytes", 1),
    ("upper", 1),
    ("urlquery.decode", 1),
    ("urlquery.decode_object", 1),
    ("urlquery.encode", 1),
    ("urlquery.encode_object", 1),
    ("uuid.parse", 1),
    ("uuid.rfc4122", 1),
    ("walk", 1),
    ("yaml.is_valid", 1),
    ("yaml.marshal", 1),
    ("yaml.unmarshal", 1),
];

/// What to do instead, by the beginning of the missing builtin's name.
const HINTS: &[(&str, &str)] = &[
    (
        "crypto.",
        "this engine has no cryptographic builtins; the caller's verified identity is input.source_principal",
    ),
    ("graphql.", "this engine has no GraphQL builtins"),
    (
        "http.send",
        "a decision makes no requests; put what it needs into a data document",
    ),
    (
        "io.jwt.",
        "this engine has no JWT builtins; the caller's verified identity is input.source_principal",
    ),
    (
        "net.lookup_ip_addr",
        "a decision makes no requests; put what it needs into a data document",
    ),
    ("providers.aws.", "this engine does not sign requests"),
    ("re_match", "renamed to regex.match in Rego v1"),
];

/// How alike two names must be, from 0 to 1, to suppose a slip of the pen.
const LIKENESS: f64 = 0.88;

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builtin {
    /// The engine has it; it takes this many arguments.
    Fixed(usize),
    /// The engine has it; it takes any number of arguments (`print`).
    Variadic,
    /// The engine does not have it.
    Missing,
}

/// Looks a builtin up by the name under which policies call it.
pub(super) fn lookup(name: &str) -> Builtin {
    if name == "print" {
        return Builtin::Variadic;
    }
    let found = BUILTINS.binary_search_by_key(&name, |(known, _)| known);
    found
        .ok()
        .and_then(|index| BUILTINS.get(index))
        .map_or(Builtin::Missing, |(_, arity)| Builtin::Fixed(*arity))
}

/// Whether OPA has a builtin of this name that the engine lacks, as far as
/// [`HINTS`] knows.
pub(super) fn is_known_to_be_missing(name: &str) -> bool {
    lookup(name) == Builtin::Missing && HINTS.iter().any(|(start, _)| name.starts_with(start))
}

/// What to do about a name that nothing defines.
pub(super) fn hint(name: &str) -> Option<String> {
    if let Some((_, hint)) = HINTS.iter().find(|(start, _)| name.starts_with(start)) {
        return Some((*hint).to_owned());
    }
    let alike = BUILTINS
        .iter()
        .map(|(known, _)| (strsim::jaro_winkler(name, known), known));
    let best = alike.max_by(|left, right| left.0.total_cmp(&right.0));
    best.filter(|(likeness, _)| *likeness >= LIKENESS)
        .map(|(_, known)| format!("did you mean `{known}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OPA 1.x builtins that policies call by name, those of our table aside.
    const MISSING: &[&str] = &[
        "array.flatten",
        "crypto.hmac.equal",
        "crypto.hmac.md5",
        "crypto.hmac.sha1",
        "crypto.hmac.sha256",
        "crypto.hmac.sha512",
        "crypto.md5",
        "crypto.parse_private_keys",
        "crypto.sha1",
        "crypto.sha256",
        "crypto.x509.parse_and_verify_certificates",
        "crypto.x509.parse_and_verify_certificates_with_options",
        "crypto.x509.parse_certificate_request",
        "crypto.x509.parse_certificates",
        "crypto.x509.parse_keypair",
        "crypto.x509.parse_rsa_private_key",
        "graphql.is_valid",
        "graphql.parse",
        "graphql.parse_and_verify",
        "graphql.parse_query",
        "graphql.parse_schema",
        "graphql.schema_is_valid",
        "http.send",
        "io.jwt.decode",
        "io.jwt.decode_verify",
        "io.jwt.encode_sign",
        "io.jwt.encode_sign_raw",
        "io.jwt.verify_eddsa",
        "io.jwt.verify_es256",
        "io.jwt.verify_es384",
        "io.jwt.verify_es512",
        "io.jwt.verify_hs256",
        "io.jwt.verify_hs384",
        "io.jwt.verify_hs512",
        "io.jwt.verify_ps256",
        "io.jwt.verify_ps384",
        "io.jwt.verify_ps512",
        "io.jwt.verify_rs256",
        "io.jwt.verify_rs384",
        "io.jwt.verify_rs512",
        "json.match_schema",
        "json.patch",
        "json.verify_schema",
        "net.cidr_contains_matches",
        "net.cidr_intersects",
        "net.cidr_merge",
        "net.lookup_ip_addr",
        "providers.aws.sign_req",
        "re_match",
        "regex.globs_match",
        "rego.metadata.chain",
        "rego.metadata.rule",
        "rego.parse_module",
        "strings.render_template",
        "strings.split_n",
    ];

    fn engine_knows(name: &str, arity: usize) -> bool {
        // Undefined arguments make every builtin undefined before it runs.
        let arguments = vec!["input.absent"; arity].join(", ");
        let mut engine = regorus::Engine::new();
        engine
            .add_policy(
                "probe.rego".into(),
                format!("package probe\nx := {name}({arguments})\n"),
            )
            .unwrap();
        engine.set_input(regorus::Value::new_object());
        match engine.eval_rule("data.probe.x".into()) {
            Ok(_) => true,
            Err(error) => !error.to_string().contains("could not find function"),
        }
    }

    #[test]
    fn the_engine_has_every_builtin_of_the_table() {
        for (name, arity) in BUILTINS {
            assert!(engine_knows(name, *arity), "{name}");
        }
        assert!(BUILTINS.is_sorted());
    }

    #[test]
    fn the_engine_lacks_the_builtins_that_are_not_in_the_table() {
        // Compiled into no build of ours, but refused even where it is.
        for name in MISSING {
            assert_eq!(lookup(name), Builtin::Missing, "{name}");
            assert!(!engine_knows(name, 1), "{name}");
        }
    }

    #[test]
    fn missing_builtins_have_a_hint_where_one_is_useful() {
        let cases = [
            ("http.send", Some("data document")),
            ("io.jwt.decode_verify", Some("JWT")),
            ("crypto.sha256", Some("cryptographic")),
            ("startwith", Some("`startswith`")),
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
}
