//! Rows that were read and wait for a worker: a queue for each model, and in it one for each batch.
//!
//! A worker with a permit takes a row of the model with the fewest under way, and of that model's batch with the fewest:
//! where more rows wait than can run, models share the calls evenly, and batches share those of their model.
//!
//! A model that has not answered yet, or whose last call found no server, may be one that hangs. It leaves an eighth of
//! the calls that others do not use to models to come, at least one of four, so that these never wait for its time-outs.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::ClaimedRow;
use super::backlog::Waiting;
use super::parked::Parked;
use crate::domain::ids::BatchId;
use crate::domain::lease::FencedLease;
use crate::domain::request::{Pending, Request};
use crate::domain::time::Clock;
use crate::upstream::PermitObserver;

/// Of fewer calls none is left unused for models to come.
const FEW: usize = 4;
/// Models that are remembered although none of their rows is here.
const IDLE_MODELS: usize = 256;

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
    /// Since it was parked, and until an attempt ends otherwise.
    pub(super) parked: Option<Parked>,
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
    state: Mutex<State>,
    /// One permit for each row, and one too many for each that was taken out by [`Queue::leave`].
    filled: Semaphore,
    /// Workers that know of rows of which none may begin.
    held_back: AtomicUsize,
    /// Told when a row that was held back may begin.
    may_begin: Notify,
}

/// The right to one row of the queue, whichever is next when it is taken.
pub(super) struct Ticket<'a>(SemaphorePermit<'a>);

#[derive(Default)]
struct State {
    models: Vec<ModelQueue>,
    /// Calls that may run at once.
    permits: usize,
    /// Rows that workers have.
    running: usize,
    /// How many rows were taken so far.
    taken: u64,
}

struct ModelQueue {
    name: Arc<str>,
    batches: Vec<BatchQueue>,
    /// Rows that workers have.
    running: usize,
    /// When a row was taken last: of two with as many under way, the one that was served earlier is next.
    served: u64,
    answers: Arc<AtomicBool>,
}

struct BatchQueue {
    id: BatchId,
    rows: VecDeque<QueuedRow>,
    running: usize,
    served: u64,
}

impl State {
    fn batch(&mut self, model: &Arc<str>, id: BatchId) -> &mut BatchQueue {
        let no = self.models.iter().position(|known| known.name == *model).unwrap_or_else(|| {
            if self.models.len() >= IDLE_MODELS {
                self.models.retain(|known| !known.batches.is_empty());
            }
            let (name, answers) = (model.clone(), Arc::default());
            self.models.push(ModelQueue { name, batches: Vec::new(), running: 0, served: 0, answers });
            self.models.len() - 1
        });
        let batches = &mut self.models[no].batches;
        let no = batches.iter().position(|known| known.id == id).unwrap_or_else(|| {
            batches.push(BatchQueue { id, rows: VecDeque::new(), running: 0, served: 0 });
            batches.len() - 1
        });
        &mut batches[no]
    }

    /// The model and the batch of the row that is next, by their places. `Err` if rows wait and none may begin.
    fn next(&self) -> Result<Option<(usize, usize)>, HeldBack> {
        match self.next_of(|model| self.may_begin(model)) {
            None if self.next_of(|_| true).is_some() => Err(HeldBack),
            next => Ok(next),
        }
    }

    /// The same among the models that are chosen.
    fn next_of(&self, chosen: impl Fn(&ModelQueue) -> bool) -> Option<(usize, usize)> {
        let has_rows = |model: &ModelQueue| model.batches.iter().any(|batch| !batch.rows.is_empty());
        let models = self.models.iter().enumerate().filter(|(_, model)| has_rows(model) && chosen(model));
        let (no, model) = models.min_by_key(|(_, model)| (model.running, model.served))?;
        let batches = model.batches.iter().enumerate().filter(|(_, batch)| !batch.rows.is_empty());
        let (batch, _) = batches.min_by_key(|(_, batch)| (batch.running, batch.served))?;
        Some((no, batch))
    }

    fn may_begin(&self, model: &ModelQueue) -> bool {
        let not_of_others = self.permits.saturating_sub(self.running - model.running);
        let left_to_others = if self.permits < FEW { 0 } else { (not_of_others / 8).max(1) };
        model.answers.load(Relaxed) || model.running < not_of_others.saturating_sub(left_to_others).max(1)
    }

    fn take(&mut self, (model, batch): (usize, usize)) -> Option<QueuedRow> {
        self.taken += 1;
        let model = &mut self.models[model];
        model.served = self.taken;
        model.batches[batch].served = self.taken;
        model.batches[batch].rows.pop_front()
    }

    /// Counts a row under way more or less.
    fn count(&mut self, model: &Arc<str>, id: BatchId, change: isize) {
        let is_over = {
            let batch = self.batch(model, id);
            batch.running = batch.running.saturating_add_signed(change);
            batch.running == 0 && batch.rows.is_empty()
        };
        self.running = self.running.saturating_add_signed(change);
        if let Some(model) = self.models.iter_mut().find(|known| known.name == *model) {
            model.running = model.running.saturating_add_signed(change);
        }
        if is_over {
            self.tidy();
        }
    }

    /// Forgets batches of which nothing is here.
    fn tidy(&mut self) {
        for model in &mut self.models {
            model.batches.retain(|batch| batch.running > 0 || !batch.rows.is_empty());
        }
    }
}

/// Rows wait, and none may begin.
struct HeldBack;

/// A row's share of the permits: it counts as one of those under way unless it has released its permit.
pub(super) struct PermitShare {
    queue: Arc<Queue>,
    model: Arc<str>,
    batch: BatchId,
    answers: Arc<AtomicBool>,
    counts: AtomicBool,
}

impl PermitShare {
    /// Notes whether the row's model answers: whether there was any answer to its last call.
    pub(super) fn answered(&self, answers: bool) {
        if self.answers.load(Relaxed) != answers {
            // Under the lock, so that a worker which is about to wait sees it, or is told.
            let state = self.queue.lock();
            self.answers.store(answers, Relaxed);
            drop(state);
            self.queue.tell_held_back();
        }
    }
}

impl PermitObserver for PermitShare {
    fn acquired(&self) {
        if !self.counts.swap(true, Relaxed) {
            self.queue.lock().count(&self.model, self.batch, 1);
        }
    }

    fn released(&self) {
        if self.counts.swap(false, Relaxed) {
            self.queue.lock().count(&self.model, self.batch, -1);
            self.queue.tell_held_back();
        }
    }
}

impl Drop for PermitShare {
    fn drop(&mut self) {
        self.released();
    }
}

impl Queue {
    /// A queue for so many calls that may run at once.
    pub(in crate::daemon) fn new(permits: usize) -> Self {
        Self {
            state: Mutex::new(State { permits, ..State::default() }),
            filled: Semaphore::new(0),
            held_back: AtomicUsize::new(0),
            may_begin: Notify::new(),
        }
    }

    /// Sets how many calls may run at once.
    pub(in crate::daemon) fn set_permits(&self, permits: usize) {
        let before = std::mem::replace(&mut self.lock().permits, permits);
        if before < permits {
            self.tell_held_back();
        }
    }

    /// Adds rows of one lease, which has not left.
    pub(super) fn push(&self, rows: Vec<QueuedRow>) {
        let mut added = 0;
        let mut state = self.lock();
        for row in rows {
            // Checked under the lock: whoever halts a lease then takes its rows out, and must not miss one.
            if !row.cancellation.is_cancelled() {
                let model = row.request.data.model.clone();
                state.batch(&model, row.row.id.batch).rows.push_back(row);
                added += 1;
            }
        }
        drop(state);
        self.filled.add_permits(added);
        self.tell_held_back();
    }

    /// Waits until a row may begin; `None` when the queue is closed. Dropping the ticket leaves the row to others.
    pub(super) async fn ticket(&self) -> Option<Ticket<'_>> {
        loop {
            let ticket = self.filled.acquire().await.ok()?;
            let next = self.lock().next();
            match next {
                Ok(Some(_)) => return Some(Ticket(ticket)),
                // The rows were taken out by `leave`.
                Ok(None) => ticket.forget(),
                Err(HeldBack) => {
                    self.until_may_begin().await;
                }
            }
        }
    }

    /// The next row for a ticket; `None` if meanwhile none may begin any more.
    pub(super) fn take(self: &Arc<Self>, ticket: Ticket<'_>) -> Option<QueuedRow> {
        let taken = self.take_next().ok()?;
        ticket.0.forget();
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
    pub(super) fn leave(&self, lease: FencedLease) {
        let mut state = self.lock();
        for batch in state.models.iter_mut().flat_map(|model| &mut model.batches) {
            batch.rows.retain(|row| row.row.lease != lease);
        }
        state.tidy();
    }

    /// Sends the workers home.
    pub(in crate::daemon) fn close(&self) {
        self.filled.close();
        self.may_begin.notify_waiters();
    }

    fn take_next(self: &Arc<Self>) -> Result<Option<QueuedRow>, HeldBack> {
        let mut state = self.lock();
        let Some(next) = state.next()? else { return Ok(None) };
        let Some(mut row) = state.take(next) else { return Ok(None) };
        state.running += 1;
        let model = &mut state.models[next.0];
        model.running += 1;
        model.batches[next.1].running += 1;
        let share = PermitShare {
            queue: self.clone(),
            model: model.name.clone(),
            batch: row.row.id.batch,
            answers: model.answers.clone(),
            counts: AtomicBool::new(true),
        };
        drop(state);
        row.share = Some(Arc::new(share));
        Ok(Some(row))
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
        let changed = !matches!(self.lock().next(), Err(HeldBack));
        if !changed && !self.filled.is_closed() {
            notified.await;
        }
    }

    /// Has the workers look again that found rows of which none could begin.
    fn tell_held_back(&self) {
        if self.held_back.load(Relaxed) > 0 {
            self.may_begin.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
