//! The runs of the leases that this daemon holds.
//!
//! A run has the id of its lease and its token. A lease that was given back and claimed again is another run, also
//! while the first run has not ended.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::domain::lease::{LeaseHold, LeaseOrder};
use crate::storage::HeldLease;
use crate::sync::lock;

/// How long the database may have a lease as this daemon's before it counts as unclaimed.
const UNCLAIMED_AFTER: Duration = Duration::from_secs(5);

/// The tokens that end the run of a lease.
#[derive(Debug, Clone)]
pub(in crate::daemon) struct RunTokens {
    /// Cancelled when this daemon must not run the rows of the lease any more.
    pub(in crate::daemon) halt: CancellationToken,
    /// Cancelled when this daemon must start no more of them.
    pub(in crate::daemon) drain: CancellationToken,
}

/// The runs under way, each with the tokens that end it. Written by the claim loop and by the tasks that run leases;
/// read by the heartbeat and the recorder.
#[derive(Default)]
pub(in crate::daemon) struct HeldLeases {
    leases: Mutex<HashMap<LeaseHold, RunTokens>>,
    /// Leases that the database has as this daemon's and that no task runs, and since when. Only the heartbeat uses it.
    unclaimed: Mutex<HashMap<LeaseHold, Instant>>,
}

impl HeldLeases {
    /// Notes a run that begins, and the tokens that end it. An earlier run of the same lease that has not ended is
    /// halted: with its older token it can record nothing.
    pub(in crate::daemon) fn take(&self, lease: LeaseHold, tokens: RunTokens) {
        let mut leases = self.lock();
        let replaced = leases.iter().filter(|(held, _)| held.id == lease.id);
        replaced.for_each(|(_, tokens)| tokens.halt.cancel());
        leases.insert(lease, tokens);
    }

    /// Notes that a run is over: its lease is done, lost or given back. Another run of the lease stays.
    pub(in crate::daemon) fn end(&self, run: LeaseHold) {
        self.lock().remove(&run);
    }

    /// The runs under way.
    pub(in crate::daemon) fn all(&self) -> Vec<LeaseHold> {
        self.lock().keys().copied().collect()
    }

    /// Ends the runs in `before` as the database says in `still_held`: halts those whose lease is lost or whose batch
    /// is over, and drains those whose batch is paused. The caller read `before` before it asked the database, whose
    /// answer does not have the leases taken since.
    pub(in crate::daemon) fn obey(&self, before: &[LeaseHold], still_held: &[HeldLease]) {
        let orders: HashMap<LeaseHold, LeaseOrder> = still_held.iter().map(|held| (held.lease, held.order)).collect();
        let held = self.lock();
        for lease in before {
            let Some(tokens) = held.get(lease) else { continue };
            match orders.get(lease).copied().unwrap_or(LeaseOrder::Halt) {
                LeaseOrder::Run => {}
                LeaseOrder::Drain => tokens.drain.cancel(),
                LeaseOrder::Halt => tokens.halt.cancel(),
            }
        }
    }

    /// Halts the runs of leases that are lost.
    pub(in crate::daemon) fn halt<'a>(&self, leases: impl IntoIterator<Item = &'a LeaseHold>) {
        let held = self.lock();
        leases.into_iter().filter_map(|lease| held.get(lease)).for_each(|tokens| tokens.halt.cancel());
    }

    /// Halts every run, so that other daemons run the rows.
    pub(in crate::daemon) fn halt_all(&self) {
        self.lock().values().for_each(|tokens| tokens.halt.cancel());
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

    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseHold, RunTokens>> {
        lock(&self.leases)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::LeaseId;

    fn tokens() -> RunTokens {
        RunTokens { halt: CancellationToken::new(), drain: CancellationToken::new() }
    }

    #[test]
    fn a_lease_that_no_task_runs_is_unclaimed_after_a_while() {
        let held = HeldLeases::default();
        let run = LeaseHold { id: LeaseId::new(), token: 1 };
        let lost = LeaseHold { id: LeaseId::new(), token: 1 };
        held.take(run, tokens());
        let in_database = [run, lost].map(|lease| HeldLease { lease, order: LeaseOrder::Run });
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
        let (first_tokens, second_tokens) = (tokens(), tokens());

        held.take(first, first_tokens.clone());
        held.take(second, second_tokens.clone());
        assert!(first_tokens.halt.is_cancelled() && !second_tokens.halt.is_cancelled());

        held.end(first);
        let in_database = [HeldLease { lease: second, order: LeaseOrder::Run }];
        assert_eq!(held.unclaimed(&in_database, Instant::now() + UNCLAIMED_AFTER * 2), [], "the second is still run");

        held.obey(&held.all(), &[HeldLease { lease: first, order: LeaseOrder::Run }]);
        assert!(second_tokens.halt.is_cancelled(), "the database has another token");
    }

    #[test]
    fn runs_end_as_the_database_says() {
        // What the database says of a lease: whether its run is drained, and whether it is halted.
        let cases = [
            (Some(LeaseOrder::Run), false, false),
            (Some(LeaseOrder::Drain), true, false),
            (Some(LeaseOrder::Halt), false, true),
            (None, false, true),
        ];
        for (order, drained, halted) in cases {
            let (held, run) = (HeldLeases::default(), tokens());
            let lease = LeaseHold { id: LeaseId::new(), token: 1 };
            held.take(lease, run.clone());

            held.obey(&[lease], &order.map(|order| HeldLease { lease, order }).into_iter().collect::<Vec<_>>());

            assert_eq!((run.drain.is_cancelled(), run.halt.is_cancelled()), (drained, halted), "{order:?}");
        }
    }
}
