//! Time that processors spend, and the middle of what was measured.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::time::ClockId;
use nix::unistd::Pid;

/// What this thread has spent.
pub(crate) fn thread() -> Result<Duration> {
    read(ClockId::CLOCK_THREAD_CPUTIME_ID)
}

/// What a process has spent, all threads and the kernel on its behalf.
pub(crate) fn process(pid: u32) -> Result<Duration> {
    let pid = Pid::from_raw(pid.try_into()?);
    read(ClockId::pid_cpu_clock_id(pid).context("the process has no clock")?)
}

/// The middle one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn read(clock: ClockId) -> Result<Duration> {
    Ok(clock.now().context("a clock cannot be read")?.into())
}
