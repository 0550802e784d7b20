//! Functions in Rego that forward to our builtins where the engine would not
//! find them.
//!
//! The engine takes one result as a last argument (`io.jwt.decode(token, [_,
//! payload, _])`) only of functions and of builtins of its own, and `with`
//! replaces only those. Where a package does either with one of ours, it gets
//! a function of the builtin's name, and calls that.

use std::collections::{BTreeMap, BTreeSet};

use super::{EXTENSIONS, Extension};
use crate::syntax::{RulePath, rule_reference};

/// The package whose functions call the builtins under their own names.
const PACKAGE: &str = "sidegate_builtins";

/// The builtins for which a package needs functions.
pub(crate) type Needed = BTreeMap<RulePath, BTreeSet<&'static str>>;

/// One of our builtins that the engine does not know by itself.
pub(crate) fn foreign(name: &str) -> Option<&'static Extension> {
    let extension = EXTENSIONS.iter().find(|extension| extension.name == name)?;
    (!extension.replaces).then_some(extension)
}

/// Whether a text may hold such a builtin's name; most do not.
pub(crate) fn mentions_foreign(text: &str) -> bool {
    let mut foreign = EXTENSIONS.iter().filter(|extension| !extension.replaces);
    foreign.any(|extension| text.contains(extension.name))
}

/// The modules to add, as pairs of name and text; valid in Rego v0 and v1.
pub(crate) fn modules(needed: &Needed) -> Vec<(String, String)> {
    let names: BTreeSet<&str> = needed.values().flatten().copied().collect();
    if names.is_empty() {
        return Vec::new();
    }
    let mut own = format!("package {PACKAGE}\n");
    for name in names {
        let arguments = arguments(name);
        own.push_str(&format!(
            "\n{}({arguments}) = {name}({arguments})\n",
            local(name)
        ));
    }
    let mut modules = vec![(format!("({PACKAGE})"), own)];
    for (package, names) in needed {
        let reference = rule_reference(package);
        let path = reference.strip_prefix("data.").unwrap_or(&reference);
        let mut text = format!("package {path}\n");
        for name in names {
            let arguments = arguments(name);
            let target = format!("data.{PACKAGE}.{}", local(name));
            text.push_str(&format!("\n{name}({arguments}) = {target}({arguments})\n"));
        }
        modules.push((format!("({PACKAGE} in {path})"), text));
    }
    modules
}

/// The name of the function that calls a builtin; not the builtin's, or it
/// would call itself.
fn local(name: &str) -> String {
    format!("call_{}", name.replace('.', "_"))
}

fn arguments(name: &str) -> String {
    let arity = foreign(name).map_or(0, |extension| extension.arity);
    let names = (1..=arity).map(|number| format!("argument{number}"));
    names.collect::<Vec<String>>().join(", ")
}
