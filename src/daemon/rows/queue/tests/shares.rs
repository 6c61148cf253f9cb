//! The shares of owners and batches.

use std::num::NonZeroU32;

use super::*;
use crate::domain::project_limits::{ProjectLimitTable, ProjectLimits};

#[test]
fn owners_take_turns_however_many_batches_they_have() {
    let queue = queue_of(100);
    let many: Vec<_> = (0..3).map(|_| Given::lease("m")).collect();
    let few = Given { owner: "other", ..Given::lease("m") };
    for (no, given) in (0..).zip(&many) {
        queue.push(given.rows(no * 10..no * 10 + 4));
    }
    queue.push(few.rows(90..94));

    assert_eq!(numbers(&taken(&queue)), [0, 90, 10, 91, 20, 92, 1, 93, 11, 21, 2, 12, 22, 3, 13, 23]);
}

#[test]
fn an_owner_has_calls_as_its_share_says() {
    let share = |share| ProjectLimits { share: NonZeroU32::new(share), ..ProjectLimits::default() };
    let large = (Owner::parse("large").expect("an id"), share(3));
    let table = ProjectLimitTable { projects: [large].into(), ..ProjectLimitTable::default() };
    let queue = Queue::new(registry_of(100, &clock()), clock(), false, Arc::new(table));
    let queue = Arc::new(queue);
    let [small, large] = ["small", "large"].map(|owner| Given { owner, ..Given::lease("m") });
    answer(&queue, &Given::lease("m"));
    for given in [&small, &large] {
        queue.push(given.rows(0..100));
    }

    let rows: Vec<QueuedRow> = std::iter::from_fn(|| queue.next_now()).take(80).collect();

    let of = |given: &Given| rows.iter().filter(|row| row.row.id.batch == given.batch).count();
    assert_eq!([of(&small), of(&large)], [20, 60]);
}

#[test]
fn a_batch_has_calls_as_its_priority_says() {
    let queue = queue_of(100);
    answer(&queue, &Given::lease("m"));
    let with = |priority| Given { priority, ..Given::lease("m") };
    let [high, normal, low] = ["high", "", "low"].map(with);
    for given in [&low, &normal, &high] {
        queue.push(given.rows(0..100));
    }

    let rows: Vec<QueuedRow> = std::iter::from_fn(|| queue.next_now()).take(63).collect();

    let of = |given: &Given| rows.iter().filter(|row| row.row.id.batch == given.batch).count();
    assert_eq!([of(&high), of(&normal), of(&low)], [48, 12, 3]);
}

#[test]
fn a_batch_at_risk_of_missing_its_window_comes_first() {
    let clock = clock();
    let queue = queue_at(100, &clock);
    let (usual, urgent) = (Given::lease("m"), Given { expires_at: Timestamp(60_000), ..Given::lease("m") });
    queue.push(usual.rows(0..4));
    queue.push(urgent.rows(10..13));
    // A row that takes a second, so that three of them are no risk.
    let first = queue.next_now().expect("a row waits");
    clock.advance(Duration::from_secs(1));
    queue.look_at_windows(&[].into(), 1);
    let two = [queue.next_now().expect("a row waits"), queue.next_now().expect("a row waits")];
    assert_eq!(numbers(&two), [10, 1], "they take turns");

    // Many rows that nobody has claimed are due as well.
    queue.look_at_windows(&[("m".into(), vec![(Timestamp(60_000), 1_000)])].into(), 1);

    assert_eq!(numbers(&taken(&queue)), [11, 12, 2, 3]);
    drop((first, two));
}

#[test]
fn a_row_is_one_of_those_under_way_until_its_worker_has_it_no_more() {
    let clock = clock();
    let queue = queue_at(100, &clock);
    let given = Given::lease("m");
    queue.push(given.rows(0..3));
    let running = || {
        let (models, batches) = queue.models().activity();
        (models[0].running, batches.iter().map(|batch| (batch.running, batch.last_begun)).collect::<Vec<_>>())
    };
    assert_eq!(running(), (0, vec![]));

    let first = queue.next_now().expect("a row waits");
    clock.advance(Duration::from_secs(5));
    let second = queue.next_now().expect("a row waits");
    assert_eq!(running(), (2, vec![(2, Some(Timestamp(5_000)))]));

    // It waits for its tools: without a permit, and with its worker.
    second.share.as_ref().expect("it was taken").released();
    assert_eq!(running(), (1, vec![(2, Some(Timestamp(5_000)))]));
    drop(second);
    assert_eq!(running(), (1, vec![(1, Some(Timestamp(5_000)))]));
    queue.push(vec![first.untaken()]);
    assert_eq!(running(), (0, vec![]), "it waits again");
}
