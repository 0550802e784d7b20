//! Names that stand for a part of `input`: variables as in `http := input.attributes.request.http`,
//! and rules that are no more than that.
//!
//! To give such a part a name reads nothing of it yet, if only it is always there; what is read is
//! what follows the name.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::dependencies::{InputPath, Reference};
use super::{Module, RulePath, Syntax, declared, items};
use crate::input::presence;

/// What names stand for. A variable may have the same name in several bodies.
pub(crate) type StandIns<Name> = BTreeMap<Name, Vec<InputPath>>;

/// The parts of `input` that a reference leads to, by whatever names; none if it is computed.
pub(super) fn targets(
    reference: &Reference<'_>,
    module: &Module<'_>,
    variables: &StandIns<String>,
) -> Vec<InputPath> {
    let Some(steps) = reference.fixed_steps() else {
        return Vec::new();
    };
    let roots = roots(reference.root, module, variables).into_iter();
    roots.map(|root| [root, steps.clone()].concat()).collect()
}

/// The parts of `input` that a name stands for.
pub(super) fn roots(
    name: &str,
    module: &Module<'_>,
    variables: &StandIns<String>,
) -> Vec<InputPath> {
    let mut roots = variables.get(name).cloned().unwrap_or_default();
    if name == "input" {
        roots.push(InputPath::new());
    }
    let imported = module.aliases.get(name).and_then(|path| path.split_first());
    if let Some((root, path)) = imported
        && root == "input"
    {
        roots.push(path.iter().cloned().map(super::Step::Member).collect());
    }
    roots
}

/// The assignment of a part of `input` to a variable: its name, and what it stands for.
pub(super) fn assignment<'a>(
    tree: &'a Json,
    module: &Module<'_>,
    variables: &StandIns<String>,
) -> Option<(&'a str, Vec<InputPath>)> {
    let assignment = tree.get("AssignExpr")?;
    let name = assignment.pointer("/lhs/Var/value")?.as_str()?;
    let is_assigned = assignment.get("op")?.as_str() == Some("ColEq");
    let reference = Reference::of(assignment.get("rhs")?)?;
    let targets = targets(&reference, module, variables);
    let is_stand_in = is_assigned && !targets.is_empty() && are_always_there(&targets);
    is_stand_in.then_some((name, targets))
}

/// The variables of a rule that stand for parts of `input`.
pub(super) fn variables(rule: &Json, module: &Module<'_>) -> StandIns<String> {
    let mut found = StandIns::new();
    collect(rule, module, &mut found);
    found
}

fn collect(tree: &Json, module: &Module<'_>, found: &mut StandIns<String>) {
    if let Some((name, targets)) = assignment(tree, module, found) {
        found.entry(name.to_owned()).or_default().extend(targets);
        return;
    }
    match tree {
        Json::Object(members) => members
            .values()
            .for_each(|member| collect(member, module, found)),
        Json::Array(members) => members
            .iter()
            .for_each(|member| collect(member, module, found)),
        _ => {}
    }
}

/// The rules that stand for parts of `input`: with one definition, and no condition.
pub(crate) fn rules(syntax: &Syntax<'_>) -> StandIns<RulePath> {
    let mut found: BTreeMap<RulePath, Option<Vec<InputPath>>> = BTreeMap::new();
    for module in &syntax.modules {
        for rule in module.rules {
            if let Some(declared) = declared(module, rule) {
                let entry = found.entry(declared.path);
                let first = stand_in(rule, module);
                entry.and_modify(|found| *found = None).or_insert(first);
            }
        }
    }
    let found = found.into_iter();
    found
        .filter_map(|(path, targets)| Some((path, targets?)))
        .collect()
}

fn stand_in(rule: &Json, module: &Module<'_>) -> Option<Vec<InputPath>> {
    let rule = rule.get("Spec")?;
    let has_conditions = !rule.get("bodies").map(items)?.is_empty();
    let value = rule.pointer("/head/Compr/assign/value")?;
    let targets = targets(&Reference::of(value)?, module, &StandIns::new());
    let is_stand_in = !has_conditions && !targets.is_empty() && are_always_there(&targets);
    is_stand_in.then_some(targets)
}

fn are_always_there(targets: &[InputPath]) -> bool {
    targets.iter().all(|path| presence(path).is_some())
}
