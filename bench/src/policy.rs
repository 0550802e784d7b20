//! The policy plane: what one decision costs, from the parts of a request to its permit.

pub(crate) mod cases;
mod run;
mod told;

use std::fmt;

use anyhow::Result;
use serde::Serialize;

use told::Told;

/// What was measured, in the order in which it was.
#[derive(Debug, Default, Serialize)]
pub(crate) struct PolicyReport {
    /// CPU time of one decision.
    results: Vec<Measured>,
    /// How many of the decisions of the cached cases were remembered ones, from 0 to 1.
    hit_rates: Vec<HitRate>,
    /// Memory of a generation.
    memory: Vec<Memory>,
}

#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    ns: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    goal_ns: Option<f64>,
}

#[derive(Debug, Serialize)]
struct HitRate {
    name: String,
    rate: f64,
}

#[derive(Debug, Serialize)]
struct Memory {
    name: String,
    /// `None` where it is less than can be measured.
    bytes_a_worker: Option<f64>,
}

/// Measures `only` or everything.
pub(crate) fn measure(only: Option<&str>) -> Result<PolicyReport> {
    let mut report = PolicyReport::default();
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    for case in cases::all()?.into_iter().filter(|case| wanted(&case.name)) {
        let nobody = Told::Nobody;
        let uncached = run::uncached(&case, 1, nobody)?;
        let name = &case.name;
        for (part, ns) in &uncached {
            report.add(format!("{name}/{part}"), *ns, None);
        }
        report.add(format!("{name}/uncached"), worst(&uncached), case.goal_ns);
        let parallel = run::uncached(&case, 2, nobody)?;
        report.add(format!("{name}/uncached/2-threads"), worst(&parallel), None);
        let cached = run::cached(&case, 1, nobody)?;
        report.add(format!("{name}/cached"), cached.ns, Some(1_000.0));
        let parallel = run::cached(&case, 2, nobody)?;
        report.add(format!("{name}/cached/2-threads"), parallel.ns, None);
        for (part, told) in case.told {
            let uncached = run::uncached(&case, 1, *told)?;
            report.add(format!("{name}/{part}/uncached"), worst(&uncached), None);
            let cached = run::cached(&case, 1, *told)?;
            report.add(format!("{name}/{part}/cached"), cached.ns, None);
        }
        report.hit_rates.push(HitRate {
            name: case.name.clone(),
            rate: cached.hit_rate,
        });
        report.memory.push(Memory {
            name: case.name.clone(),
            bytes_a_worker: run::memory(&case)?,
        });
    }
    if wanted("reload") {
        report.add(
            "reload/10000-rows/worker".to_owned(),
            run::reload()?,
            Some(1_000_000.0),
        );
    }
    Ok(report)
}

/// The most that any kind of request takes.
fn worst(parts: &[(&str, f64)]) -> f64 {
    parts.iter().map(|(_, ns)| *ns).fold(0.0, f64::max)
}

impl PolicyReport {
    fn add(&mut self, name: String, ns: f64, goal_ns: Option<f64>) {
        self.results.push(Measured { name, ns, goal_ns });
    }
}

impl fmt::Display for PolicyReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.results.iter().map(|measured| measured.name.len());
        let width = names.max().unwrap_or_default();
        for Measured { name, ns, goal_ns } in &self.results {
            write!(formatter, "{name:width$}  {ns:>9.0} ns")?;
            match goal_ns {
                Some(goal) if ns <= goal => writeln!(formatter, "   goal {goal:.0}: met")?,
                Some(goal) => writeln!(formatter, "   goal {goal:.0}: not met")?,
                None => writeln!(formatter)?,
            }
        }
        for HitRate { name, rate } in &self.hit_rates {
            writeln!(formatter, "{name}: {:.1} % remembered", rate * 100.0)?;
        }
        for Memory {
            name,
            bytes_a_worker,
        } in &self.memory
        {
            match bytes_a_worker.map(|bytes| bytes / 1024.0) {
                Some(kilobytes) => writeln!(
                    formatter,
                    "{name}: {kilobytes:.0} KB a generation and worker"
                )?,
                None => writeln!(
                    formatter,
                    "{name}: a generation and worker take less memory than can be measured"
                )?,
            }
        }
        Ok(())
    }
}
