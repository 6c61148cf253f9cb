//! Rows that were read and wait for a caller.

use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::attempt::Row;
use crate::domain::lease::FencedLease;
use crate::domain::request::{Pending, Request};

/// Reads whose rows wait, so that no caller waits for the disk. A read is small, or one long row.
const READS_AHEAD: usize = 4;

/// A row on its way from its lease to a caller, and back for each further attempt.
pub(super) struct OpenRow {
    pub(super) row: Row,
    pub(super) request: Request<Pending>,
    pub(super) halts: Arc<Halts>,
    /// What it takes up while it waits: a share of its read, or a place among the rows that wait for another attempt.
    pub(super) place: Option<Arc<OwnedSemaphorePermit>>,
    /// The lease ends when the last of these is gone.
    pub(super) open: TaskTrackerToken,
}

/// The ways in which the rows of a lease are called off. Shared by its rows: a token's own clones take a lock.
pub(super) struct Halts {
    /// The rows are not to be run here any more.
    pub(super) lease: CancellationToken,
    /// Nothing more is started.
    pub(super) stopping: CancellationToken,
    /// The daemon aborts what is left; this cancels `lease` too.
    pub(super) abort: CancellationToken,
}

impl Halts {
    /// Whether no further attempt is to be started.
    pub(super) fn no_more(&self) -> bool {
        self.lease.is_cancelled() || self.stopping.is_cancelled()
    }

    /// Resolves when no further attempt is to be started.
    pub(super) async fn until_no_more(&self) {
        tokio::select! {
            () = self.lease.cancelled() => {}
            () = self.stopping.cancelled() => {}
        }
    }
}

/// Where leases put their rows and callers take them, in turn.
pub(super) struct Queue {
    rows: Mutex<VecDeque<OpenRow>>,
    /// One permit for each row, and one too many for each that was taken out by [`Queue::leave`].
    filled: Semaphore,
    reads: Arc<Semaphore>,
    /// Callers that have no row to run.
    idle: AtomicUsize,
    /// Told when rows were added, and when a caller is idle no more.
    more: Notify,
}

/// Held by a caller for as long as it has no row to run.
pub(super) struct Idle<'a>(&'a Queue);

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.idle.fetch_sub(1, Relaxed);
        self.0.more.notify_one();
    }
}

impl Queue {
    pub(super) fn new() -> Self {
        let reads = Arc::new(Semaphore::new(READS_AHEAD));
        Self {
            rows: Mutex::default(),
            filled: Semaphore::new(0),
            reads,
            idle: AtomicUsize::new(0),
            more: Notify::new(),
        }
    }

    /// Waits until the rows of one more read have room.
    pub(super) async fn room(&self) -> Arc<OwnedSemaphorePermit> {
        Arc::new(self.reads.clone().acquire_owned().await.expect("the semaphore is never closed"))
    }

    /// Adds rows of one lease, which has not left.
    pub(super) fn push(&self, rows: Vec<OpenRow>) {
        let mut queue = self.lock();
        let before = queue.len();
        // Checked under the lock: whoever halts a lease then takes its rows out, and must not miss one.
        queue.extend(rows.into_iter().filter(|row| !row.halts.no_more()));
        self.filled.add_permits(queue.len() - before);
        self.more.notify_one();
    }

    /// Notes that a caller has no row to run.
    pub(super) fn idle(&self) -> Idle<'_> {
        self.idle.fetch_add(1, Relaxed);
        Idle(self)
    }

    /// The next row, if there is one now and no caller is idle, whose it would be.
    pub(super) fn next_for_nobody_else(&self) -> Option<OpenRow> {
        if self.idle.load(Relaxed) == 0 { self.next_now() } else { None }
    }

    /// Waits until there may be a row for one who has found none.
    pub(super) async fn until_more(&self) {
        self.more.notified().await;
    }

    /// The next row, or `None` when the queue is closed.
    pub(super) async fn next(&self) -> Option<OpenRow> {
        loop {
            self.filled.acquire().await.ok()?.forget();
            let row = self.lock().pop_front();
            if row.is_some() {
                return row;
            }
        }
    }

    /// The next row, if there is one now.
    pub(super) fn next_now(&self) -> Option<OpenRow> {
        loop {
            self.filled.try_acquire().ok()?.forget();
            let row = self.lock().pop_front();
            if row.is_some() {
                return row;
            }
        }
    }

    /// Puts a row back that was taken last, for the next caller.
    pub(super) fn put_back(&self, row: OpenRow) {
        let mut queue = self.lock();
        if !row.halts.no_more() {
            queue.push_front(row);
            self.filled.add_permits(1);
            self.more.notify_one();
        }
    }

    /// Takes the rows of a halted lease out.
    pub(super) fn leave(&self, lease: FencedLease) {
        self.lock().retain(|row| row.row.lease != lease);
    }

    /// Sends the callers home.
    pub(super) fn close(&self) {
        self.filled.close();
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<OpenRow>> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::domain::endpoint::Endpoint;
    use crate::domain::ids::{BatchId, LeaseId, RequestId};
    use crate::domain::request::RequestData;

    /// Rows of one lease, as its run makes them.
    struct Given {
        lease: FencedLease,
        halts: Arc<Halts>,
        open: TaskTracker,
    }

    impl Given {
        fn lease() -> Self {
            let token = CancellationToken::new;
            let halts = Arc::new(Halts { lease: token(), stopping: token(), abort: token() });
            Self { lease: FencedLease { id: LeaseId::new(), token: 1 }, halts, open: TaskTracker::new() }
        }

        fn row(&self, row: u32) -> OpenRow {
            let id = RequestId { batch: BatchId::new(), row };
            let data = RequestData {
                id,
                custom_id: String::new(),
                endpoint: Endpoint::ChatCompletions,
                model: "m".into(),
                body: Bytes::new(),
                metadata: Arc::default(),
            };
            OpenRow {
                row: Row { id, lease: self.lease },
                request: Request::new(data),
                halts: self.halts.clone(),
                place: None,
                open: self.open.token(),
            }
        }
    }

    /// The numbers of the rows that callers would get now.
    fn taken(queue: &Queue) -> Vec<u32> {
        std::iter::from_fn(|| queue.next().now_or_never().flatten()).map(|row| row.row.id.row).collect()
    }

    #[test]
    fn callers_get_rows_in_the_order_in_which_they_came() {
        let queue = Queue::new();
        let (a, b) = (Given::lease(), Given::lease());
        queue.push(vec![a.row(0), a.row(1)]);
        queue.push(vec![b.row(2)]);

        assert_eq!(taken(&queue), [0, 1, 2]);
    }

    #[test]
    fn the_rows_of_a_halted_lease_hold_nobody_up() {
        let queue = Queue::new();
        let (halted, other) = (Given::lease(), Given::lease());
        queue.push(vec![halted.row(0), other.row(1), halted.row(2)]);

        halted.halts.lease.cancel();
        queue.leave(halted.lease);
        // One that was waiting for another attempt, and is due only now.
        queue.push(vec![halted.row(3)]);

        assert!(halted.open.is_empty(), "the lease waits for rows that nobody runs");
        assert_eq!(taken(&queue), [1]);
    }

    #[test]
    fn a_closed_queue_sends_callers_home() {
        let queue = Queue::new();
        assert!(queue.next().now_or_never().is_none(), "a caller waits");

        queue.close();

        assert!(queue.next().now_or_never().expect("it answers").is_none());
    }
}
