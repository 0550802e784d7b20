//! Which statements of the needed rules an evaluation reached.
//!
//! The engine tells by lines. So a policy is observed in a copy in which each statement begins a
//! line of its own: that changes no meaning.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::bodies::Bodies;
use super::solve::literal;
use crate::engine::Interpreter;
use crate::sources::PolicySources;
use crate::syntax::{Module, Place, Syntax, after_quote, items, offset, outside_quotes, place};

/// The statements of all bodies, and the values and keys of rules that are more than a literal.
pub(super) struct Statements {
    all: Vec<Statement>,
    /// For each module of the copy the statement that each line is of.
    lines: BTreeMap<String, Vec<Option<usize>>>,
}

struct Statement {
    place: Place,
    body: usize,
    reached: bool,
}

/// A place in a module from which on the text is of one statement, or of none.
type Mark = (usize, Option<usize>);

impl Statements {
    /// Finds the statements, and makes the copy to observe.
    pub(super) fn find(
        syntax: &Syntax<'_>,
        bodies: &Bodies<'_>,
        sources: &PolicySources,
    ) -> (Self, PolicySources) {
        let mut statements = Self {
            all: Vec::new(),
            lines: BTreeMap::new(),
        };
        let mut marks: BTreeMap<&str, Vec<Mark>> = BTreeMap::new();
        for module in &syntax.modules {
            let of_rules = module.rules.iter().filter_map(|rule| {
                let span = rule.as_object()?.values().next()?.get("span")?;
                Some((offset(span, "start")?, None))
            });
            marks.entry(module.file).or_default().extend(of_rules);
        }
        for (index, body) in bodies.all().iter().enumerate() {
            let marks = marks.entry(body.module.file).or_default();
            // The key of a member is a value like any other, but in brackets no line may begin.
            let key = body.key.filter(|key| body.value.is_none() && !is_name(key));
            let values = [key, body.value].into_iter().flatten();
            for value in values.filter(|value| literal(value).is_none()) {
                let start = expression_start(value, body.module).unwrap_or_default();
                // Several bodies may share it.
                if !marks.iter().any(|(known, _)| *known == start) {
                    let id = statements.add(value, body.module, index);
                    marks.push((start, Some(id)));
                    statements.nested(value, Some(id), body.module, index, marks);
                }
            }
            if let Some(query) = body.query {
                statements.query(query, None, body.module, index, marks);
            }
        }
        let copy = sources.rewritten(|file, text| {
            let mut marks = marks.remove(file).unwrap_or_default();
            marks.sort_by_key(|(start, _)| *start);
            let (text, lines) = broken(text, &marks);
            statements.lines.insert(file.to_owned(), lines);
            text
        });
        (statements, copy)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.all.len()
    }

    /// How many were reached.
    pub(super) fn reached(&self) -> usize {
        self.all
            .iter()
            .filter(|statement| statement.reached)
            .count()
    }

    /// The first that was not reached.
    pub(super) fn first_missing(&self) -> Option<&Place> {
        let mut missing = self.all.iter().filter(|statement| !statement.reached);
        missing.next().map(|statement| &statement.place)
    }

    /// The bodies of which some statement was not reached.
    pub(super) fn incomplete(&self) -> Vec<usize> {
        let missing = self.all.iter().filter(|statement| !statement.reached);
        let mut bodies: Vec<usize> = missing.map(|statement| statement.body).collect();
        bodies.dedup();
        bodies
    }

    /// Takes over what the interpreter of the copy observed.
    pub(super) fn observe(&mut self, interpreter: &Interpreter) {
        for regorus::coverage::File {
            path: file,
            covered: lines,
            ..
        } in interpreter.coverage()
        {
            let Some(owners) = self.lines.get(&file) else {
                continue;
            };
            for line in lines {
                let owner = usize::try_from(line).ok().and_then(|line| owners.get(line));
                if let Some(Some(owner)) = owner
                    && let Some(statement) = self.all.get_mut(*owner)
                {
                    statement.reached = true;
                }
            }
        }
    }

    fn add(&mut self, tree: &Json, module: &Module<'_>, body: usize) -> usize {
        self.all.push(Statement {
            place: place(tree, module),
            body,
            reached: false,
        });
        self.all.len().saturating_sub(1)
    }

    /// The statements of a query; what follows it is `around`'s again.
    fn query(
        &mut self,
        query: &Json,
        around: Option<usize>,
        module: &Module<'_>,
        body: usize,
        marks: &mut Vec<Mark>,
    ) {
        let statements = query.get("stmts").map(items).unwrap_or_default();
        for statement in statements {
            let span = statement.get("span").unwrap_or(&Json::Null);
            let literal = statement.get("literal").unwrap_or(&Json::Null);
            let Some(start) = offset(span, "start").filter(|_| literal.get("SomeVars").is_none())
            else {
                continue;
            };
            let id = self.add(literal, module, body);
            marks.push((outside_quotes(start, module.text), Some(id)));
            self.nested(literal, Some(id), module, body, marks);
        }
        let last = statements.last().and_then(|last| last.get("span"));
        if let Some(end) = last.and_then(|span| offset(span, "end")) {
            marks.push((after_quote(end, module.text), around));
        }
    }

    /// The queries inside of an expression.
    fn nested(
        &mut self,
        tree: &Json,
        around: Option<usize>,
        module: &Module<'_>,
        body: usize,
        marks: &mut Vec<Mark>,
    ) {
        match tree {
            Json::Object(members) if members.contains_key("stmts") => {
                self.query(tree, around, module, body, marks);
            }
            Json::Object(members) => members
                .values()
                .for_each(|member| self.nested(member, around, module, body, marks)),
            Json::Array(members) => members
                .iter()
                .for_each(|member| self.nested(member, around, module, body, marks)),
            _ => {}
        }
    }
}

/// Whether an expression is a variable.
fn is_name(expression: &Json) -> bool {
    expression.get("Var").is_some()
}

fn expression_start(expression: &Json, module: &Module<'_>) -> Option<usize> {
    let kind = expression.as_object()?.values().next()?;
    let start = offset(kind.get("span")?, "start")?;
    Some(outside_quotes(start, module.text))
}

/// The text with a line break at each mark, and for each line, counted from 1, whose it is.
fn broken(text: &str, marks: &[Mark]) -> (String, Vec<Option<usize>>) {
    let mut broken = String::with_capacity(text.len());
    let mut lines = vec![None, None];
    let mut done = 0;
    let mut owner = None;
    let mut take = |piece: &str, owner: Option<usize>, lines: &mut Vec<Option<usize>>| {
        broken.push_str(piece);
        lines.extend(piece.matches('\n').map(|_| owner));
    };
    for (start, next) in marks {
        if let Some(piece) = text.get(done..*start) {
            take(piece, owner, &mut lines);
            done = *start;
        }
        owner = *next;
        take("\n", owner, &mut lines);
    }
    take(text.get(done..).unwrap_or_default(), owner, &mut lines);
    (broken, lines)
}
