//! What a connection is told by others than its peer.

use std::sync::atomic::{AtomicU8, Ordering::AcqRel, Ordering::Acquire};
use std::task::Context;

use atomic_waker::AtomicWaker;

/// Something that a connection is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Take no more requests after those that are there, in whichever way the protocol has.
    Close,
    /// The same, and end now where nothing is under way.
    Drain,
    /// End now.
    Cut,
}

/// Orders that stay given. They are looked at each time the connection is polled, so they are one set
/// of flags and one waker.
#[derive(Debug, Default)]
pub(crate) struct Orders {
    given: AtomicU8,
    waker: AtomicWaker,
}

/// The orders that were given so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given(u8);

impl Order {
    fn flag(self) -> u8 {
        match self {
            Self::Close => 1,
            Self::Drain => 2,
            Self::Cut => 4,
        }
    }
}

impl Orders {
    /// Tells the connection, and wakes it.
    pub(crate) fn give(&self, order: Order) {
        let before = self.given.fetch_or(order.flag(), AcqRel);
        if before & order.flag() == 0 {
            self.waker.wake();
        }
    }

    /// What was ordered. The task is woken when there is more.
    pub(crate) fn look(&self, context: &Context<'_>) -> Given {
        self.waker.register(context.waker());
        Given(self.given.load(Acquire))
    }
}

impl Given {
    pub(crate) fn has(self, order: Order) -> bool {
        self.0 & order.flag() != 0
    }
}
