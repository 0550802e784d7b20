//! Statements that the machine needs to understand a policy as OPA does.
//!
//! To the machine `x := …` holds even if there is no value, and `not x == 1` would then be true; a
//! comprehension or set in which one member has no value has none itself; and a body whose value is
//! undefined keeps its `else` from being asked. So the machine's program is made of a copy in which
//! `_ = x` follows: to it too, that does not hold without a value.
//!
//! Some of them the interpreter needs as well: it would lose the other members of a partial rule
//! one of whose members has no value, and neither evaluates [what is negated](super::negations) as
//! OPA does.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::index::index;
use super::negations::before_not;
use super::program::NoProgram;
use crate::sources::PolicySources;
use crate::syntax::{
    Insertions, Module, Place, Syntax, after_quote, inserted, items, offset, outside_quotes, place,
    text_of,
};

/// Modules with such statements in them, by name. What is not here needs none.
pub(crate) type Guarded = BTreeMap<String, String>;

/// Whom the statements are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum For {
    Machine,
    Interpreter,
}

/// Puts the statements into the modules, and indexes for rules of many definitions. `entrypoints`
/// are what the machines will be asked for.
pub(crate) fn guarded(syntax: &Syntax<'_>, entrypoints: &[&[String]]) -> Guarded {
    rewritten(syntax, For::Machine, |number, insertions| {
        index(syntax, number, entrypoints, insertions);
    })
}

/// Puts into the modules only what the interpreter needs as well.
pub(crate) fn guarded_members(syntax: &Syntax<'_>) -> Guarded {
    rewritten(syntax, For::Interpreter, |_, _| {})
}

fn rewritten(syntax: &Syntax<'_>, engine: For, finish: impl Fn(usize, &mut Insertions)) -> Guarded {
    let modules = syntax.modules.iter().enumerate();
    let guarded = modules.filter_map(|(number, module)| {
        let mut insertions = Vec::new();
        for rule in module.rules {
            guard_rule(rule, module, engine, &mut insertions);
        }
        finish(number, &mut insertions);
        (!insertions.is_empty())
            .then(|| (module.file.to_owned(), inserted(module.text, insertions)))
    });
    guarded.collect()
}

/// The sources with these modules.
pub(crate) fn apply(guarded: &Guarded, sources: &PolicySources) -> PolicySources {
    sources.rewritten(|file, text| match guarded.get(file) {
        Some(guarded) => guarded.clone(),
        None => text.to_owned(),
    })
}

/// Why the machine would not do as the interpreter does with a rule, if it would not.
pub(crate) fn unlike(rule: &Json, module: &Module<'_>) -> Option<NoProgram> {
    if let Some(place) = loop_before_else(rule, module) {
        return Some(NoProgram::LoopBeforeElse { place });
    }
    if let Some(first) = object_comprehension(rule) {
        return Some(NoProgram::ObjectComprehension {
            place: place(first, module),
        });
    }
    let default = rule.get("Default")?;
    let parameters = default.get("args").map(items).unwrap_or_default();
    let name = default.get("refr").filter(|_| !parameters.is_empty())?;
    Some(NoProgram::DefaultFunction {
        place: place(name, module),
    })
}

/// The first object comprehension in a rule.
fn object_comprehension(tree: &Json) -> Option<&Json> {
    match tree {
        Json::Object(members) if members.contains_key("ObjectCompr") => Some(tree),
        Json::Object(members) => members.values().find_map(object_comprehension),
        Json::Array(members) => members.iter().find_map(object_comprehension),
        _ => None,
    }
}

/// A body with a loop before an `else`: where no round of the loop holds, the machine takes the
/// body for one without a value, and does not ask the `else`.
fn loop_before_else(rule: &Json, module: &Module<'_>) -> Option<Place> {
    let bodies = rule.pointer("/Spec/bodies").map(items).unwrap_or_default();
    let parameters = rule.pointer("/Spec/head/Func/args");
    let mut names: Vec<&str> = Vec::new();
    variables(parameters.unwrap_or(&Json::Null), &mut names);
    let is_else = |body: &&Json| body.get("is_else") == Some(&Json::Bool(true));
    let before = bodies.iter().zip(bodies.iter().skip(1).filter(is_else));
    let mut queries = before.filter_map(|(body, _)| body.get("query"));
    let query = queries.find(|query| {
        let statements = query.get("stmts").map(items).unwrap_or_default();
        let mut names = names.clone();
        statements.iter().any(|statement| {
            assigned(statement, &mut names);
            let literal = statement.get("literal").unwrap_or(&Json::Null);
            literal.get("SomeIn").is_some()
                || literal.get("SomeVars").is_some()
                || iterates(literal, &names)
        })
    })?;
    let first = query.pointer("/stmts/0/literal")?;
    Some(place(first, module))
}

fn guard_rule(rule: &Json, module: &Module<'_>, engine: For, insertions: &mut Insertions) {
    let head = rule.pointer("/Spec/head").unwrap_or(&Json::Null);
    let bodies = rule.pointer("/Spec/bodies").map(items).unwrap_or_default();
    let heads_value = head
        .pointer("/Compr/assign/value")
        .or_else(|| head.pointer("/Func/assign/value"));
    let key = head.pointer("/Set/key");
    for parts in [key, heads_value].into_iter().flatten() {
        guard_nested(parts, module, engine, insertions);
    }
    let end = rule
        .pointer("/Spec/span")
        .and_then(|span| offset(span, "end"));
    if let (Some(end), Some(guards), true) = (end, defined(key, module), bodies.is_empty())
        && engine == For::Machine
    {
        let guards = guards.trim_start_matches("; ");
        let guards = format!(" if {{ {guards} }}");
        insertions.push((after_quote(end, module.text), guards));
    }
    for (index, body) in bodies.iter().enumerate() {
        let Some(query) = body.get("query") else {
            continue;
        };
        let own_value = body.pointer("/assign/value");
        guard_nested(own_value.unwrap_or(&Json::Null), module, engine, insertions);
        let followed = bodies.get(index.saturating_add(1));
        let before_else = followed.and_then(|next| next.get("is_else")) == Some(&Json::Bool(true));
        let value = own_value.or(heads_value.filter(|_| index == 0));
        // Functions are left as they are: there the interpreter does not ask the `else` either.
        let before_else = before_else && head.get("Func").is_none() && engine == For::Machine;
        let value = value.filter(|_| before_else || head.pointer("/Compr/refr/RefBrack").is_some());
        let more = defined([value, key].into_iter().flatten(), module);
        let statements = query.get("stmts").map(items).unwrap_or_default();
        let first = statements.first().and_then(|first| first.get("span"));
        let last = statements.last().and_then(|last| last.get("span"));
        let place = |span: Option<&Json>, name| span.and_then(|span| offset(span, name));
        let in_braces = place(query.get("span"), "start") < place(first, "start");
        let mut own = Vec::new();
        guard_query(query, module, engine, more, &mut own);
        // Several statements take braces.
        if !in_braces
            && !own.is_empty()
            && let (Some(start), Some(end)) = (place(first, "start"), place(last, "end"))
        {
            insertions.push((outside_quotes(start, module.text), "{ ".to_owned()));
            own.push((after_quote(end, module.text), " }".to_owned()));
        }
        insertions.extend(own);
    }
}

/// Guards the statements of a query, and puts `more` behind the last.
fn guard_query(
    query: &Json,
    module: &Module<'_>,
    engine: For,
    more: Option<String>,
    insertions: &mut Insertions,
) {
    let statements = query.get("stmts").map(items).unwrap_or_default();
    let end = |statement: &Json| {
        Some(after_quote(
            offset(statement.get("span")?, "end")?,
            module.text,
        ))
    };
    for statement in statements {
        let before = before_not(statement, module);
        let start = statement.get("span").and_then(|span| offset(span, "start"));
        if let Some(start) = start.filter(|_| !before.is_empty()) {
            insertions.push((start, before));
        }
        guard_nested(
            statement.get("literal").unwrap_or(&Json::Null),
            module,
            engine,
            insertions,
        );
        let mut names = Vec::new();
        if engine == For::Machine {
            assigned(statement, &mut names);
        }
        let guards: String = names.iter().map(|name| format!("; _ = {name}")).collect();
        if let Some(end) = end(statement).filter(|_| !guards.is_empty()) {
            insertions.push((end, guards));
        }
    }
    if let (Some(more), Some(end)) = (more, statements.last().and_then(end)) {
        insertions.push((end, more));
    }
}

/// Guards the queries inside of an expression.
fn guard_nested(tree: &Json, module: &Module<'_>, engine: For, insertions: &mut Insertions) {
    match tree {
        Json::Object(members) => {
            // Of a comprehension, its members; `every` has none.
            let given = ["term", "key", "value"].map(|part| members.get(part));
            if let Some(query) = members.get("query") {
                let more = match engine {
                    For::Machine => defined(given.into_iter().flatten(), module),
                    For::Interpreter => None,
                };
                guard_query(query, module, engine, more, insertions);
            }
            let others = members.iter().filter(|(name, _)| *name != "query");
            others.for_each(|(_, member)| guard_nested(member, module, engine, insertions));
        }
        Json::Array(members) => members
            .iter()
            .for_each(|member| guard_nested(member, module, engine, insertions)),
        _ => {}
    }
}

/// Statements that hold only if all these expressions have a value; `None` if they always have.
fn defined<'a>(
    expressions: impl IntoIterator<Item = &'a Json>,
    module: &Module<'_>,
) -> Option<String> {
    let uncertain = expressions
        .into_iter()
        .filter(|expression| !is_scalar(expression));
    let guards: Option<String> = uncertain
        .map(|expression| Some(format!("; _ = {}", text_of(expression, module)?)))
        .collect();
    guards.filter(|guards| !guards.is_empty())
}

/// The variables that a statement gives values with `:=`.
fn assigned<'a>(statement: &'a Json, names: &mut Vec<&'a str>) {
    let assignment = statement.pointer("/literal/Expr/expr/AssignExpr");
    let assignment = assignment.filter(|assignment| assignment.get("op") == Some(&"ColEq".into()));
    let target = assignment.and_then(|assignment| assignment.get("lhs"));
    variables(target.unwrap_or(&Json::Null), names);
}

/// The variables in a pattern.
fn variables<'a>(pattern: &'a Json, names: &mut Vec<&'a str>) {
    match pattern {
        Json::Object(members) => {
            if let Some(name) = pattern.pointer("/Var/value").and_then(Json::as_str) {
                names.extend(Some(name).filter(|name| *name != "_"));
            } else {
                members.values().for_each(|member| variables(member, names));
            }
        }
        Json::Array(members) => members.iter().for_each(|member| variables(member, names)),
        _ => {}
    }
}

/// Whether an expression goes through all members of something: an index is a variable that has no
/// value yet. What comprehensions do inside is their own business.
fn iterates(tree: &Json, names: &[&str]) -> bool {
    match tree {
        Json::Object(members) if members.contains_key("stmts") => false,
        Json::Object(members) => {
            let index = tree
                .pointer("/RefBrack/index/Var/value")
                .and_then(Json::as_str);
            let free = index.is_some_and(|index| !names.contains(&index));
            free || members.values().any(|member| iterates(member, names))
        }
        Json::Array(members) => members.iter().any(|member| iterates(member, names)),
        _ => false,
    }
}

fn is_scalar(expression: &Json) -> bool {
    ["String", "RawString", "Number", "Bool", "Null"]
        .iter()
        .any(|kind| expression.get(kind).is_some())
}
