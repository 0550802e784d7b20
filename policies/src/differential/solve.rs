//! Looks for a document for which a body holds, by going through its statements once: each that
//! says something simple about a part of the input chooses that part, unless an earlier one did.
//!
//! There is no going back. Where there is a choice the first attempt takes what comes first, and
//! later ones what chance says.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use serde_json::Value as Json;

use super::bodies::{Bodies, Body};
use super::document::Document;
use super::pool::Pool;
use super::terms::{Term, below, step};
use crate::syntax::{Module, RuleKind, RulePath, Step, items};

/// Expressions that one attempt looks at.
const EXPRESSIONS: usize = 4_000;
/// How deep rules may ask for each other.
const DEPTH: usize = 16;
/// Elements of the input for which `every` is made to hold.
const EVERY: usize = 4;

/// One attempt.
pub(super) struct Solver<'a> {
    pub(super) bodies: &'a Bodies<'a>,
    data: &'a Json,
    pub(super) pool: &'a Pool,
    /// `None` in the first attempt.
    random: Option<SmallRng>,
    /// Which body to take of a rule.
    route: BTreeMap<RulePath, usize>,
    pub(super) document: Document,
    expressions: usize,
    depth: usize,
}

/// What names stand for in one body.
pub(super) struct Frame<'a> {
    pub(super) module: &'a Module<'a>,
    pub(super) variables: BTreeMap<String, Term>,
}

impl Frame<'_> {
    /// Gives a variable a value; `_` never has one.
    pub(super) fn bind(&mut self, name: &str, term: Term) {
        if name != "_" {
            self.variables.insert(name.to_owned(), term);
        }
    }
}

impl<'a> Solver<'a> {
    /// Attempts count from 0.
    pub(super) fn new(
        bodies: &'a Bodies<'a>,
        data: &'a Json,
        pool: &'a Pool,
        attempt: u64,
    ) -> Self {
        Self {
            bodies,
            data,
            pool,
            random: (attempt > 0).then(|| SmallRng::seed_from_u64(attempt)),
            route: BTreeMap::new(),
            document: Document::base(),
            expressions: EXPRESSIONS,
            depth: DEPTH,
        }
    }

    /// Chooses what a body asks for, and the bodies that lead to it.
    pub(super) fn satisfy(&mut self, target: usize) {
        let bodies = self.bodies;
        if let Some((entrypoint, route)) = bodies.route(target, |ways| self.pick(ways)) {
            self.route = route;
            self.rule(&entrypoint);
        }
    }

    /// One of so many.
    pub(super) fn pick(&mut self, length: usize) -> usize {
        match &mut self.random {
            Some(random) if length > 1 => random.random_range(0..length),
            _ => 0,
        }
    }

    /// Some value that is not this one.
    pub(super) fn other(&mut self, path: &[Step], than: &Json) -> Json {
        let mut random =
            SmallRng::seed_from_u64(self.random.as_mut().map_or(0, |random| random.random()));
        let others = (0..8).map(|_| self.pool.value(path, &mut random));
        let mut others = others.filter(|other| other != than);
        others.next().unwrap_or_else(|| "x".into())
    }

    /// The value of the rule of this name.
    fn rule(&mut self, path: &[String]) -> Term {
        self.call(path, &[])
    }

    /// The value of a rule or function, with one of its bodies made to hold.
    fn call(&mut self, path: &[String], arguments: &[Term]) -> Term {
        let candidates = self.bodies.of(path);
        let with_body = |index: &&usize| {
            let body = self.bodies.get(**index);
            body.is_some_and(|body| {
                body.kind != RuleKind::Default && self.may_match(body, arguments)
            })
        };
        let possible: Vec<usize> = candidates.iter().filter(with_body).copied().collect();
        let index = match self.route.get(path) {
            Some(chosen) => Some(*chosen),
            None => possible
                .get(self.pick(possible.len()))
                .or(candidates.first())
                .copied(),
        };
        let Some(body) = index.and_then(|index| self.bodies.get(index)) else {
            return Term::Unknown;
        };
        if self.depth == 0 {
            return Term::Unknown;
        }
        self.depth -= 1;
        let value = self.body(body, arguments);
        self.depth += 1;
        value
    }

    /// Whether no parameter is a literal that an argument is known not to be.
    fn may_match(&self, body: &Body<'_>, arguments: &[Term]) -> bool {
        let mut pairs = body.parameters.iter().zip(arguments);
        pairs.all(
            |(parameter, argument)| match (literal(parameter), argument) {
                (Some(parameter), Term::Known(argument)) => parameter == *argument,
                _ => true,
            },
        )
    }

    fn body(&mut self, body: &Body<'a>, arguments: &[Term]) -> Term {
        let mut frame = Frame {
            module: body.module,
            variables: BTreeMap::new(),
        };
        for (parameter, argument) in body.parameters.iter().zip(arguments) {
            self.unify(parameter, argument.clone(), &mut frame);
        }
        if let Some(query) = body.query {
            self.query(query, &mut frame);
        }
        let key = body.key.map(|key| self.term(key, &mut frame));
        let value = body.value.map(|value| self.term(value, &mut frame));
        match (key, value) {
            (Some(key), Some(value)) => match key.value(&self.document) {
                Some(Json::String(key)) => Term::Object(vec![(key, value)]),
                _ => Term::Unknown,
            },
            (Some(key), None) => Term::List(vec![key]),
            (None, value) => value.unwrap_or(Term::Known(true.into())),
        }
    }

    /// All statements of a query, one after the other.
    pub(super) fn query(&mut self, query: &'a Json, frame: &mut Frame<'a>) {
        for statement in query.get("stmts").map(items).unwrap_or_default() {
            self.statement(statement, frame);
        }
    }

    fn statement(&mut self, statement: &'a Json, frame: &mut Frame<'a>) {
        let literal = statement.get("literal").unwrap_or(&Json::Null);
        let (kind, parts) = kind(literal);
        let part = |name: &str| parts.get(name).unwrap_or(&Json::Null);
        match kind {
            "Expr" => self.hold(part("expr"), frame),
            "NotExpr" => {
                // Left alone, but for what is on the way, and what is easily made otherwise.
                let expression = part("expr");
                let mentioned = self.bodies.mentioned(expression, frame.module);
                if mentioned.iter().any(|path| self.route.contains_key(path)) {
                    self.hold(expression, frame);
                } else if expression.pointer("/BoolExpr/op") == Some(&"Eq".into()) {
                    self.differ(expression, frame);
                }
            }
            "SomeIn" => {
                let collection = self.term(part("collection"), frame);
                self.member(parts.get("key"), part("value"), collection, frame);
            }
            "Every" => self.every(parts, frame),
            _ => {}
        }
    }

    fn every(&mut self, parts: &'a Json, frame: &mut Frame<'a>) {
        let name = |part: &str| {
            let span = parts.get(part)?;
            let place = |name| usize::try_from(span.get(name)?.as_u64()?).ok();
            frame
                .module
                .text
                .get(place("start")?..place("end")?)
                .map(str::to_owned)
        };
        let (key, value) = (name("key"), name("value"));
        let null = &Json::Null;
        let domain = self.term(parts.get("domain").unwrap_or(null), frame);
        let elements: Vec<(Json, Term)> = match domain {
            Term::Input(path) => match self.document.at(&path) {
                Some(Json::Object(members)) => {
                    let names = members.keys().take(EVERY);
                    let of = |name: &String| Term::Input(below(&path, Step::Member(name.clone())));
                    names.map(|name| (name.as_str().into(), of(name))).collect()
                }
                Some(Json::Array(elements)) if !elements.is_empty() => {
                    (0..elements.len().min(EVERY))
                        .map(|index| {
                            (
                                index.into(),
                                Term::Input(below(&path, Step::Element(index as u64))),
                            )
                        })
                        .collect()
                }
                _ => vec![(0.into(), Term::Input(below(&path, Step::Element(0))))],
            },
            Term::Known(Json::Array(elements)) => {
                let known = elements.into_iter().take(EVERY).map(Term::Known);
                known
                    .enumerate()
                    .map(|(index, element)| (index.into(), element))
                    .collect()
            }
            Term::List(terms) => {
                let terms = terms.into_iter().enumerate();
                terms
                    .map(|(index, element)| (index.into(), element))
                    .collect()
            }
            _ => vec![(Json::Null, Term::Unknown)],
        };
        for (index, element) in elements {
            let bound = [(&key, Term::Known(index)), (&value, element)];
            let bound = bound
                .into_iter()
                .filter_map(|(name, term)| Some((name.clone()?, term)));
            frame.variables.extend(bound);
            self.query(parts.get("query").unwrap_or(null), frame);
        }
    }

    /// What is known of an expression; choices are made on the way where there is no other.
    pub(super) fn term(&mut self, expression: &'a Json, frame: &mut Frame<'a>) -> Term {
        let Some(left) = self.expressions.checked_sub(1) else {
            return Term::Unknown;
        };
        self.expressions = left;
        if let Some(value) = literal(expression) {
            return Term::Known(value);
        }
        let (kind, parts) = kind(expression);
        let part = |name: &str| parts.get(name).unwrap_or(&Json::Null);
        let term = match kind {
            "Var" => Self::name(
                part("value").as_str().unwrap_or_default(),
                frame,
                self.bodies,
            ),
            "RefDot" => {
                let inner = self.reference(part("refr"), frame);
                let name = parts.pointer("/field/1").cloned().unwrap_or_default();
                self.index(inner, Term::Known(name), frame)
            }
            "RefBrack" => {
                let inner = self.reference(part("refr"), frame);
                let index = self.term(part("index"), frame);
                self.index(inner, index, frame)
            }
            "Array" | "Set" => {
                let elements = items(part("items")).iter();
                Term::List(elements.map(|element| self.term(element, frame)).collect())
            }
            "Object" => {
                let mut members = Vec::new();
                for field in items(part("fields")) {
                    let [_, key, value] = items(field) else {
                        continue;
                    };
                    let (key, value) = (self.term(key, frame), self.term(value, frame));
                    if let Some(Json::String(key)) = key.value(&self.document) {
                        members.push((key, value));
                    }
                }
                Term::Object(members)
            }
            "ArrayCompr" | "SetCompr" => {
                self.query(part("query"), frame);
                Term::List(vec![self.term(part("term"), frame)])
            }
            "ObjectCompr" => {
                self.query(part("query"), frame);
                let (key, value) = (
                    self.term(part("key"), frame),
                    self.term(part("value"), frame),
                );
                match key.value(&self.document) {
                    Some(Json::String(key)) => Term::Object(vec![(key, value)]),
                    _ => Term::Unknown,
                }
            }
            "Call" => self.called(parts, frame),
            "BinExpr" | "ArithExpr" => {
                let (left, right) = (self.term(part("lhs"), frame), self.term(part("rhs"), frame));
                match (kind, left, right) {
                    ("BinExpr", Term::List(left), Term::List(right)) => {
                        Term::List(left.into_iter().chain(right).collect())
                    }
                    _ => Term::Unknown,
                }
            }
            _ => {
                // Whatever it is, it is asked for.
                self.hold(expression, frame);
                Term::Unknown
            }
        };
        self.settled(term)
    }

    /// As [`Solver::term`], but a path below `data` stays one.
    fn reference(&mut self, expression: &'a Json, frame: &mut Frame<'a>) -> Term {
        match kind(expression) {
            ("Var", variable) => {
                let name = variable.get("value").and_then(Json::as_str);
                Self::name(name.unwrap_or_default(), frame, self.bodies)
            }
            ("RefDot", dot) => {
                let inner = self.reference(dot.get("refr").unwrap_or(&Json::Null), frame);
                let name = dot.pointer("/field/1").cloned().unwrap_or_default();
                self.index(inner, Term::Known(name), frame)
            }
            ("RefBrack", bracket) => {
                let inner = self.reference(bracket.get("refr").unwrap_or(&Json::Null), frame);
                let index = self.term(bracket.get("index").unwrap_or(&Json::Null), frame);
                self.index(inner, index, frame)
            }
            _ => self.term(expression, frame),
        }
    }

    fn name(name: &str, frame: &Frame<'_>, bodies: &Bodies<'_>) -> Term {
        if let Some(term) = frame.variables.get(name) {
            return term.clone();
        }
        match name {
            "input" => return Term::Input(Vec::new()),
            "data" => return Term::Data(Vec::new()),
            _ => {}
        }
        if let Some((root, target)) = frame
            .module
            .aliases
            .get(name)
            .and_then(|target| target.split_first())
        {
            return match root.as_str() {
                "input" => Term::Input(target.iter().cloned().map(Step::Member).collect()),
                _ => Term::Data(target.to_vec()),
            };
        }
        let path = Bodies::below_data(frame.module, name);
        match bodies.any_below(&path) {
            true => Term::Data(path),
            false => Term::Free(name.to_owned()),
        }
    }

    /// A path below `data` becomes what is there.
    fn settled(&mut self, term: Term) -> Term {
        match term {
            Term::Data(path) if !self.bodies.of(&path).is_empty() => self.rule(&path),
            Term::Data(path) => {
                let found = path
                    .iter()
                    .try_fold(self.data, |value, name| value.get(name));
                found.map_or(Term::Unknown, |found| Term::Known(found.clone()))
            }
            other => other,
        }
    }

    /// A member of a term.
    fn index(&mut self, inner: Term, index: Term, frame: &mut Frame<'a>) -> Term {
        if let Term::Data(path) = &inner {
            if let Term::Known(Json::String(name)) = &index
                && self.bodies.of(path).is_empty()
            {
                let path: RulePath = path.iter().chain([name]).cloned().collect();
                return Term::Data(path);
            }
            let settled = self.settled(inner);
            return self.index(settled, index, frame);
        }
        match inner {
            Term::Input(path) => {
                let step = match &index {
                    Term::Free(name) => {
                        let chosen = self.step_into(&path);
                        let bound = match &chosen {
                            Step::Member(name) => name.as_str().into(),
                            Step::Element(index) => (*index).into(),
                        };
                        frame.bind(name, Term::Known(bound));
                        Some(chosen)
                    }
                    other => other.value(&self.document).as_ref().and_then(step),
                };
                step.map_or(Term::Unknown, |step| Term::Input(below(&path, step)))
            }
            Term::Known(value) => self.known_member(&value, index, frame),
            Term::Parts(path, separator) => match index {
                Term::Known(Json::Number(number)) => {
                    let number = number
                        .as_u64()
                        .and_then(|number| usize::try_from(number).ok());
                    Term::Part(path, separator, number.unwrap_or(0))
                }
                _ => Term::Part(path, separator, 0),
            },
            Term::List(terms) => {
                let chosen = match &index {
                    Term::Known(Json::Number(number)) => number
                        .as_u64()
                        .and_then(|number| usize::try_from(number).ok()),
                    _ => None,
                };
                let chosen = chosen.unwrap_or_else(|| self.pick(terms.len()));
                let term = terms.get(chosen).cloned().unwrap_or(Term::Unknown);
                if let Term::Free(name) = index {
                    frame.bind(&name, term.clone());
                }
                term
            }
            Term::Object(members) => {
                let wanted = index.value(&self.document);
                let mut members = members.into_iter();
                let found =
                    members.find(|(key, _)| wanted.as_ref().is_none_or(|wanted| wanted == key));
                found.map_or(Term::Unknown, |(_, term)| term)
            }
            _ => Term::Unknown,
        }
    }

    /// Some member or element of what the document has there.
    pub(super) fn step_into(&mut self, path: &[Step]) -> Step {
        let (names, length): (Vec<String>, usize) = match self.document.at(path) {
            Some(Json::Object(members)) => (members.keys().cloned().collect(), 0),
            Some(Json::Array(elements)) => (Vec::new(), elements.len()),
            _ => (Vec::new(), 0),
        };
        match names.get(self.pick(names.len())) {
            Some(name) => Step::Member(name.clone()),
            None => Step::Element(self.pick(length) as u64),
        }
    }

    /// A member of a known value: where the key is a part of the input, one that is there.
    fn known_member(&mut self, value: &Json, index: Term, frame: &mut Frame<'a>) -> Term {
        let get = |key: &Json| match (value, key) {
            (Json::Object(members), Json::String(key)) => members.get(key),
            (Json::Array(elements), Json::Number(number)) => {
                elements.get(usize::try_from(number.as_u64()?).ok()?)
            }
            _ => None,
        };
        if let Some(found) = index.value(&self.document).as_ref().and_then(get) {
            return Term::Known(found.clone());
        }
        let keys: Vec<Json> = match value {
            Json::Object(members) => members.keys().map(|key| key.as_str().into()).collect(),
            Json::Array(elements) => (0..elements.len()).map(Json::from).collect(),
            _ => Vec::new(),
        };
        let Some(key) = keys.get(self.pick(keys.len())).cloned() else {
            return Term::Unknown;
        };
        let found = get(&key).cloned();
        match index {
            Term::Known(_) | Term::Unknown => return Term::Unknown,
            Term::Free(name) => frame.bind(&name, Term::Known(key)),
            other => self.same(other, Term::Known(key)),
        }
        found.map_or(Term::Unknown, Term::Known)
    }

    /// A call of a function of the policy; `None` if it is a builtin's.
    pub(super) fn own_function(
        &mut self,
        name: &[String],
        arguments: &[Term],
        frame: &Frame<'a>,
    ) -> Option<Term> {
        let (root, rest) = name.split_first()?;
        let mut path = match root.as_str() {
            "data" => Vec::new(),
            other => Bodies::below_data(frame.module, other),
        };
        path.extend_from_slice(rest);
        let known = !self.bodies.of(&path).is_empty();
        known.then(|| {
            let value = self.call(&path, arguments);
            self.settled(value)
        })
    }
}

/// The kind of a part of a syntax tree, and its parts.
pub(super) fn kind(tree: &Json) -> (&str, &Json) {
    let members = tree.as_object().and_then(|members| members.iter().next());
    members.map_or(("", &Json::Null), |(kind, parts)| (kind.as_str(), parts))
}

/// The value of an expression that is a scalar.
pub(super) fn literal(expression: &Json) -> Option<Json> {
    match kind(expression) {
        ("String" | "RawString" | "Number" | "Bool", parts) => parts.get("value").cloned(),
        ("Null", _) => Some(Json::Null),
        _ => None,
    }
}
