//! What may not be shown of a request: the values of credential headers, and what is made of them.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use http::HeaderName;
use serde_json::Value as Json;

use super::definitions::Mention;
use crate::syntax::{Dependencies, Named, RulePath, Step, Syntax, dependencies};

/// Where the headers of a request are in the input.
const HEADERS: [&str; 4] = ["attributes", "request", "http", "headers"];

/// Tells which values come of credentials. What a rule makes of them counts as one, whatever it is:
/// a password, or a claim of a token.
pub(super) struct Secrets<'a> {
    syntax: &'a Syntax<'a>,
    names: &'a [HeaderName],
    rules: BTreeSet<RulePath>,
    /// Whether any rule that is needed reads them at all.
    any: bool,
    known: RefCell<BTreeMap<RulePath, bool>>,
}

impl<'a> Secrets<'a> {
    pub(super) fn new(
        syntax: &'a Syntax<'a>,
        names: &'a [HeaderName],
        needed: &Dependencies,
    ) -> Self {
        Self {
            any: reads_secrets(needed, names),
            syntax,
            names,
            rules: syntax.rules().into_iter().map(|rule| rule.path).collect(),
            known: RefCell::default(),
        }
    }

    /// Whether the rule's value may come of a credential.
    pub(super) fn made_by(&self, rule: &[String]) -> bool {
        if !self.any {
            return false;
        }
        if let Some(known) = self.known.borrow().get(rule) {
            return *known;
        }
        let found = reads_secrets(&dependencies(self.syntax, rule, Named::Whole), self.names);
        self.known.borrow_mut().insert(rule.to_vec(), found);
        found
    }

    /// Whether what a rule mentions may be, or hold, a credential. `alone` where the mention itself
    /// is shown: what it holds is then removed by [`Secrets::without`].
    pub(super) fn in_mention(&self, mention: &Mention, rule: &[String], alone: bool) -> bool {
        let Some((root, path)) = mention.path.split_first() else {
            return true;
        };
        match root.as_str() {
            "input" => self.names.iter().any(|name| {
                let mut both = path.iter().map(String::as_str).zip(place(name));
                let meet = both.all(|(one, two)| one.eq_ignore_ascii_case(two));
                let above = path.len() <= HEADERS.len();
                meet && !(alone && above && mention.whole)
            }),
            "data" => self.made_by(path),
            // A rule of the package, or else a local variable of the rule.
            _ => match self.own_rule(mention, rule) {
                Some(own) => self.made_by(&own),
                None => self.made_by(rule),
            },
        }
    }

    /// The rule that a mention leads to, if it is one.
    pub(super) fn rule_of(&self, mention: &Mention, rule: &[String]) -> Option<RulePath> {
        let (root, path) = mention.path.split_first()?;
        match root.as_str() {
            "data" => {
                let prefixes = (1..=path.len()).rev();
                let mut prefixes = prefixes.filter_map(|length| path.get(..length));
                let found = prefixes.find(|prefix| self.rules.contains(*prefix));
                found.map(<[String]>::to_vec)
            }
            "input" => None,
            _ => self.own_rule(mention, rule),
        }
    }

    fn own_rule(&self, mention: &Mention, rule: &[String]) -> Option<RulePath> {
        // The package is what stands before the rule's name, which may have several parts.
        (1..rule.len()).rev().find_map(|length| {
            let package = rule.get(..length)?.iter();
            let path: RulePath = package.chain(mention.path.first()).cloned().collect();
            self.rules.contains(&path).then_some(path)
        })
    }

    /// A part of the input without the credentials in it.
    pub(super) fn without(&self, mention: &Mention, mut value: Json) -> Json {
        let path = mention.path.get(1..).unwrap_or_default();
        if mention.path.first().is_none_or(|root| root != "input") || path.len() > HEADERS.len() {
            return value;
        }
        let mut headers = Some(&mut value);
        for name in HEADERS.iter().skip(path.len()) {
            headers = headers.and_then(|members| members.get_mut(*name));
        }
        if let Some(headers) = headers.and_then(Json::as_object_mut) {
            headers.retain(|name, _| {
                let mut secrets = self.names.iter();
                !secrets.any(|secret| name.eq_ignore_ascii_case(secret.as_str()))
            });
        }
        value
    }
}

fn place(name: &HeaderName) -> impl Iterator<Item = &str> {
    HEADERS.into_iter().chain([name.as_str()])
}

fn reads_secrets(dependencies: &Dependencies, names: &[HeaderName]) -> bool {
    dependencies.reads.keys().any(|path| {
        names.iter().any(|name| {
            let mut both = path.iter().zip(place(name));
            both.all(|(step, part)| match step {
                Step::Member(name) => name.eq_ignore_ascii_case(part),
                Step::Element(_) => false,
            })
        })
    })
}
