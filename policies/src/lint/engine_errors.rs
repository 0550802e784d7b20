//! What the engine refuses, one by one and at its place.

use std::ops::Range;
use std::time::Duration;

use serde_json::Value as Json;

use super::place::{closed, engine_offset_of, line_and_column, offset_of, word_at};
use crate::engine::Interpreter;
use crate::error::PolicyError;
use crate::sources::{Module, PolicySources};
use crate::syntax::{self, RuleKind, Syntax, offset};

/// How many errors are looked for, and how long making modules ready may take.
const ERRORS: usize = 50;
const LIMIT: Duration = Duration::from_secs(1);

/// A rule to ask for, which cannot be wrong itself.
const ASKING: &str = "package sidegate_check\n\nanswer := true\n";
const ASKED: &str = "data.sidegate_check.answer";

/// Something that the engine refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct EngineError {
    pub(super) message: String,
    /// The module, and bytes of it.
    pub(super) place: Option<(String, Range<usize>)>,
}

/// Takes an engine's message apart: place, excerpt, `error: ` and what is wrong.
pub(super) fn take_apart(message: &str, modules: &[Module]) -> EngineError {
    let (place, what) = message
        .split_once("\nerror: ")
        .or_else(|| message.split_once(" error: "))
        .unwrap_or(("", message));
    let found = place_of(place).and_then(|(file, line, column)| {
        let module = modules.iter().find(|module| module.file == file)?;
        let start = engine_offset_of(&module.text, line, column);
        Some((module.file.clone(), word_at(&module.text, start)))
    });
    // What follows is another place, in the engine's own form.
    let what = what.split("\n--> ").next().unwrap_or(what);
    EngineError {
        message: what.trim().trim_end_matches(':').to_owned(),
        place: found,
    }
}

/// The first `file:line:column`, which may stand behind an arrow.
fn place_of(text: &str) -> Option<(&str, usize, usize)> {
    let rest = text.split_once("--> ").map_or(text, |(_, rest)| rest);
    let rest = rest.lines().next()?;
    let (rest, column) = rest.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    Some((file, line.trim().parse().ok()?, column.trim().parse().ok()?))
}

/// Every rule that the engine refuses, which it tells of the first one only: so
/// each is made harmless in its turn, and the engine asked again.
pub(super) fn refused_rules(sources: &PolicySources) -> Vec<EngineError> {
    let mut modules = sources.modules().to_vec();
    let mut found: Vec<EngineError> = Vec::new();
    while found.len() < ERRORS {
        let Some(message) = refusal(&sources.with_modules(modules.clone())) else {
            break;
        };
        // Harmless rules keep their lines, so places stay those of the files.
        let error = take_apart(&message, sources.modules());
        if found.contains(&error) {
            break;
        }
        let place = error.place.clone();
        found.push(error);
        let Some((file, span)) = place else { break };
        let original = sources.modules().iter().find(|it| it.file == file);
        let place = original.map(|it| line_and_column(&it.text, span.start));
        let module = modules.iter_mut().find(|module| module.file == file);
        let harmless = module.zip(place).and_then(|(module, (line, column))| {
            let at = offset_of(&module.text, line, column);
            module.text = make_harmless(sources, module, at)?;
            Some(())
        });
        if harmless.is_none() {
            break;
        }
    }
    found
}

/// What the engine says against the sources as they are.
fn refusal(sources: &PolicySources) -> Option<String> {
    let mut interpreter = match Interpreter::parse(sources, LIMIT) {
        Ok(interpreter) => interpreter,
        Err(error) => return Some(text_of(&error)),
    };
    let prepared = interpreter.prepare(Some(ASKING), ASKED);
    prepared.err().map(|error| text_of(&error))
}

fn text_of(error: &PolicyError) -> String {
    match error {
        PolicyError::Compile { source } => source.to_string(),
        PolicyError::Parse { failures } => failures
            .first()
            .map(|failure| failure.message.to_string())
            .unwrap_or_default(),
        other => other.to_string(),
    }
}

/// The module's text with the rule around `at` replaced by one of the same name
/// and shape that cannot be wrong.
fn make_harmless(sources: &PolicySources, module: &Module, at: usize) -> Option<String> {
    let source = sources.with_modules(vec![module.clone()]);
    let trees = Interpreter::parse(&source, LIMIT).ok()?.syntax().ok()?;
    let syntax = Syntax::new(&trees, &source);
    let parsed = syntax.modules.first()?;
    let rule = parsed
        .rules
        .iter()
        .find(|rule| span(&module.text, rule).is_some_and(|span| span.contains(&at)))?;
    let span = span(&module.text, rule)?;
    // Of a default nothing is left: the rule has a value of its own.
    let shape = match syntax::declared(parsed, rule) {
        None => String::new(),
        Some(declared) => match declared.kind {
            RuleKind::Default => String::new(),
            RuleKind::Complete => format!("{} := true", declared.name),
            RuleKind::Partial if rule.pointer("/Spec/head/Set").is_some() => {
                match parsed.takes_keywords() {
                    true => format!("{} contains true", declared.name),
                    false => format!("{}[true]", declared.name),
                }
            }
            RuleKind::Partial => format!("{}[true] := true", declared.name),
            RuleKind::Function(arity) => {
                let arguments = vec!["_"; arity].join(", ");
                format!("{}({arguments}) := true", declared.name)
            }
        },
    };
    let lines = module.text.get(span.clone())?.matches('\n').count();
    let mut text = module.text.get(..span.start)?.to_owned();
    text.push_str(&shape);
    text.push_str(&"\n".repeat(lines));
    text.push_str(module.text.get(span.end..)?);
    Some(text)
}

/// The bytes of a rule.
pub(super) fn span(text: &str, rule: &Json) -> Option<Range<usize>> {
    let span = rule.as_object()?.values().next()?.get("span")?;
    Some(closed(text, offset(span, "start")?..offset(span, "end")?))
}
