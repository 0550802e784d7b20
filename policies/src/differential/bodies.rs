//! The bodies of the rules that an entrypoint needs, and how each is reached.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde_json::Value as Json;

use crate::analysis::Analysis;
use crate::syntax::{Module, RuleKind, RulePath, Syntax, declared, fixed_path, items};

/// One body of a rule, with what the rule's value is if it holds.
pub(super) struct Body<'a> {
    pub(super) path: RulePath,
    pub(super) kind: RuleKind,
    pub(super) module: &'a Module<'a>,
    pub(super) parameters: &'a [Json],
    /// The key of a member, where the rule gives members.
    pub(super) key: Option<&'a Json>,
    pub(super) value: Option<&'a Json>,
    /// The statements; `None` for a rule without conditions.
    pub(super) query: Option<&'a Json>,
}

/// All bodies.
pub(super) struct Bodies<'a> {
    all: Vec<Body<'a>>,
    rules: Vec<&'a Json>,
    by_path: BTreeMap<RulePath, Vec<usize>>,
    entrypoint: RulePath,
    /// The bodies that ask for a rule, of those rules that are nearer to the entrypoint.
    callers: BTreeMap<RulePath, Vec<usize>>,
}

impl<'a> Bodies<'a> {
    /// The bodies of what `entrypoint` needs.
    pub(super) fn new(syntax: &'a Syntax<'a>, analysis: &Analysis, entrypoint: &[String]) -> Self {
        let mut bodies = Self {
            all: Vec::new(),
            rules: Vec::new(),
            by_path: BTreeMap::new(),
            entrypoint: entrypoint.to_vec(),
            callers: BTreeMap::new(),
        };
        for (module, index) in &analysis.dependencies.rules {
            if let Some(module) = syntax.modules.get(*module)
                && let Some(rule) = module.rules.get(*index)
            {
                bodies.add(module, rule);
            }
        }
        bodies.find_callers();
        bodies
    }

    pub(super) fn all(&self) -> &[Body<'a>] {
        &self.all
    }

    /// The needed rules as they are declared.
    pub(super) fn rules(&self) -> &[&'a Json] {
        &self.rules
    }

    pub(super) fn get(&self, index: usize) -> Option<&Body<'a>> {
        self.all.get(index)
    }

    /// The bodies of the rule of exactly this name.
    pub(super) fn of(&self, path: &[String]) -> &[usize] {
        self.by_path
            .get(path)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Whether there are rules at or below a path.
    pub(super) fn any_below(&self, path: &[String]) -> bool {
        let mut from_here = self.by_path.range(path.to_vec()..);
        let next = from_here.next();
        next.is_some_and(|(declared, _)| declared.starts_with(path))
    }

    /// Which body to take of each rule on a way from the entrypoint to one of them, that one
    /// included, and the rule of the entrypoint with which to begin. `pick` chooses among so many
    /// ways.
    pub(super) fn route(
        &self,
        target: usize,
        mut pick: impl FnMut(usize) -> usize,
    ) -> Option<(RulePath, BTreeMap<RulePath, usize>)> {
        let mut choices = BTreeMap::new();
        let mut next = target;
        loop {
            let body = self.all.get(next)?;
            choices.insert(body.path.clone(), next);
            if body.path.starts_with(&self.entrypoint) {
                return Some((body.path.clone(), choices));
            }
            let callers = self.callers.get(&body.path)?;
            next = *callers.get(pick(callers.len()))?;
        }
    }

    /// What a name in a module may stand for below `data`, as the engine looks it up.
    pub(super) fn below_data(module: &Module<'_>, name: &str) -> Vec<String> {
        match module
            .aliases
            .get(name)
            .and_then(|target| target.split_first())
        {
            Some((root, path)) if root == "data" => path.to_vec(),
            _ => module
                .package
                .iter()
                .cloned()
                .chain([name.to_owned()])
                .collect(),
        }
    }

    /// The rules that expressions below `tree` ask for.
    pub(super) fn mentioned(&self, tree: &Json, module: &Module<'_>) -> BTreeSet<RulePath> {
        let mut found = BTreeSet::new();
        self.visit(tree, module, &mut found);
        found
    }

    fn add(&mut self, module: &'a Module<'a>, rule: &'a Json) {
        let Some(declared) = declared(module, rule) else {
            return;
        };
        self.rules.push(rule);
        let mut add = |kind, parameters, key, value, query| {
            let index = self.all.len();
            let path = declared.path.clone();
            self.by_path.entry(path.clone()).or_default().push(index);
            self.all.push(Body {
                path,
                kind,
                module,
                parameters,
                key,
                value,
                query,
            });
        };
        if let Some(default) = rule.get("Default") {
            let parameters = default.get("args").map(items).unwrap_or_default();
            add(
                RuleKind::Default,
                parameters,
                None,
                default.get("value"),
                None,
            );
            return;
        }
        let head = rule.pointer("/Spec/head").unwrap_or(&Json::Null);
        let value = head
            .pointer("/Compr/assign/value")
            .or_else(|| head.pointer("/Func/assign/value"));
        let key = head
            .pointer("/Set/key")
            .or_else(|| head.pointer("/Compr/refr/RefBrack/index"));
        let parameters = head.pointer("/Func/args").map(items).unwrap_or_default();
        let queries = rule.pointer("/Spec/bodies").map(items).unwrap_or_default();
        for body in queries {
            let own = body.pointer("/assign/value");
            let value = match body.get("is_else") {
                Some(Json::Bool(true)) => own,
                _ => own.or(value),
            };
            add(declared.kind, parameters, key, value, body.get("query"));
        }
        if queries.is_empty() {
            add(declared.kind, parameters, key, value, None);
        }
    }

    fn find_callers(&mut self) {
        let below = |path: &RulePath| path.starts_with(&self.entrypoint);
        let paths = self.by_path.keys().filter(|path| below(path));
        let mut waiting: VecDeque<RulePath> = paths.cloned().collect();
        let mut distances: BTreeMap<RulePath, usize> = BTreeMap::new();
        distances.extend(waiting.iter().map(|path| (path.clone(), 0)));
        let mut callers: BTreeMap<RulePath, Vec<usize>> = BTreeMap::new();
        while let Some(path) = waiting.pop_front() {
            let distance = distances.get(&path).copied().unwrap_or_default();
            for caller in self.of(&path) {
                let Some(body) = self.all.get(*caller) else {
                    continue;
                };
                let parts = [body.query, body.value, body.key].into_iter().flatten();
                let mentioned = parts.flat_map(|part| self.mentioned(part, body.module));
                for mentioned in mentioned.collect::<BTreeSet<_>>() {
                    let known = distances.entry(mentioned.clone()).or_insert_with(|| {
                        waiting.push_back(mentioned.clone());
                        distance.saturating_add(1)
                    });
                    if *known > distance {
                        callers.entry(mentioned).or_default().push(*caller);
                    }
                }
            }
        }
        self.callers = callers;
    }

    fn visit(&self, tree: &Json, module: &Module<'_>, found: &mut BTreeSet<RulePath>) {
        match tree {
            Json::Object(members) => {
                let is_reference = ["Var", "RefDot", "RefBrack"]
                    .iter()
                    .any(|kind| members.contains_key(*kind));
                if is_reference {
                    self.visit_reference(tree, module, found);
                } else {
                    members
                        .values()
                        .for_each(|member| self.visit(member, module, found));
                }
            }
            Json::Array(members) => members
                .iter()
                .for_each(|member| self.visit(member, module, found)),
            _ => {}
        }
    }

    fn visit_reference(&self, tree: &Json, module: &Module<'_>, found: &mut BTreeSet<RulePath>) {
        let fixed = fixed_path(tree);
        if let Some((root, rest)) = fixed.split_first() {
            let mut path = match root.as_str() {
                "data" => Vec::new(),
                "input" => return self.visit_indices(tree, module, found),
                name => Self::below_data(module, name),
            };
            path.extend_from_slice(rest);
            let at_or_above = (1..=path.len()).filter_map(|length| path.get(..length));
            let above = at_or_above.filter(|prefix| self.by_path.contains_key(*prefix));
            found.extend(above.map(<[String]>::to_vec));
            let below = self.by_path.range(path.clone()..);
            let below = below.take_while(|(declared, _)| declared.starts_with(&path));
            found.extend(below.map(|(declared, _)| declared.clone()));
        }
        self.visit_indices(tree, module, found);
    }

    /// The indices of a reference, and what it is a reference into if that is no variable.
    fn visit_indices(&self, tree: &Json, module: &Module<'_>, found: &mut BTreeSet<RulePath>) {
        if let Some(bracket) = tree.get("RefBrack") {
            self.visit(bracket.get("index").unwrap_or(&Json::Null), module, found);
            self.visit_indices(bracket.get("refr").unwrap_or(&Json::Null), module, found);
        } else if let Some(dot) = tree.get("RefDot") {
            self.visit_indices(dot.get("refr").unwrap_or(&Json::Null), module, found);
        } else if tree.get("Var").is_none() {
            self.visit(tree, module, found);
        }
    }
}
