//! Rows that were read and wait for a worker: a queue for each model, and in it one for each batch.
//!
//! A worker with a permit takes a row of the model with the fewest rows under way, and of that model's batch with the
//! fewest. So models share the calls evenly when more rows wait than can run, and batches share those of their model.
//!
//! A model that has not answered yet, or whose last call had no answer, may hang. Of the calls that other models do not
//! use it leaves an eighth free, and at least one if there are four, for models whose first rows come later: these
//! never wait for the time-outs of a model that hangs.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::ClaimedRow;
use super::backlog::Waiting;
use super::models::{HeldBack, Models};
use super::parked::Parked;
use super::permit_share::PermitShare;
use super::retrying::Retrying;
use crate::daemon::leases::RunTokens;
use crate::domain::attempts::RowAttempts;
use crate::domain::lease::LeaseHold;
use crate::domain::project_limits::ProjectLimitTable;
use crate::domain::request::{Pending, Request};
use crate::domain::time::{Clock, Timestamp};
use crate::sync::lock;
use crate::telemetry::metrics;
use crate::upstream::{CallHistory, Registry, RouteUse};

/// A row on its way from its lease to a worker, and back for each further attempt.
pub(super) struct QueuedRow {
    pub(super) row: ClaimedRow,
    pub(super) request: Request<Pending>,
    pub(super) cancellation: Arc<Cancellation>,
    /// Its place in the backlog of its lane, until it begins.
    pub(super) waiting: Waiting,
    /// Bounds how many rows wait: the rows of one read share a place, and a row that waits for another attempt has one
    /// of its own.
    pub(super) place: Option<Arc<OwnedSemaphorePermit>>,
    /// Its share of the permits, while a worker has it.
    pub(super) share: Option<Arc<PermitShare>>,
    /// Its place at a server, from when a worker takes it until its session begins.
    pub(super) route: Option<RouteUse>,
    /// What its calls so far came to.
    pub(super) history: CallHistory,
    /// Its attempts so far, if one has failed.
    pub(super) attempts: Option<Box<RowAttempts>>,
    /// Since it was parked, and until an attempt ends otherwise.
    pub(super) parked: Option<Parked>,
    /// While it waits for another attempt.
    pub(super) retrying: Option<Retrying>,
    /// The lease ends when the last of these is gone.
    pub(super) open: TaskTrackerToken,
}

impl QueuedRow {
    /// The row without what a worker gave it.
    pub(super) fn untaken(self) -> Self {
        Self { route: None, share: None, ..self }
    }

    /// Waits until the row's next attempt is due; `None` if the row is cancelled before.
    pub(super) async fn until_due(self, clock: &Clock) -> Option<Self> {
        let wait = self.request.state.not_before.map(|at| at.since(clock.now())).unwrap_or_default();
        tokio::select! {
            biased;
            () = self.cancellation.cancelled() => None,
            () = tokio::time::sleep(wait) => Some(self),
        }
    }
}

/// The tokens that cancel the rows of a lease. The rows share one value, because a clone of a token takes a lock.
pub(super) struct Cancellation {
    pub(super) tokens: RunTokens,
    /// Cancelled when the daemon aborts the rows under way; the lease is halted with it.
    pub(super) abort: CancellationToken,
}

impl Cancellation {
    /// Whether workers must start no further attempt.
    pub(super) fn is_cancelled(&self) -> bool {
        self.tokens.halt.is_cancelled() || self.tokens.drain.is_cancelled()
    }

    /// Resolves when workers must start no further attempt.
    pub(super) async fn cancelled(&self) {
        tokio::select! {
            () = self.tokens.halt.cancelled() => {}
            () = self.tokens.drain.cancelled() => {}
        }
    }
}

/// Where leases put their rows and workers take them.
pub(in crate::daemon) struct Queue {
    models: Mutex<Models>,
    /// One permit for each row, and one too many for each that [`Queue::leave`] has taken out.
    filled: Semaphore,
    /// Workers that wait although the queue has rows, because none of these may begin.
    held_back: AtomicUsize,
    /// Notified when a row that was held back may begin.
    may_begin: Notify,
}

/// The right to one row of the queue, whichever is next when it is taken.
pub(super) struct Ticket<'a>(SemaphorePermit<'a>);

impl Queue {
    /// A queue for the calls of these servers. `have_priorities` says whether the metadata of batches may ask for one,
    /// and `projects` which shares the owners have.
    pub(in crate::daemon) fn new(
        registry: Registry,
        clock: Clock,
        have_priorities: bool,
        projects: Arc<ProjectLimitTable>,
    ) -> Self {
        Self {
            models: Mutex::new(Models::new(registry, clock, have_priorities, projects)),
            filled: Semaphore::new(0),
            held_back: AtomicUsize::new(0),
            may_begin: Notify::new(),
        }
    }

    /// Has workers look again after the servers let other rows begin, or take more or fewer calls at once.
    pub(in crate::daemon) fn servers_changed(&self) {
        // Under the lock, so that a worker which is about to wait sees the change, or is told.
        let limit = self.models().follow_registry();
        metrics::concurrency_limited_to(limit);
        self.tell_held_back();
    }

    /// Finds which batches are at risk of missing their windows: see [`Models::look_at_windows`].
    pub(super) fn look_at_windows(&self, unclaimed: &HashMap<Arc<str>, Vec<(Timestamp, u64)>>, daemons: u32) {
        self.models().look_at_windows(unclaimed, daemons);
    }

    /// Adds rows of leases that have not left.
    pub(super) fn push(&self, rows: Vec<QueuedRow>) {
        let mut added = 0;
        let mut models = self.models();
        for row in rows {
            // Checked under the lock: the lease is cancelled before `leave` takes its rows out, which must miss none.
            if !row.cancellation.is_cancelled() {
                models.push(row);
                added += 1;
            }
        }
        models.recall_loans();
        drop(models);
        self.filled.add_permits(added);
        self.tell_held_back();
    }

    /// Waits until a row may begin; `None` when the queue is closed. Dropping the ticket leaves the row to others.
    pub(super) async fn ticket(&self) -> Option<Ticket<'_>> {
        loop {
            let filled = self.filled.acquire().await.ok()?;
            let next = self.models().next();
            match next {
                Ok(Some(_)) => return Some(Ticket(filled)),
                // `leave` has taken out the row that the permit was for.
                Ok(None) => filled.forget(),
                Err(HeldBack) => self.until_may_begin().await,
            }
        }
    }

    /// The next row for a ticket; `None` if meanwhile none may begin any more.
    pub(super) fn take(self: &Arc<Self>, ticket: Ticket<'_>) -> Option<QueuedRow> {
        let taken = self.take_next().ok()?;
        ticket.0.forget();
        taken
    }

    /// The next row, if one waits that may begin.
    pub(super) fn next_now(self: &Arc<Self>) -> Option<QueuedRow> {
        loop {
            let filled = self.filled.try_acquire().ok()?;
            let taken = self.take_next().ok()?;
            filled.forget();
            if taken.is_some() {
                return taken;
            }
        }
    }

    /// Takes the rows of a halted lease out.
    pub(super) fn leave(&self, lease: LeaseHold) {
        self.models().retain(|row| row.row.lease != lease);
    }

    /// Ends the workers when they next look for a row.
    pub(in crate::daemon) fn close(&self) {
        self.filled.close();
        self.may_begin.notify_waiters();
    }

    fn take_next(self: &Arc<Self>) -> Result<Option<QueuedRow>, HeldBack> {
        let taken = {
            let mut models = self.models();
            let Some(place) = models.next()? else { return Ok(None) };
            models.take(place)
        };
        Ok(taken.map(|taken| PermitShare::give(self, taken)))
    }

    async fn until_may_begin(&self) {
        /// Counts a worker as held back until it is dropped, also if the worker gives up the wait.
        struct Counted<'a>(&'a AtomicUsize);
        impl Drop for Counted<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Relaxed);
            }
        }
        let notified = self.may_begin.notified();
        tokio::pin!(notified);
        notified.as_mut().enable();
        self.held_back.fetch_add(1, Relaxed);
        let _counted = Counted(&self.held_back);
        // A change before this worker was counted has notified nobody: look once more.
        let changed = !matches!(self.models().next(), Err(HeldBack));
        if !changed && !self.filled.is_closed() {
            notified.await;
        }
    }

    /// Has the workers that are held back look again.
    pub(super) fn tell_held_back(&self) {
        if self.held_back.load(Relaxed) > 0 {
            self.may_begin.notify_waiters();
        }
    }

    pub(in crate::daemon) fn models(&self) -> MutexGuard<'_, Models> {
        lock(&self.models)
    }
}

#[cfg(test)]
mod tests;
