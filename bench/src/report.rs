//! Figures, and what they should be.

use std::fmt;

use serde::Serialize;

/// What was measured, in the order in which it was.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    /// What this machine or user could not measure as it should be.
    skipped: Vec<String>,
}

/// One measured value.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    #[serde(flatten)]
    goal: Option<Judged>,
}

/// What a value should be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Goal {
    AtLeast(f64),
    AtMost(f64),
}

/// A goal, and whether the value meets it.
#[derive(Debug, Serialize)]
struct Judged {
    goal: Goal,
    met: bool,
}

impl Report {
    /// Adds a value that has no goal of its own.
    pub(crate) fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        let goal = None;
        self.figures.push(Figure {
            name,
            value,
            unit,
            goal,
        });
    }

    /// Adds a value that should be so or better.
    pub(crate) fn judge(
        &mut self,
        name: impl Into<String>,
        value: f64,
        unit: &'static str,
        goal: Goal,
    ) {
        let met = match goal {
            Goal::AtLeast(least) => value >= least,
            Goal::AtMost(most) => value <= most,
        };
        self.figures.push(Figure {
            name: name.into(),
            value,
            unit,
            goal: Some(Judged { goal, met }),
        });
    }

    /// Notes what could not be measured, and why.
    pub(crate) fn skip(&mut self, what: impl Into<String>) {
        self.skipped.push(what.into());
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.figures.iter().map(|figure| figure.name.len());
        let width = names.max().unwrap_or_default();
        for figure in &self.figures {
            let value = Number(figure.value).to_string();
            write!(
                formatter,
                "{:width$}  {value:>10} {:<10}",
                figure.name, figure.unit
            )?;
            match &figure.goal {
                Some(judged) => writeln!(formatter, "  {judged}")?,
                None => writeln!(formatter)?,
            }
        }
        for what in &self.skipped {
            writeln!(formatter, "SKIPPED: {what}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Judged {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = if self.met { "met" } else { "NOT MET" };
        match self.goal {
            Goal::AtLeast(least) => write!(formatter, "{verdict}: at least {}", Number(least)),
            Goal::AtMost(most) => write!(formatter, "{verdict}: at most {}", Number(most)),
        }
    }
}

/// Three digits, or all before the point.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = match self.0.abs() {
            value if value >= 99.95 || value == 0.0 => 0,
            value if value >= 9.995 => 1,
            _ => 2,
        };
        write!(formatter, "{:.decimals$}", self.0)
    }
}

/// Writes to standard output.
#[expect(clippy::print_stdout, reason = "the figures are the output")]
pub(crate) fn print(text: &str) {
    println!("{}", text.trim_end());
}

/// Says what is under way.
#[expect(clippy::print_stderr, reason = "talk goes to standard error")]
pub(crate) fn say(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_says_which_goals_are_met() {
        let mut report = Report::default();
        report.judge("signed", 15_000.4, "/s", Goal::AtLeast(15_000.0));
        report.judge("memory", 30.04, "MB", Goal::AtMost(30.0));
        report.add("ratio", 1.5, "");
        report.skip("streams: needs root");
        let lines: Vec<_> = report.to_string().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "signed       15000 /s          met: at least 15000",
                "memory        30.0 MB          NOT MET: at most 30.0",
                "ratio         1.50           ",
                "SKIPPED: streams: needs root",
            ]
        );
        let document = serde_json::to_value(&report).unwrap();
        assert_eq!(
            document["figures"][1],
            serde_json::json!({
                "name": "memory",
                "value": 30.04,
                "unit": "MB",
                "goal": { "at_most": 30.0 },
                "met": false,
            })
        );
    }
}
