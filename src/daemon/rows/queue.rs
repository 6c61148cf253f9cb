//! Rows that were read and wait for a worker: a queue for each model, and in it one for each batch.
//!
//! A worker with a permit takes a row of the model with the fewest rows under way, and of that model's batch with the
//! fewest. So models share the calls evenly when more rows wait than can run, and batches share those of their model.
//!
//! A model that has not answered yet, or whose last call had no answer, may hang. Of the calls that other models do not
//! use it leaves an eighth free, and at least one if there are four, for models whose first rows come later: these
//! never wait for the time-outs of a model that hangs.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::ClaimedRow;
use super::backlog::Waiting;
use crate::domain::ids::BatchId;
use crate::domain::lease::FencedLease;
use crate::domain::request::{Pending, Request};
use crate::domain::time::Clock;
use crate::sync::lock;
use crate::upstream::PermitObserver;

/// With fewer permits than this, a model that does not answer may use all of them.
const FEW: usize = 4;
/// Models that the queue remembers although it has none of their rows.
const IDLE_MODELS: usize = 256;

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
    /// The lease ends when the last of these is gone.
    pub(super) open: TaskTrackerToken,
}

impl QueuedRow {
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
    /// Cancelled when this daemon must not run the rows any more.
    pub(super) lease: CancellationToken,
    /// Cancelled when the daemon starts nothing more.
    pub(super) stopping: CancellationToken,
    /// Cancelled when the daemon aborts the rows under way; `lease` is cancelled with it.
    pub(super) abort: CancellationToken,
}

impl Cancellation {
    /// Whether workers must start no further attempt.
    pub(super) fn is_cancelled(&self) -> bool {
        self.lease.is_cancelled() || self.stopping.is_cancelled()
    }

    /// Resolves when workers must start no further attempt.
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
    /// One permit for each row, and one too many for each that [`Queue::leave`] has taken out.
    filled: Semaphore,
    /// Workers that wait although the queue has rows, because none of these may begin.
    held_back: AtomicUsize,
    /// Notified when a row that was held back may begin.
    may_begin: Notify,
}

/// The right to one row of the queue, whichever is next when it is taken.
pub(super) struct Ticket<'a>(SemaphorePermit<'a>);

#[derive(Default)]
struct State {
    models: Vec<ModelQueue>,
    permits: usize,
    /// Rows under way that have not released their permit.
    running: usize,
    /// How many rows workers took so far: the clock of `served`.
    taken: u64,
}

struct ModelQueue {
    name: Arc<str>,
    batches: Vec<BatchQueue>,
    /// Rows under way that have not released their permit.
    running: usize,
    /// `taken` when a worker took a row last: of two models with as many under way, the one served earlier is next.
    served: u64,
    /// Whether the last call of the model had an answer. Written by the rows under way.
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

    /// The positions of the next row's model and batch. `Err` if rows wait and none may begin.
    fn next(&self) -> Result<Option<(usize, usize)>, HeldBack> {
        match self.next_of(|model| self.may_begin(model)) {
            None if self.next_of(|_| true).is_some() => Err(HeldBack),
            next => Ok(next),
        }
    }

    /// The positions of the next row's model and batch, among the models for which `chosen` is true.
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

    /// Adds `change` to the rows under way, of all models, of this one and of this batch.
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

    /// Forgets batches that have no row waiting and none under way.
    fn tidy(&mut self) {
        for model in &mut self.models {
            model.batches.retain(|batch| batch.running > 0 || !batch.rows.is_empty());
        }
    }
}

/// Rows wait, and none may begin.
struct HeldBack;

/// Counts a row as under way, except while it has released its permit.
pub(super) struct PermitShare {
    queue: Arc<Queue>,
    model: Arc<str>,
    batch: BatchId,
    answers: Arc<AtomicBool>,
    counts: AtomicBool,
}

impl PermitShare {
    /// Notes whether the last call of the row's model had any answer.
    pub(super) fn answered(&self, answers: bool) {
        if self.answers.load(Relaxed) != answers {
            // Stored under the lock, so that a worker which is about to wait either sees it or is notified.
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
    /// A queue for the workers of a limiter with so many permits.
    pub(in crate::daemon) fn new(permits: usize) -> Self {
        Self {
            state: Mutex::new(State { permits, ..State::default() }),
            filled: Semaphore::new(0),
            held_back: AtomicUsize::new(0),
            may_begin: Notify::new(),
        }
    }

    /// Sets how many permits the limiter has.
    pub(in crate::daemon) fn set_permits(&self, permits: usize) {
        let before = std::mem::replace(&mut self.lock().permits, permits);
        if before < permits {
            self.tell_held_back();
        }
    }

    /// Adds rows of leases that have not left.
    pub(super) fn push(&self, rows: Vec<QueuedRow>) {
        let mut added = 0;
        let mut state = self.lock();
        for row in rows {
            // Checked under the lock: the lease is cancelled before `leave` takes its rows out, which must miss none.
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
                // `leave` has taken out the row that the permit was for.
                Ok(None) => ticket.forget(),
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
    pub(super) fn leave(&self, lease: FencedLease) {
        let mut state = self.lock();
        for batch in state.models.iter_mut().flat_map(|model| &mut model.batches) {
            batch.rows.retain(|row| row.row.lease != lease);
        }
        state.tidy();
    }

    /// Ends the workers when they next look for a row.
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
        let changed = !matches!(self.lock().next(), Err(HeldBack));
        if !changed && !self.filled.is_closed() {
            notified.await;
        }
    }

    /// Has the workers that are held back look again.
    fn tell_held_back(&self) {
        if self.held_back.load(Relaxed) > 0 {
            self.may_begin.notify_waiters();
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
