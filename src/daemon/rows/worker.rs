//! Workers: each takes rows from the queue, one after the other, and runs them with one permit.
//!
//! A worker keeps its permit from row to row. It gives the permit back when the limiter asks for it, or when the queue
//! has no row. Then it waits for a row before it waits for a permit, so that no idle worker holds one.
//!
//! A row that waits for its tools has released its permit and still has its worker. So there are more workers than
//! permits: whenever the last waiting worker takes a row, it starts another worker.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::RowRunner;
use super::attempt::{Attempted, attempt};
use super::queue::QueuedRow;
use crate::processor::RequestProcessor;
use crate::storage::Storage;
use crate::upstream::limiter::{Permit, Priority};
use crate::upstream::{PermitObserver, RowHeaders, Session, SessionStart};

/// Rows that may wait for another attempt, for each permit. It bounds the memory of such rows.
const WAITING_FOR_ATTEMPT: usize = 3;
/// Rows that may wait for their tools, for each permit. It bounds the memory of such rows.
const WAITING_FOR_TOOLS: usize = 4;

/// The workers of a daemon.
pub(in crate::daemon) struct Workers<S, P> {
    runner: Arc<RowRunner<S, P>>,
    tasks: TaskTracker,
    /// One permit for each row that may wait for another attempt.
    waiting_places: Arc<Semaphore>,
    most: usize,
    started: AtomicUsize,
    /// Workers that have no row.
    waiting: AtomicUsize,
}

impl<S, P> Workers<S, P>
where
    S: Storage,
    P: RequestProcessor<S, Session> + 'static,
{
    /// Starts the first worker. All end when the queue is closed.
    pub(in crate::daemon) fn start(runner: Arc<RowRunner<S, P>>, tasks: TaskTracker) {
        let permits = runner.shared.settings.max_concurrency;
        let waiting_places = Arc::new(Semaphore::new(permits * WAITING_FOR_ATTEMPT));
        let (most, started, waiting) = (permits * (1 + WAITING_FOR_TOOLS), AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Self { runner, tasks, waiting_places, most, started, waiting }).start_one();
    }

    fn start_one(self: &Arc<Self>) {
        if self.started.fetch_add(1, Relaxed) < self.most {
            self.waiting.fetch_add(1, Relaxed);
            self.tasks.spawn(self.clone().work());
        }
    }

    async fn work(self: Arc<Self>) {
        let mut next = self.wait().await;
        while let Some((row, permit)) = next {
            let kept = self.run(row, permit).await.and_then(Permit::keep);
            next = match kept.and_then(|permit| Some((self.runner.queue.next_now()?, permit))) {
                None => self.wait_again().await,
                next => next,
            };
        }
    }

    async fn wait_again(self: &Arc<Self>) -> Option<(QueuedRow, Permit)> {
        self.waiting.fetch_add(1, Relaxed);
        self.wait().await
    }

    /// Waits for a row and then for a permit; `None` when the queue is closed. The worker counts as waiting.
    async fn wait(self: &Arc<Self>) -> Option<(QueuedRow, Permit)> {
        let RowRunner { shared, queue, .. } = &*self.runner;
        loop {
            let ticket = queue.ticket().await?;
            let permit = tokio::select! {
                permit = shared.registry.limiter().acquire(Priority::New) => permit,
                () = shared.shutdown.ended.cancelled() => return None,
            };
            if let Some(row) = queue.take(ticket) {
                self.has_row();
                return Some((row, permit));
            }
        }
    }

    /// Counts one waiting worker less, and starts another if it was the last.
    fn has_row(self: &Arc<Self>) {
        if self.waiting.fetch_sub(1, Relaxed) == 1 {
            self.start_one();
        }
    }

    /// Runs a row until it has an outcome, is cancelled, or waits for its next attempt. Returns the permit unless the
    /// row has released it.
    async fn run(&self, mut row: QueuedRow, permit: Permit) -> Option<Permit> {
        let RowRunner { shared, queue, .. } = &*self.runner;
        // The lease reads on when all rows of a read have given their place back.
        row.place = None;
        let share = row.share.clone().expect("a row that a worker has has a share");
        let data = &row.request.data;
        let headers = RowHeaders::of(row.row.id, &data.custom_id);
        let session = Session::new(SessionStart {
            registry: shared.registry.clone(),
            model: data.model.clone(),
            permit,
            route: row.route.take(),
            history: row.history,
            headers: headers.with_metadata(&shared.settings.metadata_headers, &data.metadata),
            observer: Some(share.clone()),
        });
        let attempted = attempt(&self.runner, row, &session).await;
        let (permit_left, history) = session.end();
        let Attempted::ToBeTriedAgain(mut again) = attempted else { return permit_left };
        again.history = history;
        let Err(mut again) = self.wait_elsewhere(again) else { return permit_left };
        // No place is left: this worker waits with the row, so that the daemon begins no more rows than it can hold.
        drop(permit_left);
        share.released();
        again.share = None;
        // The row is not one of those under way any more.
        drop((share, session));
        if let Some(row) = again.until_due(&shared.clock).await {
            queue.push(vec![row.untaken()]);
        }
        None
    }

    /// Has a row wait for its next attempt without a worker, and gives it back if there is no place for that.
    fn wait_elsewhere(&self, mut row: Box<QueuedRow>) -> Result<(), Box<QueuedRow>> {
        if row.request.state.not_before.is_none_or(|at| at <= self.runner.shared.clock.now()) {
            self.runner.queue.push(vec![row.untaken()]);
            return Ok(());
        }
        let Ok(place) = self.waiting_places.clone().try_acquire_owned() else { return Err(row) };
        row.place = Some(Arc::new(place));
        let row = Box::new(row.untaken());
        let (queue, clock) = (self.runner.queue.clone(), self.runner.shared.clock.clone());
        self.tasks.spawn(async move {
            if let Some(row) = row.until_due(&clock).await {
                queue.push(vec![row]);
            }
        });
        Ok(())
    }
}
