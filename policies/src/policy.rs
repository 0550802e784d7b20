//! One generation of a policy: sources that parse, call only what the engine
//! has, declare their entrypoint, and pass their own tests.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use serde::Serialize;

use crate::analysis::{Analysis, Unremembered};
use crate::builtins;
use crate::differential::recheck::Rechecks;
use crate::differential::{Candidate, EngineChoice, InterpreterReason, examine};
use crate::engine::Interpreter;
use crate::error::PolicyError;
use crate::evaluator::Evaluator;
use crate::input::ReadSet;
use crate::lint::{recursive_rules, rules_with_data, unlike_opa};
use crate::machine::{Guarded, Machine, apply, guarded, guarded_members};
use crate::metrics::PolicyMetrics;
use crate::points::{connect, egress};
use crate::sources::PolicySources;
use crate::syntax::{
    BodyReads, DeclaredRule, RuleKind, RulePath, Syntax, rule_reference, unsupported_calls,
};
use crate::test_runner::{TestResult, run_declared_tests};

/// The package of the module that asks for entrypoints made of several rules.
const ASKING_PACKAGE: &str = "sidegate_entrypoint";

/// How a policy is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyOptions {
    /// The rule that decides, as OPA writes it: package and rule with `/`
    /// between their components. `envoy/authz/allow` is `data.envoy.authz.allow`.
    pub entrypoint: String,
    /// How long one decision may take; after that it is a denial.
    pub decision_timeout: Duration,
    /// The number of this generation; every decision carries it.
    pub generation: u64,
    /// How many bytes of decisions each evaluator remembers, about; 0 for none.
    pub memory_bytes: u64,
    /// Whether it is also asked about what workloads send.
    pub egress: bool,
}

impl Default for PolicyOptions {
    fn default() -> Self {
        Self {
            entrypoint: "envoy/authz/allow".to_owned(),
            decision_timeout: Duration::from_millis(50),
            generation: 1,
            memory_bytes: 8 * 1024 * 1024,
            egress: false,
        }
    }
}

/// What is in service, for status pages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyStatus {
    /// The number of this generation.
    pub generation: u64,
    /// The rule that decides, as OPA writes it.
    pub entrypoint: String,
    /// Whether connections are decided on too.
    pub connect: bool,
    /// Whether it says something about what workloads send, where it is asked: else all of that is
    /// denied.
    pub egress: Option<bool>,
    /// How many modules there are.
    pub modules: usize,
    /// How many tests of its own the policy passed when it was loaded.
    pub tests: usize,
}

/// A policy that may be put into service. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Policy {
    inner: Arc<Loaded>,
    status: Arc<PolicyStatus>,
}

struct Loaded {
    sources: PolicySources,
    /// The rule in the form in which the engine looks it up.
    rule: String,
    /// What decides on connections, if the policy does.
    connect: Option<Beside>,
    /// What decides on what workloads send, if the policy is asked and does.
    egress: Option<Beside>,
    /// A module that asks for the entrypoints, where no single rule is one.
    asking: Option<String>,
    decision_timeout: Duration,
    memory_bytes: u64,
    /// Whether a rule that is needed has a `with`.
    replaces: bool,
    analysis: Analysis,
    /// The modules as the machine takes them, where they differ from the sources.
    guarded: Guarded,
    /// The modules as the interpreter takes them, where they differ from the sources.
    members: Guarded,
    engine: EngineChoice,
    /// Whether the machine gave a wrong answer in service.
    disproved: AtomicBool,
    /// The way to the thread that checks the machine, as long as there are evaluators.
    rechecks: Mutex<Weak<Rechecks>>,
}

/// What decides at another decision point.
#[derive(Debug)]
struct Beside {
    /// In the form in which the engine looks it up.
    rule: String,
    on_machine: bool,
    /// Whether a rule that it needs has a `with`.
    replaces: bool,
}

impl Policy {
    /// Checks sources and makes them a policy.
    ///
    /// # Errors
    ///
    /// [`PolicyError`] says what is wrong with the sources; modules that do not
    /// parse, unsupported calls and failing tests are each reported all at once.
    pub fn load(sources: PolicySources, options: &PolicyOptions) -> Result<Self, PolicyError> {
        if options.decision_timeout.is_zero() {
            return Err(PolicyError::DecisionTimeout {
                timeout: options.decision_timeout,
            });
        }
        let entrypoint = entrypoint_path(&options.entrypoint)?;
        let mut interpreter = Interpreter::parse(&sources, options.decision_timeout)?;
        let trees = interpreter.syntax()?;
        let syntax = Syntax::new(&trees, &sources);
        let calls = unsupported_calls(&syntax);
        if !calls.is_empty() {
            return Err(PolicyError::UnsupportedCalls { calls });
        }
        let recursive = recursive_rules(&syntax);
        if !recursive.is_empty() {
            return Err(PolicyError::Recursive { rules: recursive });
        }
        let places = unlike_opa(&syntax);
        if !places.is_empty() {
            return Err(PolicyError::Unlike { places });
        }
        let shadowed = rules_with_data(&syntax, &sources)?;
        if !shadowed.is_empty() {
            return Err(PolicyError::RuleAndData {
                rules: shadowed.into_iter().collect(),
            });
        }
        let rules = syntax.rules();
        let mut asking = Asking::default();
        let rule = asking.rule("answer", &entrypoint, &rules)?;
        // Who says nothing of connections leaves them to the requests on them.
        let connect_path = entrypoint_path(connect::ENTRYPOINT)?;
        let declares = |path: &RulePath| {
            path.split_last()
                .is_some_and(|(_, package)| rules.iter().any(|rule| rule.path.starts_with(package)))
        };
        let connect = match declares(&connect_path) {
            true => Some(asking.rule("connect", &connect_path, &rules)?),
            false => None,
        };
        // Who says nothing of what workloads send lets them send nothing.
        let egress_path = entrypoint_path(egress::ENTRYPOINT)?;
        let egress = match options.egress && declares(&egress_path) {
            true => Some(asking.rule("egress", &egress_path, &rules)?),
            false => None,
        };
        let asking = asking.module();
        interpreter.prepare(asking.as_deref(), &rule)?;
        let analysis = Analysis::new(&syntax, &entrypoint);

        let report = run_declared_tests(&syntax, &sources)?;
        if !report.passed() {
            let failures: Vec<TestResult> = report
                .results
                .into_iter()
                .filter(|result| !result.passed)
                .collect();
            return Err(PolicyError::TestsFailed { failures });
        }
        let status = PolicyStatus {
            generation: options.generation,
            entrypoint: options.entrypoint.clone(),
            connect: connect.is_some(),
            egress: options.egress.then_some(egress.is_some()),
            modules: sources.module_count(),
            tests: report.results.len(),
        };
        let mut asked: Vec<&[String]> = vec![&entrypoint, &connect_path];
        if egress.is_some() {
            asked.push(&egress_path);
        }
        let guarded = guarded(&syntax, &asked);
        let members = guarded_members(&syntax);
        let engine = examine(&Candidate {
            sources: &sources,
            guarded: &guarded,
            syntax: &syntax,
            analysis: &analysis,
            entrypoint: &entrypoint,
            rule: &rule,
            asking: asking.as_deref(),
        });
        let beside = |rule: String, entrypoint: &RulePath| {
            let analysis = Analysis::new(&syntax, entrypoint);
            let engine = examine(&Candidate {
                sources: &sources,
                guarded: &guarded,
                syntax: &syntax,
                analysis: &analysis,
                entrypoint,
                rule: &rule,
                asking: asking.as_deref(),
            });
            Beside {
                rule,
                on_machine: matches!(engine, EngineChoice::Machine(_)),
                replaces: analysis.dependencies.with.is_some(),
            }
        };
        let connect = connect.map(|rule| beside(rule, &connect_path));
        let egress = egress.map(|rule| beside(rule, &egress_path));
        let decision_timeout = options.decision_timeout;
        Ok(Self {
            inner: Arc::new(Loaded {
                sources,
                rule,
                asking,
                decision_timeout,
                memory_bytes: options.memory_bytes,
                replaces: analysis.dependencies.with.is_some()
                    || [&connect, &egress]
                        .into_iter()
                        .flatten()
                        .any(|beside| beside.replaces),
                connect,
                egress,
                analysis,
                guarded,
                members,
                engine,
                disproved: AtomicBool::new(false),
                rechecks: Mutex::new(Weak::new()),
            }),
            status: Arc::new(status),
        })
    }

    /// The same policy as another generation. Nothing is loaded or tested again.
    #[must_use]
    pub fn as_generation(&self, generation: u64) -> Self {
        let status = PolicyStatus {
            generation,
            ..PolicyStatus::clone(&self.status)
        };
        Self {
            inner: Arc::clone(&self.inner),
            status: Arc::new(status),
        }
    }

    /// What it was loaded from.
    #[must_use]
    pub fn sources(&self) -> &PolicySources {
        &self.inner.sources
    }

    /// Builds an evaluator for one worker thread, from the sources: it shares
    /// nothing with any other but text and metrics.
    ///
    /// # Errors
    ///
    /// None that [`Policy::load`] did not rule out.
    pub fn evaluator(&self, metrics: &PolicyMetrics) -> Result<Evaluator, PolicyError> {
        Evaluator::new(self.clone(), metrics)
    }

    /// Which engine decides, and why.
    #[must_use]
    pub fn engine(&self) -> EngineChoice {
        match self.is_disproved() {
            true => EngineChoice::Interpreter {
                because: InterpreterReason::Disproved,
            },
            false => self.inner.engine.clone(),
        }
    }

    /// What this is, for status pages.
    #[must_use]
    pub fn status(&self) -> &PolicyStatus {
        &self.status
    }

    /// The number of this generation.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.status.generation
    }

    /// The rule that decides, as the engine looks it up.
    pub(crate) fn rule(&self) -> &str {
        &self.inner.rule
    }

    /// What the policy reads of request bodies.
    pub(crate) fn body_reads(&self) -> BodyReads {
        self.inner.analysis.body_reads
    }

    /// What the policy reads of its input.
    pub(crate) fn reads(&self) -> &ReadSet {
        &self.inner.analysis.reads
    }

    /// What is known of the policy before it is asked.
    pub(crate) fn analysis(&self) -> &Analysis {
        &self.inner.analysis
    }

    /// Why decisions are not remembered, if they are not.
    pub(crate) fn unremembered(&self) -> Option<&Unremembered> {
        self.inner.analysis.unremembered.as_ref()
    }

    /// Whether the policy itself replaces parts of its documents, by `with`.
    pub(crate) fn replaces(&self) -> bool {
        self.inner.replaces
    }

    /// How many bytes of decisions each evaluator remembers.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.inner.memory_bytes
    }

    /// A new machine, where the policy is one that may run on it.
    pub(crate) fn machine(&self) -> Option<Machine> {
        if !matches!(self.engine(), EngineChoice::Machine(_)) {
            return None;
        }
        let mut interpreter = self.interpreter_of(&self.inner.guarded).ok()?;
        let limit = self.inner.decision_timeout;
        Machine::compile(&mut interpreter, &self.inner.rule, limit).ok()
    }

    /// The way to the thread that checks the machine's answers; `None` if there can be no thread.
    pub(crate) fn rechecks(&self, metrics: &PolicyMetrics) -> Option<Arc<Rechecks>> {
        let place = self.inner.rechecks.lock();
        let mut place = place.unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = place.upgrade() {
            return Some(running);
        }
        let started = Rechecks::start(self.clone(), metrics.recheck_recorder());
        let started = Arc::new(started.ok()?);
        *place = Arc::downgrade(&started);
        Some(started)
    }

    /// Gives the machine up; `false` if it was given up before.
    pub(crate) fn disprove(&self) -> bool {
        !self.inner.disproved.swap(true, Ordering::Relaxed)
    }

    /// Whether the machine was given up.
    pub(crate) fn is_disproved(&self) -> bool {
        self.inner.disproved.load(Ordering::Relaxed)
    }

    /// Whether the same question has the same answer at any time.
    pub(crate) fn is_pure(&self) -> bool {
        let mut builtins = self.inner.analysis.dependencies.builtins.keys();
        builtins.all(|name| builtins::purity(name) == builtins::Purity::Pure)
    }

    /// How many hold the policy: evaluators, the thread that checks them, and others.
    #[cfg(test)]
    pub(crate) fn holders(&self) -> usize {
        Arc::strong_count(&self.inner)
    }

    /// The rule that decides on connections, as the engine looks it up.
    pub(crate) fn connect_rule(&self) -> Option<&str> {
        self.inner
            .connect
            .as_ref()
            .map(|connect| connect.rule.as_str())
    }

    /// A new machine for it, where it is one that may run on it.
    pub(crate) fn connect_machine(&self) -> Option<Machine> {
        self.machine_beside(self.inner.connect.as_ref()?)
    }

    /// The rule that decides on what workloads send, as the engine looks it up.
    pub(crate) fn egress_rule(&self) -> Option<&str> {
        self.inner
            .egress
            .as_ref()
            .map(|egress| egress.rule.as_str())
    }

    /// A new machine for it, where it is one that may run on it.
    pub(crate) fn egress_machine(&self) -> Option<Machine> {
        self.machine_beside(self.inner.egress.as_ref()?)
    }

    fn machine_beside(&self, beside: &Beside) -> Option<Machine> {
        if !beside.on_machine {
            return None;
        }
        let mut interpreter = self.interpreter_of(&self.inner.guarded).ok()?;
        Machine::compile(&mut interpreter, &beside.rule, self.decision_timeout()).ok()
    }

    /// How long one decision may take.
    pub(crate) fn decision_timeout(&self) -> Duration {
        self.inner.decision_timeout
    }

    /// A new interpreter, ready to be asked.
    ///
    /// It takes guarded modules too: of a partial rule one of whose members is undefined, the engine
    /// would lose the others.
    pub(crate) fn interpreter(&self) -> Result<Interpreter, PolicyError> {
        self.interpreter_of(&self.inner.members)
    }

    fn interpreter_of(&self, guarded: &Guarded) -> Result<Interpreter, PolicyError> {
        let sources = apply(guarded, &self.inner.sources);
        let mut interpreter = Interpreter::parse(&sources, self.inner.decision_timeout)?;
        interpreter.prepare(self.inner.asking.as_deref(), &self.inner.rule)?;
        Ok(interpreter)
    }
}

/// The rules that ask for entrypoints which no single rule is. The engine
/// evaluates rules, but not the object that rules such as
/// `allow.allowed := true` make up together.
#[derive(Default)]
struct Asking {
    rules: String,
}

impl Asking {
    /// The rule to evaluate for an entrypoint; `name` is its name here, if it
    /// takes one.
    fn rule(
        &mut self,
        name: &str,
        entrypoint: &RulePath,
        declared: &[DeclaredRule],
    ) -> Result<String, PolicyError> {
        let rule = rule_reference(entrypoint);
        let mut below = declared
            .iter()
            .filter(|rule| !matches!(rule.kind, RuleKind::Function(_)))
            .filter(|rule| rule.path.starts_with(entrypoint))
            .peekable();
        if below.peek().is_none() {
            return Err(PolicyError::EntrypointMissing {
                entrypoint: entrypoint.join("/"),
                rule,
            });
        }
        if below.all(|rule| rule.path.len() == entrypoint.len()) {
            return Ok(rule);
        }
        self.rules.push_str(&format!("\n{name} := {rule}\n"));
        Ok(format!("data.{ASKING_PACKAGE}.{name}"))
    }

    /// The module with these rules, if there are any.
    fn module(self) -> Option<String> {
        let Self { rules } = self;
        (!rules.is_empty()).then(|| format!("package {ASKING_PACKAGE}\n{rules}"))
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule, engine, .. } = self;
        let mut shown = formatter.debug_struct("Loaded");
        shown.field("rule", rule).field("engine", engine);
        shown.finish_non_exhaustive()
    }
}

/// The components of an OPA-style path; a leading `/` is allowed, as in OPA.
fn entrypoint_path(entrypoint: &str) -> Result<RulePath, PolicyError> {
    let path: RulePath = entrypoint
        .strip_prefix('/')
        .unwrap_or(entrypoint)
        .split('/')
        .map(str::to_owned)
        .collect();
    // A package and a rule: fewer components name no rule.
    if path.len() < 2 || path.iter().any(String::is_empty) {
        return Err(PolicyError::EntrypointSyntax {
            entrypoint: entrypoint.to_owned(),
        });
    }
    Ok(path)
}
