//! Calls that the engine could not evaluate.
//!
//! The engine looks a function up only when a call is reached, and drops the
//! error if it is in one of several definitions of a function. So every call
//! is looked up when the policy is loaded.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value as Json;

use super::{Module, RuleKind, RulePath, Syntax, items, offset, whole_path};
use crate::builtins::{self, Builtin, Needed};
use crate::error::{CallProblem, UnsupportedCall};
use crate::sources::RegoVersion;

/// How many arguments each function of the modules takes, by its full path.
pub(super) type Functions = BTreeMap<RulePath, BTreeSet<usize>>;

/// What a name stands for where it is called.
pub(super) enum Resolved<'a> {
    /// A function of the modules, and how many arguments it takes.
    Function(RulePath, &'a BTreeSet<usize>),
    Builtin(Builtin),
}

/// All calls, and all functions replaced by `with`, that the engine cannot
/// evaluate, in the order of files and lines.
pub(crate) fn unsupported_calls(syntax: &Syntax<'_>) -> Vec<UnsupportedCall> {
    let functions = functions(syntax);
    let mut found = Vec::new();
    for module in &syntax.modules {
        for rule in module.rules {
            visit(rule, module, &functions, &mut found);
        }
    }
    found.sort_by(|left, right| {
        (&left.file, left.line, left.column).cmp(&(&right.file, right.line, right.column))
    });
    found.dedup();
    found
}

/// The builtins of ours that the modules call or replace in a way that the
/// engine knows only of functions: with the result as the last argument, and
/// by `with`.
pub(crate) fn forwarded_calls(syntax: &Syntax<'_>) -> Needed {
    let functions = functions(syntax);
    let mut needed = Needed::new();
    for module in &syntax.modules {
        for rule in module.rules {
            visit_forwarded(rule, module, &functions, &mut needed);
        }
    }
    needed
}

fn visit_forwarded(tree: &Json, module: &Module<'_>, functions: &Functions, needed: &mut Needed) {
    let mut need = |name: &Json, arguments: Option<usize>| {
        let Some(path) = whole_path(name) else { return };
        if let Resolved::Builtin(_) = resolve(&path, module, functions)
            && let Some(extension) = builtins::foreign(&path.join("."))
            && arguments != Some(usize::from(extension.arity))
        {
            let package = needed.entry(module.package.clone()).or_default();
            package.insert(extension.name);
        }
    };
    match tree {
        Json::Object(members) => {
            if let Some(call) = members.get("Call")
                && let Some(function) = call.get("fcn")
            {
                need(function, call.get("params").map(|list| items(list).len()));
            }
            for modifier in members.get("with_mods").map(items).unwrap_or_default() {
                for name in [modifier.get("refr"), modifier.get("as")] {
                    name.into_iter().for_each(|name| need(name, None));
                }
            }
            members
                .values()
                .for_each(|member| visit_forwarded(member, module, functions, needed));
        }
        Json::Array(members) => members
            .iter()
            .for_each(|member| visit_forwarded(member, module, functions, needed)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

/// The functions that the modules declare.
pub(super) fn functions(syntax: &Syntax<'_>) -> Functions {
    let mut functions = Functions::new();
    for rule in syntax.rules() {
        if let RuleKind::Function(arity) = rule.kind {
            functions.entry(rule.path).or_default().insert(arity);
        }
    }
    functions
}

/// Looks at every expression below `tree`, whatever holds it.
fn visit(
    tree: &Json,
    module: &Module<'_>,
    functions: &Functions,
    found: &mut Vec<UnsupportedCall>,
) {
    match tree {
        Json::Object(members) => {
            if let Some(call) = members.get("Call") {
                found.extend(check_call(call, module, functions));
            }
            if let Some(modifiers) = members.get("with_mods") {
                for modifier in items(modifiers) {
                    found.extend(check_modifier(modifier, module, functions));
                }
            }
            members
                .values()
                .for_each(|member| visit(member, module, functions, found));
        }
        Json::Array(members) => members
            .iter()
            .for_each(|member| visit(member, module, functions, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn check_call(call: &Json, module: &Module<'_>, functions: &Functions) -> Option<UnsupportedCall> {
    let function = call.get("fcn")?;
    let arguments = call.get("params").map(items).unwrap_or_default().len();
    let Some(path) = whole_path(function) else {
        // `f[x](…)`: the engine rejects it, but only when it gets there.
        return Some(report(
            "(computed)",
            function,
            module,
            CallProblem::Unknown { hint: None },
        ));
    };
    let name = path.join(".");
    let fits = |arity: usize| arguments == arity || arguments == arity.saturating_add(1);
    let problem = match resolve(&path, module, functions) {
        Resolved::Function(_, arities) => {
            // One argument more takes the result: `split(x, ",", parts)`.
            let expected = arities.iter().copied().next()?;
            if arities.len() == 1 && fits(expected) {
                return None;
            }
            CallProblem::Arity {
                expected,
                found: arguments,
            }
        }
        Resolved::Builtin(_) if is_gone(&name, module) => CallProblem::Unknown {
            hint: Some("it is not in Rego v1".to_owned()),
        },
        Resolved::Builtin(Builtin::Variadic) => return None,
        Resolved::Builtin(Builtin::Fixed(expected)) if fits(expected) => return None,
        Resolved::Builtin(Builtin::Fixed(expected)) => CallProblem::Arity {
            expected,
            found: arguments,
        },
        Resolved::Builtin(Builtin::Missing) => CallProblem::Unknown {
            hint: builtins::hint(&name),
        },
    };
    Some(report(&name, function, module, problem))
}

/// Whether a module's version of Rego has given a builtin up.
fn is_gone(name: &str, module: &Module<'_>) -> bool {
    module.version == RegoVersion::V1 && builtins::is_deprecated(name)
}

/// Checks `with <function> as <replacement>`; anything else that `with` may
/// replace is below `data` or `input`.
fn check_modifier(
    modifier: &Json,
    module: &Module<'_>,
    functions: &Functions,
) -> Vec<UnsupportedCall> {
    let target = modifier
        .get("refr")
        .and_then(|target| Some((target, whole_path(target)?)));
    let replacement = modifier
        .get("as")
        .and_then(|replacement| Some((replacement, whole_path(replacement)?)));
    let mut found = Vec::new();
    if let Some((expression, path)) = target {
        let root = path.first().map(String::as_str);
        let below_documents = root.is_some_and(|root| {
            root == "data" || root == "input" || module.aliases.contains_key(root)
        });
        if !below_documents && is_missing(&path, module, functions) {
            let name = path.join(".");
            let problem = CallProblem::Unknown {
                hint: builtins::hint(&name),
            };
            found.push(report(&name, expression, module, problem));
        }
    }
    if let Some((expression, path)) = replacement {
        // A replacement may be any value, so only what is certainly meant as
        // a function counts.
        let name = path.join(".");
        if builtins::is_refused(&name) && is_missing(&path, module, functions) {
            let problem = CallProblem::Unknown {
                hint: builtins::hint(&name),
            };
            found.push(report(&name, expression, module, problem));
        }
    }
    found
}

fn is_missing(path: &[String], module: &Module<'_>, functions: &Functions) -> bool {
    matches!(
        resolve(path, module, functions),
        Resolved::Builtin(Builtin::Missing)
    )
}

/// Resolves a name as the engine does: import aliases first, then full paths
/// and functions of the same package, then builtins.
pub(super) fn resolve<'a>(
    path: &[String],
    module: &Module<'_>,
    functions: &'a Functions,
) -> Resolved<'a> {
    let mut candidates: Vec<RulePath> = Vec::new();
    if let Some((root, rest)) = path.split_first() {
        if root == "data" {
            candidates.push(rest.to_vec());
        } else if let Some(target) = module.aliases.get(root)
            && let Some((root, target)) = target.split_first()
            && root == "data"
        {
            candidates.push(target.iter().chain(rest).cloned().collect());
        }
    }
    candidates.push(module.package.iter().chain(path).cloned().collect());
    let function = candidates.into_iter().find_map(|candidate| {
        let arities = functions.get(&candidate)?;
        Some(Resolved::Function(candidate, arities))
    });
    function.unwrap_or_else(|| Resolved::Builtin(builtins::lookup(&path.join("."))))
}

fn report(
    name: &str,
    expression: &Json,
    module: &Module<'_>,
    problem: CallProblem,
) -> UnsupportedCall {
    let (line, column) = start(expression, module.text);
    UnsupportedCall {
        function: name.to_owned(),
        file: module.file.to_owned(),
        line,
        column,
        problem,
    }
}

/// Line and column where an expression starts.
pub(super) fn start(expression: &Json, text: &str) -> (usize, usize) {
    // A reference's own position is that of its last dot, so go to its root.
    let inner = expression
        .pointer("/RefDot/refr")
        .or_else(|| expression.pointer("/RefBrack/refr"));
    if let Some(inner) = inner {
        return start(inner, text);
    }
    let kind = expression
        .as_object()
        .and_then(|kinds| kinds.values().next());
    let before = kind
        .and_then(|kind| offset(kind.get("span")?, "start"))
        .and_then(|start| text.get(..start))
        .unwrap_or_default();
    // Counted here because the engine counts a tab as four columns.
    let line = before.rsplit('\n').next().unwrap_or_default();
    let lines = before.matches('\n').count();
    (
        lines.saturating_add(1),
        line.chars().count().saturating_add(1),
    )
}
