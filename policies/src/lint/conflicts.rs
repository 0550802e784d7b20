//! What OPA refuses and this engine takes, or finds only when it gets there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use regorus::Value;
use serde_json::Value as Json;

use super::engine_errors::span as rule_span;
use super::unused::span;
use crate::error::PolicyError;
use crate::sources::PolicySources;
use crate::syntax::{RuleKind, RulePath, Syntax, alias, declared, rule_reference, whole_path};

/// File, bytes of the file, and what is wrong.
pub(super) type Conflict = (String, Range<usize>, String);

/// Imports under a name that an earlier one has: OPA refuses them, this engine
/// takes one of both.
pub(super) fn conflicting_imports(syntax: &Syntax<'_>) -> Vec<Conflict> {
    let mut found = Vec::new();
    for module in &syntax.modules {
        let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for import in module.imports {
            let (Some((name, target)), Some(span)) = (alias(import, module.text), span(import))
            else {
                continue;
            };
            match known.get(&name) {
                Some(first) => {
                    let (first, target) = (first.join("."), target.join("."));
                    let message = format!("the imports {first} and {target} have the same name");
                    found.push((module.file.to_owned(), span, message));
                }
                None => {
                    known.insert(name, target);
                }
            }
        }
    }
    found
}

/// Rules that are declared in two ways that exclude each other, such as a set
/// and a function.
pub(super) fn conflicting_rules(syntax: &Syntax<'_>) -> Vec<Conflict> {
    let mut known: BTreeMap<RulePath, &str> = BTreeMap::new();
    let mut found = Vec::new();
    for module in &syntax.modules {
        for rule in module.rules {
            let (Some(rule_declared), Some(span)) =
                (declared(module, rule), rule_span(module.text, rule))
            else {
                continue;
            };
            let way = match rule_declared.kind {
                RuleKind::Complete | RuleKind::Default => "a value",
                RuleKind::Function(_) => "a function",
                RuleKind::Partial if is_set(rule) => "a set",
                RuleKind::Partial => "an object",
            };
            let first = *known.entry(rule_declared.path.clone()).or_insert(way);
            if first != way {
                let name = rule_reference(&rule_declared.path);
                let message = format!("{name} is declared as {first} before, and as {way} here");
                found.push((rule_declared.file, span, message));
            }
        }
    }
    found
}

/// Rules in whose place, or above, there is data: this engine would let the data count.
pub(crate) fn rules_with_data(
    syntax: &Syntax<'_>,
    sources: &PolicySources,
) -> Result<BTreeSet<String>, PolicyError> {
    let rules = syntax.rules();
    let mut found = BTreeSet::new();
    for document in sources.documents() {
        let (_, data) = document?;
        let shadowed = rules.iter().filter(|rule| is_there(&data, &rule.path));
        found.extend(shadowed.map(|rule| rule_reference(&rule.path)));
    }
    Ok(found)
}

/// Whether data has something at a path, or something above it that is no object.
fn is_there(data: &Value, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else {
        return true;
    };
    match data {
        Value::Object(members) => {
            let member = members.get(&Value::from(name.as_str()));
            member.is_some_and(|member| is_there(member, rest))
        }
        _ => true,
    }
}

/// Whether a rule is one set, and not one of several by what is in brackets.
fn is_set(rule: &Json) -> bool {
    let set = rule.pointer("/Spec/head/Set/refr");
    set.is_some_and(|reference| whole_path(reference).is_some())
}

/// Defaults whose value is not fixed.
pub(super) fn computed_defaults(syntax: &Syntax<'_>) -> Vec<Conflict> {
    let mut found = Vec::new();
    for module in &syntax.modules {
        for rule in module.rules {
            let value = rule.pointer("/Default/value");
            if let Some((value, name)) = value.and_then(|it| Some((it, computed(it)?))) {
                let place = value.as_object().and_then(|it| it.values().next());
                if let Some(span) = place.and_then(span) {
                    let message = format!("a default's value is fixed, and cannot hold {name}");
                    found.push((module.file.to_owned(), span, message));
                }
            }
        }
    }
    found
}

/// What in a value has to be computed; within a comprehension anything may be.
fn computed(value: &Json) -> Option<&'static str> {
    match value {
        Json::Object(members) => members
            .iter()
            .find_map(|(kind, member)| match kind.as_str() {
                "Var" => Some("a variable"),
                "RefDot" | "RefBrack" => Some("a reference"),
                "Call" => Some("a call"),
                "ArrayCompr" | "SetCompr" | "ObjectCompr" => None,
                _ => computed(member),
            }),
        Json::Array(members) => members.iter().find_map(computed),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => None,
    }
}
