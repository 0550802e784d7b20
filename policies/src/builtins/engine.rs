//! The builtins that the engine brings along.
//!
//! The engine does not list its builtins, so this table does; a test asks the
//! engine for each. A builtin that a later engine adds stays unknown until it
//! is added here, after someone has looked at what it may do.

use super::Purity::{self, Pure};

/// Why a builtin is not a function of its arguments alone.
pub(super) const CLOCK: Purity = Purity::Impure("reads the clock");
const RANDOM: Purity = Purity::Impure("is random");
const ENVIRONMENT: Purity = Purity::Impure("tells of the process");

/// Name, number of arguments and purity, in the order of names; those that
/// [`super::EXTENSIONS`] replaces are there.
pub(super) const ENGINE: &[(&str, u8, Purity)] = &[
    ("abs", 1, Pure),
    ("array.concat", 2, Pure),
    ("array.reverse", 1, Pure),
    ("array.slice", 3, Pure),
    ("base64.encode", 1, Pure),
    ("base64url.encode", 1, Pure),
    ("base64url.encode_no_pad", 1, Pure),
    ("bits.and", 2, Pure),
    ("bits.lsh", 2, Pure),
    ("bits.negate", 1, Pure),
    ("bits.or", 2, Pure),
    ("bits.rsh", 2, Pure),
    ("bits.xor", 2, Pure),
    ("concat", 2, Pure),
    ("contains", 2, Pure),
    ("endswith", 2, Pure),
    ("graph.reachable", 2, Pure),
    ("graph.reachable_paths", 2, Pure),
    ("hex.encode", 1, Pure),
    ("intersection", 1, Pure),
    ("is_array", 1, Pure),
    ("is_boolean", 1, Pure),
    ("is_null", 1, Pure),
    ("is_number", 1, Pure),
    ("is_object", 1, Pure),
    ("is_set", 1, Pure),
    ("is_string", 1, Pure),
    ("json.filter", 2, Pure),
    ("json.patch", 2, Pure),
    ("json.remove", 2, Pure),
    ("max", 1, Pure),
    ("min", 1, Pure),
    ("object.filter", 2, Pure),
    ("object.keys", 1, Pure),
    ("object.remove", 2, Pure),
    ("object.union", 2, Pure),
    ("object.union_n", 1, Pure),
    ("opa.runtime", 0, ENVIRONMENT),
    ("product", 1, Pure),
    ("rand.intn", 2, RANDOM),
    ("replace", 3, Pure),
    ("round", 1, Pure),
    ("sort", 1, Pure),
    ("split", 2, Pure),
    ("startswith", 2, Pure),
    ("strings.any_prefix_match", 2, Pure),
    ("strings.any_suffix_match", 2, Pure),
    ("strings.reverse", 1, Pure),
    ("sum", 1, Pure),
    ("time.clock", 1, Pure),
    ("time.date", 1, Pure),
    ("time.format", 1, Pure),
    ("time.now_ns", 0, CLOCK),
    ("time.parse_ns", 2, Pure),
    ("time.weekday", 1, Pure),
    ("trim", 2, Pure),
    ("trim_left", 2, Pure),
    ("trim_prefix", 2, Pure),
    ("trim_right", 2, Pure),
    ("trim_space", 1, Pure),
    ("trim_suffix", 2, Pure),
    ("type_name", 1, Pure),
    ("union", 1, Pure),
    ("units.parse", 1, Pure),
    ("units.parse_bytes", 1, Pure),
    ("uuid.parse", 1, Pure),
    ("uuid.rfc4122", 1, RANDOM),
    ("walk", 1, Pure),
    ("yaml.marshal", 1, Pure),
];
