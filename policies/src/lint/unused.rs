//! What a policy declares and never uses.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value as Json;

use super::names::{Local, LocalKind, Reference, leads_to, names};
use crate::question::entrypoint_path;
use crate::syntax::{Module, RulePath, Syntax, alias, declared, offset, rule_reference};

/// What counts as used though no rule refers to it: what Sidegate and OPA ask
/// for themselves.
const ASKED_FOR: &[&[&str]] = &[
    &["envoy", "authz", "allow"],
    &["sidegate", "connect"],
    &["sidegate", "egress"],
    &["sidegate", "admit"],
    &["system"],
];

/// Code, file, bytes of the file, what is unused, and what to do about it.
pub(super) type Unused = (&'static str, String, Range<usize>, String, String);

/// Imports, names and, with `rules`, rules that nothing uses.
pub(super) fn unused(syntax: &Syntax<'_>, entrypoints: &[String], rules: bool) -> Vec<Unused> {
    let mut found = Vec::new();
    let mut references: BTreeSet<Reference> = BTreeSet::new();
    for module in &syntax.modules {
        let mut aliases = BTreeSet::new();
        for rule in module.rules {
            let names = names(module, rule);
            found.extend(
                names
                    .locals
                    .iter()
                    .filter_map(|local| unused_local(module, local)),
            );
            references.extend(names.references);
            references.extend(names.replaced);
            aliases.extend(names.aliases);
        }
        for import in module.imports {
            if let (Some((name, target)), Some(span)) = (alias(import, module.text), span(import))
                && !aliases.contains(&name)
            {
                let target = target.join(".");
                let message = format!("the import {target} is not used");
                found.push((
                    "SG0280",
                    module.file.to_owned(),
                    span,
                    message,
                    "remove it".to_owned(),
                ));
            }
        }
    }
    if rules {
        found.extend(unused_rules(syntax, entrypoints, &references));
    }
    found
}

fn unused_local(module: &Module<'_>, local: &Local) -> Option<Unused> {
    let name = &local.name;
    let (code, what, help) = match local.kind {
        LocalKind::Argument => ("SG0282", "argument", "write `_` for it"),
        LocalKind::Assigned => ("SG0281", "variable", "remove it, or write `_` for it"),
        LocalKind::Declared => ("SG0281", "variable", "remove it, or write `_` for it"),
        LocalKind::Iterated => return None,
    };
    let message = format!("the {what} `{name}` is not used");
    (!local.used).then(|| {
        let file = module.file.to_owned();
        (code, file, local.span.clone(), message, help.to_owned())
    })
}

fn unused_rules(
    syntax: &Syntax<'_>,
    entrypoints: &[String],
    references: &BTreeSet<Reference>,
) -> Vec<Unused> {
    let mut asked: Vec<RulePath> = ASKED_FOR
        .iter()
        .map(|path| path.iter().map(|it| (*it).to_owned()).collect())
        .collect();
    asked.extend(entrypoints.iter().filter_map(|it| entrypoint_path(it).ok()));
    let related =
        |path: &RulePath, other: &RulePath| path.starts_with(other) || other.starts_with(path);
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for module in &syntax.modules {
        for rule in module.rules {
            let (Some(rule_declared), Some(span)) = (
                declared(module, rule),
                super::engine_errors::span(module.text, rule),
            ) else {
                continue;
            };
            let path = rule_declared.path;
            let test = |part: &String| part.starts_with("test_") || part.starts_with("todo_test_");
            let is_used = path.iter().any(test)
                || path.last().is_some_and(|name| name == "allow")
                || asked.iter().any(|asked| related(&path, asked))
                || references
                    .iter()
                    .any(|reference| leads_to(reference, &path))
                || is_marked_as_entrypoint(module.text, span.start);
            if !is_used && seen.insert(path.clone()) {
                let name = rule_reference(&path);
                let message = format!("nothing refers to the rule {name}");
                let end = span.start.saturating_add(rule_declared.name.len());
                let help = "remove it, or mark it with `# METADATA` and `# entrypoint: true`";
                found.push((
                    "SG0283",
                    rule_declared.file,
                    span.start..end,
                    message,
                    help.to_owned(),
                ));
            }
        }
    }
    found
}

/// Whether the comment right above a rule, or above the package, is metadata
/// that says `entrypoint: true`.
fn is_marked_as_entrypoint(text: &str, start: usize) -> bool {
    let above = text.get(..start).unwrap_or_default();
    let comment: Vec<&str> = above
        .lines()
        .rev()
        .map(str::trim)
        .take_while(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim())
        .collect();
    comment.contains(&"METADATA") && comment.contains(&"entrypoint: true")
}

pub(super) fn span(tree: &Json) -> Option<Range<usize>> {
    let span = tree.get("span")?;
    Some(offset(span, "start")?..offset(span, "end")?)
}
