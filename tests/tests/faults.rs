//! Faults of the identity plane: a full disk, a kill between any two writes, callers that end, do
//! not read or come in crowds, a server that goes and comes back, and more rotations than ever.

mod callers;
mod comeback;
mod crowd;
mod disk;
mod entries;
mod frames;
mod full_disk;
mod killed;
mod load;
pub(crate) mod old_state;
mod rotations;
mod setup;
mod traced;
pub(crate) mod unread;
