//! Decisions that are remembered, by what the policy reads of a request.

use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::unsync::Cache;

use crate::evaluator::Outcome;
use crate::input::{ConnectionFacts, ReadSet, RequestFacts};

/// What one remembered decision takes besides its key, about.
const ENTRY_BYTES: u64 = 128;

/// The decisions that one evaluator remembers. What is asked for often stays.
pub(crate) struct Memory {
    decisions: Cache<Box<[u8]>, Arc<Outcome>, ByKey>,
    /// The key of the request at hand.
    key: Vec<u8>,
}

/// A decision weighs what its key does: of results there are few, and most are shared.
#[derive(Clone)]
struct ByKey;

impl Weighter<Box<[u8]>, Arc<Outcome>> for ByKey {
    fn weight(&self, key: &Box<[u8]>, _: &Arc<Outcome>) -> u64 {
        u64::try_from(key.len())
            .unwrap_or(u64::MAX)
            .saturating_add(ENTRY_BYTES)
    }
}

impl Memory {
    /// Remembers decisions of about so many bytes; `None` for no bytes.
    pub(crate) fn of_bytes(bytes: u64) -> Option<Self> {
        let decisions = usize::try_from(bytes / (2 * ENTRY_BYTES)).unwrap_or(usize::MAX);
        (decisions > 0).then(|| Self {
            decisions: Cache::with_weighter(decisions, bytes, ByKey),
            key: Vec::new(),
        })
    }

    /// The decision about an equal request. Whatever it is, the request is the one that
    /// [`Memory::remember`] is about next.
    pub(crate) fn recall(
        &mut self,
        reads: &ReadSet,
        connection: &ConnectionFacts,
        request: &RequestFacts,
    ) -> Option<&Arc<Outcome>> {
        self.key.clear();
        reads.write_key(connection, request, &mut self.key);
        self.decisions.get(self.key.as_slice())
    }

    /// Remembers the decision about the request at hand.
    pub(crate) fn remember(&mut self, outcome: &Arc<Outcome>) {
        let key = self.key.as_slice().into();
        self.decisions.insert(key, Arc::clone(outcome));
    }

    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.decisions.clear();
    }
}
