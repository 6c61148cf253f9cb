//! How many rows of a model a server has taken, and whether it fails with all of them now.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// A server that has failed with so many rows since it last took one fails with all.
const ALL: u32 = 10;
/// Rows wait so long, after the last one that was taken, for a server that fails with all. Later it may be the rows.
const PATIENCE: Duration = Duration::from_mins(30);

/// What the rows of a model came to at a server. Times are those since the start of the admission.
#[derive(Debug, Default)]
pub(super) struct ServedRows {
    /// Rows that the server took.
    taken: AtomicU64,
    /// When it took the last one, in milliseconds.
    last_taken: AtomicU64,
    /// Rows that it has failed with since it took one.
    failed: AtomicU32,
}

impl ServedRows {
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    pub(super) fn note_taken(&self, now: Duration) {
        self.taken.fetch_add(1, Relaxed);
        self.last_taken.store(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
        self.failed.store(0, Relaxed);
    }

    /// The server has failed with a row that it has not failed with since it took one.
    pub(super) fn note_failed(&self) {
        self.failed.fetch_add(1, Relaxed);
    }

    /// Whether the server, which has taken rows lately, fails with all of them now. `took_before`: it took rows before
    /// the start.
    pub(super) fn all_fail(&self, now: Duration, took_before: bool) -> bool {
        let since = now.saturating_sub(Duration::from_millis(self.last_taken.load(Relaxed)));
        (self.taken() > 0 || took_before) && self.failed.load(Relaxed) >= ALL && since < PATIENCE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_took_rows_lately_and_fails_with_ten_fails_with_all() {
        let rows = ServedRows::default();
        let fail = |count: u32| (0..count).for_each(|_| rows.note_failed());
        fail(ALL);
        assert!(!rows.all_fail(Duration::ZERO, false), "it never took one");
        assert!(rows.all_fail(Duration::ZERO, true), "it did before the start");
        assert!(!rows.all_fail(PATIENCE, true));

        let now = Duration::from_hours(1);
        rows.note_taken(now);
        assert!(!rows.all_fail(now, false));
        fail(ALL - 1);
        assert!(!rows.all_fail(now, false));
        fail(1);
        assert!(rows.all_fail(now, false) && rows.all_fail(now + PATIENCE / 2, false));
        assert!(!rows.all_fail(now + PATIENCE, false));

        rows.note_taken(now);
        assert!(!rows.all_fail(now, false), "it is back");
    }
}
