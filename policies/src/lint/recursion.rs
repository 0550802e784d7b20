//! Rules that depend on themselves: Rego refuses them, the engine follows them
//! until its stack ends.

use std::collections::BTreeMap;

use super::names::{Names, Reference, leads_to, names};
use crate::error::Recursion;
use crate::syntax::{RulePath, Syntax, declared, rule_reference};

/// A rule: its name, where it stands first, and what it refers to.
struct Node {
    path: RulePath,
    file: String,
    offset: usize,
    next: Vec<usize>,
}

/// Every rule that refers to itself, through others or directly.
pub(crate) fn recursive_rules(syntax: &Syntax<'_>) -> Vec<Recursion> {
    let mut nodes: Vec<Node> = Vec::new();
    let mut index: BTreeMap<RulePath, usize> = BTreeMap::new();
    let mut references: Vec<Vec<Reference>> = Vec::new();
    for module in &syntax.modules {
        for rule in module.rules {
            let Some(rule_declared) = declared(module, rule) else {
                continue;
            };
            let Names {
                references: found, ..
            } = names(module, rule);
            let position = *index.entry(rule_declared.path.clone()).or_insert_with(|| {
                nodes.push(Node {
                    path: rule_declared.path,
                    file: rule_declared.file,
                    offset: super::engine_errors::span(module.text, rule)
                        .map_or(0, |span| span.start),
                    next: Vec::new(),
                });
                references.push(Vec::new());
                nodes.len().saturating_sub(1)
            });
            if let Some(known) = references.get_mut(position) {
                known.extend(found);
            }
        }
    }
    let targets = |reference: &Reference| {
        let fixed: RulePath = reference.iter().map_while(Clone::clone).collect();
        let above = (0..fixed.len()).filter_map(|length| index.get_key_value(fixed.get(..length)?));
        let below = index.range(fixed.clone()..);
        let below = below.take_while(|(path, _)| path.starts_with(&fixed));
        let both = above.chain(below);
        let found = both.filter(|(path, _)| leads_to(reference, path));
        found.map(|(_, node)| *node).collect::<Vec<_>>()
    };
    for (node, found) in nodes.iter_mut().zip(&references) {
        node.next = found.iter().flat_map(targets).collect();
        node.next.sort_unstable();
        node.next.dedup();
    }
    let found = (0..nodes.len()).filter_map(|start| {
        let way = way_back(&nodes, start)?;
        let node = nodes.get(start)?;
        let text = syntax.modules.iter().find(|it| it.file == node.file)?.text;
        let (line, column) = super::place::line_and_column(text, node.offset);
        let through = way.iter().filter_map(|index| nodes.get(*index));
        Some(Recursion {
            rule: rule_reference(&node.path),
            file: node.file.clone(),
            line,
            column,
            through: through.map(|node| rule_reference(&node.path)).collect(),
        })
    });
    found.collect()
}

/// The shortest way from a rule back to itself, without its ends.
fn way_back(nodes: &[Node], start: usize) -> Option<Vec<usize>> {
    let mut from: BTreeMap<usize, usize> = BTreeMap::new();
    let mut layer = vec![start];
    while !layer.is_empty() {
        let mut following = Vec::new();
        for at in layer {
            for next in nodes
                .get(at)
                .map(|node| node.next.as_slice())
                .unwrap_or_default()
            {
                if *next == start {
                    let mut way = Vec::new();
                    let mut step = at;
                    while step != start {
                        way.push(step);
                        step = *from.get(&step)?;
                    }
                    way.reverse();
                    return Some(way);
                }
                if !from.contains_key(next) {
                    from.insert(*next, at);
                    following.push(*next);
                }
            }
        }
        layer = following;
    }
    None
}
