//! The life of a signing authority, so that it is known before it is used and still known after.
//!
//! ```text
//!  made ─▶ prepared ──────────▶ active ──────────▶ old ──────▶ gone
//!          (in the bundle,      (signs)            (in the     (expired)
//!           signs nothing)                          bundle)
//!          at half of the       in the last sixth of
//!          active one's life    the active one's life
//! ```

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::svid::Validity;

/// Where in its life an authority is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// Published, so that verifiers know it in time.
    Prepared,
    /// The one that signs.
    Active,
    /// Still published, for what it has signed.
    Old,
}

/// An authority with its phase.
#[derive(Debug, Clone)]
pub(crate) struct Slot<A> {
    pub(crate) phase: Phase,
    pub(crate) authority: A,
}

/// What has a beginning and an end.
pub(crate) trait Lived {
    fn validity(&self) -> Validity;
}

/// Brings the slots to where they must be now. Says whether anything changed.
///
/// Afterwards exactly one is active. An error of `make` leaves the slots as they were.
pub(crate) fn advance<A: Lived + Clone, E>(
    slots: &mut Vec<Slot<A>>,
    now: SystemTime,
    mut make: impl FnMut() -> Result<A, E>,
) -> Result<bool, E> {
    let mut next = slots.clone();
    next.retain(|slot| now < slot.authority.validity().not_after);
    let mut changed = next.len() != slots.len();
    if active(&next).is_none() {
        let (phase, slot) = (Phase::Active, position(&next, Phase::Prepared));
        match slot.and_then(|index| next.get_mut(index)) {
            Some(prepared) => prepared.phase = phase,
            None => next.push(Slot {
                phase,
                authority: make()?,
            }),
        }
        changed = true;
    }
    if let Some(validity) = active(&next).map(Lived::validity) {
        if now >= validity.tenth(5) && position(&next, Phase::Prepared).is_none() {
            next.push(Slot {
                phase: Phase::Prepared,
                authority: make()?,
            });
            changed = true;
        }
        if now >= last_sixth(validity) {
            for slot in &mut next {
                slot.phase = match slot.phase {
                    Phase::Prepared => Phase::Active,
                    Phase::Active | Phase::Old => Phase::Old,
                };
            }
            changed = true;
        }
    }
    *slots = next;
    Ok(changed)
}

/// The one that signs.
pub(crate) fn active<A>(slots: &[Slot<A>]) -> Option<&A> {
    let index = position(slots, Phase::Active)?;
    slots.get(index).map(|slot| &slot.authority)
}

fn position<A>(slots: &[Slot<A>], phase: Phase) -> Option<usize> {
    slots.iter().position(|slot| slot.phase == phase)
}

fn last_sixth(validity: Validity) -> SystemTime {
    let lifetime = validity.not_after.duration_since(validity.not_before);
    validity.not_after - lifetime.unwrap_or(Duration::ZERO) / 6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone)]
    struct Key {
        name: char,
        validity: Validity,
    }

    impl Lived for Key {
        fn validity(&self) -> Validity {
            self.validity
        }
    }

    fn at(minute: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(60 * minute)
    }

    /// Keys live for 60 minutes and are named in the order in which they are made.
    fn timeline(minutes: &[u64]) -> Vec<String> {
        let mut slots = Vec::new();
        let mut names = 'a'..='z';
        minutes
            .iter()
            .map(|&minute| {
                let made = advance(&mut slots, at(minute), || {
                    let validity = Validity {
                        not_before: at(minute),
                        not_after: at(minute + 60),
                    };
                    let name = names.next().unwrap();
                    Ok::<_, ()>(Key { name, validity })
                });
                made.unwrap();
                let shown = slots.iter().map(|slot| match slot.phase {
                    Phase::Prepared => format!("({})", slot.authority.name),
                    Phase::Active => slot.authority.name.to_string(),
                    Phase::Old => format!("{}-", slot.authority.name),
                });
                shown.collect::<Vec<_>>().join(" ")
            })
            .collect()
    }

    #[test]
    fn a_successor_is_published_before_it_signs_and_the_old_one_until_it_expires() {
        assert_eq!(
            timeline(&[0, 29, 30, 49, 50, 59, 60, 80]),
            ["a", "a", "a (b)", "a (b)", "a- b", "a- b", "b (c)", "b- c"]
        );
    }

    #[test]
    fn what_was_missed_while_stopped_is_made_up_for() {
        assert_eq!(timeline(&[0, 55]), ["a", "a- b"]);
        assert_eq!(timeline(&[0, 30, 70]), ["a", "a (b)", "b (c)"]);
        assert_eq!(timeline(&[0, 60]), ["a", "b"]);
        assert_eq!(timeline(&[0, 1000]), ["a", "b"]);
    }

    #[test]
    fn a_failure_changes_nothing() {
        let mut slots: Vec<Slot<Key>> = Vec::new();
        assert_eq!(
            advance(&mut slots, at(0), || Err("no entropy")),
            Err("no entropy")
        );
        assert!(slots.is_empty());
    }
}
