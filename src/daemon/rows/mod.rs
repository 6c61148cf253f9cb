//! The way of a row through a daemon.
//!
//! `claim` leases a range of a lane, and `lease_run` reads its rows into the `queue`. A `worker` takes one row after
//! the other and makes an `attempt`. An attempt ends with an outcome in the outbox or with the row in the queue again;
//! an attempt that is cancelled leaves the row owed.

mod answers;
mod attempt;
mod backlog;
mod batches;
mod claim;
mod deadlines;
mod ended_attempt;
mod first_failures;
mod last_failures;
mod lease_run;
mod models;
mod parked;
mod permit_share;
mod queue;
mod retrying;
mod scheduler;
mod service_time;
mod share;
mod unreadable;
mod worker;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::core::{DaemonCore, Recording};
use super::items::{Items, Surroundings};
use super::leases::{HeldLeases, LeaseValidity};
use super::recording::{Outbox, RowOutcome};
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lease::LeaseHold;
use crate::processor::ShouldRetry;

pub(super) use claim::claim;
pub(super) use first_failures::FirstFailures;
pub(super) use last_failures::LastFailures;
pub(super) use parked::ParkedRows;
pub(super) use queue::Queue;
pub(super) use retrying::RetryingRows;
pub(super) use share::FairShare;
pub(super) use worker::Workers;

use backlog::Backlogs;

/// A row and the lease by which this daemon runs it.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimedRow {
    pub(super) id: RequestId,
    pub(super) lease: LeaseHold,
}

/// Claims leases and reads their rows into the queue.
pub(super) struct Supply<S> {
    shared: Arc<DaemonCore<S>>,
    held: Arc<HeldLeases>,
    validity: Arc<LeaseValidity>,
    queue: Arc<Queue>,
    outbox: Arc<Outbox>,
    backlogs: Backlogs,
    unreadable: Items<BatchId>,
    /// One permit, held while a row of a quarantined lease runs, so that a death of the daemon has one cause.
    quarantine: Semaphore,
    /// The tasks that run leases.
    runs: TaskTracker,
}

/// Runs rows.
pub(super) struct RowRunner<S, P> {
    pub(super) shared: Arc<DaemonCore<S>>,
    pub(super) validity: Arc<LeaseValidity>,
    pub(super) queue: Arc<Queue>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) parked: Arc<ParkedRows>,
    pub(super) retrying: Arc<RetryingRows>,
    pub(super) first_failures: FirstFailures,
    pub(super) processor: Arc<P>,
    pub(super) should_retry: ShouldRetry,
}

impl<S, P> RowRunner<S, P> {
    /// Hands in the outcome of a row. Returns when it is recorded if each is to be recorded at once, or if it is one of
    /// the first failures of its batch.
    async fn hand_in(&self, outcome: RowOutcome) {
        let (batch, has_failed) = (outcome.row.id.batch, outcome.failure.is_some());
        self.outbox.push(outcome).await;
        let is_first_failure = has_failed && self.first_failures.count(batch);
        if is_first_failure || self.shared.settings.recording == Recording::AtOnce {
            self.outbox.flush().await;
        }
    }
}

impl<S> Supply<S> {
    pub(super) fn new<P>(
        runner: &RowRunner<S, P>,
        held: Arc<HeldLeases>,
        around: &Surroundings,
        runs: TaskTracker,
    ) -> Self {
        Self {
            shared: runner.shared.clone(),
            held,
            validity: runner.validity.clone(),
            queue: runner.queue.clone(),
            outbox: runner.outbox.clone(),
            backlogs: Backlogs::default(),
            unreadable: unreadable::items(around),
            quarantine: Semaphore::new(1),
            runs,
        }
    }
}
