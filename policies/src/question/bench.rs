//! How long a question takes.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{InputDocument, Question, QuestionError};
use crate::differential::EngineChoice;
use crate::error::PolicyError;
use crate::machine::Machine;
use crate::policy::{Policy, PolicyOptions};

/// Evaluations before the first that counts: what is built on first use is
/// built then.
const WARM_UP: usize = 10;

/// When a bench ends: with whichever comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BenchLimits {
    /// After so many evaluations.
    pub evaluations: usize,
    /// After so much time.
    pub time: Duration,
}

/// How long evaluations took. All times are nanoseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BenchReport {
    /// What was asked, e.g. `data.envoy.authz.allow`.
    pub asked: String,
    /// What was timed, as in service: `machine` or `interpreter`.
    pub engine: &'static str,
    /// Why it is not the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
    /// How many evaluations were timed.
    pub evaluations: usize,
    /// The mean time of one.
    pub mean_ns: u64,
    /// Half took at most this.
    pub p50_ns: u64,
    /// Nine in ten took at most this.
    pub p90_ns: u64,
    /// Ninety-nine in a hundred took at most this.
    pub p99_ns: u64,
    /// The longest.
    pub max_ns: u64,
    /// How many one thread does in a second.
    pub per_second: f64,
    /// The thread's CPU time for one, with what the bench itself takes.
    pub cpu_ns: u64,
}

/// Asks again and again, on the engine that would decide in service: which it
/// is, is examined first, and takes up to some ten seconds. `cpu_time` is the
/// time that the calling thread has used so far.
///
/// # Errors
///
/// The first evaluation that fails.
pub fn bench(
    question: &mut Question,
    input: &InputDocument,
    limits: BenchLimits,
    cpu_time: &dyn Fn() -> Duration,
) -> Result<BenchReport, QuestionError> {
    let mut engine = question.machine();
    let mut ask = || match &mut engine {
        Ok(machine) => {
            let value = machine.evaluate(input.value().clone());
            value.map(drop).map_err(|error| question.told(error))
        }
        Err(_) => question.value(input).map(drop),
    };
    for _ in 0..WARM_UP {
        ask()?;
    }
    let mut times = Vec::new();
    let cpu_before = cpu_time();
    let started = Instant::now();
    while times.len() < limits.evaluations && started.elapsed() < limits.time {
        let before = Instant::now();
        ask()?;
        times.push(before.elapsed());
    }
    let cpu = cpu_time().saturating_sub(cpu_before);
    times.sort_unstable();
    let sum: Duration = times.iter().sum();
    let count = u32::try_from(times.len()).unwrap_or(u32::MAX).max(1);
    let mean = sum / count;
    let part = |percent: usize| {
        let position = times.len().saturating_mul(percent).div_ceil(100);
        let time = times.get(position.saturating_sub(1)).copied();
        nanoseconds(time.unwrap_or_default())
    };
    Ok(BenchReport {
        asked: question.asked().to_owned(),
        engine: match engine {
            Ok(_) => "machine",
            Err(_) => "interpreter",
        },
        because: engine.err(),
        evaluations: times.len(),
        mean_ns: nanoseconds(mean),
        p50_ns: part(50),
        p90_ns: part(90),
        p99_ns: part(99),
        max_ns: part(100),
        per_second: match mean.as_secs_f64() {
            0.0 => 0.0,
            seconds => 1.0 / seconds,
        },
        cpu_ns: nanoseconds(cpu / count),
    })
}

impl Question {
    /// The machine, if it is what answers in service; else why it is not.
    fn machine(&self) -> Result<Machine, String> {
        if self.options.strict_builtin_errors {
            return Err("a builtin that fails is no error in service".to_owned());
        }
        let no_rule =
            || "no decision is asked for like this: it is no rule of a package".to_owned();
        if self.path.iter().any(|name| name.contains('/')) {
            return Err(no_rule());
        }
        let options = PolicyOptions {
            entrypoint: self.path.join("/"),
            decision_timeout: self.options.time_limit,
            ..PolicyOptions::default()
        };
        let policy = Policy::load(self.sources.clone(), &options);
        let policy = policy.map_err(|error| match error {
            PolicyError::EntrypointMissing { .. } | PolicyError::EntrypointSyntax { .. } => {
                no_rule()
            }
            _ => "the policy would be refused, see `sidegate policy check`".to_owned(),
        })?;
        match policy.engine() {
            EngineChoice::Interpreter { because } => Err(because.to_string()),
            EngineChoice::Machine(_) => {
                let machine = policy.machine();
                machine.ok_or_else(|| "the machine cannot be built".to_owned())
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
