//! Times and durations as Go parses them and calculates with them. The engine
//! has the builtins that only look at a time.

mod calendar;
mod duration;
mod rfc3339;

pub(super) use calendar::{add_date, difference};
pub(super) use duration::parse_duration;
pub(super) use rfc3339::parse_rfc3339;

#[cfg(test)]
mod tests;
