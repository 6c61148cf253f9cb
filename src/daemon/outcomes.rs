//! Outcomes on their way to the recorder: gathered, so that many share one commit.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use super::attempt::Row;
use crate::domain::usage::Usage;

/// How long an outcome waits for others to share its commit.
const GATHER: Duration = Duration::from_millis(250);
/// So many bytes of lines are recorded at once.
const FLUSH_BYTES: usize = 8 << 20;
/// Lines that wait to be recorded, in KiB: what bounds memory when the storage is slower than the upstream.
const ROOM_KIB: usize = 64 << 10;

/// What became of a row.
pub(super) struct Outcome {
    pub(super) row: Row,
    pub(super) is_success: bool,
    pub(super) line: Vec<u8>,
    pub(super) usage: Usage,
    /// Given back when the line is durable.
    _room: OwnedSemaphorePermit,
}

/// What is recorded together.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) outcomes: Vec<Outcome>,
    /// Told when the outcomes are recorded.
    pub(super) settling: Vec<oneshot::Sender<()>>,
    bytes: usize,
    closed: bool,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.outcomes.is_empty() && self.settling.is_empty()
    }

    fn is_due(&self) -> bool {
        self.bytes >= FLUSH_BYTES || !self.settling.is_empty() || self.closed
    }
}

/// Where outcomes are handed in, and where the recorder takes them.
pub(super) struct Outcomes {
    gathered: Mutex<Gathered>,
    /// Told when the first outcome comes, and when the recorder is to wait no longer.
    changed: Notify,
    room: Arc<Semaphore>,
}

impl Outcomes {
    pub(super) fn new() -> Self {
        Self { gathered: Mutex::default(), changed: Notify::new(), room: Arc::new(Semaphore::new(ROOM_KIB)) }
    }

    /// Hands in a success. Returns when there is room for it.
    pub(super) async fn completed(&self, row: Row, line: Vec<u8>, usage: Usage) {
        self.hand_in(row, true, line, usage).await;
    }

    /// Hands in a failure. Returns when there is room for it.
    pub(super) async fn failed(&self, row: Row, line: Vec<u8>) {
        self.hand_in(row, false, line, Usage::default()).await;
    }

    /// Returns when everything that was handed in before is recorded.
    pub(super) async fn settle(&self) {
        let (done, settled) = oneshot::channel();
        {
            let mut gathered = self.lock();
            if gathered.closed {
                return;
            }
            gathered.settling.push(done);
        }
        self.changed.notify_one();
        // An error means that the recorder has panicked: what it had is lost, and its rows are owed.
        let _ = settled.await;
    }

    /// Nothing more is handed in: the recorder records what is here, and ends.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    /// The recorder is gone: nobody waits for it any more, and what it has not recorded is owed.
    pub(super) fn abandon(&self) {
        *self.lock() = Gathered { closed: true, ..Gathered::default() };
    }

    /// What is to be recorded next, once enough has gathered, the first outcome has waited long enough, or somebody
    /// wants to see it settled. `None` when nothing will come.
    pub(super) async fn next(&self) -> Option<Gathered> {
        self.until(|gathered| !gathered.is_empty() || gathered.closed).await;
        // Whether it took that long does not matter.
        let _ = tokio::time::timeout(GATHER, self.until(Gathered::is_due)).await;
        let mut gathered = self.lock();
        let closed = gathered.closed;
        let next = std::mem::take(&mut *gathered);
        gathered.closed = closed;
        (!next.is_empty()).then_some(next)
    }

    async fn until(&self, holds: impl Fn(&Gathered) -> bool) {
        while !holds(&self.lock()) {
            self.changed.notified().await;
        }
    }

    async fn hand_in(&self, row: Row, is_success: bool, line: Vec<u8>, usage: Usage) {
        let kib = u32::try_from((line.len() / 1024 + 1).min(ROOM_KIB)).expect("bounded");
        let room = self.room.clone().acquire_many_owned(kib).await.expect("the semaphore is never closed");
        let mut gathered = self.lock();
        if gathered.closed {
            return;
        }
        let is_first = gathered.is_empty();
        gathered.bytes += line.len();
        gathered.outcomes.push(Outcome { row, is_success, line, usage, _room: room });
        let is_due = gathered.is_due();
        drop(gathered);
        if is_first || is_due {
            self.changed.notify_one();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Gathered> {
        self.gathered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;
    use crate::domain::ids::{BatchId, LeaseId, RequestId};
    use crate::domain::lease::FencedLease;

    fn row(row: u32) -> Row {
        let lease = FencedLease { id: LeaseId::new(), token: 1 };
        Row { id: RequestId { batch: BatchId::new(), row }, lease }
    }

    #[tokio::test]
    async fn lines_wait_for_those_before_them_to_be_recorded() {
        let outcomes = Outcomes::new();
        let hand_in = |no| outcomes.failed(row(no), vec![b'x'; (ROOM_KIB << 10) / 2]);

        assert!(hand_in(0).now_or_never().is_some(), "there is room");
        let mut waiting = Box::pin(hand_in(1));
        assert!(waiting.as_mut().now_or_never().is_none(), "a little more than half of the room is taken");
        let taken = outcomes.next().now_or_never().flatten().expect("enough has gathered");
        assert!(waiting.as_mut().now_or_never().is_none(), "it is not recorded yet");
        drop(taken);
        assert!(waiting.now_or_never().is_some(), "there is room again");
    }

    #[test]
    fn nobody_waits_for_a_recorder_that_is_gone() {
        let outcomes = Outcomes::new();
        let mut waiting = Box::pin(outcomes.settle());
        assert!(waiting.as_mut().now_or_never().is_none(), "the recorder has not settled");

        outcomes.abandon();

        assert!(waiting.now_or_never().is_some(), "who waited already");
        assert!(outcomes.settle().now_or_never().is_some(), "and who comes later");
    }
}
