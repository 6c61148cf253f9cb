//! The leases that this daemon holds: how it keeps them, and how it loses them.
//!
//! A lease is valid as long as its daemon's heartbeat reaches the database. Three parties watch that. The two that
//! measure time use their own monotonic clock, so that no step of a wall clock ends a lease:
//!
//! - The daemon itself (`validity`) trusts its leases until the time at which it *sent* the last answered heartbeat,
//!   plus the lease time. After that it starts no row. The others count from later than that, so it stops before they
//!   start.
//! - The other daemons (`peers`) declare a daemon dead when its count of heartbeats has not risen for its lease time,
//!   while they heard from the database themselves. Then its leases can be taken over.
//! - The database raises the fencing token of a lease that is taken over, and only the holder of the current token
//!   records. So a daemon that was wrong about its validity costs calls that are made twice, and never a line.

mod heartbeat;
mod held;
mod peers;
mod validity;

pub(super) use heartbeat::Heartbeat;
pub(super) use held::{HeldLeases, RunTokens};
pub(super) use validity::LeaseValidity;
