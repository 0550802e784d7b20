//! The inputs that a policy's own tests ask about.
//!
//! Tests are run in a copy that prints the input of each `with input as …` before it is used, so
//! that helpers, parameters and loops of tests do what they always do.

use std::time::{Duration, Instant};

use regorus::Value;
use serde_json::Value as Json;

use crate::engine::Interpreter;
use crate::sources::PolicySources;
use crate::syntax::{
    Insertions, Module, RuleKind, Syntax, after_quote, inserted, items, offset, outside_quotes,
    rule_reference, text_of, whole_path,
};

/// What stands before a printed input.
const MARK: &str = "the input of a test:";

/// How long one test may take here.
const TEST_TIMEOUT: Duration = Duration::from_millis(250);

/// As many different inputs as tests show until the deadline.
pub(super) fn inputs(
    syntax: &Syntax<'_>,
    sources: &PolicySources,
    deadline: Instant,
    enough: usize,
) -> Vec<Json> {
    let mut found: Vec<Json> = Vec::new();
    let mut changed = false;
    let copy = sources.rewritten(|file, text| {
        let module = syntax.modules.iter().find(|module| module.file == file);
        let insertions = module.map(printing).unwrap_or_default();
        changed |= !insertions.is_empty();
        inserted(text, insertions)
    });
    // A test that cannot be printed is no reason to do without a check: others are made.
    let Ok(mut interpreter) = Interpreter::parse(&copy, TEST_TIMEOUT) else {
        return found;
    };
    let rules = syntax.rules();
    let tests = rules
        .iter()
        .filter(|rule| rule.name.starts_with("test_") && rule.kind == RuleKind::Complete);
    for test in tests.filter(|_| changed) {
        if Instant::now() >= deadline || found.len() >= enough {
            break;
        }
        let result = interpreter.evaluate(&rule_reference(&test.path), Value::Undefined);
        for line in interpreter.take_prints() {
            let printed = line.split_once(MARK).map(|(_, printed)| printed);
            let input = printed.and_then(|printed| serde_json::from_str(printed).ok());
            found.extend(input.filter(|input| !found.contains(input)));
        }
        if result.is_err() {
            match Interpreter::parse(&copy, TEST_TIMEOUT) {
                Ok(fresh) => interpreter = fresh,
                Err(_) => break,
            }
        }
    }
    found
}

/// What to insert into a module: a `print` before each statement with an input of its own.
fn printing(module: &Module<'_>) -> Insertions {
    let mut insertions = Vec::new();
    for rule in module.rules {
        let bodies = rule.pointer("/Spec/bodies").map(items).unwrap_or_default();
        for body in bodies {
            if let Some(query) = body.get("query") {
                print_inputs(query, module, &mut insertions);
            }
        }
    }
    insertions
}

fn print_inputs(query: &Json, module: &Module<'_>, insertions: &mut Insertions) {
    let statements = query.get("stmts").map(items).unwrap_or_default();
    let first = statements.first().and_then(|first| first.get("span"));
    let place = |span: Option<&Json>, name| span.and_then(|span| offset(span, name));
    let in_braces = place(query.get("span"), "start") < place(first, "start");
    for statement in statements {
        if let Some(every) = statement.pointer("/literal/Every/query") {
            print_inputs(every, module, insertions);
        }
        let modifiers = statement.get("with_mods").map(items).unwrap_or_default();
        let input = modifiers.iter().find_map(|modifier| {
            let target = whole_path(modifier.get("refr")?)?;
            modifier.get("as").filter(|_| target == ["input"])
        });
        let Some((input, span)) =
            input.and_then(|input| Some((text_of(input, module)?, statement.get("span")?)))
        else {
            continue;
        };
        let (Some(start), Some(end)) = (offset(span, "start"), offset(span, "end")) else {
            continue;
        };
        let start = outside_quotes(start, module.text);
        let print = format!("print(\"{MARK}\", json.marshal({input}))\n");
        if in_braces {
            insertions.push((start, print));
        } else {
            insertions.push((start, format!("{{\n{print}")));
            insertions.push((after_quote(end, module.text), "\n}".to_owned()));
        }
    }
}
