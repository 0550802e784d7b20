//! What holds peers to a listener's limits.
//!
//! ```text
//!  accept ── Admission ──▶ handshake ── Admission ──▶ frames ── Http2Guard ──▶ hyper ── check ──▶ request
//!            connections,               connections             floods               head, rate
//!            handshakes                 of the identity
//! ```

mod admission;
mod bucket;
mod flood;
mod frames;
mod head;
mod progress;

pub(crate) use admission::{Admission, Caller};
pub(crate) use flood::{Flood, Http2Guard};
pub(crate) use head::check;
pub(crate) use progress::{Late, Progress, StreamExecutor, within};
