//! The limits of one instance's memory.

use wasmtime::{ResourceLimiter, Result};

/// Memories, tables and core instances that one component may have: room for components that are
/// composed of several, and for those of languages that link many modules.
pub(crate) const MEMORIES: u32 = 4;
pub(crate) const TABLES: u32 = 32;
pub(crate) const CORE_INSTANCES: u32 = 64;

/// Counts the memory of one instance and remembers whether it was refused any.
#[derive(Debug)]
pub(crate) struct Limits {
    memory_limit: usize,
    table_elements: usize,
    memory: usize,
    memory_refused: bool,
}

impl Limits {
    pub(crate) fn new(memory_limit: usize, table_elements: usize) -> Self {
        Self {
            memory_limit,
            table_elements,
            memory: 0,
            memory_refused: false,
        }
    }

    /// Whether memory was refused. A guest is told so by a failed `memory.grow`; nearly all end
    /// with a trap then, which itself says nothing about memory.
    pub(crate) fn memory_refused(&self) -> bool {
        self.memory_refused
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        let total = self.memory.saturating_add(desired.saturating_sub(current));
        let granted = total <= self.memory_limit;
        if granted {
            self.memory = total;
        } else {
            self.memory_refused = true;
        }
        Ok(granted)
    }

    fn table_growing(
        &mut self,
        _current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> Result<bool> {
        Ok(desired <= self.table_elements)
    }

    fn instances(&self) -> usize {
        usize::try_from(CORE_INSTANCES).unwrap_or(usize::MAX)
    }

    fn tables(&self) -> usize {
        usize::try_from(TABLES).unwrap_or(usize::MAX)
    }

    fn memories(&self) -> usize {
        usize::try_from(MEMORIES).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_counted_over_all_memories_of_an_instance() {
        let mut limits = Limits::new(300, 10);
        assert!(limits.memory_growing(0, 100, None).unwrap());
        assert!(limits.memory_growing(0, 100, None).unwrap());
        assert!(limits.memory_growing(100, 200, None).unwrap());
        assert!(!limits.memory_refused());
        assert!(!limits.memory_growing(100, 101, None).unwrap());
        assert!(limits.memory_refused());
    }

    #[test]
    fn a_table_stays_within_its_limit() {
        let mut limits = Limits::new(0, 10);
        assert!(limits.table_growing(0, 10, None).unwrap());
        assert!(!limits.table_growing(10, 11, None).unwrap());
    }
}
