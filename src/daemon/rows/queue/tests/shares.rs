//! The shares of owners and batches.

use super::*;

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
    let (usual, urgent) = (Given::lease("m"), Given { expires_at: Timestamp(10_000), ..Given::lease("m") });
    queue.push(usual.rows(0..3));
    queue.push(urgent.rows(10..13));
    let look = |rows_a_second: f64| queue.look_at_windows(&[].into(), &[("m".into(), rows_a_second)].into());

    look(10.0);
    assert_eq!(numbers(&[queue.next_now().expect("a row waits")]), [0], "they take turns");
    look(0.5);
    assert_eq!(numbers(&taken(&queue)), [10, 11, 12, 1, 2]);
}
