//! Which events of the decision log were lost not long ago.

use std::time::{Duration, SystemTime};

use sidegate_policy::decision_log::{DecisionLogStatus, Lost};

use crate::admin::DecisionLogFacts;

/// How long a loss is told.
const TOLD: Duration = Duration::from_secs(300);

/// Looks at the log again and again. What was lost within [`TOLD`] of each other is told together.
#[derive(Debug, Default)]
pub(in crate::instance) struct Losses {
    /// What was lost before.
    before: Vec<Lost>,
    /// What was lost at the last look.
    seen: Vec<Lost>,
    last: Option<SystemTime>,
}

impl Losses {
    /// Notes what was lost since the last look.
    pub(in crate::instance) fn look(&mut self, log: &DecisionLogStatus, now: SystemTime) {
        if sum(&log.lost) == sum(&self.seen) {
            return;
        }
        if !self.are_told(now) {
            self.before = std::mem::take(&mut self.seen);
        }
        self.seen = log.lost.to_vec();
        self.last = Some(now);
    }

    /// What to tell of the log.
    pub(in crate::instance) fn facts(
        &self,
        log: DecisionLogStatus,
        now: SystemTime,
    ) -> DecisionLogFacts {
        let facts = DecisionLogFacts {
            written: log.written,
            waiting: log.waiting,
            error: log.last_error.filter(|_| log.is_failing),
            ..DecisionLogFacts::default()
        };
        if !self.are_told(now) {
            return facts;
        }
        let events = |lost: &Lost| {
            let mut before = self.before.iter();
            let before = before.find(|it| it.because == lost.because);
            let before = before.map_or(0, |it| it.events);
            lost.events.saturating_sub(before)
        };
        let grown = self.seen.iter().filter(|lost| events(lost) > 0);
        let because: Vec<String> = grown.map(words).collect();
        DecisionLogFacts {
            lost: self.seen.iter().map(events).sum(),
            lost_because: Some(because.join("; ")),
            ..facts
        }
    }

    fn are_told(&self, now: SystemTime) -> bool {
        // After a step back of the clock it is told for longer.
        let age = self.last.map(|last| now.duration_since(last));
        age.is_some_and(|age| age.unwrap_or_default() < TOLD)
    }
}

fn words(lost: &Lost) -> String {
    match &lost.error {
        None => lost.because.to_owned(),
        Some(error) => format!("{}: {error}", lost.because),
    }
}

fn sum(lost: &[Lost]) -> u64 {
    lost.iter().map(|it| it.events).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(refused: u64, too_large: u64) -> DecisionLogStatus {
        let lost = |because, events, error: Option<&str>| Lost {
            because,
            events,
            error: error.map(str::to_owned),
        };
        DecisionLogStatus {
            written: 7,
            waiting: 0,
            is_failing: false,
            last_error: None,
            lost: [
                lost("slow", 0, None),
                lost("large", too_large, None),
                lost("away", 0, Some("413")),
                lost("refused", refused, Some("413")),
                lost("disk", 0, Some("413")),
            ],
        }
    }

    #[test]
    fn what_is_lost_is_told_with_its_reasons_for_some_minutes() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut losses = Losses::default();
        let mut look = |refused, too_large, seconds| {
            let status = status(refused, too_large);
            losses.look(&status, at(seconds));
            let facts = losses.facts(status, at(seconds));
            (facts.lost, facts.lost_because)
        };
        let told = |events, because: &str| (events, Some(because.to_owned()));
        assert_eq!(look(0, 0, 0), (0, None));
        assert_eq!(look(2, 0, 1), told(2, "refused: 413"));
        assert_eq!(look(2, 0, 300), told(2, "refused: 413"));
        assert_eq!(look(2, 0, 301), (0, None));
        // What was told is not told again.
        assert_eq!(look(2, 1, 400), told(1, "large"));
        assert_eq!(look(5, 1, 600), told(4, "large; refused: 413"));
        assert_eq!(look(5, 1, 899), told(4, "large; refused: 413"));
        assert_eq!(look(5, 1, 900), (0, None));
    }
}
