//! Time as a dependency, so that tests can stand at an expiry.

use std::fmt::Debug;
use std::time::{Duration, SystemTime};

/// Tells the time of day.
pub trait Clock: Debug + Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> SystemTime;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "the one place that reads the machine's clock"
    )]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Whole seconds since 1970; 0 for what lies before.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.unwrap_or(Duration::ZERO).as_secs()
}

/// The moment so many seconds after 1970.
pub(crate) fn moment(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// A time of day for people, in UTC and whole seconds.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    let time = time::OffsetDateTime::from(moment(seconds(time)));
    let text = time.format(&time::format_description::well_known::Rfc3339);
    text.unwrap_or_default()
}

/// A certificate's time, as `x509-parser` tells it.
pub(crate) fn moment_of(time: x509_parser::time::ASN1Time) -> SystemTime {
    moment(u64::try_from(time.timestamp()).unwrap_or(0))
}
