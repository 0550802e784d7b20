//! What the modules declare and call, read from their syntax trees.
//!
//! The engine shows its syntax trees as JSON only. There an expression is an
//! object with one member that names its kind, such as `{"Call": {…}}`; text
//! from the policy appears only as strings, so a kind cannot be forged.

mod body_reads;
mod calls;
mod dependencies;
mod rewriting;
mod stand_ins;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::sources::{PolicySources, RegoVersion};

pub(crate) use body_reads::BodyReads;
pub(crate) use calls::{forwarded_calls, unsupported_calls};
pub(crate) use dependencies::{
    Dependencies, InputPath, Named, Place, Step, dependencies, place, reaches, written,
};
pub(crate) use rewriting::{Insertions, after_quote, inserted, outside_quotes, start_of, text_of};
pub(crate) use stand_ins::{StandIns, rules as stand_in_rules};

/// A path such as `data.envoy.authz.allow`, in its components after `data`.
pub(crate) type RulePath = Vec<String>;

/// How a rule says what it is the value of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RuleKind {
    /// One value: `allow if …`.
    Complete,
    /// Members of a set or object: `names contains …`, `names[key] := …`.
    Partial,
    /// A function with this many arguments.
    Function(usize),
    /// `default allow := …`.
    Default,
}

/// One rule as it is declared. A name may be declared several times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeclaredRule {
    /// Package and name, as far as it is fixed.
    pub(crate) path: RulePath,
    /// The name alone, as far as it is fixed.
    pub(crate) name: String,
    pub(crate) kind: RuleKind,
    /// The module that declares it.
    pub(crate) file: String,
}

/// One module's names and rules.
pub(crate) struct Module<'a> {
    pub(crate) file: &'a str,
    pub(crate) text: &'a str,
    pub(crate) version: RegoVersion,
    pub(crate) package: RulePath,
    pub(crate) imports: &'a [Json],
    /// Import aliases and what they stand for, `data` or `input` included.
    pub(crate) aliases: BTreeMap<String, Vec<String>>,
    pub(crate) rules: &'a [Json],
}

impl Module<'_> {
    /// Whether rules are written with `if` and `contains`, as they must be in Rego v1.
    pub(crate) fn takes_keywords(&self) -> bool {
        let mut imports = self.imports.iter();
        self.version == RegoVersion::V1
            || imports.any(|import| {
                let target = import.get("refr").and_then(whole_path).unwrap_or_default();
                target == ["rego", "v1"]
            })
    }
}

/// The syntax trees of all modules.
pub(crate) struct Syntax<'a> {
    pub(crate) modules: Vec<Module<'a>>,
}

impl<'a> Syntax<'a> {
    /// Reads the trees that the engine gives for `sources`, in the same order.
    pub(crate) fn new(trees: &'a Json, sources: &'a PolicySources) -> Self {
        let trees = trees.as_array().map(Vec::as_slice).unwrap_or_default();
        let modules = trees.iter().zip(sources.modules()).map(|(tree, source)| {
            let module = tree.get("ast").unwrap_or(&Json::Null);
            let imports = module.get("imports").map(items).unwrap_or_default();
            Module {
                file: &source.file,
                text: &source.text,
                version: source.version,
                package: module
                    .pointer("/package/refr")
                    .map(fixed_path)
                    .unwrap_or_default(),
                imports,
                aliases: imports
                    .iter()
                    .filter_map(|import| alias(import, &source.text))
                    .collect(),
                rules: module.get("rules").map(items).unwrap_or_default(),
            }
        });
        Self {
            modules: modules.collect(),
        }
    }

    /// Every rule of every module.
    pub(crate) fn rules(&self) -> Vec<DeclaredRule> {
        self.modules
            .iter()
            .flat_map(|module| {
                module
                    .rules
                    .iter()
                    .filter_map(|rule| declared(module, rule))
            })
            .collect()
    }
}

/// A rule's path in the form in which the engine looks it up.
pub(crate) fn rule_reference(path: &[String]) -> String {
    path.iter().fold("data".to_owned(), |reference, component| {
        if is_identifier(component) {
            format!("{reference}.{component}")
        } else {
            // JSON's strings are Rego's.
            format!("{reference}[{}]", Json::from(component.as_str()))
        }
    })
}

/// Whether a name can follow a dot.
fn is_identifier(name: &str) -> bool {
    let mut characters = name.chars();
    let first = characters
        .next()
        .is_some_and(|first| first.is_ascii_alphabetic() || first == '_');
    first && characters.all(|character| character.is_ascii_alphanumeric() || character == '_')
}

pub(crate) fn items(list: &Json) -> &[Json] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}

pub(crate) fn declared(module: &Module<'_>, rule: &Json) -> Option<DeclaredRule> {
    let (reference, kind) = if let Some(default) = rule.get("Default") {
        let arguments = default.get("args").map(items).unwrap_or_default();
        let kind = if arguments.is_empty() {
            RuleKind::Default
        } else {
            RuleKind::Function(arguments.len())
        };
        (default.get("refr")?, kind)
    } else {
        let head = rule.pointer("/Spec/head")?;
        if let Some(function) = head.get("Func") {
            let arguments = function.get("args").map(items).unwrap_or_default();
            (function.get("refr")?, RuleKind::Function(arguments.len()))
        } else if let Some(set) = head.get("Set") {
            (set.get("refr")?, RuleKind::Partial)
        } else {
            let reference = head.pointer("/Compr/refr")?;
            let kind = if whole_path(reference).is_some() {
                RuleKind::Complete
            } else {
                RuleKind::Partial
            };
            (reference, kind)
        }
    };
    let name = fixed_path(reference);
    let path = module.package.iter().chain(&name).cloned().collect();
    Some(DeclaredRule {
        path,
        name: name.join("."),
        kind,
        file: module.file.to_owned(),
    })
}

/// The alias of an import and its target; the text of an alias is only in the
/// source.
pub(crate) fn alias(import: &Json, text: &str) -> Option<(String, Vec<String>)> {
    let target = whole_path(import.get("refr")?)?;
    let root = target.first()?;
    if root != "data" && root != "input" {
        return None; // `rego.v1` and `future.keywords` bring no names of their own.
    }
    let renamed = import
        .get("as")
        .and_then(|span| text.get(offset(span, "start")?..offset(span, "end")?));
    let name = renamed.or(target.last().map(String::as_str))?;
    Some((name.to_owned(), target.clone()))
}

/// A place in the module's text, in bytes.
pub(crate) fn offset(span: &Json, name: &str) -> Option<usize> {
    usize::try_from(span.get(name)?.as_u64()?).ok()
}

/// The components of a reference that is fixed throughout, e.g. `a.b["c"]`.
pub(crate) fn whole_path(expression: &Json) -> Option<Vec<String>> {
    if let Some(variable) = expression.get("Var") {
        return Some(vec![variable.get("value")?.as_str()?.to_owned()]);
    }
    let (reference, last) = if let Some(dot) = expression.get("RefDot") {
        (dot.get("refr")?, dot.pointer("/field/1")?)
    } else {
        let bracket = expression.get("RefBrack")?;
        let index = bracket.get("index")?;
        (
            bracket.get("refr")?,
            index
                .pointer("/String/value")
                .or_else(|| index.pointer("/RawString/value"))?,
        )
    };
    let mut path = whole_path(reference)?;
    path.push(last.as_str()?.to_owned());
    Some(path)
}

/// The components of a reference up to the first that is not fixed.
pub(crate) fn fixed_path(expression: &Json) -> Vec<String> {
    if let Some(path) = whole_path(expression) {
        return path;
    }
    let inner = expression
        .pointer("/RefBrack/refr")
        .or_else(|| expression.pointer("/RefDot/refr"));
    inner.map(fixed_path).unwrap_or_default()
}
