//! `sidegate policy replay`.

use std::io::{self, BufWriter, Write};

use serde::Serialize;
use sidegate_policy::question::Verdict;
use sidegate_policy::replay::{LoggedDecision, Replay, Replayed};

use super::{SCHEMA, explain, findings, input, read_paths, refused, told, usable};
use crate::arguments::{OutputFormat, ReplayArguments};
use crate::failure::Failure;

/// How many decisions came to what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) events: usize,
    pub(super) same: usize,
    pub(super) changed: usize,
    /// Allowed then, denied now.
    pub(super) newly_denied: usize,
    /// Denied then, allowed now.
    pub(super) newly_allowed: usize,
    pub(super) not_replayable: usize,
    /// Lines that are no events.
    pub(super) errors: usize,
}

/// One line of `-o json`.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Line<'a> {
    Event {
        schema: u32,
        line: usize,
        decision_id: &'a str,
        timestamp: Option<&'a str>,
        principal: Option<&'a str>,
        method: Option<&'a str>,
        path: Option<&'a str>,
        #[serde(flatten)]
        replayed: &'a Replayed,
    },
    Error {
        schema: u32,
        kind: &'static str,
        line: usize,
        code: &'static str,
        message: String,
    },
    Summary {
        schema: u32,
        kind: &'static str,
        #[serde(flatten)]
        counts: Counts,
    },
}

/// Puts each decision before the policy, and prints those that come out otherwise as they are
/// found: the log may be larger than memory. `false` where a verdict changes.
pub(super) fn execute(arguments: &ReplayArguments) -> Result<bool, Failure> {
    let counts = told(arguments.output, replay(arguments))?;
    // In JSON the counts say so, and they come last.
    if counts.errors > 0 {
        let message = format!("{} lines of the log are no events", counts.errors);
        return Err(Failure::message("SG0289", message));
    }
    Ok(counts.changed == 0)
}

fn replay(arguments: &ReplayArguments) -> Result<Counts, Failure> {
    let sources = usable(&read_paths(std::slice::from_ref(&arguments.bundle))?)?;
    let entrypoint = arguments.entrypoint.clone();
    let mut replay = Replay::new(sources, entrypoint, input::TIME_LIMIT).map_err(refused)?;
    let mut events = explain::events(&arguments.log)?;
    let mut printer = Printer {
        writer: BufWriter::new(io::stdout().lock()),
        is_gone: false,
    };
    let mut counts = Counts::default();
    let json = arguments.output == OutputFormat::Json;
    while !printer.is_gone
        && let Some(event) = events.next()
    {
        match event {
            Ok((line, event)) => {
                let replayed = replay.decide(&event);
                counts.add(&replayed);
                if matches!(replayed, Replayed::Same { .. }) {
                    continue;
                }
                let text = match json {
                    true => json_line(&Line::of(line, &event, &replayed))?,
                    false => text(&event, &replayed),
                };
                printer.print(&text)?;
            }
            Err(error) => {
                if !error.is_one_event() {
                    printer.flush()?;
                    return Err(Failure::new(error.code(), &error));
                }
                counts.errors = counts.errors.saturating_add(1);
                let failure = Failure::new(error.code(), &error);
                if json {
                    printer.print(&json_line(&Line::Error {
                        schema: SCHEMA,
                        kind: "error",
                        line: error.line(),
                        code: error.code(),
                        message: crate::failure::chain(&error),
                    })?)?;
                } else {
                    printer.flush()?;
                    failure.print();
                }
            }
        }
    }
    if json {
        printer.print(&json_line(&Line::Summary {
            schema: SCHEMA,
            kind: "summary",
            counts,
        })?)?;
    }
    printer.flush()?;
    if !json {
        findings::tell(&summary(&counts));
    }
    Ok(counts)
}

impl Counts {
    pub(super) fn add(&mut self, replayed: &Replayed) {
        let count = |count: &mut usize| *count = count.saturating_add(1);
        count(&mut self.events);
        match replayed {
            Replayed::Same { .. } => count(&mut self.same),
            Replayed::NotReplayable { .. } => count(&mut self.not_replayable),
            Replayed::Changed { after, .. } => {
                count(&mut self.changed);
                match after {
                    Verdict::Deny => count(&mut self.newly_denied),
                    Verdict::Allow => count(&mut self.newly_allowed),
                }
            }
        }
    }
}

impl<'a> Line<'a> {
    pub(super) fn of(line: usize, event: &'a LoggedDecision, replayed: &'a Replayed) -> Self {
        Self::Event {
            schema: SCHEMA,
            line,
            decision_id: &event.decision_id,
            timestamp: event.timestamp.as_deref(),
            principal: event.principal(),
            method: event.method(),
            path: event.request_path(),
            replayed,
        }
    }
}

/// Standard output, until nobody reads there any more.
struct Printer<W: Write> {
    writer: BufWriter<W>,
    is_gone: bool,
}

impl<W: Write> Printer<W> {
    fn print(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.writer.write_all(text.as_bytes());
        self.done(written)
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let flushed = self.writer.flush();
        self.done(flushed)
    }

    fn done(&mut self, written: io::Result<()>) -> Result<(), Failure> {
        match written {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.is_gone = true,
            Err(error) => return Err(Failure::new("SG0009", &error)),
            Ok(()) => {}
        }
        Ok(())
    }
}

fn json_line(line: &Line<'_>) -> Result<String, Failure> {
    let text = serde_json::to_string(line).map_err(|error| Failure::new("SG0009", &error))?;
    Ok(format!("{text}\n"))
}

/// One decision that comes out otherwise, or cannot be told. The log's texts come from requests, so
/// nothing in them reaches a terminal as it is.
pub(super) fn text(event: &LoggedDecision, replayed: &Replayed) -> String {
    let shown = |text: Option<&str>| text.unwrap_or("-").escape_debug().to_string();
    let what = match replayed {
        Replayed::Same { verdict } => format!("{} as before", word(*verdict)),
        Replayed::Changed {
            before,
            after,
            code,
            reason,
        } => {
            let why = match (reason, code) {
                (Some(reason), Some(code)) => format!(": {reason} [{code}]"),
                _ => String::new(),
            };
            format!("{} -> {}{why}", word(*before), word(*after))
        }
        Replayed::NotReplayable { reason, paths } => {
            let paths: Vec<_> = paths
                .iter()
                .map(|it| it.escape_debug().to_string())
                .collect();
            let paths = match paths.is_empty() {
                true => String::new(),
                false => format!(": {}", paths.join(", ")),
            };
            format!("not replayable: {}{paths}", reason.escape_debug())
        }
    };
    format!(
        "{} {} {} {} {}\n  {what}\n",
        shown(Some(&event.decision_id)),
        shown(event.timestamp.as_deref()),
        shown(event.principal()),
        shown(event.method()),
        shown(event.request_path()),
    )
}

pub(super) fn summary(counts: &Counts) -> String {
    let Counts {
        events,
        same,
        changed,
        newly_denied,
        newly_allowed,
        not_replayable,
        errors,
    } = counts;
    format!(
        "{events} decisions: {changed} change ({newly_denied} newly denied, {newly_allowed} newly \
         allowed), {same} stay, {not_replayable} not replayable, {errors} unreadable\n"
    )
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::Deny => "deny",
    }
}
