//! A row's way through a daemon: `claim` leases a range of a lane, `lease_run` reads its rows into the `queue`, a
//! `worker` takes them one after the other, and each `attempt` ends in the outbox, in the queue again, or in nothing if
//! the row was called off.

mod answers;
mod attempt;
mod backlog;
mod claim;
mod lease_run;
mod models;
mod permit_share;
mod queue;
#[cfg(test)]
mod queue_tests;
mod scheduler;
mod share;
mod unreadable;
mod worker;

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::items::{Items, Surroundings};
use super::leases::{HeldLeases, LeaseValidity};
use super::recording::Outbox;
use super::shared::DaemonCore;
use crate::domain::ids::{BatchId, RequestId};
use crate::domain::lease::LeaseHold;
use crate::processor::ShouldRetry;

pub(super) use claim::{LOOK_EVERY, claim};
pub(super) use queue::Queue;
pub(super) use share::FairShare;
pub(super) use worker::Workers;

use backlog::Backlogs;

/// Rows that may wait for another attempt, for each permit: what bounds their memory.
const WAITING_PER_PERMIT: usize = 3;

/// Which row, and by what right it is run.
#[derive(Debug, Clone, Copy)]
pub(super) struct ClaimedRow {
    pub(super) id: RequestId,
    pub(super) lease: LeaseHold,
}

/// What claims leases and reads their rows into the queue.
pub(super) struct Supply<S> {
    shared: Arc<DaemonCore<S>>,
    held: Arc<HeldLeases>,
    validity: Arc<LeaseValidity>,
    queue: Arc<Queue>,
    outbox: Arc<Outbox>,
    backlogs: Backlogs,
    unreadable: Items<BatchId>,
    /// For whoever runs a row of a quarantined lease: one at a time, so that a death has one cause.
    quarantine: Semaphore,
    /// The tasks that run leases.
    runs: TaskTracker,
}

/// What runs rows.
pub(super) struct RowRunner<S, P> {
    pub(super) shared: Arc<DaemonCore<S>>,
    pub(super) validity: Arc<LeaseValidity>,
    pub(super) queue: Arc<Queue>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) processor: Arc<P>,
    pub(super) should_retry: ShouldRetry,
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
