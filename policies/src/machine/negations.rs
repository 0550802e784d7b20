//! What has to have a value before `not` is asked.
//!
//! OPA evaluates the arguments of calls, and references inside of others, before it negates: where
//! one has no value, the rule has none. To this engine the negated expression is then one that does
//! not hold, so that `not` is true: `not startswith(input.tenant, "evil")` of a request without
//! tenant. In the copy `_ = input.tenant` stands before it.

use serde_json::Value as Json;

use crate::syntax::{Module, items, text_of};

/// The statements that belong before a statement with `not`; empty where there are none.
pub(super) fn before_not(statement: &Json, module: &Module<'_>) -> String {
    let Some(negated) = statement.pointer("/literal/NotExpr/expr") else {
        return String::new();
    };
    let mut terms = Vec::new();
    expression(negated, module, &mut terms);
    let with = replacements(statement, module).unwrap_or_default();
    let terms = terms.iter();
    terms.map(|term| format!("_ = {term}{with}; ")).collect()
}

/// ` with … as …`, as the statement has it.
fn replacements(statement: &Json, module: &Module<'_>) -> Option<String> {
    let modifiers = statement.get("with_mods").map(items)?;
    let modifiers = modifiers.iter();
    modifiers
        .map(|modifier| {
            let target = text_of(modifier.get("refr")?, module)?;
            let value = text_of(modifier.get("as")?, module)?;
            Some(format!(" with {target} as {value}"))
        })
        .collect()
}

/// What is negated. A reference that has no value is simply one that does not hold.
fn expression<'a>(tree: &Json, module: &Module<'a>, terms: &mut Vec<&'a str>) {
    for equality in ["BoolExpr", "AssignExpr"] {
        if let Some(sides) = tree.get(equality)
            && sides.get("op") == Some(&"Eq".into())
        {
            for side in ["lhs", "rhs"].iter().filter_map(|side| sides.get(side)) {
                match is_reference(side) {
                    true => parts(side, module, terms),
                    false => operand(side, module, terms),
                }
            }
            return;
        }
    }
    parts(tree, module, terms);
}

/// A part that has to have a value.
fn operand<'a>(tree: &Json, module: &Module<'a>, terms: &mut Vec<&'a str>) {
    parts(tree, module, terms);
    let is_negated_for_itself = ["Call", "ArithExpr", "BinExpr", "UnaryExpr"]
        .iter()
        .any(|kind| tree.get(kind).is_some());
    if is_negated_for_itself || is_reference(tree) {
        terms.extend(text_of(tree, module).filter(|text| *text != "_"));
    }
}

/// The operands inside of an expression; what a comprehension has inside is its own business.
fn parts<'a>(tree: &Json, module: &Module<'a>, terms: &mut Vec<&'a str>) {
    let Some((kind, body)) = tree.as_object().and_then(|members| members.iter().next()) else {
        return;
    };
    let member = |name: &str| body.get(name);
    let mut each = |parts: &[&str]| {
        let found = parts.iter().filter_map(|part| member(part));
        found.for_each(|part| operand(part, module, terms));
    };
    match kind.as_str() {
        "RefDot" | "RefBrack" => {
            each(&["index"]);
            // What a reference begins with is a part of it, but for calls and the like.
            if let Some(inner) = member("refr") {
                match is_reference(inner) {
                    true => parts(inner, module, terms),
                    false => operand(inner, module, terms),
                }
            }
        }
        "BoolExpr" | "AssignExpr" | "ArithExpr" | "BinExpr" => each(&["lhs", "rhs"]),
        "Membership" => each(&["key", "value", "collection"]),
        "UnaryExpr" => each(&["expr"]),
        "Call" => list(member("params"), module, terms),
        "Array" | "Set" => list(member("items"), module, terms),
        "Object" => {
            for field in member("fields").map(items).unwrap_or_default() {
                list(Some(field), module, terms);
            }
        }
        _ => {}
    }
}

fn list<'a>(members: Option<&Json>, module: &Module<'a>, terms: &mut Vec<&'a str>) {
    for member in members.map(items).unwrap_or_default() {
        operand(member, module, terms);
    }
}

fn is_reference(tree: &Json) -> bool {
    ["Var", "RefDot", "RefBrack"]
        .iter()
        .any(|kind| tree.get(kind).is_some())
}
