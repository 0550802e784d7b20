//! The one place that builds Rego engines and asks them.

use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use regorus::utils::limits::ExecutionTimerConfig;
use regorus::{CompiledPolicy, Engine, PolicyLengthConfig, Value};

use crate::builtins;
use crate::error::{EngineMessage, ParseFailure, PolicyError};
use crate::sources::{PolicySources, RegoVersion, data_error};
use crate::syntax::{Syntax, forwarded_calls};

/// Steps of the interpreter between two looks at the clock: a look costs about
/// as much as one step.
const CHECK_INTERVAL: u32 = 64;

/// Bounds on one module. Sources come from the operator, so these only stop
/// accidents; the engine's own (1024 columns) refuse generated policies.
const MODULE_BYTES: usize = 16 * 1024 * 1024;
const MODULE_LINES: usize = 500_000;
const MODULE_COLUMNS: u32 = 65_536;

/// How deep brackets may be nested in each other: with each level the parser takes twice as long.
const MAX_BRACKETS: usize = 12;

/// Why an evaluation has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EvaluationError {
    /// It took longer than it may.
    Timeout,
    /// The engine gave up: conflicting rules, overflow and the like.
    Failed(EngineMessage),
}

impl EvaluationError {
    /// The sources could not even be made ready.
    pub(crate) fn unusable(error: PolicyError) -> Self {
        Self::Failed(EngineMessage::new(error))
    }

    /// The same, without values: the engine quotes those that it trips over,
    /// and they may be secrets of the request. Place and rule stay.
    pub(crate) fn without_values(self) -> Self {
        match self {
            Self::Timeout => Self::Timeout,
            Self::Failed(message) => {
                let text = message.to_string();
                let (place, what) = text.split_once(MESSAGE_START).unwrap_or(("", &text));
                let what = what
                    .split(['`', '"', '{', '[', '(', '\n'])
                    .next()
                    .unwrap_or_default();
                let separator = if place.is_empty() { "" } else { MESSAGE_START };
                Self::Failed(EngineMessage::new(format!(
                    "{place}{separator}{}",
                    what.trim_end()
                )))
            }
        }
    }
}

/// What separates the place of an error from what is wrong.
const MESSAGE_START: &str = "\nerror: ";

/// An interpreter of its own: modules and data parsed for it alone, so that it
/// shares no reference count with any other.
pub(crate) struct Interpreter {
    engine: Engine,
    /// Whether our builtins that fail are errors.
    strict: Arc<AtomicBool>,
    limit: Duration,
    broken: bool,
}

impl Interpreter {
    /// Parses all sources. Every module that does not parse is named.
    pub(crate) fn parse(sources: &PolicySources, limit: Duration) -> Result<Self, PolicyError> {
        let mut engine = Engine::new();
        let strict = builtins::install(&mut engine);
        engine.set_rego_v0(false);
        // OPA's default: a builtin that fails is undefined, not an error.
        engine.set_strict_builtin_errors(false);
        // Without this `print` writes to stderr.
        engine.set_gather_prints(true);
        engine.set_policy_length_config(module_bounds());
        let check_interval = NonZeroU32::new(CHECK_INTERVAL).unwrap_or(NonZeroU32::MIN);
        engine.set_execution_timer_config(ExecutionTimerConfig {
            limit,
            check_interval,
        });

        check_brackets(sources)?;
        let mut failures = Vec::new();
        for module in sources.modules() {
            engine.set_rego_v0(module.version == RegoVersion::V0);
            if let Err(error) = engine.add_policy(module.file.clone(), module.text.clone()) {
                failures.push(ParseFailure {
                    file: module.file.clone(),
                    message: EngineMessage::new(error),
                });
            }
        }
        engine.set_rego_v0(false);
        if !failures.is_empty() {
            return Err(PolicyError::Parse { failures });
        }
        forward_builtins(&mut engine, sources)?;
        for document in sources.documents() {
            let (file, value) = document?;
            engine
                .add_data(value)
                .map_err(|error| data_error(file, error))?;
        }
        Ok(Self {
            engine,
            strict,
            limit,
            broken: false,
        })
    }

    /// The syntax trees of all modules, in the order of the sources; then those
    /// of modules of our own.
    pub(crate) fn syntax(&self) -> Result<serde_json::Value, PolicyError> {
        syntax_trees(&self.engine)
    }

    /// Adds a module of our own if there is one, and does now what the first
    /// evaluation would do: schedule statements, bind imports, hoist loops.
    pub(crate) fn prepare(&mut self, own: Option<&str>, rule: &str) -> Result<(), PolicyError> {
        if let Some(text) = own {
            let added = self
                .engine
                .add_policy("(entrypoint)".to_owned(), text.to_owned());
            added.map_err(|error| PolicyError::Compile {
                source: EngineMessage::new(error),
            })?;
        }
        let compiled = self.compiled(rule);
        compiled
            .map(drop)
            .map_err(|source| PolicyError::Compile { source })
    }

    /// The rule and all others, as the compiler of programs takes them.
    pub(crate) fn compiled(&mut self, rule: &str) -> Result<CompiledPolicy, EngineMessage> {
        let compiled = self.engine.compile_with_entrypoint(&rule.into());
        compiled.map_err(EngineMessage::new)
    }

    /// The data documents, as one.
    pub(crate) fn data(&self) -> Value {
        self.engine.get_data()
    }

    /// The value of a rule, [`Value::Undefined`] included.
    ///
    /// After an error the interpreter must not be used again: `with` may have
    /// left its replacements behind.
    pub(crate) fn evaluate(&mut self, rule: &str, input: Value) -> Result<Value, EvaluationError> {
        let started = Instant::now();
        self.engine.set_input(input);
        let result = unbroken(|| self.engine.eval_rule(rule.to_owned()));
        self.broken |= result.is_err();
        // Where a function has several definitions, the engine drops an error
        // in one of them if another has a value, its own timeout too; and
        // elsewhere it may hide the timeout in a text. The clock does neither.
        if started.elapsed() >= self.limit {
            return Err(EvaluationError::Timeout);
        }
        result?.map_err(|error| EvaluationError::Failed(EngineMessage::new(error)))
    }

    /// Whether the engine panicked, and may have stopped anywhere: it must not be used again.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// What `print` said since the last call.
    pub(crate) fn take_prints(&mut self) -> Vec<String> {
        self.engine.take_prints().unwrap_or_default()
    }

    /// Notes from now on which lines are evaluated. That takes time.
    pub(crate) fn record_coverage(&mut self) {
        self.engine.set_enable_coverage(true);
    }

    /// Which lines were evaluated, of the modules of which any was.
    pub(crate) fn coverage(&self) -> Vec<regorus::coverage::File> {
        let report = self.engine.get_coverage_report();
        report.map(|report| report.files).unwrap_or_default()
    }

    /// Lets a builtin that fails be an error, as `opa eval
    /// --strict-builtin-errors` does.
    pub(crate) fn raise_builtin_errors(&mut self) {
        self.engine.set_strict_builtin_errors(true);
        self.strict.store(true, Ordering::Relaxed);
    }
}

/// The bounds on one module, as the engine takes them.
pub(crate) fn module_bounds() -> PolicyLengthConfig {
    PolicyLengthConfig {
        max_col: NonZeroU32::new(MODULE_COLUMNS).unwrap_or(NonZeroU32::MIN),
        max_file_bytes: NonZeroUsize::new(MODULE_BYTES).unwrap_or(NonZeroUsize::MIN),
        max_lines: NonZeroUsize::new(MODULE_LINES).unwrap_or(NonZeroUsize::MIN),
    }
}

/// Adds the functions that stand for builtins of ours where the engine would
/// not find them.
pub(crate) fn forward_builtins(
    engine: &mut Engine,
    sources: &PolicySources,
) -> Result<(), PolicyError> {
    let mut modules = sources.modules().iter();
    if !modules.any(|module| builtins::mentions_foreign(&module.text)) {
        return Ok(());
    }
    let trees = syntax_trees(engine)?;
    let needed = forwarded_calls(&Syntax::new(&trees, sources));
    for (file, text) in builtins::modules(&needed) {
        let added = engine.add_policy(file, text);
        added.map_err(|error| PolicyError::Compile {
            source: EngineMessage::new(error),
        })?;
    }
    Ok(())
}

fn syntax_trees(engine: &Engine) -> Result<serde_json::Value, PolicyError> {
    let text = engine.get_ast_as_json();
    let text = text.map_err(|error| PolicyError::Compile {
        source: EngineMessage::new(error),
    })?;
    serde_json::from_str(&text).map_err(|source| PolicyError::NestingDepth { source })
}

/// The parser tries brackets in several ways, and those within them again for each.
fn check_brackets(sources: &PolicySources) -> Result<(), PolicyError> {
    for module in sources.modules() {
        if let Some(line) = too_deep(&module.text) {
            return Err(PolicyError::Brackets {
                file: module.file.clone(),
                line,
                limit: MAX_BRACKETS,
            });
        }
    }
    Ok(())
}

/// The first line on which brackets are nested too deep, from 1. Such a text is not for the parser.
pub(crate) fn too_deep(text: &str) -> Option<usize> {
    let (mut line, mut depth) = (1_usize, 0_usize);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '\n' => line = line.saturating_add(1),
            '[' | '{' => depth = depth.saturating_add(1),
            ']' | '}' => depth = depth.saturating_sub(1),
            '#' => {
                characters.find(|it| *it == '\n')?;
                line = line.saturating_add(1);
            }
            '"' => {
                let mut is_escaped = false;
                characters.find(|it| {
                    let ends = *it == '"' && !is_escaped;
                    is_escaped = *it == '\\' && !is_escaped;
                    ends
                });
            }
            '`' => {
                let inside = characters.by_ref().take_while(|it| *it != '`');
                line = line.saturating_add(inside.filter(|it| *it == '\n').count());
            }
            _ => {}
        }
        if depth > MAX_BRACKETS {
            return Some(line);
        }
    }
    None
}

/// Runs the engine. Some of its builtins panic on arguments that may come from a request: that is a
/// failed evaluation, and no more.
pub(crate) fn unbroken<T>(run: impl FnOnce() -> T) -> Result<T, EvaluationError> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|_| EvaluationError::Failed(EngineMessage::new("the engine panicked")))
}
