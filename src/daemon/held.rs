//! The leases this daemon holds, and how far it is with them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::ids::{BatchId, LeaseId};
use crate::domain::lease::Lease;
use crate::storage::HeldLease;

/// How long a lease may be this daemon's in the database only.
const STRAY_AFTER: Duration = Duration::from_secs(5);

/// The leases this daemon holds. Written by the claim loop and by the tasks that run leases; read by the heartbeat.
#[derive(Default)]
pub(super) struct Held {
    leases: Mutex<HashMap<LeaseId, Entry>>,
    /// Rows that are leased and not begun.
    waiting: AtomicUsize,
    /// Rows begun since the daemon started: what the claim loop takes its pace from.
    begun: AtomicUsize,
    /// Leases that the database has as this daemon's and nobody here runs, and since when. Only the heartbeat uses it.
    strays: Mutex<HashMap<LeaseId, Instant>>,
    /// Told whenever a row was begun or let go, for a claim loop that waits for room.
    fewer: Notify,
}

struct Entry {
    batch: BatchId,
    rows: u32,
    halt: CancellationToken,
}

impl Held {
    /// Notes a lease that was taken. `halt` is cancelled if its rows are not to be run any more.
    pub(super) fn take(&self, lease: &Lease, halt: CancellationToken) {
        let rows = lease.last - lease.first;
        self.waiting.fetch_add(rows as usize, Ordering::Relaxed);
        self.lock().insert(lease.id, Entry { batch: lease.batch_id, rows, halt });
    }

    /// Notes that rows of a lease were begun.
    pub(super) fn begin_rows(&self, rows: usize) {
        self.begun.fetch_add(rows, Ordering::Relaxed);
        self.let_go(rows);
    }

    /// Notes that rows of a lease will not be begun here.
    pub(super) fn let_go(&self, rows: usize) {
        self.waiting.fetch_sub(rows, Ordering::Relaxed);
        self.fewer.notify_one();
    }

    /// Notes that a lease is through, lost or given back.
    pub(super) fn end(&self, lease: LeaseId) {
        self.lock().remove(&lease);
    }

    /// Rows begun since the daemon started.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(Ordering::Relaxed)
    }

    /// Waits until fewer than `enough` rows wait to be begun.
    pub(super) async fn until_fewer_wait_than(&self, enough: usize) {
        while self.waiting.load(Ordering::Relaxed) >= enough {
            self.fewer.notified().await;
        }
    }

    /// How many rows of each batch are leased here.
    pub(super) fn rows_by_batch(&self) -> HashMap<BatchId, u64> {
        let mut rows = HashMap::new();
        for entry in self.lock().values() {
            *rows.entry(entry.batch).or_default() += u64::from(entry.rows);
        }
        rows
    }

    /// The leases held at this moment.
    pub(super) fn ids(&self) -> Vec<LeaseId> {
        self.lock().keys().copied().collect()
    }

    /// Halts those of the leases in `before` that the database says are lost or whose batch is over. `before` was
    /// read before the database was asked: a lease taken since then is not known to it.
    pub(super) fn halt_all_but(&self, before: &[LeaseId], still_held: &[HeldLease]) {
        let runs: HashMap<LeaseId, bool> = still_held.iter().map(|lease| (lease.id, lease.runs)).collect();
        let leases = self.lock();
        for id in before {
            if runs.get(id) != Some(&true)
                && let Some(entry) = leases.get(id)
            {
                entry.halt.cancel();
            }
        }
    }

    /// Halts every lease: its rows are for others to run.
    pub(super) fn halt_all(&self) {
        self.lock().values().for_each(|entry| entry.halt.cancel());
    }

    /// Of the leases that the database has as this daemon's, those that nobody here has run for a while: the answer to
    /// a claim or to giving one back was lost. No other daemon takes them while this one lives.
    pub(super) fn strays(&self, in_database: &[HeldLease], now: Instant) -> Vec<HeldLease> {
        let leases = self.lock();
        let mut strays = self.strays.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown: Vec<HeldLease> =
            in_database.iter().filter(|lease| !leases.contains_key(&lease.id)).copied().collect();
        strays.retain(|id, _| unknown.iter().any(|lease| lease.id == *id));
        // A claim that has just committed is not noted here yet: only what stays unknown is a stray.
        unknown
            .into_iter()
            .filter(|lease| now.duration_since(*strays.entry(lease.id).or_insert(now)) >= STRAY_AFTER)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseId, Entry>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_nobody_runs_is_a_stray_after_a_while() {
        let held = Held::default();
        let run = Lease {
            id: LeaseId::new(),
            batch_id: BatchId::new(),
            model: String::new(),
            first: 0,
            last: 1,
            token: 1,
            deaths: 0,
        };
        let lost = HeldLease { id: LeaseId::new(), token: 1, runs: true };
        held.take(&run, CancellationToken::new());
        let in_database = [HeldLease { id: run.id, token: 1, runs: true }, lost];
        let start = Instant::now();

        assert_eq!(held.strays(&in_database, start), []);
        assert_eq!(held.strays(&in_database, start + STRAY_AFTER), [lost]);
        assert_eq!(held.strays(&in_database[..1], start + STRAY_AFTER), []);
        assert_eq!(held.strays(&in_database, start + STRAY_AFTER), []);
    }
}
