//! Lanes and leases: ranges of rows, and who may run them.

use super::ids::{BatchId, DaemonId, LeaseId};
use super::time::Timestamp;

/// A lane that has rows nobody has claimed: the rows of one batch that go to one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLane {
    /// The batch.
    pub batch_id: BatchId,
    /// The number of the lane within its batch, counted from 0.
    pub no: u32,
    /// The first position of the row index that is not claimed: the lane's cursor.
    pub next: u32,
    /// The position after the lane's last.
    pub last: u32,
    /// When the batch's window closes.
    pub expires_at: Timestamp,
}

impl OpenLane {
    /// How many rows nobody has claimed.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.last.saturating_sub(self.next)
    }
}

/// The right of one daemon to run positions `first..last` of a batch's row index.
///
/// A lease lives as long as its daemon's heartbeat. Whoever takes it over raises the token, and only the holder of
/// the current token records outcomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// The batch.
    pub batch_id: BatchId,
    /// The model of its rows.
    pub model: String,
    /// The first position of the row index.
    pub first: u32,
    /// The position after the last.
    pub last: u32,
    /// The fencing token: 1 for the first holder, one more for each that follows.
    pub token: i64,
}

/// A lease whose daemon is gone, or that its daemon gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LapsedLease {
    /// Its id.
    pub id: LeaseId,
    /// The token it was last held with.
    pub token: i64,
}

/// How a daemon shows that it lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// The daemon.
    pub daemon_id: DaemonId,
    /// Until when its leases are its own, by the database's clock.
    pub alive_until: Timestamp,
}
