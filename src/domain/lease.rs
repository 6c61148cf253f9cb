//! Lanes and leases: ranges of rows, and the daemons that may run them.

use std::sync::Arc;
use std::time::Duration;

use super::ids::{BatchId, DaemonId, LeaseId};
use super::time::Timestamp;

/// A lane with unclaimed rows. A lane is the rows of one batch that go to one model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenLane {
    /// The batch.
    pub batch_id: BatchId,
    /// The number of the lane within its batch, counted from 0.
    pub no: u32,
    /// The model that its rows go to.
    pub model: Arc<str>,
    /// The first unclaimed position of the row index: the lane's cursor.
    pub next: u32,
    /// The position after the lane's last.
    pub last: u32,
    /// When the batch's window closes.
    pub expires_at: Timestamp,
}

impl OpenLane {
    /// The number of unclaimed rows.
    #[must_use]
    pub fn waiting(&self) -> u32 {
        self.last.saturating_sub(self.next)
    }
}

/// A lease as one holder has it: the identity of a run.
///
/// A takeover raises the fencing token, so the same lease can be run more than once, by two daemons or by one. The
/// lease id and the token together identify one run; everything a holder records is keyed by both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseHold {
    /// The lease.
    pub id: LeaseId,
    /// The fencing token: 1 for the first holder, one more for each later one.
    pub token: i64,
}

/// What a daemon may do with a lease that it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseOrder {
    /// Run its rows.
    Run,
    /// Start no row, and let those under way end: the batch is paused.
    Drain,
    /// Abort what is under way: the batch is over.
    Halt,
}

/// The right of one daemon to run positions `first..last` of a batch's row index.
///
/// A lease lives as long as its daemon's heartbeat. A takeover raises the token, and only the holder of the current
/// token can record outcomes.
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
    /// The fencing token: 1 for the first holder, one more for each later one.
    pub token: i64,
    /// Rows of the range without a recorded outcome, as counted in the lease itself.
    pub owed: u32,
    /// Holders that died since an outcome was last recorded under the lease.
    pub deaths: u32,
}

impl Lease {
    /// The lease as this holder has it.
    #[must_use]
    pub fn hold(&self) -> LeaseHold {
        LeaseHold { id: self.id, token: self.token }
    }

    /// Whether its rows are run one by one, because one of them may have killed its holders.
    #[must_use]
    pub fn is_quarantined(&self) -> bool {
        const DEATHS: u32 = 3;
        self.deaths >= DEATHS
    }
}

/// A lease that another daemon may take over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LapsedLease {
    /// The lease, as it was held last.
    pub lease: LeaseHold,
    /// The batch.
    pub batch_id: BatchId,
    /// The model of its rows.
    pub model: Arc<str>,
}

/// The trace of a daemon's last heartbeat in the database. A daemon is silent if another one sees its pulse unchanged
/// for `lifetime`, on the observer's monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonPulse {
    /// The daemon.
    pub id: DaemonId,
    /// How long it may be silent before it counts as dead.
    pub lifetime: Duration,
    /// Raised by each of its heartbeats.
    pub beats: i64,
}

/// A daemon's rank among the living daemons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DaemonRank {
    /// How many living daemons come before it.
    pub rank: u32,
    /// How many living daemons there are, including this one.
    pub of: u32,
}

impl DaemonRank {
    /// This daemon's share of a limit that holds for all of them. The shares add up to the limit.
    #[must_use]
    pub fn share_of(self, limit: usize) -> usize {
        let (rank, of) = (self.rank as usize, self.of.max(1) as usize);
        limit / of + usize::from(rank < limit % of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_to_the_limit_and_differ_by_one_at_most() {
        for of in 1..9 {
            for limit in 0..40 {
                let shares: Vec<usize> = (0..of).map(|rank| DaemonRank { rank, of }.share_of(limit)).collect();

                assert_eq!(shares.iter().sum::<usize>(), limit);
                assert!(shares[0] - shares[shares.len() - 1] <= 1, "{shares:?}");
            }
        }
    }
}
