//! How rows that wait are shared out among workers.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ClaimedRow;
use super::backlog::Backlogs;
use super::queue::{Cancellation, Queue, QueuedRow};
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::{BatchId, LeaseId, RequestId};
use crate::domain::lease::FencedLease;
use crate::domain::owner::Owner;
use crate::domain::request::{Request, RequestData};
use crate::upstream::PermitObserver as _;

/// Rows of one lease, as its run makes them.
struct Given {
    batch: BatchId,
    model: &'static str,
    lease: FencedLease,
    cancellation: Arc<Cancellation>,
    open: TaskTracker,
    backlogs: Backlogs,
}

impl Given {
    fn lease(model: &'static str) -> Self {
        let token = CancellationToken::new;
        Self {
            batch: BatchId::new(),
            model,
            lease: FencedLease { id: LeaseId::new(), token: 1 },
            cancellation: Arc::new(Cancellation { lease: token(), stopping: token(), abort: token() }),
            open: TaskTracker::new(),
            backlogs: Backlogs::default(),
        }
    }

    fn row(&self, row: u32) -> QueuedRow {
        let id = RequestId { batch: self.batch, row };
        let data = RequestData {
            id,
            owner: Owner::default(),
            custom_id: String::new(),
            endpoint: Endpoint::ChatCompletions,
            model: self.model.into(),
            body: Bytes::new(),
            metadata: Arc::default(),
        };
        QueuedRow {
            row: ClaimedRow { id, lease: self.lease },
            request: Request::new(data),
            cancellation: self.cancellation.clone(),
            waiting: self.backlogs.add(self.batch, self.model, 1).row(),
            place: None,
            share: None,
            open: self.open.token(),
        }
    }

    fn rows(&self, rows: std::ops::Range<u32>) -> Vec<QueuedRow> {
        rows.map(|row| self.row(row)).collect()
    }
}

/// The rows that workers would get now.
fn taken(queue: &Arc<Queue>) -> Vec<QueuedRow> {
    std::iter::from_fn(|| queue.next_now()).collect()
}

/// What a worker does that has no permit, once it has one.
async fn next(queue: &Arc<Queue>) -> Option<QueuedRow> {
    let ticket = queue.ticket().await?;
    queue.take(ticket)
}

fn numbers(rows: &[QueuedRow]) -> Vec<u32> {
    rows.iter().map(|row| row.row.id.row).collect()
}

/// Has a model answer, so that it may have all calls.
fn answer(queue: &Arc<Queue>, given: &Given) {
    queue.push(given.rows(0..1));
    let row = queue.next_now().expect("a row was pushed");
    row.share.as_ref().expect("a worker has it").answered(true);
}

#[test]
fn the_rows_of_a_batch_come_in_their_order() {
    let queue = Arc::new(Queue::new(100));
    let a = Given::lease("m");
    queue.push(a.rows(0..2));
    queue.push(a.rows(2..3));

    assert_eq!(numbers(&taken(&queue)), [0, 1, 2]);
}

#[test]
fn models_take_turns_and_in_each_its_batches() {
    let queue = Arc::new(Queue::new(100));
    let (a, b, other) = (Given::lease("m"), Given::lease("m"), Given::lease("n"));
    queue.push(a.rows(0..4));
    queue.push(b.rows(10..12));
    queue.push(other.rows(20..24));

    assert_eq!(numbers(&taken(&queue)), [0, 20, 10, 21, 1, 22, 11, 23, 2, 3]);
}

#[test]
fn with_one_call_at_a_time_they_take_turns_as_well() {
    let queue = Arc::new(Queue::new(1));
    let (a, b, other) = (Given::lease("m"), Given::lease("m"), Given::lease("n"));
    queue.push(a.rows(0..2));
    queue.push(b.rows(10..12));
    queue.push(other.rows(20..22));

    // Each ends before the next is taken.
    let one_by_one = std::iter::from_fn(|| queue.next_now().map(|row| row.row.id.row));

    assert_eq!(one_by_one.collect::<Vec<_>>(), [0, 20, 10, 21, 1, 11]);
}

#[test]
fn a_model_that_does_not_answer_leaves_calls_to_those_that_come() {
    let queue = Arc::new(Queue::new(16));
    let (hangs, second, third) = (Given::lease("hangs"), Given::lease("second"), Given::lease("third"));
    queue.push(hangs.rows(0..100));
    let stuck = taken(&queue);
    queue.push(second.rows(0..100));
    let of_second = taken(&queue);
    queue.push(third.rows(0..100));
    let of_third = taken(&queue);

    assert_eq!([stuck.len(), of_second.len(), of_third.len()], [14, 1, 1]);
}

#[test]
fn a_model_that_answers_may_have_every_call_and_one_that_stops_answering_not() {
    let queue = Arc::new(Queue::new(16));
    let a = Given::lease("m");
    answer(&queue, &a);
    queue.push(a.rows(0..100));
    let mut rows = taken(&queue);
    assert_eq!(rows.len(), 16 + 84, "how many run is for the workers to keep");

    let one = rows.pop().expect("there are some");
    one.share.as_ref().expect("a worker has it").answered(false);
    rows.truncate(13);
    drop(one);
    queue.push(a.rows(100..200));

    assert_eq!(taken(&queue).len(), 1, "fourteen of sixteen");
}

#[test]
fn workers_that_are_held_back_begin_when_they_may() {
    let queue = Arc::new(Queue::new(4));
    let (hangs, other) = (Given::lease("hangs"), Given::lease("other"));
    queue.push(hangs.rows(0..10));
    let mut stuck = taken(&queue);
    assert_eq!(stuck.len(), 3);
    let mut held_back = Box::pin(next(&queue));
    assert!(held_back.as_mut().now_or_never().is_none());

    queue.push(other.rows(20..21));
    let row = held_back.now_or_never().flatten().expect("another model has rows");
    assert_eq!(row.row.id.row, 20);

    drop(row);
    let mut held_back = Box::pin(next(&queue));
    assert!(held_back.as_mut().now_or_never().is_none());
    drop(stuck.pop());
    let _begun = held_back.now_or_never().flatten().expect("a row of the model has ended");

    let mut held_back = Box::pin(next(&queue));
    assert!(held_back.as_mut().now_or_never().is_none());
    queue.set_permits(16);
    assert!(held_back.now_or_never().flatten().is_some(), "there are more calls");
}

#[test]
fn a_row_that_has_released_its_permit_leaves_room_for_another_of_its_model() {
    let queue = Arc::new(Queue::new(1));
    let a = Given::lease("m");
    queue.push(a.rows(0..3));
    let first = taken(&queue).pop().expect("one may begin");
    assert!(queue.next_now().is_none());

    let share = first.share.as_ref().expect("a worker has it");
    share.released();
    let second = queue.next_now().expect("the permit is free");
    share.acquired();
    drop(second);
    assert!(queue.next_now().is_none(), "the first has its permit again");

    drop(first);
    assert!(queue.next_now().is_some());
}

#[test]
fn the_rows_of_a_halted_lease_hold_nobody_up() {
    let queue = Arc::new(Queue::new(100));
    let (halted, other) = (Given::lease("m"), Given::lease("m"));
    queue.push(vec![halted.row(0), other.row(1), halted.row(2)]);

    halted.cancellation.lease.cancel();
    queue.leave(halted.lease);
    // One that was waiting for another attempt, and is due only now.
    queue.push(vec![halted.row(3)]);

    assert!(halted.open.is_empty(), "the lease waits for rows that nobody runs");
    assert_eq!(numbers(&taken(&queue)), [1]);
}

#[test]
fn a_closed_queue_sends_workers_home() {
    let queue = Arc::new(Queue::new(4));
    let mut waiting = Box::pin(next(&queue));
    assert!(waiting.as_mut().now_or_never().is_none(), "a worker waits");

    queue.close();

    assert!(waiting.now_or_never().expect("it answers").is_none());
}
