//! The runs of the leases that this daemon holds.
//!
//! A run has the id of its lease and its token. A lease that was given back and claimed again is another run, also
//! while the first run has not ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::lease::LeaseHold;
use crate::storage::HeldLease;
use crate::sync::lock;

/// How long the database may have a lease as this daemon's before it counts as unclaimed.
const UNCLAIMED_AFTER: Duration = Duration::from_secs(5);

/// The runs under way, each with the token that halts it. Written by the claim loop and by the tasks that run leases;
/// read by the heartbeat and the recorder.
#[derive(Default)]
pub(in crate::daemon) struct HeldLeases {
    leases: Mutex<HashMap<LeaseHold, CancellationToken>>,
    /// Leases that the database has as this daemon's and that no task runs, and since when. Only the heartbeat uses it.
    unclaimed: Mutex<HashMap<LeaseHold, Instant>>,
}

impl HeldLeases {
    /// Notes a run that begins. `halt` is cancelled when this daemon must not run its rows any more. An earlier run of
    /// the same lease that has not ended is halted: with its older token it can record nothing.
    pub(in crate::daemon) fn take(&self, lease: LeaseHold, halt: CancellationToken) {
        let mut leases = self.lock();
        let replaced = leases.iter().filter(|(held, _)| held.id == lease.id);
        replaced.for_each(|(_, halt)| halt.cancel());
        leases.insert(lease, halt);
    }

    /// Notes that a run is over: its lease is done, lost or given back. Another run of the lease stays.
    pub(in crate::daemon) fn end(&self, run: LeaseHold) {
        self.lock().remove(&run);
    }

    /// The runs under way.
    pub(in crate::daemon) fn all(&self) -> Vec<LeaseHold> {
        self.lock().keys().copied().collect()
    }

    /// Halts the runs in `before` whose lease is lost or whose batch is over, as the database says in `still_held`. The
    /// caller read `before` before it asked the database, whose answer does not have the leases taken since.
    pub(in crate::daemon) fn halt_all_but(&self, before: &[LeaseHold], still_held: &[HeldLease]) {
        let runs: HashMap<LeaseHold, bool> = still_held.iter().map(|held| (held.lease, held.runs)).collect();
        let not_to_run = before.iter().filter(|lease| runs.get(lease) != Some(&true));
        self.halt(not_to_run);
    }

    /// Halts the runs of leases that are lost.
    pub(in crate::daemon) fn halt<'a>(&self, leases: impl IntoIterator<Item = &'a LeaseHold>) {
        let held = self.lock();
        leases.into_iter().filter_map(|lease| held.get(lease)).for_each(CancellationToken::cancel);
    }

    /// Halts every run, so that other daemons run the rows.
    pub(in crate::daemon) fn halt_all(&self) {
        self.lock().values().for_each(CancellationToken::cancel);
    }

    /// Of the leases that the database has as this daemon's, those that no task has run for a while: the database's
    /// answer to a claim or to giving one back was lost. No other daemon takes them over while this one lives.
    pub(in crate::daemon) fn unclaimed(&self, in_database: &[HeldLease], now: Instant) -> Vec<LeaseHold> {
        let leases = self.lock();
        let mut unclaimed = lock(&self.unclaimed);
        let unknown: Vec<LeaseHold> =
            in_database.iter().map(|held| held.lease).filter(|lease| !leases.contains_key(lease)).collect();
        unclaimed.retain(|lease, _| unknown.contains(lease));
        // A claim that has just committed is not noted here yet, so only a lease that stays unknown is unclaimed.
        unknown
            .into_iter()
            .filter(|lease| now.duration_since(*unclaimed.entry(*lease).or_insert(now)) >= UNCLAIMED_AFTER)
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseHold, CancellationToken>> {
        lock(&self.leases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::LeaseId;

    #[test]
    fn a_lease_that_no_task_runs_is_unclaimed_after_a_while() {
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
    fn of_two_runs_of_a_lease_the_later_halts_the_earlier_and_each_ends_by_itself() {
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
