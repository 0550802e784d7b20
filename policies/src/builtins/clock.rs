//! The time that tokens and certificates are verified at.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Since 1970.
pub(super) fn now() -> Duration {
    #[expect(
        clippy::disallowed_methods,
        reason = "OPA's builtins read the clock themselves: a policy gives none, and one that needs another time passes it as a constraint"
    )]
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Since 1970, in nanoseconds, with the precision that OPA has.
pub(super) fn nanoseconds() -> f64 {
    now().as_secs_f64() * 1_000_000_000.0
}
