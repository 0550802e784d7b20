//! How long to wait, and how much to ask for at once.

use std::time::Duration;

/// The longest pause after failures is at least this.
const LONGEST: Duration = Duration::from_secs(8 * 60);

/// And this many sync intervals.
const INTERVALS: u32 = 48;

/// So many SVIDs are asked for at once, at most.
const BATCH: usize = 500;

/// The pause before the next step.
#[derive(Debug)]
pub(super) struct Pause {
    interval: Duration,
    failures: u32,
}

/// How many SVIDs to ask for at once. Halved where the server, or a limit on the way, refuses.
#[derive(Debug)]
pub(super) struct BatchSize(usize);

impl Pause {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            failures: 0,
        }
    }

    /// After a step that succeeded: the interval, give or take a tenth, or less where something is
    /// due before.
    pub(super) fn succeeded(&mut self, due: Duration) -> Duration {
        self.failures = 0;
        let interval = self.interval.mul_f64(rand::random_range(0.9..=1.1));
        interval.min(due.max(self.interval / 10))
    }

    /// After a step that failed: anything up to a ceiling that doubles each time, so that the agents
    /// of a whole fleet do not come back at once. `left` is how long the first SVID still counts:
    /// several attempts lie before its end.
    pub(super) fn failed(&mut self, left: Option<Duration>) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let ceiling = self.ceiling();
        let ceiling = match left {
            Some(left) if left > Duration::ZERO => ceiling.min(left / 4).max(self.interval),
            _ => ceiling,
        };
        let pause = ceiling.mul_f64(rand::random_range(0.0..=1.0));
        pause.max(self.interval / 10)
    }

    fn ceiling(&self) -> Duration {
        let doubled = 2_u32.saturating_pow(self.failures.min(31));
        let longest = LONGEST.max(self.interval * INTERVALS);
        self.interval.saturating_mul(doubled).min(longest)
    }
}

impl Default for BatchSize {
    fn default() -> Self {
        Self(BATCH)
    }
}

impl BatchSize {
    pub(super) fn get(&self) -> usize {
        self.0
    }

    /// Says whether less could be asked for.
    pub(super) fn failed(&mut self) -> bool {
        let before = self.0;
        self.0 = (before / 2).max(1);
        self.0 < before
    }

    pub(super) fn succeeded(&mut self) {
        self.0 = (self.0 * 2).min(BATCH);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    #[test]
    fn a_fleet_comes_back_spread_over_the_whole_pause() {
        let mut pauses: Vec<_> = (0..1000)
            .map(|_| {
                let mut pause = Pause::new(INTERVAL);
                for _ in 0..20 {
                    pause.failed(None);
                }
                pause.failed(None)
            })
            .collect();
        pauses.sort();
        assert!(pauses.iter().all(|pause| *pause <= LONGEST));
        // A tenth of the pauses in each tenth of the span, with room for chance.
        for tenth in 0..10 {
            let span = LONGEST / 10 * tenth..LONGEST / 10 * (tenth + 1);
            let count = pauses.iter().filter(|pause| span.contains(*pause)).count();
            assert!((40..=160).contains(&count), "{tenth}: {count}");
        }
    }

    #[test]
    fn the_ceiling_doubles_up_to_eight_minutes_or_forty_eight_intervals() {
        for (interval, longest) in [(5, 480), (30, 1440)] {
            let mut pause = Pause::new(Duration::from_secs(interval));
            let mut before = pause.interval;
            for _ in 0..40 {
                pause.failed(None);
                let ceiling = pause.ceiling();
                assert_eq!(ceiling, (before * 2).min(Duration::from_secs(longest)));
                before = ceiling;
            }
            assert_eq!(before, Duration::from_secs(longest));
            pause.succeeded(Duration::MAX);
            assert_eq!(pause.ceiling(), pause.interval);
        }
    }

    #[test]
    fn an_svid_that_ends_soon_brings_the_next_attempt_nearer() {
        let mut pause = Pause::new(INTERVAL);
        for _ in 0..40 {
            assert!(pause.failed(Some(Duration::from_secs(60))) <= Duration::from_secs(15));
        }
        // After the end there is nothing left to be in time for.
        assert!((0..100).any(|_| pause.failed(Some(Duration::ZERO)) > Duration::from_secs(15)));
    }

    #[test]
    fn a_batch_is_halved_down_to_one_and_grows_again() {
        let mut size = BatchSize::default();
        assert_eq!(size.get(), 500);
        for expected in [250, 125, 62, 31, 15, 7, 3, 1] {
            assert!(size.failed());
            assert_eq!(size.get(), expected);
        }
        assert!(!size.failed());
        for expected in [2, 4, 8, 16, 32, 64, 128, 256, 500, 500] {
            size.succeeded();
            assert_eq!(size.get(), expected);
        }
    }
}
