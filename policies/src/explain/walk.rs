//! Goes through the definitions, and asks how far each came.

use std::collections::BTreeSet;
use std::ops::Range;

use regorus::Value;
use serde_json::Value as Json;

use super::ExplainOptions;
use super::asking::{Asker, Probe, Told, name};
use super::definitions::{self, Mention, Statement, Style, definitions, expression_span, mentions};
use super::report::{Comparison, Definition, Firing, Outcome, Shown, SourcePlace, Stop};
use super::secrets::Secrets;
use crate::engine::EvaluationError;
use crate::question::InputDocument;
use crate::served::served;
use crate::sources::PolicySources;
use crate::syntax::{Dependencies, Syntax, rule_reference};

/// How far a definition came.
struct Progress {
    held: usize,
    outcome: Outcome,
    values: Vec<Json>,
    /// Which statements do not hold; just one, unless those between can only be asked together. The
    /// value is behind the last statement.
    stop: Option<Range<usize>>,
    error: Option<String>,
}

struct Walk<'a> {
    syntax: &'a Syntax<'a>,
    styles: Vec<Style>,
    definitions: Vec<definitions::Definition<'a>>,
    secrets: Secrets<'a>,
}

/// A question about an expression at a stop.
struct Wanted {
    definition: usize,
    text: String,
    mentions: Vec<Mention>,
    role: Role,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Left,
    Right,
    Reference,
}

/// The two sides of a statement.
struct Sides<'a> {
    operator: String,
    left: &'a Json,
    right: &'a Json,
}

/// The definitions in the order in which they are shown, and the functions among them.
pub(super) fn walk(
    sources: &PolicySources,
    syntax: &Syntax<'_>,
    needed: &Dependencies,
    input: &InputDocument,
    options: &ExplainOptions,
) -> (Vec<Definition>, Vec<String>) {
    let walk = Walk {
        syntax,
        styles: syntax.modules.iter().map(Style::of).collect(),
        definitions: definitions(syntax, needed),
        secrets: Secrets::new(syntax, &options.credentials, needed),
    };
    // As the service runs them: the places are told of the sources themselves.
    let copy = served(syntax, sources);
    let asker = Asker {
        sources: copy.as_ref().unwrap_or(sources),
        input: input.value(),
        limit: options.time_limit,
    };
    let progress = walk.progress(&asker);
    let mut shown = walk.stops(&asker, &progress);
    let functions: BTreeSet<String> = walk
        .definitions
        .iter()
        .filter(|it| it.is_function)
        .map(|it| rule_reference(&it.path))
        .collect();
    shown.sort_by_key(|it| {
        let missing = it.statements.saturating_sub(it.held);
        let fired = it.outcome == Outcome::Fired;
        (!fired, std::cmp::Reverse(it.held), missing)
    });
    (shown, functions.into_iter().collect())
}

impl<'a> Walk<'a> {
    fn text(&self, definition: &definitions::Definition<'a>, span: Range<usize>) -> &'a str {
        let module = self.syntax.modules.get(definition.module);
        module
            .and_then(|module| module.text.get(span))
            .unwrap_or_default()
    }

    /// The first statements of a body; `true` for none.
    fn body(&self, definition: &definitions::Definition<'a>, count: usize) -> &'a str {
        let first = definition.statements.first();
        let last = definition
            .statements
            .get(..count)
            .and_then(|them| them.last());
        match (first, last) {
            (Some(first), Some(last)) => self.text(definition, first.span.start..last.span.end),
            _ => "true",
        }
    }

    fn probe(&self, index: usize, what: &str, text: impl Fn(Style, &str) -> String) -> Probe {
        let module = self.definitions.get(index).map_or(0, |it| it.module);
        let name = name(index, what);
        let style = self.styles.get(module).copied();
        let package = self.syntax.modules.get(module);
        Probe {
            module,
            package: package.map(|it| it.package.clone()).unwrap_or_default(),
            text: text(style.unwrap_or(Style::Keywords), &name),
            name,
        }
    }

    fn progress(&self, asker: &Asker<'_>) -> Vec<Option<Progress>> {
        let mut probes = Vec::new();
        for (index, definition) in self.definitions.iter().enumerate() {
            if definition.is_function {
                continue;
            }
            for count in 1..=definition.statements.len() {
                let body = self.body(definition, count);
                let what = count.to_string();
                probes.push(self.probe(index, &what, |style, name| style.condition(name, body)));
            }
            let body = self.body(definition, definition.statements.len());
            let value = definition.value.as_ref();
            let term = value.map_or("true", |value| self.text(definition, value.span.clone()));
            probes.push(self.probe(index, "value", |style, name| style.values(name, term, body)));
        }
        let mut told = asker.ask(&probes).into_iter();
        let mut found: Vec<Option<Progress>> = Vec::new();
        // Whether a body before the `else` has fired.
        let mut chain_fired = false;
        for definition in &self.definitions {
            if definition.is_function {
                found.push(None);
                continue;
            }
            let statements = told.by_ref().take(definition.statements.len()).collect();
            let value = told.next().flatten();
            let mut progress = Progress::new(statements, value, definition.gives_false());
            chain_fired &= definition.is_else;
            if progress.outcome != Outcome::Stopped && chain_fired {
                progress.outcome = Outcome::PassedOver;
                progress.stop = None;
            }
            chain_fired |= progress.outcome == Outcome::Fired;
            found.push(Some(progress));
        }
        found
    }

    fn stops(&self, asker: &Asker<'_>, progress: &[Option<Progress>]) -> Vec<Definition> {
        let mut wanted = Vec::new();
        for (index, progress) in progress.iter().enumerate() {
            if let Some(progress) = progress {
                self.want(index, progress, &mut wanted);
            }
        }
        let probes = wanted.iter().enumerate().map(|(number, it)| {
            let definition = self.definitions.get(it.definition);
            let held = progress.get(it.definition).and_then(Option::as_ref);
            let body = definition.zip(held).map_or("true", |(definition, held)| {
                self.body(definition, held.held)
            });
            self.probe(it.definition, &format!("at_{number}"), |style, name| {
                style.values(name, &it.text, body)
            })
        });
        let told = asker.ask(&probes.collect::<Vec<_>>());
        let mut shown: Vec<(Wanted, Told)> = wanted.into_iter().zip(told).collect();
        let mut all = Vec::new();
        for (index, definition) in self.definitions.iter().enumerate() {
            let Some(it) = progress.get(index).and_then(Option::as_ref) else {
                continue;
            };
            let mine = shown.extract_if(.., |(wanted, _)| wanted.definition == index);
            let stopped = it
                .stop
                .clone()
                .map(|stop| self.stop(definition, it, stop, mine.collect(), progress));
            all.push(Definition {
                rule: rule_reference(&definition.path),
                place: self.place(definition, definition.span.clone()),
                outcome: it.outcome,
                held: it.held,
                statements: definition.statements.len(),
                value: self.value(definition, it),
                stopped,
            });
        }
        all
    }

    /// The expressions that are asked for at a stop.
    fn want(&self, index: usize, progress: &Progress, wanted: &mut Vec<Wanted>) {
        let (Some(definition), Some(stop)) = (self.definitions.get(index), &progress.stop) else {
            return;
        };
        let Some(module) = self.syntax.modules.get(definition.module) else {
            return;
        };
        let mut seen = BTreeSet::new();
        let mut want = |text: &str, mentions, role| {
            if role != Role::Reference || seen.insert(text.to_owned()) {
                wanted.push(Wanted {
                    definition: index,
                    text: text.to_owned(),
                    mentions,
                    role,
                });
            }
        };
        for statement in stop.clone().filter_map(|at| definition.at(at)) {
            // What `with` replaces there cannot be shown as if it were not.
            if statement.tree.get("with_mods").is_some() {
                continue;
            }
            if stop.len() == 1
                && let Some(sides) = Sides::of(statement.tree)
            {
                for (role, tree) in [(Role::Left, sides.left), (Role::Right, sides.right)] {
                    if let Some(span) = expression_span(module.text, tree) {
                        let text = self.text(definition, span.clone());
                        want(text, mentions(&Statement { span, tree }, module), role);
                    }
                }
            }
            for mention in mentions(statement, module) {
                let text = self.text(definition, mention.span.clone());
                want(text, vec![mention], Role::Reference);
            }
        }
    }

    fn stop(
        &self,
        definition: &definitions::Definition<'a>,
        it: &Progress,
        stop: Range<usize>,
        told: Vec<(Wanted, Told)>,
        progress: &[Option<Progress>],
    ) -> Stop {
        let first = definition.at(stop.start).map(|it| it.span.start);
        let last = stop.clone().last().and_then(|at| definition.at(at));
        let span = first.unwrap_or_default()..last.map_or(0, |it| it.span.end);
        let statement = definition.at(stop.start);
        let sides = statement.and_then(|statement| Sides::of(statement.tree));
        let negated = statement.is_some_and(|it| it.tree.pointer("/literal/NotExpr").is_some());
        let mut left = None;
        let mut right = None;
        let mut references = Vec::new();
        let mut stopped_by = Vec::new();
        let rule = &definition.path;
        let mut mentioned = told.iter().flat_map(|(wanted, _)| &wanted.mentions);
        let secret = mentioned.any(|it| self.secrets.in_mention(it, rule, true));
        for (wanted, told) in told {
            let reads = wanted
                .mentions
                .iter()
                .any(|it| it.path.first().is_some_and(|root| root == "input"));
            if negated && wanted.role == Role::Reference {
                for mention in &wanted.mentions {
                    self.firings(mention, definition, progress, &mut stopped_by);
                }
            }
            // What a credential is compared with is one, too.
            let Some(shown) = self.show(definition, &wanted, told, secret && !reads) else {
                continue;
            };
            match wanted.role {
                Role::Left => left = Some((shown, reads)),
                Role::Right => right = Some((shown, reads)),
                Role::Reference => references.push(shown),
            }
        }
        let comparison = sides.zip(left.zip(right)).map(|(sides, (left, right))| {
            let swap = !left.1 && right.1;
            let (actual, expected) = if swap { (right, left) } else { (left, right) };
            Comparison {
                operator: sides.operator,
                actual: actual.0,
                expected: expected.0,
            }
        });
        if let Some(comparison) = &comparison {
            let sides = [&comparison.actual, &comparison.expected];
            references.retain(|it| sides.iter().all(|side| side.expression != it.expression));
        }
        Stop {
            text: self.text(definition, span.clone()).to_owned(),
            place: self.place(definition, span),
            comparison,
            references,
            stopped_by,
            error: it.error.clone(),
        }
    }

    /// The definitions of a rule that fired.
    fn firings(
        &self,
        mention: &Mention,
        definition: &definitions::Definition<'a>,
        progress: &[Option<Progress>],
        found: &mut Vec<Firing>,
    ) {
        let Some(rule) = self.secrets.rule_of(mention, &definition.path) else {
            return;
        };
        for (other, progress) in self.definitions.iter().zip(progress) {
            let fired = progress
                .as_ref()
                .is_some_and(|it| it.outcome == Outcome::Fired);
            if fired && other.path.starts_with(&rule) {
                found.push(Firing {
                    rule: rule_reference(&other.path),
                    place: self.place(other, other.span.clone()),
                });
            }
        }
    }

    /// What was told of an expression; `None` where it could not be asked.
    fn show(
        &self,
        definition: &definitions::Definition<'a>,
        wanted: &Wanted,
        told: Told,
        secret: bool,
    ) -> Option<Shown> {
        let alone = match wanted.mentions.as_slice() {
            [mention] if self.text(definition, mention.span.clone()) == wanted.text => {
                Some(mention)
            }
            _ => None,
        };
        let rule = &definition.path;
        let mut mentions = wanted.mentions.iter();
        let secret =
            secret || mentions.any(|it| self.secrets.in_mention(it, rule, alone.is_some()));
        let values = match told? {
            Ok(values) => members(&values),
            Err(_) => return None,
        };
        // That there is none, or whether something is true, gives nothing away.
        if secret && !values.iter().all(Json::is_boolean) {
            return Some(Shown::hidden(wanted.text.clone()));
        }
        let values = values.into_iter().map(|value| match alone {
            Some(mention) => self.secrets.without(mention, value),
            None => value,
        });
        Some(Shown::new(wanted.text.clone(), values.collect()))
    }

    /// What a definition that fired gives, unless that is just `true`.
    fn value(&self, definition: &definitions::Definition<'a>, it: &Progress) -> Option<Shown> {
        let value = definition.value.as_ref()?;
        if it.outcome != Outcome::Fired || it.values == [Json::Bool(true)] {
            return None;
        }
        let text = self.text(definition, value.span.clone()).to_owned();
        Some(match self.secrets.made_by(&definition.path) {
            true => Shown::hidden(text),
            false => Shown::new(text, it.values.clone()),
        })
    }

    fn place(&self, definition: &definitions::Definition<'a>, span: Range<usize>) -> SourcePlace {
        let module = self.syntax.modules.get(definition.module);
        let (file, text) = module.map_or(("", ""), |module| (module.file, module.text));
        SourcePlace::new(file, text, span)
    }
}

impl<'a> definitions::Definition<'a> {
    /// A statement; behind the last the value.
    fn at(&self, index: usize) -> Option<&Statement<'a>> {
        let statement = self.statements.get(index);
        statement.or(self
            .value
            .as_ref()
            .filter(|_| index == self.statements.len()))
    }

    /// Whether the value is written as `false`.
    fn gives_false(&self) -> bool {
        let value = self.value.as_ref();
        value.is_some_and(|value| value.tree.get("Bool").is_some())
    }
}

impl Progress {
    /// `gives_false` where the value is meant to be `false`.
    fn new(
        statements: Vec<Told>,
        value: Option<Result<Value, EvaluationError>>,
        gives_false: bool,
    ) -> Self {
        let count = statements.len();
        let holds = |told: &Told| matches!(told, Some(Ok(Value::Bool(true))));
        let held = statements.iter().rposition(holds);
        let held = held.map_or(0, |last| last.saturating_add(1));
        let values = match &value {
            Some(Ok(values)) => members(values),
            _ => Vec::new(),
        };
        let stop = if held < count {
            let after = statements.iter().skip(held);
            let asked = after.take_while(|told| told.is_none()).count();
            let end = held.saturating_add(asked).saturating_add(1).min(count);
            Some(held..end)
        } else {
            let is_nothing = |value: &Json| *value == Json::Bool(false) && !gives_false;
            let is_nothing = values.iter().all(is_nothing);
            is_nothing.then(|| held..held.saturating_add(1))
        };
        let outcome = match &stop {
            None => Outcome::Fired,
            Some(stop) if stop.start < count => Outcome::Stopped,
            Some(_) => Outcome::NoValue,
        };
        let at = stop.as_ref().map(|stop| stop.end.saturating_sub(1));
        let told = at.and_then(|at| statements.into_iter().nth(at).flatten().or(value));
        let error = match told {
            Some(Err(EvaluationError::Timeout)) => Some("it takes too long".to_owned()),
            Some(Err(EvaluationError::Failed(message))) => Some(message.to_string()),
            Some(Ok(_)) | None => None,
        };
        Self {
            held,
            outcome,
            values,
            stop,
            error: error.filter(|_| outcome != Outcome::Fired),
        }
    }
}

impl<'a> Sides<'a> {
    /// The sides of a statement, or of an expression.
    fn of(tree: &'a Json) -> Option<Self> {
        let negated = tree.pointer("/literal/NotExpr/expr");
        let plain = tree.pointer("/literal/Expr/expr");
        let expression = negated.or(plain).unwrap_or(tree);
        let (operator, left, right) = if let Some(compared) = expression.get("BoolExpr") {
            let operator = match compared.get("op").and_then(Json::as_str)? {
                "Lt" => "<",
                "Le" => "<=",
                "Eq" => "==",
                "Ge" => ">=",
                "Gt" => ">",
                _ => "!=",
            };
            (operator, compared.get("lhs")?, compared.get("rhs")?)
        } else if let Some(assigned) = expression.get("AssignExpr") {
            let is_unification = assigned.get("op").and_then(Json::as_str) == Some("Eq");
            let sides = is_unification.then(|| Some((assigned.get("lhs")?, assigned.get("rhs")?)));
            let (left, right) = sides??;
            ("=", left, right)
        } else {
            let membership = expression.get("Membership")?;
            if membership.get("key").is_some_and(|key| !key.is_null()) {
                return None;
            }
            (
                "in",
                membership.get("value")?,
                membership.get("collection")?,
            )
        };
        let operator = match negated {
            Some(_) => format!("not {operator}"),
            None => operator.to_owned(),
        };
        Some(Self {
            operator,
            left,
            right,
        })
    }
}

/// The members of a set as JSON.
fn members(values: &Value) -> Vec<Json> {
    let Value::Set(values) = values else {
        return Vec::new();
    };
    let values = values.iter().map(serde_json::to_value);
    values.filter_map(Result::ok).collect()
}
