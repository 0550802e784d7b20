//! The life of a signing authority, so that it is known before it is used and still known after.
//!
//! ```text
//!  made ─▶ prepared ──────────▶ active ──────────▶ old ──────▶ gone
//!          (in the bundle,      (signs)            (in the     (expired)
//!           signs nothing)                          bundle)
//!          at half of the       in the last sixth of
//!          active one's life    the active one's life,
//!                               a twelfth after it was made
//! ```
//! An operator may hurry each step. What is old can be tainted (nothing that it signed is handed out
//! any more), and what is tainted can be revoked (it leaves the bundle), as in SPIRE.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::clock::seconds;
use crate::svid::Validity;

/// Where in its life an authority is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Published, so that verifiers know it in time.
    Prepared,
    /// The one that signs.
    Active,
    /// Still published, for what it has signed.
    Old,
    /// Old, and what it has signed is replaced.
    Tainted,
}

/// An authority, as an operator sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorityStatus {
    /// Names it: the key identifier of a root, the `kid` of a JWT key.
    pub id: String,
    /// Where in its life it is.
    pub phase: Phase,
    /// Seconds since 1970.
    pub not_before: u64,
    /// Seconds since 1970.
    pub not_after: u64,
}

/// What an operator asks for, and what an authority's phase does not allow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SlotError {
    /// There is none with this id.
    #[error("there is no authority `{0}`")]
    Unknown(String),
    /// It is not in the phase that this needs.
    #[error("the authority `{id}` is {found}; only one that is {needed} can be {action}")]
    WrongPhase {
        /// Which.
        id: String,
        /// Its phase.
        found: Phase,
        /// The phase that it should be in.
        needed: Phase,
        /// What was to be done to it.
        action: &'static str,
    },
    /// There is none to do this to.
    #[error("no authority is {0}")]
    None(Phase),
}

/// An authority with its phase.
#[derive(Debug, Clone)]
pub(crate) struct Slot<A> {
    pub(crate) phase: Phase,
    pub(crate) authority: A,
}

/// What has a name, a beginning and an end.
pub(crate) trait Lived {
    fn id(&self) -> &str;

    fn validity(&self) -> Validity;
}

impl AuthorityStatus {
    pub(crate) fn new(id: String, phase: Phase, validity: Validity) -> Self {
        Self {
            id,
            phase,
            not_before: seconds(validity.not_before),
            not_after: seconds(validity.not_after),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Prepared => "prepared",
            Self::Active => "active",
            Self::Old => "old",
            Self::Tainted => "tainted",
        })
    }
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
        if now >= validity.tenth(5) && !has_fresh_successor(&next, now) {
            // One that waited for half of its life would be due as soon as it signs.
            next.retain(|slot| slot.phase != Phase::Prepared);
            next.push(Slot {
                phase: Phase::Prepared,
                authority: make()?,
            });
            changed = true;
        }
        if now >= fraction_before_end(validity, 6) && is_known_long_enough(&next, now) {
            succeed(&mut next);
            changed = true;
        }
    }
    *slots = next;
    Ok(changed)
}

/// Makes a successor, unless there is one. Says whether it did.
pub(crate) fn prepare<A, E>(
    slots: &mut Vec<Slot<A>>,
    make: impl FnOnce() -> Result<A, E>,
) -> Result<bool, E> {
    if position(slots, Phase::Prepared).is_some() {
        return Ok(false);
    }
    let (phase, authority) = (Phase::Prepared, make()?);
    slots.push(Slot { phase, authority });
    Ok(true)
}

/// Lets the successor sign from now on.
pub(crate) fn activate<A>(slots: &mut [Slot<A>]) -> Result<(), SlotError> {
    match position(slots, Phase::Prepared) {
        Some(_) => succeed(slots),
        None => return Err(SlotError::None(Phase::Prepared)),
    }
    Ok(())
}

/// Marks an old authority. Without an `id`, the newest one.
pub(crate) fn taint<A: Lived>(
    slots: &mut [Slot<A>],
    id: Option<&str>,
) -> Result<String, SlotError> {
    let index = choose(slots, id, Phase::Old, "tainted")?;
    let slot = slots.get_mut(index).ok_or(SlotError::None(Phase::Old))?;
    slot.phase = Phase::Tainted;
    Ok(slot.authority.id().to_owned())
}

/// Removes a tainted authority; without an `id`, the newest one. With one, it may also be a prepared
/// authority, which has signed nothing: whoever stole the active one may have it too.
pub(crate) fn revoke<A: Lived>(
    slots: &mut Vec<Slot<A>>,
    id: Option<&str>,
) -> Result<String, SlotError> {
    let is_prepared =
        |slot: &Slot<A>| slot.phase == Phase::Prepared && Some(slot.authority.id()) == id;
    let index = match slots.iter().position(is_prepared) {
        Some(index) => index,
        None => choose(slots, id, Phase::Tainted, "revoked")?,
    };
    Ok(slots.remove(index).authority.id().to_owned())
}

fn choose<A: Lived>(
    slots: &[Slot<A>],
    id: Option<&str>,
    needed: Phase,
    action: &'static str,
) -> Result<usize, SlotError> {
    let Some(id) = id else {
        let fitting = slots.iter().rposition(|slot| slot.phase == needed);
        return fitting.ok_or(SlotError::None(needed));
    };
    let index = slots.iter().position(|slot| slot.authority.id() == id);
    let found = index.and_then(|index| Some((index, slots.get(index)?.phase)));
    match found {
        Some((index, found)) if found == needed => Ok(index),
        Some((_, found)) => Err(SlotError::WrongPhase {
            id: id.to_owned(),
            found,
            needed,
            action,
        }),
        None => Err(SlotError::Unknown(id.to_owned())),
    }
}

fn succeed<A>(slots: &mut [Slot<A>]) {
    for slot in slots {
        slot.phase = match slot.phase {
            Phase::Prepared => Phase::Active,
            Phase::Active | Phase::Old => Phase::Old,
            Phase::Tainted => Phase::Tainted,
        };
    }
}

/// All of them, for an operator.
pub(crate) fn status<A: Lived>(slots: &[Slot<A>]) -> Vec<AuthorityStatus> {
    let status = slots.iter().map(|slot| {
        let (id, validity) = (slot.authority.id(), slot.authority.validity());
        AuthorityStatus::new(id.to_owned(), slot.phase, validity)
    });
    status.collect()
}

/// The one that signs.
pub(crate) fn active<A>(slots: &[Slot<A>]) -> Option<&A> {
    let index = position(slots, Phase::Active)?;
    slots.get(index).map(|slot| &slot.authority)
}

fn position<A>(slots: &[Slot<A>], phase: Phase) -> Option<usize> {
    slots.iter().position(|slot| slot.phase == phase)
}

fn prepared<A: Lived>(slots: &[Slot<A>]) -> Option<Validity> {
    let index = position(slots, Phase::Prepared)?;
    slots.get(index).map(|slot| slot.authority.validity())
}

fn has_fresh_successor<A: Lived>(slots: &[Slot<A>], now: SystemTime) -> bool {
    prepared(slots).is_some_and(|validity| now < validity.tenth(5))
}

/// Whether verifiers elsewhere, who fetch the bundle now and then, had time to.
fn is_known_long_enough<A: Lived>(slots: &[Slot<A>], now: SystemTime) -> bool {
    prepared(slots).is_some_and(|validity| {
        let lifetime = validity.not_after.duration_since(validity.not_before);
        now >= validity.not_before + lifetime.unwrap_or(Duration::ZERO) / 12
    })
}

fn fraction_before_end(validity: Validity, fraction: u32) -> SystemTime {
    let lifetime = validity.not_after.duration_since(validity.not_before);
    validity.not_after - lifetime.unwrap_or(Duration::ZERO) / fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone)]
    struct Key {
        name: String,
        validity: Validity,
    }

    impl Lived for Key {
        fn id(&self) -> &str {
            &self.name
        }

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
                    let name = names.next().unwrap().to_string();
                    Ok::<_, ()>(Key { name, validity })
                });
                made.unwrap();
                let shown = slots.iter().map(|slot| match slot.phase {
                    Phase::Prepared => format!("({})", slot.authority.name),
                    Phase::Active => slot.authority.name.clone(),
                    Phase::Old => format!("{}-", slot.authority.name),
                    Phase::Tainted => format!("{}!", slot.authority.name),
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
        assert_eq!(timeline(&[0, 52]), ["a", "a (b)"]);
        assert_eq!(timeline(&[0, 52, 56, 57]), ["a", "a (b)", "a (b)", "a- b"]);
        assert_eq!(timeline(&[0, 58, 60]), ["a", "a (b)", "b"]);
        assert_eq!(timeline(&[0, 30, 70]), ["a", "a (b)", "b (c)"]);
        assert_eq!(timeline(&[0, 60]), ["a", "b"]);
        assert_eq!(timeline(&[0, 1000]), ["a", "b"]);
    }

    #[test]
    fn a_successor_that_waited_too_long_is_replaced() {
        let validity = |from| Validity {
            not_before: at(from),
            not_after: at(from + 60),
        };
        let key = |name: &str, from| Key {
            name: name.to_owned(),
            validity: validity(from),
        };
        let mut slots = vec![
            Slot {
                phase: Phase::Active,
                authority: key("a", 0),
            },
            Slot {
                phase: Phase::Prepared,
                authority: key("early", 1),
            },
        ];
        let mut at_minute = |minute| {
            advance(&mut slots, at(minute), || Ok::<_, ()>(key("b", minute))).unwrap();
            let names = slots.iter().map(|slot| slot.authority.name.clone());
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(at_minute(30), "a early");
        assert_eq!(at_minute(31), "a b");
        assert_eq!(at_minute(50), "a b");
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

    #[test]
    fn an_operator_takes_the_same_steps_in_the_same_order() {
        let key = |name: &str| Key {
            name: name.to_owned(),
            validity: Validity {
                not_before: at(0),
                not_after: at(60),
            },
        };
        let mut slots = vec![Slot {
            phase: Phase::Active,
            authority: key("a"),
        }];
        assert_eq!(activate(&mut slots), Err(SlotError::None(Phase::Prepared)));
        assert_eq!(prepare(&mut slots, || Ok::<_, ()>(key("b"))), Ok(true));
        assert_eq!(prepare(&mut slots, || Err("two are too many")), Ok(false));
        assert_eq!(revoke(&mut slots, Some("b")), Ok("b".to_owned()));
        assert_eq!(prepare(&mut slots, || Ok::<_, ()>(key("b"))), Ok(true));
        let taint_active = taint(&mut slots, Some("a")).unwrap_err().to_string();
        assert_eq!(
            taint_active,
            "the authority `a` is active; only one that is old can be tainted"
        );
        activate(&mut slots).unwrap();
        assert_eq!(
            revoke(&mut slots, None),
            Err(SlotError::None(Phase::Tainted))
        );
        assert!(revoke(&mut slots, Some("a")).is_err());
        assert_eq!(taint(&mut slots, None), Ok("a".to_owned()));
        // Time goes on for the others.
        assert_eq!(
            advance(&mut slots, at(55), || Ok::<_, ()>(key("c"))),
            Ok(true)
        );
        assert_eq!(revoke(&mut slots, Some("a")), Ok("a".to_owned()));
        assert_eq!(
            revoke(&mut slots, Some("a")),
            Err(SlotError::Unknown("a".to_owned()))
        );
        let left: Vec<_> = slots
            .iter()
            .map(|slot| (slot.authority.name.as_str(), slot.phase))
            .collect();
        assert_eq!(left, [("b", Phase::Old), ("c", Phase::Active)]);
    }
}
