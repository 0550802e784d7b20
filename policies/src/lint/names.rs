//! Which names a rule makes, which it uses, and which rules it refers to.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::{Map, Value as Json};

use crate::syntax::{Module, RulePath, items, offset};

/// What makes a name that is known within one rule only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LocalKind {
    /// `f(x)`.
    Argument,
    /// `x := …`.
    Assigned,
    /// `some x` or `every x in …`.
    Declared,
    /// `some x in …`, which is often there for the other of its names alone.
    Iterated,
}

/// A name that is known within one rule only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Local {
    pub(super) name: String,
    /// Where it is made, in bytes of the module.
    pub(super) span: Range<usize>,
    pub(super) kind: LocalKind,
    pub(super) used: bool,
}

/// A path below `data` in which a name that is computed is `None`.
pub(super) type Reference = Vec<Option<String>>;

/// Whether a reference leads to a rule, into its value, or to a package around
/// it.
pub(super) fn leads_to(reference: &Reference, rule: &RulePath) -> bool {
    let mut both = reference.iter().zip(rule);
    both.all(|(step, name)| step.as_ref().is_none_or(|step| step == name))
}

/// The names of one rule.
#[derive(Debug, Default)]
pub(super) struct Names {
    pub(super) locals: Vec<Local>,
    /// What is referred to below `data`.
    pub(super) references: BTreeSet<Reference>,
    /// The same where `with` replaces it.
    pub(super) replaced: BTreeSet<Reference>,
    /// The import aliases in use.
    pub(super) aliases: BTreeSet<String>,
    /// Where an alias stands for something below `data`, in bytes of the
    /// module, and for what.
    pub(super) imported: Vec<(Range<usize>, RulePath)>,
}

/// Reads one rule of a module.
pub(super) fn names(module: &Module<'_>, rule: &Json) -> Names {
    let mut reader = Reader {
        module,
        names: Names::default(),
        scopes: vec![Vec::new()],
    };
    reader.rule(rule);
    reader.names
}

struct Reader<'a> {
    module: &'a Module<'a>,
    names: Names,
    /// The names that are known, innermost scope last, as places in
    /// [`Names::locals`].
    scopes: Vec<Vec<usize>>,
}

impl Reader<'_> {
    fn rule(&mut self, rule: &Json) {
        if let Some(default) = rule.get("Default") {
            self.arguments(default);
            self.visit(member(default, "value"));
            return;
        }
        let spec = member(rule, "Spec");
        let head = member(spec, "head").as_object();
        let Some(head) = head.and_then(|head| head.values().next()) else {
            return;
        };
        self.arguments(head);
        let bodies = items(member(spec, "bodies"));
        if bodies.is_empty() {
            self.head(head);
        }
        for body in bodies {
            self.query(member(body, "query"), |reader| {
                // An `else` has a value of its own instead of the head's.
                if member(body, "is_else").as_bool() == Some(true) {
                    reader.visit(member(body, "assign"));
                } else {
                    reader.head(head);
                }
            });
        }
    }

    fn arguments(&mut self, head: &Json) {
        for argument in items(member(head, "args")) {
            self.declare(argument, LocalKind::Argument);
        }
    }

    /// The parts of a head that are evaluated with the body.
    fn head(&mut self, head: &Json) {
        let (_, _, indices) = chain(member(head, "refr"));
        indices.into_iter().for_each(|index| self.visit(index));
        self.visit(member(head, "key"));
        self.visit(member(head, "assign"));
    }

    /// Reads a query, and what else belongs to its scope.
    fn query(&mut self, query: &Json, with: impl FnOnce(&mut Self)) {
        self.scopes.push(Vec::new());
        let statements = items(member(query, "stmts"));
        for statement in statements {
            self.declarations(member(statement, "literal"));
        }
        for statement in statements {
            self.literal(member(statement, "literal"));
            for modifier in items(member(statement, "with_mods")) {
                self.replacement(modifier);
            }
        }
        with(self);
        self.scopes.pop();
    }

    /// The names that a statement makes for its whole query.
    fn declarations(&mut self, literal: &Json) {
        if let Some(some) = literal.get("SomeVars") {
            for span in items(member(some, "vars")) {
                self.declare_span(span, LocalKind::Declared);
            }
        } else if let Some(some) = literal.get("SomeIn") {
            self.declare(member(some, "key"), LocalKind::Iterated);
            self.declare(member(some, "value"), LocalKind::Iterated);
        } else if let Some(assignment) = literal.pointer("/Expr/expr").and_then(assignment) {
            self.declare(member(assignment, "lhs"), LocalKind::Assigned);
        }
    }

    fn literal(&mut self, literal: &Json) {
        if literal.get("SomeVars").is_some() {
            return;
        }
        if let Some(some) = literal.get("SomeIn") {
            self.pattern(member(some, "key"));
            self.pattern(member(some, "value"));
            self.visit(member(some, "collection"));
        } else if let Some(every) = literal.get("Every") {
            self.visit(member(every, "domain"));
            self.scopes.push(Vec::new());
            self.declare_span(member(every, "key"), LocalKind::Declared);
            self.declare_span(member(every, "value"), LocalKind::Declared);
            self.query(member(every, "query"), |_| ());
            self.scopes.pop();
        } else if let Some(assignment) = literal.pointer("/Expr/expr").and_then(assignment) {
            self.pattern(member(assignment, "lhs"));
            self.visit(member(assignment, "rhs"));
        } else {
            self.visit(literal);
        }
    }

    /// `with <target> as <value>`.
    fn replacement(&mut self, modifier: &Json) {
        let (root, path, indices) = chain(member(modifier, "refr"));
        indices.into_iter().for_each(|index| self.visit(index));
        if let Some(path) = root.and_then(|root| self.resolve(root, &path)) {
            self.names.replaced.insert(path);
        }
        self.visit(member(modifier, "as"));
    }

    /// Uses every name below `tree` that is not itself an expression.
    fn visit(&mut self, tree: &Json) {
        match tree {
            Json::Array(members) => members.iter().for_each(|it| self.visit(it)),
            Json::Object(members) => match expression(members) {
                Some((kind, body)) => self.expression(kind, body, tree),
                None => members.values().for_each(|it| self.visit(it)),
            },
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }

    fn expression(&mut self, kind: &str, body: &Json, whole: &Json) {
        match kind {
            "Var" | "RefDot" | "RefBrack" => {
                let (root, path, indices) = chain(whole);
                indices.into_iter().for_each(|index| self.visit(index));
                if let Some(root) = root {
                    self.reference(root, &path);
                }
            }
            "ArrayCompr" | "SetCompr" => self.query(member(body, "query"), |reader| {
                reader.visit(member(body, "term"));
            }),
            "ObjectCompr" => self.query(member(body, "query"), |reader| {
                reader.visit(member(body, "key"));
                reader.visit(member(body, "value"));
            }),
            _ => {
                if let Some(members) = body.as_object() {
                    members.values().for_each(|it| self.visit(it));
                }
            }
        }
    }

    fn reference(&mut self, root: Root<'_>, path: &[Option<String>]) {
        let mut known = self.scopes.iter().rev().flatten();
        let local = known.find(|index| {
            let local = self.names.locals.get(**index);
            local.is_some_and(|local| local.name == root.name)
        });
        if let Some(local) = local.and_then(|index| self.names.locals.get_mut(*index)) {
            local.used = true;
        } else if let Some(path) = self.resolve(root, path) {
            self.names.references.insert(path);
        }
    }

    /// Where below `data` a reference leads that is no local name.
    fn resolve(&mut self, root: Root<'_>, path: &[Option<String>]) -> Option<Reference> {
        let Root { name: root, span } = root;
        if root == "data" {
            return Some(path.to_vec());
        }
        if root == "input" {
            return None;
        }
        let Some(target) = self.module.aliases.get(root) else {
            let package = self.module.package.iter().cloned();
            let start = package.chain([root.to_owned()]).map(Some);
            return Some(start.chain(path.iter().cloned()).collect());
        };
        self.names.aliases.insert(root.to_owned());
        let (document, target) = target.split_first()?;
        if document != "data" {
            return None;
        }
        if let (Some(start), Some(end)) = (offset(span, "start"), offset(span, "end")) {
            self.names.imported.push((start..end, target.to_vec()));
        }
        let start = target.iter().cloned().map(Some);
        Some(start.chain(path.iter().cloned()).collect())
    }

    /// Makes the names of a pattern: variables in arrays and in objects' values.
    fn declare(&mut self, pattern: &Json, kind: LocalKind) {
        if let Some(variable) = pattern.get("Var") {
            self.declare_span(member(variable, "span"), kind);
        } else if let Some(array) = pattern.get("Array") {
            for item in items(member(array, "items")) {
                self.declare(item, kind);
            }
        } else if let Some(object) = pattern.get("Object") {
            for field in items(member(object, "fields")) {
                self.declare(field.get(2).unwrap_or(&Json::Null), kind);
            }
        }
    }

    /// Uses the names of a pattern that it does not make.
    fn pattern(&mut self, pattern: &Json) {
        if let Some(array) = pattern.get("Array") {
            for item in items(member(array, "items")) {
                self.pattern(item);
            }
        } else if let Some(object) = pattern.get("Object") {
            for field in items(member(object, "fields")) {
                self.visit(field.get(1).unwrap_or(&Json::Null));
                self.pattern(field.get(2).unwrap_or(&Json::Null));
            }
        } else if pattern.get("Var").is_none() {
            self.visit(pattern);
        }
    }

    fn declare_span(&mut self, span: &Json, kind: LocalKind) {
        let (Some(start), Some(end)) = (offset(span, "start"), offset(span, "end")) else {
            return;
        };
        let name = self.module.text.get(start..end).unwrap_or_default();
        if name == "_" || name.is_empty() {
            return;
        }
        if let Some(scope) = self.scopes.last_mut() {
            scope.push(self.names.locals.len());
        }
        self.names.locals.push(Local {
            name: name.to_owned(),
            span: start..end,
            kind,
            used: false,
        });
    }
}

/// The name that a reference begins with.
#[derive(Clone, Copy)]
struct Root<'a> {
    name: &'a str,
    span: &'a Json,
}

/// A reference's first name, the names after it, and the expressions in it that
/// are evaluated: those in brackets, and what it starts with if that is no name.
fn chain(reference: &Json) -> (Option<Root<'_>>, Reference, Vec<&Json>) {
    if let Some(variable) = reference.get("Var") {
        let name = member(variable, "value").as_str();
        let span = member(variable, "span");
        let root = name.map(|name| Root { name, span });
        return (root, Reference::new(), Vec::new());
    }
    if let Some(dot) = reference.get("RefDot") {
        let (root, mut path, indices) = chain(member(dot, "refr"));
        let field = dot.pointer("/field/1").and_then(Json::as_str);
        path.push(field.map(str::to_owned));
        return (root, path, indices);
    }
    if let Some(bracket) = reference.get("RefBrack") {
        let (root, mut path, mut indices) = chain(member(bracket, "refr"));
        let index = member(bracket, "index");
        let text = index
            .pointer("/String/value")
            .or_else(|| index.pointer("/RawString/value"));
        let text = text.and_then(Json::as_str);
        path.push(text.map(str::to_owned));
        indices.extend(text.is_none().then_some(index));
        return (root, path, indices);
    }
    let computed = (!reference.is_null()).then_some(reference);
    (None, Reference::new(), computed.into_iter().collect())
}

/// An expression's kind and what it is made of: kinds alone begin with a
/// capital letter.
fn expression(members: &Map<String, Json>) -> Option<(&str, &Json)> {
    let (kind, body) = members.iter().next()?;
    let is_kind = members.len() == 1 && kind.starts_with(|it: char| it.is_ascii_uppercase());
    is_kind.then_some((kind.as_str(), body))
}

/// An expression if it is `… := …`.
fn assignment(expression: &Json) -> Option<&Json> {
    let assignment = expression.get("AssignExpr")?;
    (member(assignment, "op") == "ColEq").then_some(assignment)
}

fn member<'a>(tree: &'a Json, name: &str) -> &'a Json {
    tree.get(name).unwrap_or(&Json::Null)
}
