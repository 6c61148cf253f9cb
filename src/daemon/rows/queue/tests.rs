//! How rows that wait are shared out among workers.

mod shares;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::super::ClaimedRow;
use super::super::backlog::Backlogs;
use super::{Cancellation, Queue, QueuedRow};
use crate::config::ConcurrencyControl;
use crate::daemon::leases::RunTokens;
use crate::domain::endpoint::Endpoint;
use crate::domain::ids::{BatchId, LeaseId, RequestId};
use crate::domain::lease::LeaseHold;
use crate::domain::owner::Owner;
use crate::domain::request::{Request, RequestData};
use crate::domain::time::{Clock, Timestamp};
use crate::upstream::{CallHistory, NoUpstream, PermitObserver as _, Registry, Server, ServerSettings};

/// A queue for so many calls of one server.
fn queue_of(calls: usize) -> Arc<Queue> {
    queue_at(calls, &clock())
}

fn clock() -> Clock {
    Clock::manual(Timestamp(0))
}

fn queue_at(calls: usize, clock: &Clock) -> Arc<Queue> {
    Arc::new(Queue::new(registry_of(calls, clock), clock.clone(), true, Arc::default()))
}

/// One server with so many calls.
fn registry_of(calls: usize, clock: &Clock) -> Registry {
    let settings = ServerSettings { concurrency: ConcurrencyControl::Fixed, ..ServerSettings::default() };
    let registry = Registry::of(Server::embedded(NoUpstream, settings, clock.clone()));
    registry.set_limit(calls);
    registry
}

/// Rows of one lease, as its run makes them.
struct Given {
    batch: BatchId,
    owner: &'static str,
    model: &'static str,
    expires_at: Timestamp,
    priority: &'static str,
    lease: LeaseHold,
    cancellation: Arc<Cancellation>,
    open: TaskTracker,
    backlogs: Backlogs,
}

impl Given {
    fn lease(model: &'static str) -> Self {
        let token = CancellationToken::new;
        Self {
            batch: BatchId::new(),
            owner: "default",
            model,
            expires_at: Timestamp(86_400_000),
            priority: "",
            lease: LeaseHold { id: LeaseId::new(), token: 1 },
            cancellation: Arc::new(Cancellation {
                tokens: RunTokens { halt: token(), drain: token() },
                abort: token(),
            }),
            open: TaskTracker::new(),
            backlogs: Backlogs::default(),
        }
    }

    fn row(&self, row: u32) -> QueuedRow {
        let id = RequestId { batch: self.batch, row };
        let data = RequestData {
            id,
            owner: Owner::parse(self.owner).expect("an id"),
            custom_id: String::new(),
            endpoint: Endpoint::ChatCompletions,
            model: self.model.into(),
            body: Bytes::new(),
            metadata: Arc::new([("priority".to_owned(), self.priority.to_owned())].into()),
            expires_at: self.expires_at,
        };
        QueuedRow {
            row: ClaimedRow { id, lease: self.lease },
            request: Request::new(data),
            cancellation: self.cancellation.clone(),
            waiting: self.backlogs.add(self.batch, self.model, 1).row(),
            place: None,
            share: None,
            route: None,
            history: CallHistory::default(),
            attempts: None,
            parked: None,
            retrying: None,
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
    row.share.as_ref().expect("a worker has it").answered(true, Timestamp(0), Duration::ZERO);
}

#[test]
fn the_rows_of_a_batch_come_in_their_order() {
    let queue = queue_of(100);
    let a = Given::lease("m");
    queue.push(a.rows(0..2));
    queue.push(a.rows(2..3));

    assert_eq!(numbers(&taken(&queue)), [0, 1, 2]);
}

#[test]
fn models_take_turns_and_in_each_its_batches() {
    let queue = queue_of(100);
    let (a, b, other) = (Given::lease("m"), Given::lease("m"), Given::lease("n"));
    queue.push(a.rows(0..4));
    queue.push(b.rows(10..12));
    queue.push(other.rows(20..24));

    assert_eq!(numbers(&taken(&queue)), [0, 20, 10, 21, 1, 22, 11, 23, 2, 3]);
}

#[test]
fn with_one_call_at_a_time_they_take_turns_as_well() {
    let queue = queue_of(1);
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
    let queue = queue_of(16);
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
    let queue = queue_of(16);
    let a = Given::lease("m");
    answer(&queue, &a);
    queue.push(a.rows(0..100));
    let mut rows = taken(&queue);
    assert_eq!(rows.len(), 16 + 84, "how many run is for the workers to keep");

    let one = rows.pop().expect("there are some");
    one.share.as_ref().expect("a worker has it").answered(false, Timestamp(0), Duration::ZERO);
    rows.truncate(13);
    drop(one);
    queue.push(a.rows(100..200));

    assert_eq!(taken(&queue).len(), 1, "fourteen of sixteen");
}

/// The numbers of the rows whose calls are recalled.
fn recalled(rows: &[QueuedRow]) -> Vec<u32> {
    let is_recalled = |row: &&QueuedRow| {
        let share = row.share.as_ref().expect("a worker has it");
        share.loan().is_some_and(|loan| loan.recall.is_cancelled())
    };
    rows.iter().filter(is_recalled).map(|row| row.row.id.row).collect()
}

#[test]
fn a_model_that_does_not_answer_has_one_call_in_32_beside_one_that_does() {
    let queue = queue_of(64);
    let (hangs, quick) = (Given::lease("hangs"), Given::lease("quick"));
    answer(&queue, &quick);
    queue.push(quick.rows(0..100));
    let first = queue.next_now().expect("a row waits");
    queue.push(hangs.rows(100..200));

    let of_both: Vec<QueuedRow> = std::iter::from_fn(|| queue.next_now()).take(63).collect();

    assert_eq!(of_both.iter().filter(|row| row.row.id.batch == hangs.batch).count(), 2);
    drop((first, of_both));
}

#[test]
fn calls_on_loan_are_recalled_for_a_model_that_answers() {
    let queue = queue_of(16);
    let (hangs, quick) = (Given::lease("hangs"), Given::lease("quick"));
    queue.push(hangs.rows(0..100));
    let mut stuck = taken(&queue);
    assert_eq!(stuck.len(), 14);
    queue.push(quick.rows(200..300));
    assert_eq!(recalled(&stuck), [0; 0], "there are calls for the first rows of the other model");

    let first = queue.next_now().expect("there is a call for it");
    first.share.as_ref().expect("a worker has it").answered(true, Timestamp(0), Duration::ZERO);
    assert_eq!(recalled(&stuck), (1..14).collect::<Vec<_>>(), "all but its own");

    stuck.truncate(1);
    let of_quick = taken(&queue);
    assert_eq!(of_quick.len(), 99, "how many run is for the workers to keep");
    assert!(of_quick.iter().all(|row| row.row.id.batch == quick.batch));
}

#[test]
fn as_many_loans_are_recalled_as_rows_wait_for_them_and_the_latest_first() {
    let queue = queue_of(16);
    let (hangs, quick) = (Given::lease("hangs"), Given::lease("quick"));
    answer(&queue, &quick);
    queue.push(hangs.rows(0..100));
    let mut stuck = taken(&queue);
    assert_eq!(stuck.len(), 14);

    queue.push(quick.rows(200..202));
    assert_eq!(recalled(&stuck), [0; 0], "two calls are free");
    queue.push(quick.rows(202..204));
    assert_eq!(recalled(&stuck), [12, 13]);
    queue.push(quick.rows(204..205));
    assert_eq!(recalled(&stuck), [11, 12, 13], "the two are on their way");

    stuck[0].share.as_ref().expect("a worker has it").answered(true, Timestamp(0), Duration::ZERO);
    queue.push(quick.rows(205..300));
    assert_eq!(recalled(&stuck), [11, 12, 13], "what a model that answers has is its own");
    stuck.clear();
}

#[test]
fn of_two_calls_one_is_recalled_for_a_second_model() {
    let queue = queue_of(2);
    let (hangs, other) = (Given::lease("hangs"), Given::lease("other"));
    queue.push(hangs.rows(0..10));
    let stuck = taken(&queue);
    assert_eq!(stuck.len(), 2);

    queue.push(other.rows(20..30));

    assert_eq!(recalled(&stuck), [1]);
}

#[test]
fn a_model_that_is_silent_for_long_gets_no_more_calls_beside_another() {
    let clock = Clock::manual(Timestamp(0));
    let queue = queue_at(16, &clock);
    let (silent, quick) = (Given::lease("silent"), Given::lease("quick"));
    answer(&queue, &silent);
    queue.push(silent.rows(0..100));
    let rows: Vec<QueuedRow> = std::iter::from_fn(|| queue.next_now()).take(4).collect();
    clock.advance(Duration::from_mins(1));
    answer(&queue, &quick);
    queue.push(quick.rows(200..201));
    let of_quick = queue.next_now().expect("its row is the one of the model with fewer under way");
    of_quick.share.as_ref().expect("a worker has it").answered(true, clock.now(), Duration::ZERO);

    assert!(queue.next_now().is_none(), "the silent model has more than its own");

    rows[0].share.as_ref().expect("a worker has it").answered(true, clock.now(), Duration::ZERO);
    assert_eq!(queue.next_now().map(|row| row.row.id.batch), Some(silent.batch), "it answers again");
}

#[test]
fn workers_that_are_held_back_begin_when_they_may() {
    let registry = registry_of(4, &clock());
    let queue = Arc::new(Queue::new(registry.clone(), clock(), true, Arc::default()));
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
    registry.set_limit(16);
    queue.servers_changed();
    assert!(held_back.now_or_never().flatten().is_some(), "there are more calls");
}

#[test]
fn a_row_that_has_released_its_permit_leaves_room_for_another_of_its_model() {
    let queue = queue_of(1);
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
    let queue = queue_of(100);
    let (halted, other) = (Given::lease("m"), Given::lease("m"));
    queue.push(vec![halted.row(0), other.row(1), halted.row(2)]);

    halted.cancellation.tokens.halt.cancel();
    queue.leave(halted.lease);
    // One that was waiting for another attempt, and is due only now.
    queue.push(vec![halted.row(3)]);

    assert!(halted.open.is_empty(), "the lease waits for rows that nobody runs");
    assert_eq!(numbers(&taken(&queue)), [1]);
}

#[test]
fn a_closed_queue_sends_workers_home() {
    let queue = queue_of(4);
    let mut waiting = Box::pin(next(&queue));
    assert!(waiting.as_mut().now_or_never().is_none(), "a worker waits");

    queue.close();

    assert!(waiting.now_or_never().expect("it answers").is_none());
}
