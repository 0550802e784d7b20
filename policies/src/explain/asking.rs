//! Rules of our own beside those of a policy, that tell how far its rules came.

use std::time::Duration;

use regorus::Value;

use crate::engine::{EvaluationError, Interpreter};
use crate::error::PolicyError;
use crate::sources::PolicySources;
use crate::syntax::{RulePath, rule_reference};

/// What the names of our rules begin with.
const NAME: &str = "sidegate_explain_";

/// How many probes may fail before the others are not asked: each may take its whole time.
const FAILURES: usize = 8;

/// One rule of our own, in a module of the policy: there it sees the same imports and rules.
pub(super) struct Probe {
    pub(super) module: usize,
    pub(super) package: RulePath,
    /// Tells it from all others.
    pub(super) name: String,
    pub(super) text: String,
}

/// What a probe tells; `None` where it cannot be asked: it mentions a name that only a later
/// statement gives a value.
pub(super) type Told = Option<Result<Value, EvaluationError>>;

/// Asks probes of one policy with one input.
pub(super) struct Asker<'a> {
    pub(super) sources: &'a PolicySources,
    pub(super) input: &'a Value,
    pub(super) limit: Duration,
}

pub(super) fn name(definition: usize, what: &str) -> String {
    format!("{NAME}{definition}_{what}")
}

impl Asker<'_> {
    /// What each probe tells.
    pub(super) fn ask(&self, probes: &[Probe]) -> Vec<Told> {
        if probes.is_empty() {
            return Vec::new();
        }
        let Ok(mut interpreter) = self.interpreter(probes) else {
            // One of them does not go: halves find out which.
            let Some((first, second)) = halves(probes) else {
                return vec![None];
            };
            let mut told = self.ask(first);
            told.extend(self.ask(second));
            return told;
        };
        let mut told = Vec::with_capacity(probes.len());
        let mut failures = 0_usize;
        for probe in probes {
            let mut path = probe.package.clone();
            path.push(probe.name.clone());
            let answer = interpreter.evaluate(&rule_reference(&path), self.input.clone());
            // What the policy prints may hold secrets of the request.
            interpreter.take_prints();
            let answer = answer.map_err(EvaluationError::without_values);
            let failure = answer.as_ref().err().cloned();
            told.push(Some(answer));
            let Some(failure) = failure else { continue };
            failures = failures.saturating_add(1);
            // After an error `with` may have left its replacements behind.
            let fresh = match failures < FAILURES {
                true => self.interpreter(probes),
                false => {
                    told.resize_with(probes.len(), || Some(Err(failure.clone())));
                    break;
                }
            };
            match fresh {
                Ok(fresh) => interpreter = fresh,
                Err(error) => {
                    let error = EvaluationError::unusable(error);
                    told.resize_with(probes.len(), || Some(Err(error.clone())));
                    break;
                }
            }
        }
        told
    }

    fn interpreter(&self, probes: &[Probe]) -> Result<Interpreter, PolicyError> {
        let mut modules = self.sources.modules().to_vec();
        for probe in probes {
            if let Some(module) = modules.get_mut(probe.module) {
                module.text.push_str(&probe.text);
            }
        }
        let sources = self.sources.with_modules(modules);
        let mut interpreter = Interpreter::parse(&sources, self.limit)?;
        if let Some(probe) = probes.first() {
            let mut path = probe.package.clone();
            path.push(probe.name.clone());
            interpreter.prepare(None, &rule_reference(&path))?;
        }
        Ok(interpreter)
    }
}

fn halves(probes: &[Probe]) -> Option<(&[Probe], &[Probe])> {
    let middle = probes.len().checked_div(2).filter(|middle| *middle > 0)?;
    probes.split_at_checked(middle)
}
