//! How long a question takes.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::{InputDocument, Question, QuestionError};

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

/// Asks again and again. `cpu_time` is the time that the calling thread has
/// used so far.
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
    for _ in 0..WARM_UP {
        question.value(input)?;
    }
    let mut times = Vec::new();
    let cpu_before = cpu_time();
    let started = Instant::now();
    while times.len() < limits.evaluations && started.elapsed() < limits.time {
        let before = Instant::now();
        question.value(input)?;
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

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
