//! Explanations and read sets for people.

use std::fmt::Write;
use std::ops::Range;

use annotate_snippets::{
    AnnotationKind, Element, Level, Origin, Renderer, Snippet, normalize_untrusted_str,
};
use sidegate_policy::PolicyFiles;
use sidegate_policy::explain::{
    Comparison, Definition, EngineUse, Explanation, Outcome, ReadSetReport, Shown, SourcePlace,
    Stop,
};
use sidegate_policy::question::Verdict;

/// How many definitions that did not fire are shown with their source.
const CLOSEST: usize = 5;

/// The verdict; then what fired; then what came closest, with the statement that stopped it.
pub(super) fn explanation(explanation: &Explanation, files: &PolicyFiles, color: bool) -> String {
    let renderer = match color {
        true => Renderer::styled(),
        false => Renderer::plain(),
    };
    let mut text = verdict(explanation, color);
    let (fired, others): (Vec<_>, Vec<_>) = explanation
        .definitions
        .iter()
        .partition(|it| it.outcome == Outcome::Fired);
    if !fired.is_empty() {
        text.push_str("\nfired\n");
    }
    for definition in fired {
        let Definition { rule, place, .. } = definition;
        let value = definition.value.as_ref();
        let value = value.map_or(String::new(), |value| format!(" is {}", values(value)));
        // Writing to a String cannot fail.
        let line = format!("{} {rule}{value}", at(place));
        let _ = writeln!(text, "  {}", normalize_untrusted_str(&line));
    }
    if !others.is_empty() {
        text.push_str("\nclosest first\n");
    }
    for definition in others.iter().take(CLOSEST) {
        text.push_str(&shown(definition, files, &renderer));
    }
    for definition in others.iter().skip(CLOSEST) {
        let _ = writeln!(text, "  {} {}", at(&definition.place), summary(definition));
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    if !explanation.functions.is_empty() {
        let names = explanation.functions.join(", ");
        let _ = writeln!(
            text,
            "\nnot asked, because they take arguments: {names}\n  see the statements that call them"
        );
    }
    text
}

fn verdict(explanation: &Explanation, color: bool) -> String {
    let decision = &explanation.decision;
    let (word, style) = match decision.verdict {
        Verdict::Allow => ("allow", "\x1b[32m"),
        Verdict::Deny => ("deny", "\x1b[31m"),
    };
    let word = match color {
        true => format!("{style}{word}\x1b[0m"),
        false => word.to_owned(),
    };
    let asked = &explanation.asked;
    match (&decision.code, &decision.reason) {
        (Some(code), Some(reason)) => format!("{asked}: {word}: {reason} [{code}]\n"),
        _ => format!("{asked}: {word}\n"),
    }
}

/// A definition that did not fire, at its place.
fn shown(definition: &Definition, files: &PolicyFiles, renderer: &Renderer) -> String {
    let title = summary(definition);
    let title = Level::INFO
        .with_name("stopped")
        .primary_title(normalize_untrusted_str(&title));
    let notes = definition.stopped.as_ref().map(notes).unwrap_or_default();
    let place = definition
        .stopped
        .as_ref()
        .map_or(&definition.place, |it| &it.place);
    let mut group = match files.text(&place.file) {
        Some(source) => {
            let label = definition.stopped.as_ref().map(label);
            let span = within(source, place.span.clone());
            let annotation = AnnotationKind::Primary.span(span);
            let annotation = match label {
                Some(label) => annotation.label(normalize_untrusted_str(&label)),
                None => annotation,
            };
            title.element(
                Snippet::source(source)
                    .path(place.file.as_str())
                    .annotation(annotation),
            )
        }
        None => title.element(Origin::path(place.file.as_str())),
    };
    for note in &notes {
        let note = normalize_untrusted_str(note);
        group = group.element(Element::from(Level::NOTE.message(note)));
    }
    format!("{}\n\n", renderer.render(&[group]))
}

fn summary(definition: &Definition) -> String {
    let Definition {
        rule,
        held,
        statements,
        ..
    } = definition;
    match definition.outcome {
        Outcome::Fired => format!("{rule} fired"),
        Outcome::Stopped => format!("{rule}: {held} of {statements} statements hold"),
        Outcome::NoValue => format!("{rule}: has no value that counts"),
        Outcome::PassedOver => format!("{rule}: passed over, because what stands before it fired"),
    }
}

/// What stands beside the caret.
fn label(stop: &Stop) -> String {
    if stop.error.is_some() {
        return "cannot be evaluated".to_owned();
    }
    match stop.stopped_by.first() {
        Some(firing) => format!("{} fired", firing.rule),
        None => "does not hold".to_owned(),
    }
}

fn notes(stop: &Stop) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(Comparison {
        operator,
        actual,
        expected,
    }) = &stop.comparison
    {
        let expectation = match operator.as_str() {
            "==" | "=" => "expected".to_owned(),
            operator => format!("expected {operator}"),
        };
        notes.push(format!(
            "{expectation} {}\nactual {}",
            of(expected),
            of(actual)
        ));
    }
    for reference in &stop.references {
        notes.push(format!("{} is {}", reference.expression, values(reference)));
    }
    for firing in &stop.stopped_by {
        notes.push(format!("{} fired at {}", firing.rule, at(&firing.place)));
    }
    notes.extend(stop.error.clone());
    notes
}

/// A side of a comparison: its value, and what it is the value of unless that is the same.
fn of(side: &Shown) -> String {
    let values = values(side);
    if side.hidden {
        return format!("{} {values}", side.expression);
    }
    match side.expression == values {
        true => values,
        false => format!("{values} ({})", side.expression),
    }
}

fn values(shown: &Shown) -> String {
    if shown.hidden {
        return "(not shown: it may be a credential)".to_owned();
    }
    let mut texts: Vec<String> = shown.values.iter().map(ToString::to_string).collect();
    if shown.more > 0 {
        texts.push(format!("{} more", shown.more));
    }
    match texts.is_empty() {
        true => "undefined".to_owned(),
        false => texts.join(" or "),
    }
}

fn at(place: &SourcePlace) -> String {
    let SourcePlace {
        file, line, column, ..
    } = place;
    format!("{file}:{line}:{column}")
}

/// A span that the text has.
fn within(text: &str, span: Range<usize>) -> Range<usize> {
    match text.get(span.clone()) {
        Some(_) => span,
        None => 0..0,
    }
}

/// What is read, what is remembered, and what prevents it.
pub(super) fn read_set(report: &ReadSetReport) -> String {
    let mut text = format!("{}\n\nreads\n", report.asked);
    let width = report.reads.iter().map(|it| it.path.chars().count()).max();
    let width = width.unwrap_or_default();
    for it in &report.reads {
        let place = &it.place;
        let _ = writeln!(
            text,
            "  {:width$}  {}:{}:{}",
            it.path, place.file, place.line, place.column
        );
    }
    if report.reads.is_empty() {
        text.push_str("  nothing of the input\n");
    }
    text.push_str("\nremembered\n");
    let remembering = &report.remembering;
    match &remembering.prevented_by {
        Some(prevented) => {
            let place = &prevented.place;
            let _ = writeln!(
                text,
                "  no: {}: {}\n  {}:{}:{}",
                prevented.expression, prevented.reason, place.file, place.line, place.column
            );
        }
        None if remembering.key.is_empty() => text.push_str("  yes: one decision for all\n"),
        None => {
            text.push_str("  yes, by\n");
            for part in &remembering.key {
                let _ = writeln!(text, "  {part}");
            }
        }
    }
    if !report.impure.is_empty() {
        text.push_str("\nimpure builtins\n");
    }
    for it in &report.impure {
        let place = &it.place;
        let _ = writeln!(
            text,
            "  {}: {}\n  {}:{}:{}",
            it.name, it.reason, place.file, place.line, place.column
        );
    }
    text.push_str("\nengine\n");
    let _ = match &report.engine {
        Some(EngineUse {
            name,
            because: None,
        }) => writeln!(text, "  {name}"),
        Some(EngineUse {
            name,
            because: Some(because),
        }) => writeln!(text, "  {name}: {because}"),
        None => writeln!(
            text,
            "  none: the policy would be refused, see `sidegate policy check`"
        ),
    };
    text
}
