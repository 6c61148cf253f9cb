//! The leases that this daemon holds: how they are kept, and how they are lost.
//!
//! A lease is valid as long as its daemon's heartbeat reaches the database. Three parties watch that, each on its own
//! monotonic clock, so that no step of a wall clock ends a lease:
//!
//! - The daemon itself (`validity`): valid until the time at which it *sent* the last answered heartbeat, plus the lease
//!   time. After that it starts no row. It counts from before the database did, so that it stops before others may start.
//! - The other daemons (`peers`): a daemon whose count of heartbeats has not risen for its lease time, while they heard from
//!   the database themselves, is declared dead; its leases can then be taken over.
//! - The database: whoever takes a lease over raises its fencing token, and only the holder of the current token records.
//!   So a daemon that was wrong about its validity costs calls that are made twice, and never a line.

mod heartbeat;
mod held;
mod peers;
mod validity;

pub(super) use heartbeat::{EVERY as HEARTBEAT_EVERY, Heartbeat};
pub(super) use held::HeldLeases;
pub(super) use validity::LeaseValidity;
