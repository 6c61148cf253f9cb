//! The leases this daemon holds.
//!
//! A run is known by its lease and its token: a lease that was given back and claimed again is another run, also while the
//! first still ends.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::lease::LeaseHold;
use crate::storage::HeldLease;

/// How long a lease may be this daemon's in the database only.
const UNCLAIMED_AFTER: Duration = Duration::from_secs(5);

/// The leases this daemon holds, each with what halts its run. Written by the claim loop and by the tasks that run leases;
/// read by the heartbeat and the recorder.
#[derive(Default)]
pub(in crate::daemon) struct HeldLeases {
    leases: Mutex<HashMap<LeaseHold, CancellationToken>>,
    /// Leases that the database has as this daemon's and nobody here runs, and since when. Only the heartbeat uses it.
    unclaimed: Mutex<HashMap<LeaseHold, Instant>>,
}

impl HeldLeases {
    /// Notes a lease that was taken. `halt` is cancelled if its rows are not to be run any more. A run of the same lease that
    /// has not ended is called off: with its older token it can record nothing.
    pub(in crate::daemon) fn take(&self, lease: LeaseHold, halt: CancellationToken) {
        let mut leases = self.lock();
        let replaced = leases.iter().filter(|(held, _)| held.id == lease.id);
        replaced.for_each(|(_, halt)| halt.cancel());
        leases.insert(lease, halt);
    }

    /// Notes that a run is over: its lease is through, lost or given back. Another run of the lease stays.
    pub(in crate::daemon) fn end(&self, run: LeaseHold) {
        self.lock().remove(&run);
    }

    /// The leases held at this moment.
    pub(in crate::daemon) fn all(&self) -> Vec<LeaseHold> {
        self.lock().keys().copied().collect()
    }

    /// Halts those of the leases in `before` that the database does not name any more, or whose batch has ended. `before`
    /// is read before the database: it knows no lease that was taken since.
    pub(in crate::daemon) fn halt_all_but(&self, before: &[LeaseHold], still_held: &[HeldLease]) {
        let runs: HashMap<LeaseHold, bool> = still_held.iter().map(|held| (held.lease, held.runs)).collect();
        let not_to_run = before.iter().filter(|lease| runs.get(lease) != Some(&true));
        self.halt(not_to_run);
    }

    /// Halts leases: their rows are not to be run here any more.
    pub(in crate::daemon) fn halt<'a>(&self, leases: impl IntoIterator<Item = &'a LeaseHold>) {
        let held = self.lock();
        leases.into_iter().filter_map(|lease| held.get(lease)).for_each(CancellationToken::cancel);
    }

    /// Halts every lease: other daemons run its rows.
    pub(in crate::daemon) fn halt_all(&self) {
        self.lock().values().for_each(CancellationToken::cancel);
    }

    /// Of the leases that the database has as this daemon's, those that nobody here has run for a while: the answer to
    /// a claim or to giving one back was lost. No other daemon takes them while this one lives.
    pub(in crate::daemon) fn unclaimed(&self, in_database: &[HeldLease], now: Instant) -> Vec<LeaseHold> {
        let leases = self.lock();
        let mut unclaimed = self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown: Vec<LeaseHold> =
            in_database.iter().map(|held| held.lease).filter(|lease| !leases.contains_key(lease)).collect();
        unclaimed.retain(|lease, _| unknown.contains(lease));
        // A claim that has just committed is not noted here yet: only a lease that stays unknown is unclaimed.
        unknown
            .into_iter()
            .filter(|lease| now.duration_since(*unclaimed.entry(*lease).or_insert(now)) >= UNCLAIMED_AFTER)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseHold, CancellationToken>> {
        self.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::LeaseId;

    #[test]
    fn a_lease_that_nobody_runs_is_a_stray_after_a_while() {
        let held = HeldLeases::default();
        let run = LeaseHold { id: LeaseId::new(), token: 1 };
        let lost = LeaseHold { id: LeaseId::new(), token: 1 };
        held.take(run, CancellationToken::new());
        let in_database = [run, lost].map(|lease| HeldLease { lease, runs: true });
        let start = Instant::now();

        assert_eq!(held.unclaimed(&in_database, start), []);
        assert_eq!(held.unclaimed(&in_database, start + UNCLAIMED_AFTER), [lost]);
        assert_eq!(held.unclaimed(&in_database[..1], start + UNCLAIMED_AFTER), []);
        assert_eq!(held.unclaimed(&in_database, start + UNCLAIMED_AFTER), []);
    }

    #[test]
    fn of_two_runs_of_a_lease_the_later_calls_the_earlier_off_and_each_ends_by_itself() {
        let held = HeldLeases::default();
        let id = LeaseId::new();
        let [first, second] = [1, 2].map(|token| LeaseHold { id, token });
        let (first_halt, second_halt) = (CancellationToken::new(), CancellationToken::new());

        held.take(first, first_halt.clone());
        held.take(second, second_halt.clone());
        assert!(first_halt.is_cancelled() && !second_halt.is_cancelled());

        held.end(first);
        let in_database = [HeldLease { lease: second, runs: true }];
        assert_eq!(held.unclaimed(&in_database, Instant::now() + UNCLAIMED_AFTER * 2), [], "the second is still run");

        held.halt_all_but(&held.all(), &[HeldLease { lease: first, runs: true }]);
        assert!(second_halt.is_cancelled(), "the database has another token");
    }
}
