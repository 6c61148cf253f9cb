//! The rows of each batch whose last attempt failed, and which wait for the next: how many, and why.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::domain::ids::BatchId;
use crate::domain::outcome::FailureReason;
use crate::sync::lock;

/// Counts rows by batch and by the code of their last failure.
#[derive(Default)]
pub(in crate::daemon) struct RetryingRows(Mutex<HashMap<BatchId, HashMap<&'static str, u64>>>);

/// A row that waits for another attempt. It counts until the attempt begins, or the row is given up.
pub(super) struct Retrying {
    rows: Arc<RetryingRows>,
    batch: BatchId,
    code: &'static str,
}

impl RetryingRows {
    /// Counts a row whose attempt failed for a reason.
    pub(super) fn add(self: &Arc<Self>, batch: BatchId, reason: &FailureReason) -> Retrying {
        let code = reason.code();
        *lock(&self.0).entry(batch).or_default().entry(code).or_default() += 1;
        Retrying { rows: self.clone(), batch, code }
    }

    /// Each batch with such rows: how many there are, and the most frequent code.
    pub(in crate::daemon) fn by_batch(&self) -> HashMap<BatchId, (u64, &'static str)> {
        let rows = lock(&self.0);
        let of_batch = |codes: &HashMap<&'static str, u64>| {
            let (code, _) = codes.iter().max_by_key(|(code, rows)| (**rows, **code))?;
            Some((codes.values().sum(), *code))
        };
        rows.iter().filter_map(|(batch, codes)| Some((*batch, of_batch(codes)?))).collect()
    }
}

impl Drop for Retrying {
    fn drop(&mut self) {
        let mut rows = lock(&self.rows.0);
        let Some(codes) = rows.get_mut(&self.batch) else { return };
        if let Some(count) = codes.get_mut(self.code) {
            *count -= 1;
        }
        codes.retain(|_, count| *count > 0);
        if codes.is_empty() {
            rows.remove(&self.batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_counts_until_its_attempt_begins() {
        let rows = Arc::<RetryingRows>::default();
        let (batch, other) = (BatchId::new(), BatchId::new());
        let (away, slow) =
            (FailureReason::UpstreamUnreachable(String::new()), FailureReason::UpstreamTimeout(String::new()));

        let kept = [rows.add(batch, &away), rows.add(batch, &slow), rows.add(batch, &away), rows.add(other, &slow)];

        assert_eq!(rows.by_batch()[&batch], (3, "upstream_unreachable"));
        assert_eq!(rows.by_batch()[&other], (1, "request_timeout"));
        drop(kept);
        assert!(rows.by_batch().is_empty());
    }
}
