//! Which lines of the modules an evaluation has reached.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value as Json;

use crate::syntax::Syntax;

/// Which lines were evaluated, by file and in all.
///
/// Lines are those that hold an expression: conditions and values. A line is
/// covered once any expression on it was evaluated, whatever came out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CoverageReport {
    /// The files, in the order of their names.
    pub files: Vec<FileCoverage>,
    /// How many lines were evaluated.
    pub covered_lines: usize,
    /// How many were not.
    pub not_covered_lines: usize,
    /// The share of lines that were evaluated, in percent; 100 where there is
    /// none to evaluate.
    pub coverage: f64,
}

/// Which lines of a module were evaluated.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileCoverage {
    /// The module.
    pub file: String,
    /// Lines that were evaluated, from 1.
    pub covered: Vec<u32>,
    /// Lines that were not.
    pub not_covered: Vec<u32>,
    /// As in [`CoverageReport::coverage`].
    pub coverage: f64,
}

/// The lines that hold an expression, by file, and whether each was evaluated.
pub(crate) struct Coverage {
    files: BTreeMap<String, BTreeMap<u32, bool>>,
    /// Lines that hold an expression only in the copy that is evaluated.
    foreign: BTreeSet<(String, u32)>,
}

impl Coverage {
    /// Of all modules, with nothing evaluated yet.
    pub(crate) fn new(syntax: &Syntax<'_>) -> Self {
        let files = syntax.modules.iter().map(|module| {
            let mut lines = BTreeSet::new();
            for rule in module.rules {
                rule_lines(rule, &mut lines);
            }
            let lines = lines.into_iter().map(|line| (line, false));
            (module.file.to_owned(), lines.collect())
        });
        Self {
            files: files.collect(),
            foreign: BTreeSet::new(),
        }
    }

    /// The same where a copy of the modules is evaluated, which has more on some lines.
    pub(crate) fn of_copy(syntax: &Syntax<'_>, copy: &Syntax<'_>) -> Self {
        let mut coverage = Self::new(syntax);
        for (file, lines) in Self::new(copy).files {
            let known = coverage.files.get(&file);
            let is_known = |line: &u32| known.is_some_and(|known| known.contains_key(line));
            let foreign = lines.into_keys().filter(|line| !is_known(line));
            let foreign = foreign.map(|line| (file.clone(), line));
            coverage.foreign.extend(foreign.collect::<Vec<_>>());
        }
        coverage
    }

    /// Adds what an engine has evaluated.
    pub(crate) fn add(&mut self, evaluated: &[regorus::coverage::File]) {
        for file in evaluated {
            let Some(lines) = self.files.get_mut(&file.path) else {
                continue;
            };
            for line in &file.covered {
                if !self.foreign.contains(&(file.path.clone(), *line)) {
                    lines.insert(*line, true);
                }
            }
        }
    }

    /// All in all.
    pub(crate) fn report(self) -> CoverageReport {
        let (mut all_covered, mut all_not_covered) = (0_usize, 0_usize);
        let files = self.files.into_iter().map(|(file, lines)| {
            let (covered, not_covered): (Vec<_>, Vec<_>) =
                lines.into_iter().partition(|(_, covered)| *covered);
            all_covered = all_covered.saturating_add(covered.len());
            all_not_covered = all_not_covered.saturating_add(not_covered.len());
            FileCoverage {
                file,
                coverage: percent(covered.len(), not_covered.len()),
                covered: covered.into_iter().map(|(line, _)| line).collect(),
                not_covered: not_covered.into_iter().map(|(line, _)| line).collect(),
            }
        });
        CoverageReport {
            files: files.collect(),
            covered_lines: all_covered,
            not_covered_lines: all_not_covered,
            coverage: percent(all_covered, all_not_covered),
        }
    }
}

/// The lines of the expressions that the engine evaluates for a rule.
fn rule_lines(rule: &Json, lines: &mut BTreeSet<u32>) {
    let mut add = |tree: Option<&Json>| {
        if let Some(tree) = tree {
            expression_lines(tree, lines);
        }
    };
    if let Some(default) = rule.get("Default") {
        add(default.get("value"));
        return;
    }
    let head = rule.pointer("/Spec/head").and_then(Json::as_object);
    if let Some(head) = head.and_then(|head| head.values().next()) {
        add(head.pointer("/assign/value"));
        add(head.get("key"));
    }
    add(rule.pointer("/Spec/bodies"));
}

/// The lines on which an expression below `tree` begins, as far as the engine
/// notes them: not those of `with`, of a comprehension's head, and of the value
/// after `else`.
fn expression_lines(tree: &Json, lines: &mut BTreeSet<u32>) {
    match tree {
        Json::Array(members) => members.iter().for_each(|it| expression_lines(it, lines)),
        Json::Object(members) => {
            for (kind, member) in members {
                let below = match kind.as_str() {
                    "SomeVars" | "with_mods" | "assign" => continue,
                    "ArrayCompr" | "SetCompr" | "ObjectCompr" => member.get("query"),
                    "SomeIn" | "Every" | "Expr" | "NotExpr" => Some(member),
                    _ => {
                        let is_expression = kind.starts_with(|it: char| it.is_ascii_uppercase());
                        let line = member.pointer("/span/line").and_then(Json::as_u64);
                        let line = line.filter(|_| is_expression);
                        lines.extend(line.and_then(|line| u32::try_from(line).ok()));
                        Some(member)
                    }
                };
                if let Some(below) = below {
                    expression_lines(below, lines);
                }
            }
        }
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "no policy has as many lines as a f64 has whole numbers"
)]
fn percent(covered: usize, not_covered: usize) -> f64 {
    match covered.saturating_add(not_covered) {
        0 => 100.0,
        all => 100.0 * covered as f64 / all as f64,
    }
}
