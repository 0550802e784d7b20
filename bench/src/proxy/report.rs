//! What was measured, in its middle over the rounds, and beside the floor of the same round.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::cases::Case;
use super::proxies::Proxy;
use crate::clock::median;

/// What was measured.
#[derive(Debug, Serialize)]
pub(crate) struct ProxyReport {
    workers: u16,
    rounds: u16,
    results: Vec<Measured>,
    /// What differs between the proxies that should not.
    notes: BTreeSet<String>,
    /// What this machine, or a proxy, could not do.
    skipped: Vec<String>,
    #[serde(skip)]
    samples: Vec<Sample>,
}

/// One measurement.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) proxy: Proxy,
    pub(super) case: Case,
    pub(super) round: u16,
    pub(super) figures: Figures,
}

/// What a measurement tells; for idle connections their memory alone.
#[derive(Debug, Default, Clone, PartialEq, Serialize)]
pub(super) struct Figures {
    /// Of the proxy, for one request, message or handshake.
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p99_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    p999_us: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_bytes: Option<f64>,
    /// Of the decisions, from 0 to 1, where the proxy tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cache_hit_rate: Option<f64>,
}

/// A proxy's figures for a case.
#[derive(Debug, PartialEq, Serialize)]
struct Measured {
    proxy: Proxy,
    case: Case,
    #[serde(flatten)]
    figures: Figures,
    /// CPU time, or memory, in times the floor of the same round.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
    /// Whether our proxy costs no more than it may.
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

impl ProxyReport {
    pub(super) fn new(workers: u16, rounds: u16) -> Self {
        Self {
            workers,
            rounds,
            results: Vec::new(),
            notes: BTreeSet::new(),
            skipped: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Adds a measurement, and sums up those of its proxy and case anew.
    pub(super) fn add(&mut self, sample: Sample) {
        let case = sample.case;
        self.samples.push(sample);
        self.results.retain(|measured| measured.case != case);
        let proxies: BTreeSet<_> = self.of_case(case).map(|sample| sample.proxy).collect();
        let measured: Vec<_> = proxies
            .into_iter()
            .map(|proxy| self.summed_up(proxy, case))
            .collect();
        self.results.extend(measured);
    }

    /// Notes what differs between proxies, once.
    pub(super) fn note(&mut self, what: String) {
        self.notes.insert(what);
    }

    /// Notes what could not be measured, and why, once.
    pub(super) fn skip(&mut self, what: String) {
        if !self.skipped.contains(&what) {
            self.skipped.push(what);
        }
    }

    fn of_case(&self, case: Case) -> impl Iterator<Item = &Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.case == case)
    }

    fn summed_up(&self, proxy: Proxy, case: Case) -> Measured {
        let samples: Vec<_> = self
            .of_case(case)
            .filter(|sample| sample.proxy == proxy)
            .collect();
        let middle = |of: fn(&Figures) -> Option<f64>| {
            middle_of(samples.iter().filter_map(|sample| of(&sample.figures)))
        };
        let figures = Figures {
            cpu_us: middle(|figures| figures.cpu_us),
            rps: middle(|figures| figures.rps),
            p50_us: middle(|figures| figures.p50_us),
            p99_us: middle(|figures| figures.p99_us),
            p999_us: middle(|figures| figures.p999_us),
            connection_bytes: middle(|figures| figures.connection_bytes),
            cache_hit_rate: middle(|figures| figures.cache_hit_rate),
        };
        let ratios = samples.iter().filter_map(|sample| {
            let mut of_round = self.of_case(case).filter(|it| it.round == sample.round);
            let floor = of_round.find(|it| it.proxy == Proxy::Floor)?;
            Some(sample.figures.cost()? / floor.figures.cost()?)
        });
        let ratio = middle_of(ratios);
        let goal = case.goal().zip(ratio).map(|(goal, ratio)| ratio <= goal);
        let goal_bytes = case.goal_bytes().zip(figures.connection_bytes);
        let met = goal.or(goal_bytes.map(|(goal, bytes)| bytes <= goal));
        Measured {
            proxy,
            case,
            figures,
            ratio,
            met: met.filter(|_| proxy == Proxy::Sidegate),
        }
    }
}

impl Figures {
    /// So many answers in a time, for which the proxy spent `cpu`, and the nanoseconds of each.
    pub(super) fn of_load(
        answered: u64,
        time: Duration,
        cpu: Duration,
        mut latencies: Vec<u32>,
    ) -> Result<Self> {
        ensure!(answered > 0, "nothing was answered");
        latencies.sort_unstable();
        let quantile = |thousandths| {
            let nanoseconds = quantile(&latencies, thousandths)?;
            Some(f64::from(nanoseconds) / 1_000.0)
        };
        Ok(Self {
            cpu_us: Some(cpu.as_secs_f64() * 1e6 / answered as f64),
            rps: Some(answered as f64 / time.as_secs_f64()),
            p50_us: quantile(500),
            p99_us: quantile(990),
            p999_us: quantile(999),
            ..Self::default()
        })
    }

    /// What one idle connection holds, in bytes.
    pub(super) fn of_memory(connection_bytes: f64) -> Self {
        Self {
            connection_bytes: Some(connection_bytes),
            ..Self::default()
        }
    }

    /// What is compared with the floor.
    fn cost(&self) -> Option<f64> {
        self.cpu_us.or(self.connection_bytes)
    }
}

impl fmt::Display for ProxyReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "workers: {}, rounds: {} (the middle one counts)",
            self.workers, self.rounds
        )?;
        writeln!(
            formatter,
            "{:11} {:10} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>8} {:>6}",
            "case",
            "proxy",
            "CPU µs",
            "× floor",
            "/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "KB/conn",
            "hits",
        )?;
        for Measured {
            proxy,
            case,
            figures,
            ratio,
            met,
        } in &self.results
        {
            write!(
                formatter,
                "{case:11} {proxy:10} {:>9} {:>8} {:>8} {:>9} {:>9} {:>9} {:>8} {:>6}",
                Cell(figures.cpu_us, 1),
                Cell(*ratio, 2),
                Cell(figures.rps, 0),
                Cell(figures.p50_us, 0),
                Cell(figures.p99_us, 0),
                Cell(figures.p999_us, 0),
                Cell(figures.connection_bytes.map(|bytes| bytes / 1024.0), 1),
                Cell(figures.cache_hit_rate.map(|rate| rate * 100.0), 1),
            )?;
            match met {
                Some(true) => write!(formatter, "  goal {}: met", Goal(*case))?,
                Some(false) => write!(formatter, "  goal {}: NOT MET", Goal(*case))?,
                None => {}
            }
            writeln!(formatter)?;
        }
        for note in &self.notes {
            writeln!(formatter, "NOTE: {note}")?;
        }
        for what in &self.skipped {
            writeln!(formatter, "SKIPPED: {what}")?;
        }
        Ok(())
    }
}

/// A value with so many decimals, or nothing.
struct Cell(Option<f64>, usize);

impl fmt::Display for Cell {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(value, decimals) = self;
        let text = value.map_or_else(String::new, |value| format!("{value:.decimals$}"));
        formatter.pad(&text)
    }
}

/// What our proxy should cost for a case.
struct Goal(Case);

impl fmt::Display for Goal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0.goal(), self.0.goal_bytes()) {
            (Some(ratio), _) => write!(formatter, "{ratio}"),
            (None, Some(bytes)) => write!(formatter, "{} KB", bytes / 1024.0),
            (None, None) => Ok(()),
        }
    }
}

/// As nanoseconds, up to four seconds.
pub(super) fn nanoseconds(time: Duration) -> u32 {
    time.as_nanos().try_into().unwrap_or(u32::MAX)
}

/// The least of them that so many thousandths do not exceed.
fn quantile(sorted: &[u32], thousandths: usize) -> Option<u32> {
    let rank = (sorted.len() * thousandths).div_ceil(1_000).max(1);
    sorted.get(rank - 1).copied()
}

fn middle_of(values: impl Iterator<Item = f64>) -> Option<f64> {
    let values: Vec<_> = values.collect();
    (!values.is_empty()).then(|| median(values))
}

#[cfg(test)]
mod tests;
