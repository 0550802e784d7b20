//! What a rule depends on: the parts of `input` that it reads, the builtins that it calls, the
//! rules that it needs.
//!
//! The answer may name too much, never too little: a path ends where it is no longer fixed, and
//! stands for all that is below it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use serde_json::Value as Json;

use super::calls::{Functions, Resolved, functions, resolve, start};
use super::stand_ins::{self, StandIns};
use super::{Module, RulePath, Syntax, declared, items};
use crate::input::presence;

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

/// What counts as read of a part of `input` that only gets a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// What follows the name, wherever that is fixed.
    Followed,
    /// All of it: whoever shows the variable shows all of it.
    Whole,
}

/// A reference in its parts: `data.roles[role].grants`.
pub(super) struct Reference<'a> {
    pub(super) root: &'a str,
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
    /// Rules that stand for parts of `input`.
    rules: StandIns<RulePath>,
    /// Variables that do, of the rule that is looked at.
    variables: StandIns<String>,
    named: Named,
    waiting: VecDeque<(usize, usize)>,
    /// Rules that are or were in it.
    awaited: BTreeSet<(usize, usize)>,
    found: Dependencies,
}

/// What the rules at and below `entrypoint` depend on.
pub(crate) fn dependencies(
    syntax: &Syntax<'_>,
    entrypoint: &[String],
    named: Named,
) -> Dependencies {
    let mut search = Search {
        syntax,
        functions: functions(syntax),
        declared: BTreeMap::new(),
        rules: match named {
            Named::Followed => stand_ins::rules(syntax),
            Named::Whole => StandIns::new(),
        },
        variables: StandIns::new(),
        named,
        awaited: BTreeSet::new(),
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
            search.variables = match named {
                Named::Followed => stand_ins::variables(rule, module),
                Named::Whole => StandIns::new(),
            };
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

/// Whether anything reads a package, or one above it, as a whole.
pub(crate) fn reaches(syntax: &Syntax<'_>, package: &[String]) -> bool {
    let mut modules = syntax.modules.iter();
    modules.any(|module| {
        let mut rules = module.rules.iter();
        rules.any(|rule| tree_reaches(rule, module, package))
    })
}

fn tree_reaches(tree: &Json, module: &Module<'_>, package: &[String]) -> bool {
    if let Some(reference) = Reference::of(tree) {
        let root = [reference.root.to_owned()];
        let root = module
            .aliases
            .get(reference.root)
            .map_or(&root[..], Vec::as_slice);
        let fixed = reference.steps.iter().map_while(|part| match part {
            Part::Member(name) => Some((*name).to_owned()),
            Part::Element(_) | Part::Computed(_) => None,
        });
        let path: RulePath = root.iter().cloned().chain(fixed).collect();
        let mut computed = reference.steps.iter().filter_map(|part| match part {
            Part::Computed(index) => Some(index),
            Part::Member(_) | Part::Element(_) => None,
        });
        let is_data = path.split_first().filter(|(root, _)| *root == "data");
        return is_data.is_some_and(|(_, path)| package.starts_with(path))
            || computed.any(|index| tree_reaches(index, module, package));
    }
    match tree {
        Json::Object(members) => members
            .values()
            .any(|member| tree_reaches(member, module, package)),
        Json::Array(members) => members
            .iter()
            .any(|member| tree_reaches(member, module, package)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => false,
    }
}

impl<'a> Search<'a> {
    /// Marks the rules at, above and below a path as needed.
    fn need(&mut self, path: &[String]) {
        let above = (1..path.len()).filter_map(|length| path.split_at_checked(length));
        for (above, rest) in above {
            let places = self.declared.get(above).cloned().unwrap_or_default();
            if let Some(targets) = self.rules.get(above).cloned() {
                let rest: InputPath = rest.iter().cloned().map(Step::Member).collect();
                for (target, (module, rule)) in targets.into_iter().zip(places) {
                    self.found.rules.insert((module, rule));
                    let module = self.syntax.modules.get(module);
                    if let Some(module) = module
                        && let Some(value) = module.rules.get(rule)
                    {
                        let value = value.pointer("/Spec/head/Compr/assign/value");
                        let place = place(value.unwrap_or(&Json::Null), module);
                        self.read_presence(&target, &place);
                        self.read([target, rest.clone()].concat(), place);
                    }
                }
            } else {
                places.into_iter().for_each(|place| self.await_rule(place));
            }
        }
        let below = self.declared.range(path.to_vec()..);
        let below = below.take_while(|(declared, _)| declared.starts_with(path));
        let below: Vec<_> = below.flat_map(|(_, places)| places).copied().collect();
        below.into_iter().for_each(|place| self.await_rule(place));
    }

    fn await_rule(&mut self, place: (usize, usize)) {
        self.found.rules.insert(place);
        if self.awaited.insert(place) {
            self.waiting.push_back(place);
        }
    }

    fn read(&mut self, path: InputPath, place: Place) {
        self.found.reads.entry(path).or_insert(place);
    }

    /// Notes what shows that a part which is always there is there.
    fn read_presence(&mut self, path: &[Step], place: &Place) {
        for path in presence(path).into_iter().flatten() {
            self.read(path, place.clone());
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
                if self.is_naming(tree, module) {
                    return;
                }
                for (name, member) in members {
                    match name.as_str() {
                        "with_mods" => self.replacements(items(member), module),
                        _ => self.visit(member, module),
                    }
                }
            }
            Json::Array(members) => members.iter().for_each(|member| self.visit(member, module)),
            Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
        }
    }

    /// What `with` replaces is not read; what it puts there is.
    fn replacements(&mut self, modifiers: &'a [Json], module: &'a Module<'a>) {
        for modifier in modifiers {
            let target = modifier.get("refr").unwrap_or(modifier);
            let place = place(target, module);
            self.found.with.get_or_insert(place);
            if let Some(replacement) = modifier.get("as") {
                self.visit(replacement, module);
            }
        }
    }

    /// Whether an expression does no more than to give a part of `input` a name.
    fn is_naming(&mut self, tree: &'a Json, module: &'a Module<'a>) -> bool {
        let assignment = stand_ins::assignment(tree, module, &self.variables);
        let Some((name, targets)) = assignment.filter(|_| self.named == Named::Followed) else {
            return false;
        };
        let known = self.variables.get(name);
        let all_known = |known: &Vec<_>| targets.iter().all(|target| known.contains(target));
        if !known.is_some_and(all_known) {
            return false;
        }
        let value = tree.pointer("/AssignExpr/rhs").unwrap_or(tree);
        let place = place(value, module);
        for target in targets {
            self.read_presence(&target, &place);
        }
        true
    }

    fn call(&mut self, call: &'a Json, module: &'a Module<'a>) {
        let function = call.get("fcn").unwrap_or(&Json::Null);
        let arguments = call.get("params").map(items).unwrap_or_default();
        if let Some(path) = super::whole_path(function) {
            match resolve(&path, module, &self.functions) {
                Resolved::Function(path, _) => self.need(&path),
                Resolved::Builtin(_) => {
                    let place = place(function, module);
                    let name = path.join(".");
                    let reads_member = name == "object.get" && self.member(arguments, module);
                    self.found.builtins.entry(name).or_insert(place);
                    if reads_member {
                        let others = arguments.iter().skip(1);
                        others.for_each(|argument| self.visit(argument, module));
                        return;
                    }
                }
            }
        }
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
        for root in stand_ins::roots(reference.root, module, &self.variables) {
            let steps = fixed.iter().filter_map(|part| part.step());
            self.read(root.into_iter().chain(steps).collect(), place(tree, module));
        }
        match root {
            "input" => {}
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

    /// Whether `object.get` is asked for a fixed member of a part that is always there: then it
    /// reads no more than a reference to that member.
    fn member(&mut self, arguments: &'a [Json], module: &'a Module<'a>) -> bool {
        let Some([object, member, ..]) = arguments.first_chunk::<2>() else {
            return false;
        };
        let members = member
            .pointer("/Array/items")
            .map_or(std::slice::from_ref(member), items);
        let members: Option<InputPath> = members.iter().map(string).collect();
        let (Some(reference), Some(members)) = (Reference::of(object), members) else {
            return false;
        };
        let objects = stand_ins::targets(&reference, module, &self.variables);
        if objects.is_empty() || objects.iter().any(|object| presence(object).is_none()) {
            return false;
        }
        let place = place(object, module);
        for object in objects {
            self.read_presence(&object, &place);
            self.read([object, members.clone()].concat(), place.clone());
        }
        true
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
    pub(super) fn of(tree: &'a Json) -> Option<Self> {
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

    /// Its steps, if all of them are fixed.
    pub(super) fn fixed_steps(&self) -> Option<InputPath> {
        self.steps.iter().map(Part::step).collect()
    }
}

impl Part<'_> {
    fn step(&self) -> Option<Step> {
        match self {
            Self::Member(name) => Some(Step::Member((*name).to_owned())),
            Self::Element(index) => Some(Step::Element(*index)),
            Self::Computed(_) => None,
        }
    }
}

/// A string's text, as the name of a member.
fn string(expression: &Json) -> Option<Step> {
    let text = expression
        .pointer("/String/value")
        .or_else(|| expression.pointer("/RawString/value"))?;
    Some(Step::Member(text.as_str()?.to_owned()))
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
