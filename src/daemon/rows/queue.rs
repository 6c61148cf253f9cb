//! Rows that were read and wait for a worker: a queue for each model, and in it one for each batch.
//!
//! A worker with a permit takes a row of the model with the fewest under way, and of that model's batch with the
//! fewest: where more rows wait than can run, models share the calls evenly, and batches share those of their model. A
//! model that may be one that hangs has less (`models`).

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::ClaimedRow;
use super::backlog::Waiting;
use super::models::{HeldBack, Models};
use super::permit_share::PermitShare;
use crate::domain::lease::LeaseHold;
use crate::domain::request::{Pending, Request};
use crate::domain::time::Clock;
use crate::sync::lock;
use crate::upstream::{Registry, Server};

/// A row on its way from its lease to a worker, and back for each further attempt.
pub(super) struct QueuedRow {
    pub(super) row: ClaimedRow,
    pub(super) request: Request<Pending>,
    pub(super) cancellation: Arc<Cancellation>,
    /// Its place in the backlog of its lane, until it begins.
    pub(super) waiting: Waiting,
    /// What it takes up while it waits: a share of its read, or a place among the rows that wait for another attempt.
    pub(super) place: Option<Arc<OwnedSemaphorePermit>>,
    /// Its share of the permits, while a worker has it.
    pub(super) share: Option<Arc<PermitShare>>,
    /// The lease ends when the last of these is gone.
    pub(super) open: TaskTrackerToken,
}

impl QueuedRow {
    /// Waits until the row's next attempt is due; `None` if it is called off before.
    pub(super) async fn until_due(self, clock: &Clock) -> Option<Self> {
        let wait = self.request.state.not_before.map(|at| at.since(clock.now())).unwrap_or_default();
        tokio::select! {
            biased;
            () = self.cancellation.cancelled() => None,
            () = tokio::time::sleep(wait) => Some(self),
        }
    }
}

/// The ways in which the rows of a lease are called off. Shared by its rows: a token's own clones take a lock.
pub(super) struct Cancellation {
    /// The rows are not to be run here any more.
    pub(super) lease: CancellationToken,
    /// Nothing more is started.
    pub(super) stopping: CancellationToken,
    /// The daemon aborts what is left; this cancels `lease` too.
    pub(super) abort: CancellationToken,
}

impl Cancellation {
    /// Whether no further attempt is to be started.
    pub(super) fn is_cancelled(&self) -> bool {
        self.lease.is_cancelled() || self.stopping.is_cancelled()
    }

    /// Resolves when no further attempt is to be started.
    pub(super) async fn cancelled(&self) {
        tokio::select! {
            () = self.lease.cancelled() => {}
            () = self.stopping.cancelled() => {}
        }
    }
}

/// Where leases put their rows and workers take them.
pub(in crate::daemon) struct Queue {
    models: Mutex<Models>,
    /// One permit for each row, and one too many for each that was taken out by [`Queue::leave`].
    filled: Semaphore,
    /// Workers that know of rows of which none may begin.
    held_back: AtomicUsize,
    /// Told when a row that was held back may begin.
    may_begin: Notify,
}

/// The right to one row of the queue, whichever is next when it is taken.
pub(super) struct Ticket<'a> {
    filled: SemaphorePermit<'a>,
    /// The server whose permit the row needs.
    pub(super) server: Arc<Server>,
}

impl Queue {
    /// A queue for the calls of these servers.
    pub(in crate::daemon) fn new(registry: Registry, clock: Clock) -> Self {
        Self {
            models: Mutex::new(Models::new(registry, clock)),
            filled: Semaphore::new(0),
            held_back: AtomicUsize::new(0),
            may_begin: Notify::new(),
        }
    }

    /// Sets how many calls may run at once.
    pub(in crate::daemon) fn set_permits(&self, permits: usize) {
        let before = self.models().set_permits(permits);
        if before < permits {
            self.tell_held_back();
        }
    }

    /// Adds rows of one lease, which has not left.
    pub(super) fn push(&self, rows: Vec<QueuedRow>) {
        let mut added = 0;
        let mut models = self.models();
        for row in rows {
            // Checked under the lock: whoever halts a lease then takes its rows out, and must not miss one.
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
            let next = {
                let models = self.models();
                models.next().map(|next| next.map(|place| models.server(place)))
            };
            match next {
                Ok(Some(server)) => return Some(Ticket { filled, server }),
                // The rows were taken out by `leave`.
                Ok(None) => filled.forget(),
                Err(HeldBack) => self.until_may_begin().await,
            }
        }
    }

    /// The next row for a ticket; `None` if meanwhile none may begin any more.
    pub(super) fn take(self: &Arc<Self>, ticket: Ticket<'_>) -> Option<QueuedRow> {
        let taken = self.take_next().ok()?;
        ticket.filled.forget();
        taken
    }

    /// The next row, if there is one now that may begin.
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

    /// Sends the workers home.
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
        /// Whoever gives up the wait is held back no more.
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
        // What changed since the look that found nothing was told to nobody.
        let changed = !matches!(self.models().next(), Err(HeldBack));
        if !changed && !self.filled.is_closed() {
            notified.await;
        }
    }

    /// Has the workers look again that found rows of which none could begin.
    pub(super) fn tell_held_back(&self) {
        if self.held_back.load(Relaxed) > 0 {
            self.may_begin.notify_waiters();
        }
    }

    pub(super) fn models(&self) -> MutexGuard<'_, Models> {
        lock(&self.models)
    }
}
