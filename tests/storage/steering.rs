//! Batches that are paused, resumed, and paused by their first rows.

use batchwright::domain::batch::{Batch, BatchRetry, BatchStatus, NewBatch, RetryOptions};
use batchwright::domain::canary::Canary;
use batchwright::domain::failures::{FailureKind, FailureSample, RowFailure};
use batchwright::domain::ids::{BatchId, DaemonId};
use batchwright::domain::lease::{Lease, LeaseOrder, OpenLane};
use batchwright::domain::pause::{Pause, PauseCause};
use batchwright::storage::{BatchStore as _, Flush, LeaseStore as _, Ledger as _, Recorded, Result};

use crate::given::{EVERY_STATUS, OWNER, START, TestStorage, WINDOW, after, ending, flush, lanes, new_batch};

on_both_databases!(
    no_row_of_a_paused_batch_is_claimed_or_taken_over,
    a_batch_that_is_resumed_goes_on_where_it_was,
    rows_under_way_are_recorded_while_their_batch_is_paused,
    leases_of_a_daemon_that_dies_while_its_batch_is_paused_are_taken_over_once_it_is_resumed,
    a_batch_is_paused_once_and_only_while_it_starts_rows,
    a_batch_that_is_paused_before_its_admission_is_admitted_and_starts_nothing,
    a_paused_batch_ends_as_any_other,
    a_pause_survives_a_restart,
    the_rows_that_run_first_are_of_all_lanes_and_then_the_batch_pauses,
    a_batch_goes_on_by_itself_if_its_first_rows_went_well,
    a_canary_that_is_paused_by_request_goes_on_as_one,
    a_canary_of_more_rows_than_a_batch_has_does_nothing,
    a_batch_whose_first_rows_all_failed_alike_is_paused_once,
    a_batch_remembers_what_it_runs_again,
);

/// What rows that failed were told.
const SAID: &str = "No.";
const REQUESTED: PauseCause = PauseCause::Requested;

/// A batch in progress with a lane for each of `rows`, of which some rows run first.
async fn with_canary(storage: &TestStorage, canary: &str, rows: &[u32]) -> Result<BatchId> {
    let new = NewBatch { canary: Some(Canary::parse(canary).expect("a canary")), ..new_batch() };
    let id = storage.created(&OWNER, &new, START).await?.id;
    assert!(storage.admit_batch(id, &lanes(rows), START).await?);
    Ok(id)
}

/// How many rows of each lane can be claimed.
async fn claimable(storage: &TestStorage, id: BatchId) -> Result<Vec<u32>> {
    let mut lanes = storage.open_lanes(1000, 1000).await?;
    lanes.retain(|lane| lane.batch_id == id);
    lanes.sort_by_key(|lane| lane.no);
    Ok(lanes.iter().map(OpenLane::waiting).collect())
}

/// Claims all that can be claimed, and records it: of each lease the last row fails if `fails` says so.
async fn run_all(storage: &TestStorage, id: BatchId, daemon: DaemonId, fails: bool) -> Result<()> {
    while !claimable(storage, id).await?.is_empty() {
        let lane = storage.open_lane(id).await?;
        let lease = storage.claim(&lane, lane.waiting(), daemon).await?.expect("nobody else claims");
        let completed = lease.last - u32::from(fails);
        let flush = flush(&[(&lease, lease.first..completed, completed..lease.last)]);
        assert_eq!(storage.record(&flush, after(1)).await?, Recorded::Applied);
    }
    Ok(())
}

async fn cause(storage: &TestStorage, id: BatchId) -> Result<Option<PauseCause>> {
    Ok(storage.now(id).await?.pause.map(|pause| pause.cause))
}

async fn order(storage: &TestStorage, daemon: DaemonId, lease: &Lease) -> Result<LeaseOrder> {
    let held = storage.beat(daemon, WINDOW).await?.leases;
    Ok(held.into_iter().find(|held| held.lease == lease.hold()).expect("it is held").order)
}

async fn no_row_of_a_paused_batch_is_claimed_or_taken_over(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let batch = storage.running(&[9]).await?;
    let (held, given_back) = (storage.claimed(batch.id, 3, daemon).await?, storage.claimed(batch.id, 3, daemon).await?);
    storage.give_back(given_back.hold()).await?;
    let lane = storage.open_lane(batch.id).await?;

    let paused = storage.pause_batch(&OWNER, batch.id, after(5)).await?.expect("it is there");

    let expected = Batch { pause: Some(Pause { since: after(5), cause: REQUESTED }), ..batch };
    assert_eq!((&paused, &storage.now(paused.id).await?), (&expected, &expected));
    assert_eq!(storage.open_lanes(10, 10).await?, []);
    assert_eq!(storage.claim(&lane, 1, daemon).await?, None);
    assert_eq!(storage.lapsed(10).await?, []);
    assert_eq!(storage.backlogs(10).await?, []);
    assert_eq!(order(&storage, daemon, &held).await?, LeaseOrder::Drain);
    Ok(())
}

async fn a_batch_that_is_resumed_goes_on_where_it_was(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let batch = storage.running(&[9]).await?;
    let (held, given_back) = (storage.claimed(batch.id, 3, daemon).await?, storage.claimed(batch.id, 3, daemon).await?);
    storage.give_back(given_back.hold()).await?;
    storage.pause_batch(&OWNER, batch.id, after(5)).await?;

    let resumed = storage.resume_batch(&OWNER, batch.id).await?;

    assert_eq!(resumed, Some(batch.clone()));
    assert_eq!(claimable(&storage, batch.id).await?, [3]);
    assert_eq!(storage.lapsed(10).await?, [given_back.hold()]);
    assert_eq!(storage.backlogs(10).await?[0].rows, 9);
    assert_eq!(order(&storage, daemon, &held).await?, LeaseOrder::Run);
    Ok(())
}

async fn rows_under_way_are_recorded_while_their_batch_is_paused(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let batch = storage.running(&[4]).await?;
    let (first, second) = (storage.claimed(batch.id, 2, daemon).await?, storage.claimed(batch.id, 2, daemon).await?);
    storage.pause_batch(&OWNER, batch.id, after(5)).await?;

    assert_eq!(storage.record(&flush(&[(&first, 0..1, 1..2)]), after(6)).await?, Recorded::Applied);
    let counts = storage.now(batch.id).await?.counts;
    assert_eq!((counts.completed, counts.failed), (1, 1));
    assert_eq!(storage.record(&flush(&[(&second, 2..4, 0..0)]), after(7)).await?, Recorded::Applied);

    let over = storage.now(batch.id).await?;
    assert_eq!((over.status, over.pause), (BatchStatus::Finalizing, None));
    Ok(())
}

async fn leases_of_a_daemon_that_dies_while_its_batch_is_paused_are_taken_over_once_it_is_resumed(
    storage: TestStorage,
) -> Result<()> {
    let (daemon, lease) = storage.held_lease().await?;
    storage.pause_batch(&OWNER, lease.batch_id, after(1)).await?;

    storage.let_die(daemon).await?;
    assert_eq!(storage.lapsed(10).await?, []);
    storage.resume_batch(&OWNER, lease.batch_id).await?;

    assert_eq!(storage.lapsed(10).await?, [lease.hold()]);
    Ok(())
}

async fn a_batch_is_paused_once_and_only_while_it_starts_rows(storage: TestStorage) -> Result<()> {
    for status in EVERY_STATUS {
        let batch = storage.batch_in(status).await?;
        assert_eq!(storage.resume_batch(&OWNER, batch.id).await?.as_ref(), Some(&batch), "{status}");

        let first = storage.pause_batch(&OWNER, batch.id, after(5)).await?;
        let second = storage.pause_batch(&OWNER, batch.id, after(6)).await?;

        let pause = status.starts_rows().then_some(Pause { since: after(5), cause: REQUESTED });
        let expected = Some(Batch { pause, ..batch });
        assert_eq!((&first, &second), (&expected, &expected), "{status}");
    }
    Ok(())
}

async fn a_batch_that_is_paused_before_its_admission_is_admitted_and_starts_nothing(
    storage: TestStorage,
) -> Result<()> {
    let batch = storage.validating().await?;
    storage.pause_batch(&OWNER, batch.id, after(1)).await?;

    assert!(storage.admit_batch(batch.id, &lanes(&[3]), after(2)).await?);

    assert_eq!(cause(&storage, batch.id).await?, Some(REQUESTED));
    assert_eq!(storage.open_lanes(10, 10).await?, []);
    storage.resume_batch(&OWNER, batch.id).await?;
    assert_eq!(claimable(&storage, batch.id).await?, [3]);
    Ok(())
}

async fn a_paused_batch_ends_as_any_other(storage: TestStorage) -> Result<()> {
    let expired = storage.batch_in(BatchStatus::InProgress).await?;
    storage.pause_batch(&OWNER, expired.id, after(1)).await?;
    assert_eq!(storage.expire_batches(START.plus(WINDOW), 10).await?, 1);
    let cancelled = storage.batch_in(BatchStatus::InProgress).await?;
    storage.pause_batch(&OWNER, cancelled.id, after(1)).await?;
    storage.cancel_batch(&OWNER, cancelled.id, after(2)).await?;

    for (id, status) in [(expired.id, BatchStatus::Expired), (cancelled.id, BatchStatus::Cancelled)] {
        assert_eq!(storage.now(id).await?.pause, None);
        storage.fence(id).await?.expect("no daemon lives");
        assert!(storage.finish(&ending(&storage.now(id).await?, 0..3), after(3)).await?);
        assert_eq!(storage.now(id).await?.status, status);
    }
    Ok(())
}

async fn a_pause_survives_a_restart(storage: TestStorage) -> Result<()> {
    let id = storage.running(&[3]).await?.id;
    let paused = storage.pause_batch(&OWNER, id, after(1)).await?;

    let restarted = storage.place.open().await?;

    assert_eq!(restarted.batch(&OWNER, id).await?, paused);
    assert_eq!(restarted.open_lanes(10, 10).await?, []);
    Ok(())
}

async fn the_rows_that_run_first_are_of_all_lanes_and_then_the_batch_pauses(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let id = with_canary(&storage, "5", &[10, 1, 10]).await?;
    assert_eq!(claimable(&storage, id).await?, [2, 1, 2]);
    assert_eq!(storage.backlogs(10).await?.iter().map(|model| model.rows).sum::<u64>(), 5);
    let lane = storage.open_lane(id).await?;
    assert_eq!(storage.claim(&lane, lane.waiting() + 1, daemon).await?, None, "more than may be claimed");

    run_all(&storage, id, daemon, true).await?;

    let expected = Some(Pause { since: after(1), cause: PauseCause::Canary { rows: 5, failed: 3 } });
    assert_eq!(storage.now(id).await?.pause, expected);
    assert_eq!(storage.open_lanes(10, 10).await?, []);
    storage.resume_batch(&OWNER, id).await?;
    assert_eq!(claimable(&storage, id).await?, [8, 8]);
    run_all(&storage, id, daemon, false).await?;
    assert_eq!(storage.now(id).await?.status, BatchStatus::Finalizing);
    Ok(())
}

async fn a_batch_goes_on_by_itself_if_its_first_rows_went_well(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    for (fails, expected) in [(false, None), (true, Some(PauseCause::Canary { rows: 2, failed: 2 }))] {
        let id = with_canary(&storage, "2:auto", &[9, 9]).await?;
        while claimable(&storage, id).await?.contains(&1) {
            let lease = storage.claimed(id, 1, daemon).await?;
            let rows = lease.first..lease.last;
            let (completed, failed) = if fails { (0..0, rows) } else { (rows, 0..0) };
            assert_eq!(storage.record(&flush(&[(&lease, completed, failed)]), after(1)).await?, Recorded::Applied);
        }

        assert_eq!(cause(&storage, id).await?, expected);
        assert_eq!(claimable(&storage, id).await?, if fails { vec![] } else { vec![8, 8] });
    }
    Ok(())
}

async fn a_canary_that_is_paused_by_request_goes_on_as_one(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let id = with_canary(&storage, "4", &[9]).await?;
    let lease = storage.claimed(id, 3, daemon).await?;
    storage.pause_batch(&OWNER, id, after(1)).await?;
    storage.resume_batch(&OWNER, id).await?;
    assert_eq!(claimable(&storage, id).await?, [1]);

    let last = storage.claimed(id, 1, daemon).await?;
    storage.pause_batch(&OWNER, id, after(2)).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 0..3, 0..0)]), after(3)).await?, Recorded::Applied);
    assert_eq!(cause(&storage, id).await?, Some(REQUESTED));
    assert_eq!(storage.record(&flush(&[(&last, 3..4, 0..0)]), after(4)).await?, Recorded::Applied);

    let pause = Pause { since: after(2), cause: PauseCause::Canary { rows: 4, failed: 0 } };
    assert_eq!(storage.now(id).await?.pause, Some(pause));
    storage.resume_batch(&OWNER, id).await?;
    assert_eq!(claimable(&storage, id).await?, [5]);
    Ok(())
}

async fn a_canary_of_more_rows_than_a_batch_has_does_nothing(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    for rows in ["3", "4"] {
        let id = with_canary(&storage, rows, &[3]).await?;
        assert_eq!(claimable(&storage, id).await?, [3]);

        run_all(&storage, id, daemon, false).await?;

        assert_eq!(storage.now(id).await?.status, BatchStatus::Finalizing);
    }
    Ok(())
}

/// Rows of a lease that failed, each with a code and status.
fn failing(lease: &Lease, failures: &[(&str, u16)], completed: u32) -> Flush {
    let rows = u32::try_from(failures.len()).expect("few");
    let mut flush =
        flush(&[(lease, lease.first + rows..lease.first + rows + completed, lease.first..lease.first + rows)]);
    let batch = flush.batches.get_mut(&lease.batch_id).expect("it has rows");
    for (code, status) in failures {
        let kind = FailureKind { code: (*code).to_owned(), status: Some(*status) };
        let sample = FailureSample { custom_id: String::new(), message: SAID.to_owned() };
        batch.statistics.failures.add(RowFailure { kind, sample });
    }
    flush.pause_after_alike = 3;
    flush
}

async fn a_batch_whose_first_rows_all_failed_alike_is_paused_once(storage: TestStorage) -> Result<()> {
    type Failures = &'static [(&'static str, u16)];
    const A: (&str, u16) = ("a", 400);
    let daemon = storage.living_daemon().await?;
    // How the rows of two flushes failed, how many completed with the first, and whether this pauses the batch.
    let cases: [(Failures, Failures, u32, bool); 6] = [
        (&[A, A], &[A], 0, true),
        (&[A, A, A, A], &[], 0, true),
        (&[A, A], &[], 0, false),
        (&[A, A], &[("b", 400)], 0, false),
        (&[A, A], &[("a", 401)], 0, false),
        (&[A, A], &[A, A], 1, false),
    ];
    for (first, second, completed, pauses) in cases {
        let id = storage.running(&[9]).await?.id;
        for (failures, completed) in [(first, completed), (second, 0)] {
            if !failures.is_empty() {
                let rows = u32::try_from(failures.len()).expect("few") + completed;
                let lease = storage.claimed(id, rows, daemon).await?;
                let flush = failing(&lease, failures, completed);
                assert_eq!(storage.record(&flush, after(1)).await?, Recorded::Applied);
            }
        }
        let rows = (first.len() + second.len()) as u64;
        let cause =
            PauseCause::AlikeFailures { failure: "a".to_owned(), status: Some(400), rows, said: SAID.to_owned() };
        let expected = pauses.then_some(Pause { since: after(1), cause });
        assert_eq!(storage.now(id).await?.pause, expected, "{first:?} {second:?} {completed}");
        if pauses {
            storage.resume_batch(&OWNER, id).await?;
            let lease = storage.claimed(id, 1, daemon).await?;
            assert_eq!(storage.record(&failing(&lease, &[A], 0), after(2)).await?, Recorded::Applied);
            assert_eq!(storage.now(id).await?.pause, None, "its owner has let it go on");
        }
    }
    let small = storage.running(&[3]).await?.id;
    let lease = storage.claimed(small, 3, daemon).await?;
    assert_eq!(storage.record(&failing(&lease, &[A, A, A], 0), after(1)).await?, Recorded::Applied);
    assert_eq!(storage.now(small).await?.status, BatchStatus::Finalizing);
    Ok(())
}

async fn a_batch_remembers_what_it_runs_again(storage: TestStorage) -> Result<()> {
    let of = storage.batch_in(BatchStatus::Expired).await?.id;
    let options = RetryOptions { codes: vec!["batch_expired".to_owned()], body: Some(r#"{"a":1.10}"#.to_owned()) };
    let key = Some("once".to_owned());
    for (options, idempotency_key) in [(options, key), (RetryOptions::default(), None)] {
        let retry = Some(BatchRetry { of, options });
        let new = NewBatch { retry: retry.clone(), idempotency_key, ..new_batch() };

        let batch = storage.created(&OWNER, &new, START).await?;

        assert_eq!((&batch.retry, storage.now(batch.id).await?.retry), (&retry, retry.clone()));
    }
    let known = storage.batch_of_key(&OWNER, "once").await?.expect("it was made");
    assert_eq!(known.retry.map(|retry| retry.of), Some(of));
    assert_eq!(storage.batch_of_key(&OWNER, "never").await?, None);
    Ok(())
}
