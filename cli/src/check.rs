//! What `sidegate check` finds: rows in categories, and how they are shown.

mod authority;
mod probe;
mod running;
mod spire;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt::Write;

use serde::Serialize;

use crate::failure::Failure;
use crate::instance::Descriptors;

pub(crate) use authority::{authority, kept_authority};
pub(crate) use running::{off, plaintext, running, stock_policy, tcp_policy};

/// The version of the JSON document.
const SCHEMA: u32 = 1;

/// Everything that was checked, and what it comes to.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    schema: u32,
    success: bool,
    categories: Vec<Category>,
}

/// Checks of one part.
#[derive(Debug, Serialize)]
pub(crate) struct Category {
    name: &'static str,
    checks: Vec<Check>,
}

/// A row: something that should be so, and whether it is.
#[derive(Debug, Serialize)]
pub(crate) struct Check {
    id: &'static str,
    result: Outcome,
    description: &'static str,
    detail: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<Cow<'static, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
    /// Shows code, reason and hint at their place in a file.
    #[serde(skip)]
    excerpt: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Ok,
    Warning,
    Error,
}

impl Report {
    /// With `strict`, a warning is no success.
    pub(crate) fn new(categories: Vec<Category>, strict: bool) -> Self {
        let mut report = Self {
            schema: SCHEMA,
            success: true,
            categories,
        };
        report.success = match report.worst() {
            Outcome::Ok => true,
            Outcome::Warning => !strict,
            Outcome::Error => false,
        };
        report
    }

    pub(crate) fn is_success(&self) -> bool {
        self.success
    }

    /// The report for people.
    pub(crate) fn text(&self, color: bool) -> String {
        let width = self.checks().map(|check| check.description.chars().count());
        let width = width.max().unwrap_or_default();
        let mut text = String::new();
        for category in &self.categories {
            let line = "-".repeat(category.name.chars().count());
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}\n{line}", category.name);
            for check in &category.checks {
                check.write(&mut text, width, color);
            }
            text.push('\n');
        }
        let count = |outcome| self.checks().filter(|it| it.result == outcome).count();
        let warnings = counted(count(Outcome::Warning), "warning");
        let _ = writeln!(
            text,
            "Status check results are {}    ({} ok, {warnings}, {} failed)",
            self.worst().mark(color),
            count(Outcome::Ok),
            count(Outcome::Error),
        );
        text
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        self.categories.iter().flat_map(|category| &category.checks)
    }

    fn worst(&self) -> Outcome {
        let worst = self.checks().map(|check| check.result).max();
        worst.unwrap_or(Outcome::Ok)
    }
}

impl Category {
    /// `None` where there is nothing to check.
    pub(crate) fn new(name: &'static str, checks: Vec<Check>) -> Option<Self> {
        (!checks.is_empty()).then_some(Self { name, checks })
    }
}

impl Check {
    /// What should be so, about what, and is so.
    pub(crate) fn ok(
        id: &'static str,
        description: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            id,
            result: Outcome::Ok,
            description,
            detail: detail.into(),
            code: None,
            reason: None,
            hint: None,
            excerpt: None,
        }
    }

    /// It is so, but may not stay so.
    pub(crate) fn warning(
        self,
        code: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Self {
        self.found(Outcome::Warning, code.into(), reason.into())
    }

    /// It is not so.
    pub(crate) fn error(
        self,
        code: impl Into<Cow<'static, str>>,
        reason: impl Into<String>,
    ) -> Self {
        self.found(Outcome::Error, code.into(), reason.into())
    }

    /// What to do about it.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self {
            hint: Some(hint.into()),
            ..self
        }
    }

    /// It is so, unless this failed. Each problem of a configuration file has a row of its own.
    pub(crate) fn unless<T>(self, outcome: Result<T, Failure>) -> Vec<Self> {
        match outcome {
            Ok(_) => vec![self],
            Err(Failure::Other(reason)) => vec![Self {
                hint: reason.help,
                ..self.found(Outcome::Error, reason.code, reason.message)
            }],
            Err(Failure::Config(diagnostics)) => {
                let rows = diagnostics.each().map(|(problem, place, excerpt)| Self {
                    hint: problem.help.clone(),
                    excerpt: Some(excerpt),
                    ..Self::ok(self.id, self.description, place).error(problem.code, &problem.title)
                });
                rows.collect()
            }
        }
    }

    fn found(self, result: Outcome, code: Cow<'static, str>, reason: String) -> Self {
        Self {
            result,
            code: Some(code),
            reason: Some(reason),
            ..self
        }
    }

    fn write(&self, text: &mut String, width: usize, color: bool) {
        let (mark, description) = (self.result.mark(color), self.description);
        // Writing to a String cannot fail.
        let row = format!("{mark} {description:width$}  {}", self.detail);
        let _ = writeln!(text, "{}", row.trim_end());
        if let Some(excerpt) = &self.excerpt {
            for line in excerpt.lines() {
                let _ = writeln!(text, "    {line}");
            }
            return;
        }
        if let (Some(reason), Some(code)) = (&self.reason, &self.code) {
            let reason = reason.replace('\n', "\n    ");
            let _ = writeln!(text, "    {reason}   [{code}]");
        }
        if let Some(hint) = &self.hint {
            let (cyan, plain) = if color {
                ("\x1b[36m", "\x1b[0m")
            } else {
                ("", "")
            };
            let _ = writeln!(text, "    {cyan}hint{plain}: {hint}");
        }
    }
}

impl Outcome {
    fn mark(self, color: bool) -> &'static str {
        match (self, color) {
            (Self::Ok, false) => "√",
            (Self::Ok, true) => "\x1b[32m√\x1b[0m",
            (Self::Warning, false) => "‼",
            (Self::Warning, true) => "\x1b[33m‼\x1b[0m",
            (Self::Error, false) => "×",
            (Self::Error, true) => "\x1b[31m×\x1b[0m",
        }
    }
}

/// Shown only where there are too few.
pub(crate) fn file_descriptors(descriptors: &Descriptors) -> Option<Check> {
    let row = Check::ok("file-descriptors", "file descriptors suffice", "");
    let row = row.warning("SG0070", descriptors.shortage()?);
    Some(row.hint(Descriptors::HINT))
}

/// What to do about a policy that knows nothing of what apps send.
pub(crate) const EGRESS_HINT: &str =
    "declare `allow` in the package sidegate.egress; see docs/decision-points.md";

/// Shown only where there are outbound listeners, and the policy denies all that is sent there.
pub(crate) fn egress(says_something: Option<bool>) -> Option<Check> {
    let row = Check::ok("policy-egress", "policy decides on what apps send", "");
    let row = row.warning("SG0398", "it says nothing of it: all of it is denied");
    says_something
        .is_some_and(|says| !says)
        .then(|| row.hint(EGRESS_HINT))
}

/// A number of things, such as `1 warning` or `2 warnings`.
pub(crate) fn counted(count: usize, what: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {what}{plural}")
}

/// A span of time, coarse enough to be read at a glance.
fn span(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / MINUTE),
        7200..172_800 => format!("{}h", seconds / HOUR),
        _ => format!("{} days", seconds / DAY),
    }
}
