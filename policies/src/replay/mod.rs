//! Asks a policy what others were asked: which past verdicts would change.

mod events;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde_json::Value as Json;

use crate::analysis::Analysis;
use crate::engine::Interpreter;
use crate::error::PolicyError;
use crate::explain::can_be_asked;
use crate::input::ReadSet;
use crate::question::{
    DecisionPoint, InputDocument, Question, QuestionError, QuestionOptions, Verdict,
    entrypoint_path, entrypoint_rule,
};
use crate::sources::PolicySources;
use crate::syntax::{Step, Syntax};

pub use events::{Events, LogError, LoggedDecision};

/// How many entrypoints of a log are kept ready. Each holds the whole policy.
const ENTRYPOINTS: usize = 8;

/// What becomes of a past decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Replayed {
    /// The verdict is the same.
    Same {
        /// Both times.
        verdict: Verdict,
    },
    /// It is another one.
    Changed {
        /// In the log.
        before: Verdict,
        /// By this policy.
        after: Verdict,
        /// The stable diagnostic code of a denial by this policy.
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<&'static str>,
        /// Why this policy denies.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// It cannot be told.
    NotReplayable {
        /// Why.
        reason: String,
        /// The paths that the policy reads and the log does not have.
        paths: Vec<String>,
    },
}

/// A policy that past decisions are put before.
pub struct Replay {
    sources: PolicySources,
    /// The rule that is asked whatever an event says.
    entrypoint: Option<String>,
    /// Whether it lets connections in without being asked.
    leaves_connections: bool,
    time_limit: Duration,
    points: BTreeMap<String, Result<Point, String>>,
}

/// A rule that is asked.
struct Point {
    question: Question,
    point: DecisionPoint,
    reads: Hidden,
}

/// What a rule reads of its input, to be compared with what a log does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hidden {
    /// `None` for everything.
    reads: Option<Vec<Vec<Step>>>,
}

impl Replay {
    /// Makes a policy ready. Without an entrypoint each event names its own, and those about
    /// connections always do.
    ///
    /// # Errors
    ///
    /// Sources that cannot be used, and an entrypoint that is no rule of theirs.
    pub fn new(
        sources: PolicySources,
        entrypoint: Option<String>,
        time_limit: Duration,
    ) -> Result<Self, PolicyError> {
        let trees = Interpreter::parse(&sources, time_limit)?.syntax()?;
        let syntax = Syntax::new(&trees, &sources);
        can_be_asked(&syntax)?;
        let connect = entrypoint_path(DecisionPoint::Connect.entrypoint())?;
        let (_, package) = connect.split_last().unwrap_or((&String::new(), &[]));
        let rules = syntax.rules();
        let leaves_connections = !rules.iter().any(|rule| rule.path.starts_with(package));
        let mut points = BTreeMap::new();
        let first = entrypoint
            .as_deref()
            .unwrap_or(DecisionPoint::Ingress.entrypoint());
        match Point::new(&sources, first, time_limit) {
            Ok(point) => drop(points.insert(first.to_owned(), Ok(point))),
            // A log may have nothing but decisions of other points.
            Err(PolicyError::EntrypointMissing { .. }) if entrypoint.is_none() => {}
            Err(error) => return Err(error),
        }
        Ok(Self {
            sources,
            entrypoint,
            leaves_connections,
            time_limit,
            points,
        })
    }

    /// Puts one decision before the policy.
    pub fn decide(&mut self, event: &LoggedDecision) -> Replayed {
        match self.replay(event) {
            Ok(replayed) => replayed,
            Err((reason, paths)) => Replayed::NotReplayable { reason, paths },
        }
    }

    fn replay(&mut self, event: &LoggedDecision) -> Result<Replayed, (String, Vec<String>)> {
        let unknown = |reason: String| (reason, Vec::new());
        let before = event
            .verdict()
            .ok_or_else(|| unknown("its result was removed".to_owned()))?;
        if event.is_about_connection() && self.leaves_connections {
            return Ok(Replayed::of(before, Verdict::Allow, None, None));
        }
        let Some(input) = &event.input else {
            let withheld = event.erased.iter().any(|path| path == "/input");
            let reason = match withheld {
                true => "its input was withheld",
                false => "it has no input",
            };
            return Err(unknown(reason.to_owned()));
        };
        let point = self.point(event).map_err(unknown)?;
        let paths = point.reads.missing(event);
        if !paths.is_empty() {
            let reason = "the policy reads what was removed from the log".to_owned();
            return Err((reason, paths));
        }
        let text = input.to_string();
        let input = InputDocument::parse(&text).map_err(|error| unknown(error.to_string()))?;
        let (after, code, reason) = match point.question.ask(&input) {
            Ok(answer) => {
                let judgement = point.point.judge(&answer);
                (judgement.verdict, judgement.code, judgement.reason)
            }
            // As in service: whatever is not a clear yes is a denial.
            Err(error @ (QuestionError::Timeout(_) | QuestionError::Evaluation(_))) => {
                (Verdict::Deny, Some(error.code()), Some(error.to_string()))
            }
            Err(error) => return Err(unknown(error.to_string())),
        };
        Ok(Replayed::of(before, after, code, reason))
    }

    fn point(&mut self, event: &LoggedDecision) -> Result<&mut Point, String> {
        let connect = DecisionPoint::Connect.entrypoint();
        let egress = DecisionPoint::Egress.entrypoint();
        let logged = event.path.as_deref();
        // The document of a connection, or of what an app sends, is not that of a request: none is
        // asked another's rule.
        let asked = match self.entrypoint.as_deref() {
            _ if event.is_about_connection() => connect,
            _ if logged == Some(egress) => egress,
            Some(entrypoint) if is_connect(entrypoint) => {
                return Err("it is no decision about a connection".to_owned());
            }
            entrypoint => {
                let asked = entrypoint.or(logged);
                asked.unwrap_or(DecisionPoint::Ingress.entrypoint())
            }
        };
        if self.points.len() >= ENTRYPOINTS && !self.points.contains_key(asked) {
            self.points.clear();
        }
        let (sources, limit) = (&self.sources, self.time_limit);
        let point = self.points.entry(asked.to_owned()).or_insert_with(|| {
            Point::new(sources, asked, limit).map_err(|error| error.to_string())
        });
        point.as_mut().map_err(|error| error.clone())
    }
}

impl Replayed {
    fn of(
        before: Verdict,
        after: Verdict,
        code: Option<&'static str>,
        reason: Option<String>,
    ) -> Self {
        match before == after {
            true => Self::Same { verdict: before },
            false => Self::Changed {
                before,
                after,
                code,
                reason,
            },
        }
    }
}

impl Point {
    fn new(
        sources: &PolicySources,
        entrypoint: &str,
        limit: Duration,
    ) -> Result<Self, PolicyError> {
        let reads = Hidden::new(sources, entrypoint, limit)?;
        let question = Question::new(
            sources.clone(),
            QuestionOptions {
                entrypoint: entrypoint.to_owned(),
                strict_builtin_errors: false,
                time_limit: limit,
            },
        )?;
        Ok(Self {
            question,
            point: DecisionPoint::of(&entrypoint_path(entrypoint)?),
            reads,
        })
    }
}

impl Hidden {
    pub(crate) fn new(
        sources: &PolicySources,
        entrypoint: &str,
        limit: Duration,
    ) -> Result<Self, PolicyError> {
        let trees = Interpreter::parse(sources, limit)?.syntax()?;
        let syntax = Syntax::new(&trees, sources);
        let path = entrypoint_rule(entrypoint, &syntax)?;
        let analysis = Analysis::new(&syntax, &path);
        let everything = analysis.reads == ReadSet::everything();
        let reads = analysis.dependencies.reads.into_keys().collect();
        Ok(Self {
            reads: (!everything).then_some(reads),
        })
    }

    /// What was erased or masked of an event's input, and is read.
    pub(crate) fn missing(&self, event: &LoggedDecision) -> Vec<String> {
        let erased = event.erased.iter().map(|path| (path, true));
        let masked = event.masked.iter().map(|path| (path, false));
        let mut missing: Vec<String> = erased
            .chain(masked)
            .filter(|(path, erased)| self.reads(path, *erased))
            .map(|(path, _)| path.clone())
            .collect();
        missing.sort();
        missing.dedup();
        missing
    }

    /// Whether something at, above or below a pointer into an event is read.
    fn reads(&self, pointer: &str, erased: bool) -> bool {
        let Some(below) = pointer.strip_prefix("/input") else {
            return false;
        };
        let mut names: Vec<&str> = below.split('/').skip(1).collect();
        // Without an element those behind it move up.
        if erased && names.last().is_some_and(|it| it.parse::<u64>().is_ok()) {
            names.pop();
        }
        let Some(reads) = &self.reads else {
            return true;
        };
        reads.iter().any(|path| {
            let mut both = path.iter().zip(&names);
            both.all(|(step, name)| match step {
                Step::Member(member) => is_name(member, name),
                Step::Element(index) => name.parse() == Ok(*index),
            })
        })
    }
}

/// Whether this is the rule that decides on connections.
fn is_connect(entrypoint: &str) -> bool {
    let entrypoint = entrypoint.strip_prefix('/').unwrap_or(entrypoint);
    entrypoint == DecisionPoint::Connect.entrypoint()
}

/// Whether a name in a pointer, as it is written or escaped, is this one. In doubt it is.
fn is_name(name: &str, written: &str) -> bool {
    let pointer = written.replace("~1", "/").replace("~0", "~");
    let decoded = percent_decode_str(written).decode_utf8_lossy();
    // Headers are read in lower case, and rules may write them otherwise.
    [written, pointer.as_str(), &decoded]
        .iter()
        .any(|it| it.eq_ignore_ascii_case(name))
}

impl LoggedDecision {
    /// What came of it; `None` where the log does not have it any more.
    #[must_use]
    pub fn verdict(&self) -> Option<Verdict> {
        let removed = |path: &String| path == "/result" || path.starts_with("/result/allowed");
        if self.erased.iter().chain(&self.masked).any(removed) {
            return None;
        }
        let allowed = match &self.result {
            Some(Json::Object(members)) => members.get("allowed"),
            result => result.as_ref(),
        };
        let allows = self.error.is_none() && allowed == Some(&Json::Bool(true));
        Some(match allows {
            true => Verdict::Allow,
            false => Verdict::Deny,
        })
    }

    /// Whether the policy was asked about a connection, and not about a request.
    #[must_use]
    pub fn is_about_connection(&self) -> bool {
        self.path.as_deref().is_some_and(is_connect)
    }

    /// The paths of the input that the log does not have, and the policy reads.
    ///
    /// # Errors
    ///
    /// Sources that cannot be used, and an entrypoint that is no rule of theirs.
    pub fn missing(
        &self,
        sources: &PolicySources,
        entrypoint: &str,
        limit: Duration,
    ) -> Result<Vec<String>, PolicyError> {
        Ok(Hidden::new(sources, entrypoint, limit)?.missing(self))
    }

    /// The caller's SPIFFE ID.
    #[must_use]
    pub fn principal(&self) -> Option<&str> {
        let short = self.text("/source_principal");
        short.or_else(|| self.text("/attributes/source/principal"))
    }

    /// The request's method.
    #[must_use]
    pub fn method(&self) -> Option<&str> {
        self.text("/attributes/request/http/method")
    }

    /// The request's path, without its query: that may hold secrets.
    #[must_use]
    pub fn request_path(&self) -> Option<&str> {
        let target = self.text("/attributes/request/http/path")?;
        target.split('?').next()
    }

    /// The id of the request, which the caller was told.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.text("/attributes/request/http/id")
    }

    fn text(&self, pointer: &str) -> Option<&str> {
        self.input.as_ref()?.pointer(pointer)?.as_str()
    }
}
