//! Which tests the modules declare.

use std::collections::BTreeMap;
use std::ops::Range;

use serde_json::Value as Json;

use crate::lint::{closed, line_and_column};
use crate::sources::RegoVersion;
use crate::sources::{Module as Source, PolicySources};
use crate::syntax::{Module, RuleKind, RulePath, Syntax, declared, items, offset, rule_reference};

/// The start of a test's name, and of one that is still to be written.
const TEST: &str = "test_";
const TODO: &str = "todo_test_";

/// The module and package that ask for tests with cases: those are no single
/// rules to the engine.
const ASKING: &str = "(tests)";
const ASKING_PACKAGE: &str = "sidegate_tests";

/// What the engine knows a further declaration of a name by.
const FURTHER: &str = "_sidegate_declaration_";

/// One declaration of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Test {
    /// The name that is shown.
    pub(super) name: String,
    /// The rule as it is asked for.
    pub(super) rule: String,
    pub(super) file: String,
    pub(super) line: usize,
    pub(super) is_todo: bool,
    /// Why it cannot be run.
    pub(super) unfit: Option<&'static str>,
    pub(super) cases: Option<Brackets>,
}

/// How a test with cases is written, as text of its module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Brackets {
    /// Tells it from all others.
    pub(super) number: usize,
    /// Whether its module writes rules with `if` and `contains`.
    pub(super) takes_keywords: bool,
    pub(super) package: RulePath,
    /// What is in the brackets, and the names that it mentions.
    pub(super) keys: Vec<String>,
    pub(super) key_names: Vec<String>,
    /// For each statement of the body the text up to its end, and the names
    /// that it mentions.
    pub(super) statements: Vec<(String, Vec<String>)>,
}

/// The tests, and sources in which each declaration has a name of its own.
pub(super) struct Declared {
    pub(super) tests: Vec<Test>,
    pub(super) sources: PolicySources,
}

impl Declared {
    pub(super) fn new(syntax: &Syntax<'_>, sources: &PolicySources) -> Self {
        let mut found = Vec::new();
        for module in &syntax.modules {
            for rule in module.rules {
                found.extend(Declaration::read(module, rule));
            }
        }
        let mut counts: BTreeMap<RulePath, usize> = BTreeMap::new();
        let mut tests = Vec::new();
        let mut renamed: BTreeMap<&str, Vec<(usize, String)>> = BTreeMap::new();
        for declaration in &found {
            let count = counts.entry(declaration.path.clone()).or_default();
            // As a name of its own; the text of the file stays where it is.
            if let Some(end) = declaration.name_end.filter(|_| *count > 0) {
                let name = format!("{FURTHER}{count:02}");
                let list = renamed.entry(declaration.test.file.as_str()).or_default();
                list.push((end, name));
            }
            tests.push(declaration.test(*count));
            *count = count.saturating_add(1);
        }
        let modules = sources.modules().iter().map(|module| Source {
            text: insert(&module.text, renamed.get(module.file.as_str())),
            ..module.clone()
        });
        let mut modules: Vec<_> = modules.collect();
        let mut asking = format!("package {ASKING_PACKAGE}\n");
        for (number, test) in tests.iter_mut().enumerate() {
            let Some(brackets) = &mut test.cases else {
                continue;
            };
            brackets.number = number;
            let rule = std::mem::replace(
                &mut test.rule,
                format!("data.{ASKING_PACKAGE}.answer_{number}"),
            );
            asking.push_str(&format!("\nanswer_{number} := {rule}\n"));
        }
        if tests.iter().any(|test| test.cases.is_some()) {
            modules.push(Source {
                file: ASKING.to_owned(),
                text: asking,
                version: RegoVersion::V1,
            });
        }
        Self {
            tests,
            sources: sources.with_modules(modules),
        }
    }
}

/// A test as it stands in its module.
struct Declaration {
    path: RulePath,
    /// Where the name ends, if it is one that can be made longer.
    name_end: Option<usize>,
    test: Test,
}

impl Declaration {
    fn read(module: &Module<'_>, rule: &Json) -> Option<Self> {
        let rule_declared = declared(module, rule)?;
        // A default goes with another declaration of the name.
        if matches!(
            rule_declared.kind,
            RuleKind::Default | RuleKind::Function(_)
        ) {
            return None;
        }
        let head = rule.pointer("/Spec/head")?.as_object()?.values().next()?;
        let steps = steps(module.text, head.get("refr")?);
        let is_test = |step: &Step| step.text.starts_with(TEST) || step.text.starts_with(TODO);
        let position = steps.iter().position(is_test)?;
        let step = steps.get(position)?;
        let path = rule_declared.path;
        let is_set = rule.pointer("/Spec/head/Set").is_some();
        let cases = (rule_declared.kind == RuleKind::Partial && !is_set)
            .then(|| brackets(module, rule, &steps))
            .flatten();
        let start = rule
            .pointer("/Spec/span")
            .and_then(|span| offset(span, "start"))?;
        let name = rule_reference(&path);
        Some(Self {
            name_end: step.is_name.then_some(step.span.end),
            test: Test {
                rule: name.clone(),
                name,
                file: module.file.to_owned(),
                line: line_and_column(module.text, start).0,
                is_todo: step.text.starts_with(TODO),
                unfit: None,
                cases,
            },
            path,
        })
    }

    /// The test that this is when `count` others of its name come before it.
    fn test(&self, count: usize) -> Test {
        let mut test = self.test.clone();
        if count == 0 {
            return test;
        }
        test.name = format!("{}#{count:02}", test.name);
        match self.name_end {
            Some(_) => test.rule = format!("{}{FURTHER}{count:02}", test.rule),
            None => {
                test.unfit = Some("declared more than once, under a name in quotes");
            }
        }
        test
    }
}

/// One part of a head's reference: a name or text, or something in brackets.
struct Step {
    /// The name or text; empty for anything else.
    text: String,
    span: Range<usize>,
    is_name: bool,
    is_fixed: bool,
}

fn steps(source: &str, reference: &Json) -> Vec<Step> {
    let mut found = Vec::new();
    collect_steps(source, reference, &mut found);
    found
}

fn collect_steps(source: &str, reference: &Json, found: &mut Vec<Step>) -> Option<()> {
    if let Some(variable) = reference.get("Var") {
        found.push(Step {
            text: variable.get("value")?.as_str()?.to_owned(),
            span: span(variable.get("span")?)?,
            is_name: true,
            is_fixed: true,
        });
    } else if let Some(dot) = reference.get("RefDot") {
        collect_steps(source, dot.get("refr")?, found)?;
        found.push(Step {
            text: dot.pointer("/field/1")?.as_str()?.to_owned(),
            span: span(dot.pointer("/field/0")?)?,
            is_name: true,
            is_fixed: true,
        });
    } else if let Some(bracket) = reference.get("RefBrack") {
        collect_steps(source, bracket.get("refr")?, found)?;
        let index = bracket.get("index")?;
        let text = index.pointer("/String/value").and_then(Json::as_str);
        found.push(Step {
            text: text.unwrap_or_default().to_owned(),
            span: index_span(source, index)?,
            is_name: false,
            is_fixed: text.is_some(),
        });
    }
    Some(())
}

/// How a test's cases are made.
fn brackets(module: &Module<'_>, rule: &Json, steps: &[Step]) -> Option<Brackets> {
    let keys = steps.iter().skip_while(|step| step.is_fixed);
    let keys = keys.map(|step| module.text.get(step.span.clone()).map(str::to_owned));
    let mut key_names = Vec::new();
    names(rule.pointer("/Spec/head/Compr/refr")?, &mut key_names);
    let body = rule.pointer("/Spec/bodies/0/query/stmts").map(items);
    let body = body.unwrap_or_default();
    let start = span(body.first()?.get("span")?)?.start;
    let statements = body.iter().map(|statement| {
        let mut mentioned = Vec::new();
        // `some x` makes a name and gives it no value.
        if statement.pointer("/literal/SomeVars").is_none() {
            names(statement, &mut mentioned);
        }
        let end = closed(module.text, span(statement.get("span")?)?).end;
        Some((module.text.get(start..end)?.to_owned(), mentioned))
    });
    Some(Brackets {
        number: 0,
        takes_keywords: module.takes_keywords(),
        package: module.package.clone(),
        keys: keys.collect::<Option<_>>()?,
        key_names,
        statements: statements.collect::<Option<_>>()?,
    })
}

/// The names that are mentioned below `tree`.
fn names(tree: &Json, found: &mut Vec<String>) {
    match tree {
        Json::Object(members) => {
            let name = members.get("Var").and_then(|it| it.get("value"));
            if let Some(name) = name.and_then(Json::as_str) {
                found.push(name.to_owned());
            }
            members.values().for_each(|it| names(it, found));
        }
        Json::Array(members) => members.iter().for_each(|it| names(it, found)),
        Json::Null | Json::Bool(_) | Json::Number(_) | Json::String(_) => {}
    }
}

fn span(span: &Json) -> Option<Range<usize>> {
    Some(offset(span, "start")?..offset(span, "end")?)
}

/// The bytes of what is in brackets.
fn index_span(text: &str, index: &Json) -> Option<Range<usize>> {
    let body = index.as_object()?.values().next()?;
    let span = closed(text, span(body.get("span")?)?);
    let quote = index.get("String").or_else(|| index.get("RawString"));
    Some(span.start.saturating_sub(usize::from(quote.is_some()))..span.end)
}

/// Puts texts in at bytes that are in ascending order.
fn insert(text: &str, insertions: Option<&Vec<(usize, String)>>) -> String {
    let mut whole = String::with_capacity(text.len());
    let mut from = 0;
    for (at, inserted) in insertions.into_iter().flatten() {
        whole.push_str(text.get(from..*at).unwrap_or_default());
        whole.push_str(inserted);
        from = *at;
    }
    whole.push_str(text.get(from..).unwrap_or_default());
    whole
}
