//! The first failures of each batch are recorded before their workers go on: a batch whose first rows all fail alike is
//! then paused after about as many rows as the setting says, however fast its upstream refuses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use quick_cache::sync::Cache;

use crate::domain::ids::BatchId;

/// Batches that are counted at a time. One that is forgotten is counted anew.
const MOST: usize = 1024;

/// Counts the failures of each batch.
pub(in crate::daemon) struct FirstFailures {
    /// So many are waited for; 0: none.
    first: u64,
    counts: Cache<BatchId, Arc<AtomicU64>>,
}

impl FirstFailures {
    pub(in crate::daemon) fn new(first: u64) -> Self {
        Self { first, counts: Cache::new(MOST) }
    }

    /// Counts a failure. Whether it is one of the first of its batch.
    pub(super) fn count(&self, batch: BatchId) -> bool {
        if self.first == 0 {
            return false;
        }
        let count = self.counts.get_or_insert_with(&batch, || Ok::<_, std::convert::Infallible>(Arc::default()));
        let Ok(count) = count;
        count.fetch_add(1, Relaxed) < self.first
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failures_of_each_batch_are_told_apart() {
        let (failures, batch) = (FirstFailures::new(2), BatchId::new());

        assert_eq!([(); 4].map(|()| failures.count(batch)), [true, true, false, false]);
        assert!(failures.count(BatchId::new()), "another batch has its own");
        assert!(!FirstFailures::new(0).count(batch));
    }
}
