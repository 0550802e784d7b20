//! Whether a policy may run on the machine: only where it answers as the interpreter does, on
//! inputs that reach every statement of what the entrypoint needs.
//!
//! ```text
//!   inputs of the policy's own tests ─┐
//!   an input for each body ───────────┤   interpreter ─┐
//!   near misses of these ─────────────┼──▶            equal? ──▶ EngineChoice
//!   two bodies at once, and chance ───┘   machine ─────┘
//! ```
//!
//! Chance is always the same, so that a policy that was found good is found good again.

mod bodies;
mod constrain;
mod coverage;
mod document;
mod harvest;
mod pool;
pub(crate) mod recheck;
mod solve;
mod terms;
#[cfg(test)]
mod tests;
mod texts;
mod verdict;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use regorus::Value;
use serde_json::{Value as Json, json};

use crate::analysis::Analysis;
use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::input::{InputKeys, Template};
use crate::machine::{Guarded, Machine, apply, guarded_members, unlike};
use crate::sources::PolicySources;
use crate::syntax::{InputPath, Syntax, written};

use bodies::Bodies;
use coverage::Statements;
use document::Document;
use pool::Pool;
use solve::Solver;
pub use verdict::{EngineChoice, Examined, InterpreterReason};

/// How long inputs are searched that reach what was not reached. Generated policies of thousands of
/// rules take this long; a policy is loaded beside the one in service, so nobody waits.
const SEARCH_TIME: Duration = Duration::from_secs(8);
/// How long is compared once everything was reached.
const COMPARISON_TIME: Duration = Duration::from_secs(2);
/// How many inputs are compared once everything was reached.
const INPUTS: usize = 1_200;
/// Inputs from tests.
const TEST_INPUTS: usize = 400;
const TEST_TIME: Duration = Duration::from_millis(700);
/// How long one answer may take.
const ANSWER_TIME: Duration = Duration::from_millis(500);
/// Inputs between two looks at what was reached: a look costs as much as a few answers.
const INPUTS_A_LOOK: usize = 16;
/// Attempts at each body that something of was not reached.
const ATTEMPTS: u64 = 24;
/// Near misses of one input.
const NEAR_MISSES: usize = 12;
/// Inputs for two bodies at once.
const PAIRS: usize = 120;
/// Inputs by chance.
const RANDOM: usize = 160;

/// A policy to examine.
pub(crate) struct Candidate<'a> {
    pub(crate) sources: &'a PolicySources,
    /// The modules as the machine takes them.
    pub(crate) guarded: &'a Guarded,
    pub(crate) syntax: &'a Syntax<'a>,
    pub(crate) analysis: &'a Analysis,
    pub(crate) entrypoint: &'a [String],
    /// The rule that is asked, and the module that declares it if it is ours.
    pub(crate) rule: &'a str,
    pub(crate) asking: Option<&'a str>,
}

/// Says which engine decides.
pub(crate) fn examine(candidate: &Candidate<'_>) -> EngineChoice {
    let halt = match Examination::begin(candidate) {
        Ok(mut examination) => match examination.ask_all(candidate) {
            Ok(()) => examination.enough(),
            Err(halt) => halt,
        },
        Err(halt) => halt,
    };
    match halt {
        Halt::Enough(examined) => EngineChoice::Machine(examined),
        Halt::Refused(because) => EngineChoice::Interpreter { because },
    }
}

/// Why no more inputs are asked about.
enum Halt {
    Enough(Examined),
    Refused(InterpreterReason),
}

struct Examination<'a> {
    rule: &'a str,
    reads: Vec<&'a InputPath>,
    interpreter: Interpreter,
    /// The interpreter of the copy that is observed, until everything was reached.
    observed: Option<Interpreter>,
    machine: Machine,
    keys: InputKeys,
    template: Option<Template>,
    bodies: Bodies<'a>,
    statements: Statements,
    asked: HashSet<String>,
    started: Instant,
}

impl<'a> Examination<'a> {
    fn begin(candidate: &Candidate<'a>) -> Result<Self, Halt> {
        let Candidate {
            sources,
            guarded,
            syntax,
            analysis,
            entrypoint,
            rule,
            asking,
        } = *candidate;
        let interpreter_of = |sources: &PolicySources| -> Result<Interpreter, PolicyError> {
            let mut interpreter = Interpreter::parse(sources, ANSWER_TIME)?;
            interpreter.prepare(asking, rule)?;
            Ok(interpreter)
        };
        let started = Instant::now();
        let members = apply(&guarded_members(syntax), sources);
        let interpreter = interpreter_of(&members).map_err(Halt::no_program)?;
        for (module, index) in &analysis.dependencies.rules {
            let module = syntax.modules.get(*module);
            let rule = module.and_then(|module| Some((module.rules.get(*index)?, module)));
            if let Some(reason) = rule.and_then(|(rule, module)| unlike(rule, module)) {
                return Err(Halt::no_program(reason));
            }
        }
        let mut guarded = interpreter_of(&apply(guarded, sources)).map_err(Halt::no_program)?;
        let machine =
            Machine::compile(&mut guarded, rule, ANSWER_TIME).map_err(Halt::no_program)?;
        let bodies = Bodies::new(syntax, analysis, entrypoint);
        let (statements, copy) = Statements::find(syntax, &bodies, sources);
        // It is as in service, too: what that adds stays on the lines of what it belongs to.
        let trees = interpreter_of(&copy).and_then(|copy| copy.syntax());
        let trees = trees.map_err(Halt::no_program)?;
        let copy = apply(&guarded_members(&Syntax::new(&trees, &copy)), &copy);
        let mut observed = interpreter_of(&copy).map_err(Halt::no_program)?;
        observed.record_coverage();
        let keys = InputKeys::new();
        Ok(Self {
            rule,
            reads: analysis.dependencies.reads.keys().collect(),
            template: Template::new(&keys, &analysis.reads),
            keys,
            interpreter,
            observed: Some(observed),
            machine,
            bodies,
            statements,
            asked: HashSet::new(),
            started,
        })
    }

    /// Asks about one input after the other, the most telling first.
    fn ask_all(&mut self, candidate: &Candidate<'a>) -> Result<(), Halt> {
        let base = Document::base();
        self.ask(&base.clone().finish())?;
        self.ask(&json!({}))?;
        let deadline = self.started.checked_add(TEST_TIME).unwrap_or(self.started);
        for input in harvest::inputs(candidate.syntax, candidate.sources, deadline, TEST_INPUTS) {
            self.ask(&input)?;
        }
        let data = serde_json::to_value(self.interpreter.data()).unwrap_or_default();
        let pool = Pool::new(&self.bodies, &data);

        let all: Vec<usize> = (0..self.bodies.all().len()).collect();
        // What was not reached yet goes first: of large policies there is no time for more.
        self.look();
        let mut targets = self.statements.incomplete();
        let reached = |target: &&usize| !targets.contains(target);
        let rest: Vec<usize> = all.iter().filter(reached).copied().collect();
        targets.extend(rest);
        let mut documents = Vec::new();
        for target in targets {
            let document = self.solved(&data, &pool, &[target], 0);
            self.ask(&document.clone().finish())?;
            documents.push(document);
        }
        let mut random = SmallRng::seed_from_u64(0);
        for document in documents.iter().chain([&base]) {
            for input in near_misses(document, &self.reads, &pool, &mut random) {
                self.ask(&input)?;
            }
        }
        for (number, pair) in (1..).zip(pairs(all.len(), &mut random)) {
            let document = self.solved(&data, &pool, &pair, number);
            self.ask(&document.finish())?;
        }
        for round in 0..RANDOM {
            let start = match random.random_range(0..=documents.len()) {
                index if round % 2 == 0 => documents.get(index).unwrap_or(&base),
                _ => &base,
            };
            let input = by_chance(start, &self.reads, &pool, &mut random);
            self.ask(&input)?;
        }
        for attempt in 1..=ATTEMPTS {
            self.look();
            for target in self.statements.incomplete() {
                let document = self.solved(&data, &pool, &[target], attempt);
                self.ask(&document.clone().finish())?;
                for input in near_misses(&document, &self.reads, &pool, &mut random) {
                    self.ask(&input)?;
                }
                self.ask(&by_chance(&document, &self.reads, &pool, &mut random))?;
            }
        }
        Ok(())
    }

    fn solved(&self, data: &Json, pool: &Pool, targets: &[usize], attempt: u64) -> Document {
        let mut solver = Solver::new(&self.bodies, data, pool, attempt);
        for target in targets {
            solver.satisfy(*target);
        }
        solver.document
    }

    /// Asks both engines about one input.
    fn ask(&mut self, input: &Json) -> Result<(), Halt> {
        if !self.asked.insert(input.to_string()) {
            return Ok(());
        }
        let document = Value::from(input.clone());
        let interpreter = self.observed.as_mut().unwrap_or(&mut self.interpreter);
        let expected = interpreter.evaluate(self.rule, document.clone());
        interpreter.take_prints();
        if expected == Err(EvaluationError::Timeout) {
            return Err(Halt::Refused(InterpreterReason::Slow));
        }
        let shaped = self
            .template
            .as_ref()
            .map(|template| template.shaped(&self.keys, &document));
        for document in [Some(document), shaped].into_iter().flatten() {
            let answer = self.machine.evaluate(document);
            let equal = match (&answer, &expected) {
                (Ok(answer), Ok(expected)) => answer == expected,
                (Err(EvaluationError::Failed(_)), Err(_)) => true,
                _ => false,
            };
            if !equal {
                return Err(Halt::Refused(InterpreterReason::Difference {
                    input: shape(input, &self.reads),
                    machine: text(&answer),
                    interpreter: text(&expected),
                }));
            }
        }
        if self.observed.is_some() && self.asked.len().is_multiple_of(INPUTS_A_LOOK) {
            self.look();
        }
        let elapsed = self.started.elapsed();
        match self.observed {
            None if elapsed >= COMPARISON_TIME || self.asked.len() >= INPUTS => Err(self.enough()),
            Some(_) if elapsed >= SEARCH_TIME => {
                self.look();
                Err(self.enough())
            }
            _ => Ok(()),
        }
    }

    /// Looks at what was reached.
    fn look(&mut self) {
        if let Some(observed) = &self.observed {
            self.statements.observe(observed);
            if self.statements.first_missing().is_none() {
                self.observed = None;
            }
        }
    }

    /// The verdict if no more inputs are asked about.
    fn enough(&mut self) -> Halt {
        self.look();
        let (covered, statements) = (self.statements.reached(), self.statements.count());
        let Some(place) = self.statements.first_missing() else {
            return Halt::Enough(Examined {
                inputs: self.asked.len(),
                covered,
                statements,
            });
        };
        let place = format!("{}:{}", place.file, place.line);
        Halt::Refused(match self.started.elapsed() >= SEARCH_TIME {
            true => InterpreterReason::OutOfTime {
                place,
                covered,
                statements,
            },
            false => InterpreterReason::NotReached {
                place,
                covered,
                statements,
            },
        })
    }
}

impl Halt {
    fn no_program(error: impl std::fmt::Display) -> Self {
        Self::Refused(InterpreterReason::NoProgram {
            message: error.to_string(),
        })
    }
}

/// Pairs of so many bodies: each, or where those would be too many, some. Bodies that hold one by
/// one may contradict each other.
fn pairs(bodies: usize, random: &mut SmallRng) -> Vec<[usize; 2]> {
    if bodies.saturating_mul(bodies) <= 2 * PAIRS {
        let pairs = (0..bodies).flat_map(|first| (0..first).map(move |second| [first, second]));
        return pairs.collect();
    }
    let mut any = || random.random_range(0..bodies);
    (0..PAIRS).map(|_| [any(), any()]).collect()
}

/// Inputs that differ in one part from a document: of what it chose, or else of what is read.
fn near_misses(
    document: &Document,
    reads: &[&InputPath],
    pool: &Pool,
    random: &mut SmallRng,
) -> Vec<Json> {
    let chosen: Vec<&InputPath> = match document.chosen() {
        [] => reads.to_vec(),
        chosen => chosen.iter().collect(),
    };
    let mut inputs = Vec::new();
    for path in chosen.into_iter().take(NEAR_MISSES / 2) {
        inputs.push(document.without(path));
        inputs.push(document.with(path, pool.value(path, random)).finish());
    }
    inputs
}

/// An input with other values in some of the parts that are read.
fn by_chance(start: &Document, reads: &[&InputPath], pool: &Pool, random: &mut SmallRng) -> Json {
    let mut document = start.clone();
    let mut without = None;
    for path in reads {
        match random.random_range(0..8) {
            0..=2 => {}
            3 => without = Some(path),
            _ => document = document.with(path, pool.value(path, random)),
        }
    }
    match without {
        Some(path) => document.without(path),
        None => document.finish(),
    }
}

/// What the policy reads of an input, for a person.
fn shape(input: &Json, reads: &[&InputPath]) -> String {
    let document = Document::of(input.clone());
    let parts = reads.iter().filter_map(|path| {
        let value = document.at(path)?;
        Some(format!(
            "{} = {}",
            written(path),
            short(&value.to_string(), 80)
        ))
    });
    let parts: Vec<String> = parts.collect();
    match parts.as_slice() {
        [] => "an input without anything that it reads".to_owned(),
        parts => short(&parts.join(", "), 400),
    }
}

fn text(answer: &Result<Value, EvaluationError>) -> String {
    match answer {
        Ok(Value::Undefined) => "undefined".to_owned(),
        Ok(value) => short(&value.to_string(), 120),
        Err(EvaluationError::Timeout) => "a timeout".to_owned(),
        Err(EvaluationError::Failed(message)) => {
            let message = message.to_string();
            let last = message.lines().last().unwrap_or_default();
            format!("an error ({})", short(last, 120))
        }
    }
}

fn short(text: &str, length: usize) -> String {
    let mut characters = text.chars();
    let beginning: String = characters.by_ref().take(length).collect();
    match characters.next() {
        Some(_) => format!("{beginning}…"),
        None => beginning,
    }
}
