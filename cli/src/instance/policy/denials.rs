//! Whether a change of the policy has made denials jump.
//!
//! The rule: of the requests decided in the first minutes after the change, a share was denied that
//! is at least five percentage points above the share in the minute before it, and too far above it
//! to be chance (the two-proportion z-test at three standard errors), with at least twenty decisions
//! on either side. Once found, it stays found until the policy changes again.

use std::collections::VecDeque;

use crate::admin::DenialJump;

/// How many seconds before a change are compared.
const BEFORE: usize = 60;

/// How many seconds after a change are looked at.
const AFTER: usize = 300;

/// Decisions on each side that prove anything at all.
const LEAST: f64 = 20.0;

/// The smallest rise that matters, as a share of all decisions.
const RISE: f64 = 0.05;

/// Standard errors beyond which it is not chance.
const ERRORS: f64 = 3.0;

/// Decisions of a process so far, or of a part of its time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Decisions {
    allowed: u64,
    denied: u64,
}

/// Counts second by second.
#[derive(Debug)]
pub(super) struct Denials {
    /// The totals of the last seconds, oldest first.
    totals: VecDeque<Decisions>,
    change: Option<Change>,
    jump: Option<DenialJump>,
}

#[derive(Debug)]
struct Change {
    before: Decisions,
    /// The totals when it happened.
    at: Decisions,
    seconds: usize,
}

impl Default for Denials {
    /// From a process's start on.
    fn default() -> Self {
        Self {
            totals: VecDeque::from([Decisions::default()]),
            change: None,
            jump: None,
        }
    }
}

impl Denials {
    /// A second has passed. Tells of a jump once.
    pub(super) fn tick(&mut self, totals: Decisions) -> Option<DenialJump> {
        if self.totals.len() > BEFORE {
            self.totals.pop_front();
        }
        self.totals.push_back(totals);
        let change = self.change.as_mut()?;
        change.seconds += 1;
        if change.seconds > AFTER {
            self.change = None;
            return None;
        }
        self.jump = jump(change.before, totals.since(change.at));
        if self.jump.is_some() {
            self.change = None;
        }
        self.jump
    }

    /// The policy changes now.
    pub(super) fn changed(&mut self, totals: Decisions) {
        let oldest = self.totals.front().copied().unwrap_or_default();
        self.jump = None;
        self.change = Some(Change {
            before: totals.since(oldest),
            at: totals,
            seconds: 0,
        });
    }

    /// The jump since the last change, if there is one.
    pub(super) fn jump(&self) -> Option<DenialJump> {
        self.jump
    }
}

impl Decisions {
    fn since(self, earlier: Self) -> Self {
        Self {
            allowed: self.allowed.saturating_sub(earlier.allowed),
            denied: self.denied.saturating_sub(earlier.denied),
        }
    }

    /// All of them, and how many were denied.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a share needs no more than 52 bits"
    )]
    fn counts(self) -> (f64, f64) {
        let denied = self.denied as f64;
        (self.allowed as f64 + denied, denied)
    }
}

impl From<(u64, u64)> for Decisions {
    fn from((allowed, denied): (u64, u64)) -> Self {
        Self { allowed, denied }
    }
}

fn jump(before: Decisions, after: Decisions) -> Option<DenialJump> {
    let ((all_before, denied_before), (all_after, denied_after)) =
        (before.counts(), after.counts());
    if all_before < LEAST || all_after < LEAST {
        return None;
    }
    let (share_before, share_after) = (denied_before / all_before, denied_after / all_after);
    let share = (denied_before + denied_after) / (all_before + all_after);
    let error = (share * (1.0 - share) * (all_before.recip() + all_after.recip())).sqrt();
    let rise = share_after - share_before;
    (rise >= RISE && rise > ERRORS * error).then_some(DenialJump {
        before: share_before,
        after: share_after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(before: (u64, u64), after: (u64, u64), expected: bool) {
        let found = jump(before.into(), after.into());
        assert_eq!(found.is_some(), expected, "{before:?} {after:?}: {found:?}");
    }

    #[test]
    fn a_jump_is_large_and_no_chance() {
        check((100, 0), (0, 100), true);
        check((20, 0), (10, 10), true);
        check((990, 10), (900, 100), true);
        // Too few decisions to prove anything.
        check((19, 0), (0, 100), false);
        check((100, 0), (0, 19), false);
        check((0, 0), (0, 1000), false);
        check((20, 0), (16, 4), false);
        // Beyond chance, and too small to matter.
        check((100_000, 0), (96_000, 4_000), false);
        // Nothing rises.
        check((0, 100), (0, 100), false);
        check((0, 100), (100, 0), false);
        check((50, 50), (50, 50), false);
    }

    #[test]
    fn a_jump_is_told_once_and_stays_until_the_next_change() {
        let mut denials = Denials::default();
        assert_eq!(denials.tick((30, 0).into()), None);
        denials.changed((30, 0).into());
        assert_eq!(denials.tick((30, 10).into()), None);
        let found = denials.tick((30, 30).into()).unwrap();
        assert_eq!((found.before, found.after), (0.0, 1.0));
        assert_eq!(denials.jump(), Some(found));
        assert_eq!(denials.tick((1000, 30).into()), None);
        assert_eq!(denials.jump(), Some(found));
        denials.changed((1000, 30).into());
        assert_eq!(denials.jump(), None);
        assert_eq!(denials.tick((2000, 30).into()), None);
    }

    #[test]
    fn what_was_long_before_and_what_comes_long_after_a_change_is_not_compared() {
        let mut denials = Denials::default();
        // All were denied once, and for the last minute none.
        denials.tick((0, 1000).into());
        for _ in 0..BEFORE {
            denials.tick((500, 1000).into());
        }
        denials.tick((600, 1000).into());
        denials.changed((600, 1000).into());
        for _ in 0..AFTER {
            assert_eq!(denials.tick((700, 1000).into()), None);
        }
        assert_eq!(denials.tick((700, 5000).into()), None);
        denials.changed((700, 5000).into());
        assert_eq!(denials.tick((700, 9000).into()), None, "nothing rises");
    }

    #[test]
    fn the_minute_before_is_what_a_change_is_compared_with() {
        let mut denials = Denials::default();
        denials.tick((0, 1000).into());
        for _ in 0..=BEFORE {
            denials.tick((100, 1000).into());
        }
        denials.tick((200, 1000).into());
        denials.changed((200, 1000).into());
        let found = denials.tick((200, 1100).into()).unwrap();
        assert_eq!((found.before, found.after), (0.0, 1.0));
    }
}
