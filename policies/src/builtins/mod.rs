//! The builtins that policies may call.
//!
//! Those of the engine are in [`engine`]; what it lacks of OPA's, and what it
//! does differently, is here, as [`Extension`]s: functions without state (but
//! for compiled patterns, kept by thread) that interpreter and virtual machine
//! share. Whatever else OPA has is refused when a policy is loaded, by name,
//! with what to do instead ([`refused`]).
//!
//! Where OPA's builtin raises an error, these are undefined, as they are to a
//! policy in OPA's default mode. What they are given may come from a request:
//! every one of them bounds its work and refuses what is larger.

mod clock;
mod collections;
mod digest;
mod encoding;
mod engine;
mod forwarding;
mod json;
mod jwt;
mod matching;
mod network;
mod numbers;
mod pem;
mod printf;
mod refused;
mod semver;
mod strings;
mod time;
mod values;
mod x509;
mod yaml;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use regorus::unstable::BuiltinFcn;
use regorus::{Engine, Value};

pub(crate) use forwarding::{Needed, foreign, mentions_foreign, modules};
pub(crate) use refused::{hint, is_refused};

use Purity::Pure;
use engine::{CLOCK, ENGINE};

/// Whether equal arguments always give an equal result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purity {
    Pure,
    /// They may not; what the builtin does besides, as the end of a sentence.
    Impure(&'static str),
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builtin {
    /// It takes this many arguments.
    Fixed(usize),
    /// It takes any number of arguments (`print`).
    Variadic,
    /// Policies may not call it.
    Missing,
}

/// A builtin of our own.
pub(crate) struct Extension {
    /// The name under which policies call it.
    pub(crate) name: &'static str,
    /// How many arguments it takes.
    pub(crate) arity: u8,
    pub(crate) purity: Purity,
    /// The function itself; [`Value::Undefined`] where it has no value.
    pub(crate) call: fn(&[Value]) -> Value,
    /// The same, as the engine calls its own.
    pub(crate) native: BuiltinFcn,
    /// Whether the engine has one of its own under this name.
    pub(crate) replaces: bool,
}

macro_rules! extensions {
    ($($kind:ident $name:literal $arity:literal $purity:ident $function:path,)*) => {
        &[$(Extension {
            name: $name,
            arity: $arity,
            purity: $purity,
            call: |arguments| $function(arguments).unwrap_or(Value::Undefined),
            native: (
                |_, _, arguments, _| Ok($function(arguments).unwrap_or(Value::Undefined)),
                $arity,
            ),
            replaces: extensions!($kind),
        },)*]
    };
    (new) => { false };
    (replaced) => { true };
}

/// Our own builtins, in the order of their names.
static EXTENSIONS: &[Extension] = extensions! {
    new "all" 1 Pure collections::all,
    new "any" 1 Pure collections::any,
    new "array.flatten" 1 Pure collections::flatten,
    replaced "base64.decode" 1 Pure encoding::base64_decode,
    replaced "base64.is_valid" 1 Pure encoding::base64_is_valid,
    replaced "base64url.decode" 1 Pure encoding::base64url_decode,
    new "cast_array" 1 Pure collections::cast_array,
    new "cast_boolean" 1 Pure collections::cast_boolean,
    new "cast_null" 1 Pure collections::cast_null,
    new "cast_object" 1 Pure collections::cast_object,
    new "cast_set" 1 Pure collections::cast_set,
    new "cast_string" 1 Pure collections::cast_string,
    replaced "ceil" 1 Pure numbers::ceil,
    replaced "count" 1 Pure strings::count,
    new "crypto.hmac.equal" 2 Pure digest::hmac_equal,
    new "crypto.hmac.md5" 2 Pure digest::hmac_md5,
    new "crypto.hmac.sha1" 2 Pure digest::hmac_sha1,
    new "crypto.hmac.sha256" 2 Pure digest::hmac_sha256,
    new "crypto.hmac.sha512" 2 Pure digest::hmac_sha512,
    new "crypto.md5" 1 Pure digest::md5,
    new "crypto.sha1" 1 Pure digest::sha1,
    new "crypto.sha256" 1 Pure digest::sha256,
    new "crypto.x509.parse_and_verify_certificates" 1 CLOCK x509::parse_and_verify,
    new "crypto.x509.parse_and_verify_certificates_with_options" 2 CLOCK x509::parse_and_verify_with_options,
    new "crypto.x509.parse_certificate_request" 1 Pure x509::parse_certificate_request,
    new "crypto.x509.parse_certificates" 1 Pure x509::parse_certificates,
    replaced "floor" 1 Pure numbers::floor,
    replaced "format_int" 2 Pure numbers::format_int,
    replaced "glob.match" 3 Pure matching::glob_match,
    replaced "glob.quote_meta" 1 Pure matching::glob_quote_meta,
    replaced "hex.decode" 1 Pure encoding::hex_decode,
    replaced "indexof" 2 Pure strings::indexof,
    replaced "indexof_n" 2 Pure strings::indexof_n,
    new "io.jwt.decode" 1 Pure jwt::decode,
    new "io.jwt.decode_verify" 2 CLOCK jwt::decode_verify,
    new "io.jwt.verify_eddsa" 2 Pure jwt::verify_eddsa,
    new "io.jwt.verify_es256" 2 Pure jwt::verify_es256,
    new "io.jwt.verify_es384" 2 Pure jwt::verify_es384,
    new "io.jwt.verify_es512" 2 Pure jwt::verify_es512,
    new "io.jwt.verify_hs256" 2 Pure jwt::verify_hs256,
    new "io.jwt.verify_hs384" 2 Pure jwt::verify_hs384,
    new "io.jwt.verify_hs512" 2 Pure jwt::verify_hs512,
    new "io.jwt.verify_ps256" 2 Pure jwt::verify_ps256,
    new "io.jwt.verify_ps384" 2 Pure jwt::verify_ps384,
    new "io.jwt.verify_ps512" 2 Pure jwt::verify_ps512,
    new "io.jwt.verify_rs256" 2 Pure jwt::verify_rs256,
    new "io.jwt.verify_rs384" 2 Pure jwt::verify_rs384,
    new "io.jwt.verify_rs512" 2 Pure jwt::verify_rs512,
    replaced "json.is_valid" 1 Pure json::is_valid,
    replaced "json.marshal" 1 Pure json::marshal,
    replaced "json.marshal_with_options" 2 Pure json::marshal_with_options,
    replaced "json.unmarshal" 1 Pure json::unmarshal,
    replaced "lower" 1 Pure strings::lower,
    replaced "net.cidr_contains" 2 Pure network::cidr_contains,
    new "net.cidr_contains_matches" 2 Pure network::cidr_contains_matches,
    replaced "net.cidr_expand" 1 Pure network::cidr_expand,
    new "net.cidr_intersects" 2 Pure network::cidr_intersects,
    replaced "net.cidr_is_valid" 1 Pure network::cidr_is_valid,
    new "net.cidr_merge" 1 Pure network::cidr_merge,
    new "net.cidr_overlap" 2 Pure network::cidr_contains,
    replaced "numbers.range" 2 Pure numbers::range,
    replaced "numbers.range_step" 3 Pure numbers::range_step,
    replaced "object.get" 3 Pure collections::get,
    replaced "object.subset" 2 Pure collections::subset,
    new "re_match" 2 Pure matching::regex_match,
    replaced "regex.find_all_string_submatch_n" 3 Pure matching::find_submatches,
    replaced "regex.find_n" 3 Pure matching::find,
    replaced "regex.is_valid" 1 Pure matching::regex_is_valid,
    replaced "regex.match" 2 Pure matching::regex_match,
    replaced "regex.replace" 3 Pure matching::replace,
    replaced "regex.split" 2 Pure matching::split,
    replaced "regex.template_match" 4 Pure matching::template_match,
    replaced "semver.compare" 2 Pure semver::compare,
    replaced "semver.is_valid" 1 Pure semver::is_valid,
    new "set_diff" 2 Pure collections::set_diff,
    replaced "sprintf" 2 Pure printf::sprintf,
    replaced "strings.count" 2 Pure collections::count,
    replaced "strings.replace_n" 2 Pure collections::replace_n,
    new "strings.split_n" 3 Pure collections::split_n,
    replaced "substring" 3 Pure strings::substring,
    replaced "time.add_date" 4 Pure time::add_date,
    replaced "time.diff" 2 Pure time::difference,
    replaced "time.parse_duration_ns" 1 Pure time::parse_duration,
    replaced "time.parse_rfc3339_ns" 1 Pure time::parse_rfc3339,
    replaced "to_number" 1 Pure numbers::to_number,
    replaced "trace" 1 Pure strings::trace,
    replaced "upper" 1 Pure strings::upper,
    replaced "urlquery.decode" 1 Pure encoding::query_decode,
    replaced "urlquery.decode_object" 1 Pure encoding::query_decode_object,
    replaced "urlquery.encode" 1 Pure encoding::query_encode,
    replaced "urlquery.encode_object" 1 Pure encoding::query_encode_object,
    replaced "yaml.is_valid" 1 Pure yaml::is_valid,
    replaced "yaml.unmarshal" 1 Pure yaml::unmarshal,
};

/// Whether Rego v1 has given a builtin of v0 up.
pub(crate) fn is_deprecated(name: &str) -> bool {
    let exact = ["all", "any", "net.cidr_overlap", "re_match", "set_diff"];
    exact.contains(&name) || name.starts_with("cast_")
}

/// The builtin of our own of this name.
pub(crate) fn extension(name: &str) -> Option<&'static Extension> {
    let place = EXTENSIONS.binary_search_by_key(&name, |extension| extension.name);
    place.ok().and_then(|place| EXTENSIONS.get(place))
}

/// All builtins of our own, those that replace the engine's among them.
pub(crate) fn extensions() -> &'static [Extension] {
    EXTENSIONS
}

/// Makes our builtins known to an engine, and gives the switch that makes an
/// error of a builtin that has no value.
pub(crate) fn install(engine: &mut Engine) -> Arc<AtomicBool> {
    let strict = Arc::new(AtomicBool::new(false));
    for extension in EXTENSIONS {
        let strict = Arc::clone(&strict);
        let added = engine.add_extension(
            extension.name.to_owned(),
            extension.arity,
            Box::new(move |arguments: Vec<Value>| {
                let value = (extension.call)(&arguments);
                if value == Value::Undefined && strict.load(Ordering::Relaxed) {
                    let name = extension.name;
                    let message = format!("`{name}` has no value for these arguments");
                    return Err(io::Error::other(message).into());
                }
                Ok(value)
            }),
        );
        // Only a name that is there twice fails, and a test rules that out.
        debug_assert!(added.is_ok(), "{} is there twice", extension.name);
    }
    strict
}

/// Looks a builtin up by the name under which policies call it.
pub(crate) fn lookup(name: &str) -> Builtin {
    if name == "print" {
        return Builtin::Variadic;
    }
    row(name).map_or(Builtin::Missing, |(arity, _)| {
        Builtin::Fixed(usize::from(arity))
    })
}

/// Whether a builtin is a function of its arguments alone. Unknown means
/// impure.
pub(crate) fn purity(name: &str) -> Purity {
    // What `print` says is not the policy's answer.
    if name == "print" {
        return Pure;
    }
    row(name).map_or(Purity::Impure("is not known"), |(_, purity)| purity)
}

/// Number of arguments and purity.
fn row(name: &str) -> Option<(u8, Purity)> {
    if let Ok(index) = EXTENSIONS.binary_search_by_key(&name, |extension| extension.name) {
        let extension = EXTENSIONS.get(index)?;
        return Some((extension.arity, extension.purity));
    }
    let index = ENGINE
        .binary_search_by_key(&name, |(known, ..)| *known)
        .ok()?;
    let (_, arity, purity) = ENGINE.get(index)?;
    Some((*arity, *purity))
}

#[cfg(test)]
mod opa_cases;
#[cfg(test)]
mod tests;
