//! What bounds the instances of a host.

use std::time::Duration;

use crate::error::HostError;

/// The size of a page of linear memory, in bytes: memory is granted in whole pages.
pub(crate) const WASM_PAGE: usize = 64 * 1024;

/// The limits of a [`Host`](crate::Host) and of every instance in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Linear memory that one instance may use, in bytes, over all of its memories. At least one
    /// page of 64 KiB, at most 4 GiB. An instance that is refused more and then traps ends as
    /// [`InvokeError::MemoryLimit`](crate::InvokeError::MemoryLimit).
    pub memory_limit: usize,
    /// Elements that one table of an instance may hold. A component that starts with more is
    /// refused when it is loaded.
    pub table_elements: usize,
    /// Instances at once, over all components. The allocator's pool is sized by it: address space
    /// is reserved for all at the start, memory is used only by those that run.
    pub max_concurrency: usize,
    /// How long a request waits for an instance when all are in use, before it is refused as
    /// [`InvokeError::Saturated`](crate::InvokeError::Saturated). Zero refuses at once.
    pub queue_wait: Duration,
    /// Time from the call until the component has sent its response's head, instantiation
    /// included.
    pub request_deadline: Duration,
    /// Time from the call until the instance has ended, body included: what still runs then is
    /// stopped, and its body is cut. At least as long as `request_deadline`.
    pub total_deadline: Duration,
    /// How often a running guest is made to give way to other work on its thread.
    pub epoch_tick: Duration,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            memory_limit: 64 * 1024 * 1024,
            table_elements: 50_000,
            max_concurrency: 256,
            queue_wait: Duration::from_millis(100),
            request_deadline: Duration::from_secs(10),
            total_deadline: Duration::from_secs(300),
            epoch_tick: Duration::from_millis(10),
        }
    }
}

impl HostConfig {
    /// Refuses what cannot work, by the name of the field.
    pub(crate) fn validate(&self) -> Result<(), HostError> {
        let refuse = |field, reason| Err(HostError::Config { field, reason });
        if self.memory_limit < WASM_PAGE {
            return refuse("memory_limit", "is less than one page of memory (64 KiB)");
        }
        if u64::try_from(self.memory_limit).is_ok_and(|bytes| bytes > 1 << 32) {
            return refuse(
                "memory_limit",
                "is more than a 32-bit memory can have (4 GiB)",
            );
        }
        if self.table_elements == 0 {
            return refuse("table_elements", "is zero, but every component has a table");
        }
        if self.max_concurrency == 0 {
            return refuse(
                "max_concurrency",
                "is zero: no request could ever be answered",
            );
        }
        if self.request_deadline.is_zero() {
            return refuse(
                "request_deadline",
                "is zero: no request could ever be answered",
            );
        }
        if self.total_deadline < self.request_deadline {
            return refuse("total_deadline", "is shorter than request_deadline");
        }
        if self.epoch_tick.is_zero() {
            return refuse("epoch_tick", "is zero");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_that_cannot_work_are_refused_by_name() {
        let default = HostConfig::default;
        assert!(default().validate().is_ok());
        let table = [
            (
                "memory_limit",
                HostConfig {
                    memory_limit: WASM_PAGE - 1,
                    ..default()
                },
            ),
            (
                "memory_limit",
                HostConfig {
                    memory_limit: (1 << 32) + 1,
                    ..default()
                },
            ),
            (
                "table_elements",
                HostConfig {
                    table_elements: 0,
                    ..default()
                },
            ),
            (
                "max_concurrency",
                HostConfig {
                    max_concurrency: 0,
                    ..default()
                },
            ),
            (
                "request_deadline",
                HostConfig {
                    request_deadline: Duration::ZERO,
                    ..default()
                },
            ),
            (
                "total_deadline",
                HostConfig {
                    total_deadline: Duration::from_secs(1),
                    ..default()
                },
            ),
            (
                "epoch_tick",
                HostConfig {
                    epoch_tick: Duration::ZERO,
                    ..default()
                },
            ),
        ];
        for (expected, config) in table {
            match config.validate() {
                Err(HostError::Config { field, .. }) => assert_eq!(field, expected),
                other => panic!("{expected}: {other:?}"),
            }
        }
    }
}
