//! The definitions of the rules that an entrypoint needs, statement by statement, as text of their
//! modules.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value as Json;

use crate::lint::closed;
use crate::syntax::{
    Dependencies, Module, RuleKind, RulePath, Syntax, declared, fixed_path, items, offset,
    whole_path,
};

/// One body of a rule: what must hold, and which value comes of it.
pub(super) struct Definition<'a> {
    /// The module's place among all.
    pub(super) module: usize,
    pub(super) path: RulePath,
    /// Where the head stands, in bytes; of an `else` its body.
    pub(super) span: Range<usize>,
    pub(super) is_function: bool,
    pub(super) is_else: bool,
    pub(super) statements: Vec<Statement<'a>>,
    /// The value that is given; `None` where it is `true`.
    pub(super) value: Option<Statement<'a>>,
}

/// A statement of a body, or the value of a rule.
pub(super) struct Statement<'a> {
    pub(super) span: Range<usize>,
    pub(super) tree: &'a Json,
}

/// A reference in a statement.
pub(super) struct Mention {
    pub(super) span: Range<usize>,
    /// Its root and the names after it as far as they are fixed, aliases resolved.
    pub(super) path: Vec<String>,
    /// Whether all of it is fixed.
    pub(super) whole: bool,
}

/// A name of our own for a value.
const VALUE: &str = "sidegate_explain_value";

/// How a module writes rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Style {
    /// `name if { … }`.
    Keywords,
    /// `name { … }`.
    Bare,
}

impl Style {
    pub(super) fn of(module: &Module<'_>) -> Self {
        match module.takes_keywords() {
            true => Self::Keywords,
            false => Self::Bare,
        }
    }

    /// A rule that is true if the body holds.
    pub(super) fn condition(self, name: &str, body: &str) -> String {
        match self {
            Self::Keywords => format!("\n\n{name} if {{\n{body}\n}}\n"),
            Self::Bare => format!("\n\n{name} {{\n{body}\n}}\n"),
        }
    }

    /// A rule that is the set of all values that a term has under the body. Where it has none it is
    /// no member, as in service.
    pub(super) fn values(self, name: &str, term: &str, body: &str) -> String {
        let body = format!("{body}\n{VALUE} := {term}");
        match self {
            Self::Keywords => format!("\n\n{name} contains {VALUE} if {{\n{body}\n}}\n"),
            Self::Bare => format!("\n\n{name}[{VALUE}] {{\n{body}\n}}\n"),
        }
    }
}

/// All definitions of the rules that are needed, in the order of their declaration.
pub(super) fn definitions<'a>(
    syntax: &'a Syntax<'a>,
    dependencies: &Dependencies,
) -> Vec<Definition<'a>> {
    let mut found = Vec::new();
    for (index, rule) in &dependencies.rules {
        let module = syntax.modules.get(*index);
        if let Some((module, rule)) =
            module.and_then(|module| Some((module, module.rules.get(*rule)?)))
        {
            collect(*index, module, rule, &mut found);
        }
    }
    found
}

fn collect<'a>(
    index: usize,
    module: &Module<'a>,
    rule: &'a Json,
    found: &mut Vec<Definition<'a>>,
) -> Option<()> {
    let declared = declared(module, rule)?;
    let spec = rule.get("Spec")?; // A default has no conditions.
    let head = spec.get("head")?.as_object()?.values().next()?;
    let head_span = closed(module.text, span(head.get("span")?)?);
    // A member of a set is its rule's value.
    let key = head.get("key").filter(|key| !key.is_null());
    let assigned = head.pointer("/assign/value").or(key);
    let definition = |span, is_else, statements, value: Option<&'a Json>| Definition {
        module: index,
        path: declared.path.clone(),
        span,
        is_function: matches!(declared.kind, RuleKind::Function(_)),
        is_else,
        statements,
        value: value.and_then(|tree| {
            let span = expression_span(module.text, tree)?;
            Some(Statement { span, tree })
        }),
    };
    let bodies = spec.get("bodies").map(items).unwrap_or_default();
    if bodies.is_empty() {
        found.push(definition(head_span, false, Vec::new(), assigned));
        return Some(());
    }
    for body in bodies {
        let is_else = body.get("is_else").and_then(Json::as_bool) == Some(true);
        let statements = body.pointer("/query/stmts").map(items).unwrap_or_default();
        let statements = statements.iter().filter_map(|tree| {
            let span = opened(module.text, span(tree.get("span")?)?);
            Some(Statement { span, tree })
        });
        let (span, value) = match is_else {
            true => (
                span(body.get("span")?).map(|span| first_line(module.text, span))?,
                body.pointer("/assign/value"),
            ),
            false => (head_span.clone(), assigned),
        };
        found.push(definition(span, is_else, statements.collect(), value));
    }
    Some(())
}

/// The references in a statement whose values are known before it: not those to names that it makes
/// itself, and not those within comprehensions and `every`.
pub(super) fn mentions(statement: &Statement<'_>, module: &Module<'_>) -> Vec<Mention> {
    let mut made = BTreeSet::new();
    made_names(statement.tree, module.text, &mut made);
    let mut found = Vec::new();
    collect_mentions(statement.tree, module, &mut found);
    found.retain(|mention: &Mention| {
        let text = module.text.get(mention.span.clone()).unwrap_or_default();
        let mut words = text.split(|it: char| !it.is_alphanumeric() && it != '_');
        !words.any(|word| made.contains(word) || word == "_")
    });
    found
}

fn collect_mentions(tree: &Json, module: &Module<'_>, found: &mut Vec<Mention>) {
    match tree {
        Json::Object(members) => {
            if tree.get("Var").or_else(|| tree.get("RefDot")).is_some()
                || tree.get("RefBrack").is_some()
            {
                found.extend(mention(tree, module));
                return;
            }
            for (kind, member) in members {
                match kind.as_str() {
                    "ArrayCompr" | "SetCompr" | "ObjectCompr" | "fcn" | "with_mods" => {}
                    "Every" => {
                        if let Some(domain) = member.get("domain") {
                            collect_mentions(domain, module, found);
                        }
                    }
                    _ => collect_mentions(member, module, found),
                }
            }
        }
        Json::Array(members) => members
            .iter()
            .for_each(|member| collect_mentions(member, module, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn mention(tree: &Json, module: &Module<'_>) -> Option<Mention> {
    let span = expression_span(module.text, tree)?;
    let mut path = fixed_path(tree);
    let root = path.first()?;
    if let Some(target) = module.aliases.get(root) {
        path = target.iter().chain(path.iter().skip(1)).cloned().collect();
    }
    let whole = whole_path(tree).is_some();
    Some(Mention { span, path, whole })
}

/// The names that a statement makes: by `some`, `every` and `:=`.
fn made_names(tree: &Json, text: &str, made: &mut BTreeSet<String>) {
    let mut make = |span_of: Option<&Json>| {
        let name = span_of.and_then(span).and_then(|span| text.get(span));
        made.extend(name.map(str::to_owned));
    };
    match tree {
        Json::Object(members) => {
            if let Some(variables) = tree.pointer("/SomeVars/vars") {
                items(variables).iter().for_each(|it| make(Some(it)));
            }
            if let Some(every) = tree.get("Every") {
                make(every.get("key"));
                make(every.get("value"));
            }
            if let Some(some) = tree.get("SomeIn") {
                for part in ["key", "value"].iter().filter_map(|part| some.get(part)) {
                    variables(part, made);
                }
            }
            if let Some(assignment) = tree.get("AssignExpr")
                && assignment.get("op").and_then(Json::as_str) == Some("ColEq")
                && let Some(left) = assignment.get("lhs")
            {
                variables(left, made);
            }
            members.values().for_each(|it| made_names(it, text, made));
        }
        Json::Array(members) => members.iter().for_each(|it| made_names(it, text, made)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn variables(tree: &Json, found: &mut BTreeSet<String>) {
    match tree {
        Json::Object(members) => {
            let name = tree.pointer("/Var/value").and_then(Json::as_str);
            found.extend(name.map(str::to_owned));
            members.values().for_each(|it| variables(it, found));
        }
        Json::Array(members) => members.iter().for_each(|it| variables(it, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// The bytes of an expression, quotes and brackets included.
pub(super) fn expression_span(text: &str, tree: &Json) -> Option<Range<usize>> {
    if let Some(dot) = tree.get("RefDot") {
        let start = expression_span(text, dot.get("refr")?)?.start;
        return Some(start..span(dot.pointer("/field/0")?)?.end);
    }
    if let Some(bracket) = tree.get("RefBrack") {
        let start = expression_span(text, bracket.get("refr")?)?.start;
        let index = expression_span(text, bracket.get("index")?)?;
        let rest = text.get(index.end..)?;
        let end = index.end.checked_add(rest.find(']')?)?.checked_add(1)?;
        return Some(start..end);
    }
    let body = tree.as_object()?.values().next()?;
    // The engine lets an object begin with its last key.
    if let Some(key) = tree.pointer("/Object/fields/0/1") {
        let start = expression_span(text, key)?.start;
        let start = text.get(..start)?.rfind('{')?;
        return Some(start..span(body.get("span")?)?.end);
    }
    Some(opened(text, span(body.get("span")?)?))
}

/// A span of the engine's with the quotes that it leaves out at both ends.
fn opened(text: &str, span: Range<usize>) -> Range<usize> {
    let before = text.get(..span.start).unwrap_or_default();
    let quote = before.ends_with(['"', '`']);
    let span = closed(text, span);
    span.start.saturating_sub(usize::from(quote))..span.end
}

fn first_line(text: &str, span: Range<usize>) -> Range<usize> {
    let line = text.get(span.clone()).unwrap_or_default().lines().next();
    let length = line.map_or(0, |line| line.trim_end().len());
    span.start..span.start.saturating_add(length)
}

fn span(span: &Json) -> Option<Range<usize>> {
    Some(offset(span, "start")?..offset(span, "end")?)
}
