//! The rows that are parked: how many, and for what they wait.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::domain::outcome::FailureReason;
use crate::sync::lock;
use crate::telemetry::metrics;

/// The code of rows that wait for the storage.
const STORAGE: &str = "storage_unavailable";

/// Counts parked rows by the code of what they wait for. The first and the last of those that wait for the storage are
/// logged, and none between: an outage concerns all rows that need the storage.
#[derive(Default)]
pub(in crate::daemon) struct ParkedRows(Mutex<HashMap<&'static str, usize>>);

/// A row that is parked, or is tried after it was. It counts until an attempt ends otherwise.
pub(super) struct Parked {
    rows: Arc<ParkedRows>,
    code: &'static str,
}

impl ParkedRows {
    /// Counts a row that is parked for a reason.
    pub(super) fn add(self: &Arc<Self>, reason: &FailureReason) -> Parked {
        let code = reason.code();
        // The upstream's admission logs its own state.
        if self.change(code, 1) == 1 && code == STORAGE {
            let error = reason.message();
            tracing::error!(reason = code, %error, "rows are parked: they wait for what is away, without attempts");
        }
        Parked { rows: self.clone(), code }
    }

    /// Returns how many there are after the change.
    fn change(&self, code: &'static str, by: isize) -> usize {
        let mut rows = lock(&self.0);
        let count = rows.entry(code).or_default();
        *count = count.saturating_add_signed(by);
        metrics::rows_parked(code, *count);
        *count
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        if self.rows.change(self.code, -1) == 0 && self.code == STORAGE {
            tracing::info!(reason = self.code, "no row is parked any more");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_parked_again_is_one_row() {
        let rows = Arc::<ParkedRows>::default();
        let away = FailureReason::StorageUnavailable(String::new());
        let count = || lock(&rows.0).values().sum::<usize>();

        let first = rows.add(&away);
        let second = rows.add(&away);
        assert_eq!(count(), 2);
        let again = rows.add(&away);
        drop(first);
        assert_eq!(count(), 2);

        drop((second, again));
        assert_eq!(count(), 0);
    }
}
