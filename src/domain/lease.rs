//! Lanes and leases: ranges of rows, and who may run them.

use super::ids::{BatchId, LeaseId};
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
    /// Holders that died since anything was recorded under it.
    pub deaths: u32,
}

impl Lease {
    /// Whether one of its rows may have killed those who held it: its rows are then run one by one.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        const DEATHS: u32 = 3;
        self.deaths >= DEATHS
    }
}

/// A lease whose daemon is gone, or that its daemon gave back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LapsedLease {
    /// Its id.
    pub id: LeaseId,
    /// The token it was last held with.
    pub token: i64,
}

/// A daemon's place among those that live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How many of them come before it.
    pub rank: u32,
    /// How many there are, this one included.
    pub of: u32,
}

impl Place {
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
                let shares: Vec<usize> = (0..of).map(|rank| Place { rank, of }.share_of(limit)).collect();

                assert_eq!(shares.iter().sum::<usize>(), limit);
                assert!(shares[0] - shares[shares.len() - 1] <= 1, "{shares:?}");
            }
        }
    }
}
