//! What a rule depends on: the parts of `input` that it reads, the builtins that it calls, the
//! rules that it needs.
//!
//! The answer may name too much, never too little: a path ends where it is no longer fixed, and
//! stands for all that is below it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde_json::Value as Json;

use super::calls::{Functions, Resolved, functions, resolve, start};
use super::{Module, RulePath, Syntax, declared, items};

/// One step on a path into `input`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// A member of an object.
    Member(String),
    /// An element of an array.
    Element(u64),
}

/// A path below `input`; empty for all of it.
pub(crate) type InputPath = Vec<Step>;

/// A place in the sources.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) file: String,
    /// From 1.
    pub(crate) line: usize,
    /// In characters, from 1.
    pub(crate) column: usize,
}

/// What an entrypoint depends on.
#[derive(Debug, Default)]
pub(crate) struct Dependencies {
    /// Every part of `input` that is read, and where first. None is below another.
    pub(crate) reads: BTreeMap<InputPath, Place>,
    /// Every builtin that is called, and where first.
    pub(crate) builtins: BTreeMap<String, Place>,
    /// The first `with`, which may replace any of these.
    pub(crate) with: Option<Place>,
    /// Rules that are needed, in the order of their declaration.
    pub(crate) rules: BTreeSet<(usize, usize)>,
}

/// A reference in its parts: `data.roles[role].grants`.
struct Reference<'a> {
    root: &'a str,
    steps: Vec<Part<'a>>,
}

enum Part<'a> {
    Member(&'a str),
    Element(u64),
    Computed(&'a Json),
}

struct Search<'a> {
    syntax: &'a Syntax<'a>,
    functions: Functions,
    /// Where each rule is: module and position in it.
    declared: BTreeMap<RulePath, Vec<(usize, usize)>>,
    waiting: VecDeque<(usize, usize)>,
    found: Dependencies,
}

/// What the rules at and below `entrypoint` depend on.
pub(crate) fn dependencies(syntax: &Syntax<'_>, entrypoint: &[String]) -> Dependencies {
    let mut search = Search {
        syntax,
        functions: functions(syntax),
        declared: BTreeMap::new(),
        waiting: VecDeque::new(),
        found: Dependencies::default(),
    };
    for (module_index, module) in syntax.modules.iter().enumerate() {
        for (index, rule) in module.rules.iter().enumerate() {
            if let Some(rule) = declared(module, rule) {
                let places = search.declared.entry(rule.path).or_default();
                places.push((module_index, index));
            }
        }
    }
    search.need(entrypoint);
    while let Some(place) = search.waiting.pop_front() {
        let (module_index, index) = place;
        let module = search.syntax.modules.get(module_index);
        if let Some((module, rule)) =
            module.and_then(|module| Some((module, module.rules.get(index)?)))
        {
            search.visit(rule, module);
        }
    }
    let mut found = search.found;
    let all: Vec<InputPath> = found.reads.keys().cloned().collect();
    found.reads.retain(|path, _| {
        !all.iter()
            .any(|other| other.len() < path.len() && path.starts_with(other))
    });
    found
}

impl<'a> Search<'a> {
    /// Marks the rules at, above and below a path as needed.
    fn need(&mut self, path: &[String]) {
        let above = (1..path.len())
            .filter_map(|length| path.get(..length))
            .filter_map(|prefix| self.declared.get(prefix));
        let below = self
            .declared
            .range(path.to_vec()..)
            .take_while(|(declared, _)| declared.starts_with(path))
            .map(|(_, places)| places);
        for place in above.chain(below).flatten() {
            if self.found.rules.insert(*place) {
                self.waiting.push_back(*place);
            }
        }
    }

    /// Looks at every expression below `tree`, whatever holds it.
    fn visit(&mut self, tree: &'a Json, module: &'a Module<'a>) {
        match tree {
            Json::Object(members) => {
                if let Some(reference) = Reference::of(tree) {
                    self.reference(&reference, tree, module);
                    for step in reference.steps {
                        if let Part::Computed(index) = step {
                            self.visit(index, module);
                        }
                    }
                    return;
                }
                if let Some(call) = members.get("Call") {
                    self.call(call, module);
                    return;
                }
                if let Some(modifier) = members.get("with_mods").map(items).and_then(<[_]>::first) {
                    let target = modifier.get("refr").unwrap_or(modifier);
                    let place = place(target, module);
                    self.found.with.get_or_insert(place);
                }
                members
                    .values()
                    .for_each(|member| self.visit(member, module));
            }
            Json::Array(members) => members.iter().for_each(|member| self.visit(member, module)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }

    fn call(&mut self, call: &'a Json, module: &'a Module<'a>) {
        let function = call.get("fcn").unwrap_or(&Json::Null);
        if let Some(path) = super::whole_path(function) {
            match resolve(&path, module, &self.functions) {
                Resolved::Function(path, _) => self.need(&path),
                Resolved::Builtin(_) => {
                    let place = place(function, module);
                    self.found.builtins.entry(path.join(".")).or_insert(place);
                }
            }
        }
        let arguments = call.get("params").map(items).unwrap_or_default();
        arguments
            .iter()
            .for_each(|argument| self.visit(argument, module));
    }

    fn reference(&mut self, reference: &Reference<'a>, tree: &'a Json, module: &'a Module<'a>) {
        let fixed: Vec<&Part<'a>> = reference
            .steps
            .iter()
            .take_while(|step| !matches!(step, Part::Computed(_)))
            .collect();
        let member = |part: &&Part<'a>| match part {
            Part::Member(name) => Some((*name).to_owned()),
            Part::Element(_) | Part::Computed(_) => None,
        };
        // An alias stands for a path of members.
        let alias = module.aliases.get(reference.root);
        let (root, prefix) = match alias.and_then(|target| target.split_first()) {
            Some((root, prefix)) => (root.as_str(), prefix),
            None => (reference.root, &[][..]),
        };
        match root {
            "input" => {
                let prefix = prefix.iter().cloned().map(Step::Member);
                let steps = fixed.iter().map(|part| match part {
                    Part::Element(index) => Step::Element(*index),
                    Part::Member(name) => Step::Member((*name).to_owned()),
                    // Not among the fixed ones.
                    Part::Computed(_) => Step::Member(String::new()),
                });
                let path: InputPath = prefix.chain(steps).collect();
                let place = place(tree, module);
                self.found.reads.entry(path).or_insert(place);
            }
            "data" => {
                let path: RulePath = prefix
                    .iter()
                    .cloned()
                    .chain(fixed.iter().map_while(member))
                    .collect();
                self.need(&path);
            }
            // A rule of the package, or else a local variable.
            name => {
                let package = module.package.iter().cloned();
                let path: RulePath = package
                    .chain([name.to_owned()])
                    .chain(fixed.iter().map_while(member))
                    .collect();
                self.need_of_package(&path, module.package.len());
            }
        }
    }

    /// As [`Search::need`], for a name that may be a local variable: rules above the package's own
    /// names are not meant.
    fn need_of_package(&mut self, path: &[String], package: usize) {
        let shortest = package.saturating_add(1);
        let known = path.get(..shortest).is_some_and(|name| {
            self.declared
                .range(name.to_vec()..)
                .next()
                .is_some_and(|(declared, _)| declared.starts_with(name))
        });
        if known {
            self.need(path);
        }
    }
}

impl<'a> Reference<'a> {
    /// Takes a reference apart; `None` for any other expression, and for references into something
    /// else than a variable, such as the result of a call.
    fn of(tree: &'a Json) -> Option<Self> {
        if let Some(variable) = tree.get("Var") {
            return Some(Self {
                root: variable.get("value")?.as_str()?,
                steps: Vec::new(),
            });
        }
        let (inner, step) = if let Some(dot) = tree.get("RefDot") {
            let name = dot.pointer("/field/1").and_then(Json::as_str)?;
            (dot.get("refr")?, Part::Member(name))
        } else {
            let bracket = tree.get("RefBrack")?;
            let index = bracket.get("index")?;
            let text = index
                .pointer("/String/value")
                .or_else(|| index.pointer("/RawString/value"));
            let number = index.pointer("/Number/value");
            let step = match (text.and_then(Json::as_str), number.and_then(Json::as_u64)) {
                (Some(name), _) => Part::Member(name),
                (None, Some(number)) => Part::Element(number),
                (None, None) => Part::Computed(index),
            };
            (bracket.get("refr")?, step)
        };
        let mut reference = Self::of(inner)?;
        reference.steps.push(step);
        Some(reference)
    }
}

/// Where an expression starts.
pub(crate) fn place(tree: &Json, module: &Module<'_>) -> Place {
    let (line, column) = start(tree, module.text);
    Place {
        file: module.file.to_owned(),
        line,
        column,
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// The path as Rego writes it, `input` included.
pub(crate) fn written(path: &[Step]) -> String {
    path.iter()
        .fold("input".to_owned(), |text, step| match step {
            Step::Member(name) if super::is_identifier(name) => format!("{text}.{name}"),
            // JSON's strings are Rego's.
            Step::Member(name) => format!("{text}[{}]", Json::from(name.as_str())),
            Step::Element(index) => format!("{text}[{index}]"),
        })
}
