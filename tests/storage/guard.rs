//! The ledger defends itself: what contradicts it is refused whole, and costs no line.

use std::ops::Range;

use batchwright::domain::batch::{Batch, BatchStatus, Counts};
use batchwright::domain::ids::DaemonId;
use batchwright::domain::lease::Lease;
use batchwright::storage::{
    BatchFlush, BatchStore as _, Contradiction, Flush, LeaseStore as _, Ledger as _, Recorded, Result, Violation,
};
use roaring::RoaringBitmap;
use sqlx::Connection as _;

use crate::given::{ERROR_LINE, OUTPUT_LINE, Place, TestStorage, add_row, after, ending, flush};

on_both_databases!(
    what_contradicts_the_ledger_is_refused_whole,
    one_contradiction_refuses_the_batches_beside_it,
    rows_of_an_earlier_run_of_a_lease_are_lost_and_no_contradiction,
    counters_that_differ_are_counted_again,
    counters_that_are_too_high_end_no_batch_that_owes_rows,
    a_batch_ends_by_its_ledger_whatever_its_counters_say,
    the_schema_keeps_counters_within_the_total,
);

/// A batch of ten rows whose first four are recorded, two completed and two failed, and the lease of its first eight.
async fn half_recorded(storage: &TestStorage) -> Result<(Batch, Lease)> {
    let batch = storage.running(&[10]).await?;
    let lease = storage.claimed(batch.id, 8, storage.living_daemon().await?).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 0..2, 2..4)]), after(1)).await?, Recorded::Applied);
    Ok((batch, lease))
}

/// A flush of lines for these rows, ascribed to these rows of a lease.
fn lines(lease: &Lease, completed: Range<u32>, failed: Range<u32>, ran: Range<u32>) -> Flush {
    let mut batch = BatchFlush::default();
    completed.for_each(|row| add_row(&mut batch.output, row, OUTPUT_LINE));
    failed.for_each(|row| add_row(&mut batch.error, row, ERROR_LINE));
    batch.leases.insert(lease.hold(), ran.collect());
    Flush { batches: [(lease.batch_id, batch)].into(), ..Flush::default() }
}

/// Two lines of one row in one part.
fn doubled(lease: &Lease, row: u32) -> Flush {
    let mut flush = lines(lease, row..row + 1, 0..0, row..row + 1);
    let batch = flush.batches.values_mut().next().expect("it has one batch");
    add_row(&mut batch.output, row, OUTPUT_LINE);
    flush
}

async fn state(storage: &TestStorage, batch: &Batch) -> Result<(Batch, RoaringBitmap)> {
    Ok((storage.now(batch.id).await?, storage.recorded_rows(batch.id).await?))
}

/// Runs a statement past the program.
async fn execute(storage: &TestStorage, statement: &'static str) -> sqlx::Result<()> {
    match &storage.place {
        Place::Sqlite(path) => {
            let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path);
            let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
            sqlx::query(statement).execute(&mut connection).await.map(drop)
        }
        Place::Postgres(url) => {
            let mut connection = sqlx::PgConnection::connect(url).await?;
            sqlx::query(statement).execute(&mut connection).await.map(drop)
        }
    }
}

async fn what_contradicts_the_ledger_is_refused_whole(storage: TestStorage) -> Result<()> {
    type Made = fn(&Lease) -> Flush;
    let already = |rows: Range<u32>| Contradiction::RecordedAlready(rows.collect());
    let cases: [(&str, Made, Contradiction); 8] = [
        ("a row that completed before", |lease| lines(lease, 1..2, 0..0, 1..2), already(1..2)),
        ("a row that failed before", |lease| lines(lease, 0..0, 3..4, 3..4), already(3..4)),
        ("rows of which one failed before", |lease| lines(lease, 3..6, 0..0, 3..6), already(3..4)),
        ("one row twice in a part", |lease| doubled(lease, 5), Contradiction::RowsDiffer),
        ("one row in both parts", |lease| lines(lease, 5..6, 5..6, 5..6), Contradiction::RowsDiffer),
        ("a line of a row that did not run", |lease| lines(lease, 4..6, 0..0, 4..5), Contradiction::RowsDiffer),
        ("a row that ran and has no line", |lease| lines(lease, 4..5, 0..0, 4..6), Contradiction::RowsDiffer),
        ("more rows than the lease owes", |lease| lines(lease, 4..9, 0..0, 4..9), Contradiction::MoreThanOwed),
    ];
    for (name, made, what) in cases {
        let (batch, lease) = half_recorded(&storage).await?;
        let before = state(&storage, &batch).await?;

        let recorded = storage.record(&made(&lease), after(2)).await?;

        let violation = Violation { batch: batch.id, leases: vec![lease.hold()], what };
        assert_eq!(recorded, Recorded::Violations(vec![violation]), "{name}");
        assert_eq!(state(&storage, &batch).await?, before, "{name}");
        assert_eq!(storage.record(&flush(&[(&lease, 4..8, 0..0)]), after(3)).await?, Recorded::Applied, "{name}");
    }
    Ok(())
}

async fn one_contradiction_refuses_the_batches_beside_it(storage: TestStorage) -> Result<()> {
    let (at_fault, lease) = half_recorded(&storage).await?;
    let (beside, good) = half_recorded(&storage).await?;
    let mut both = lines(&lease, 0..1, 0..0, 0..1);
    both.batches.extend(flush(&[(&good, 4..5, 0..0)]).batches);

    let recorded = storage.record(&both, after(2)).await?;

    let Recorded::Violations(violations) = recorded else { panic!("{recorded:?}") };
    assert_eq!(violations.iter().map(|violation| violation.batch).collect::<Vec<_>>(), [at_fault.id]);
    assert_eq!(
        storage.now(beside.id).await?.counts,
        Counts { total: 10, completed: 2, failed: 2 },
        "the whole flush is tried again without it"
    );
    Ok(())
}

async fn rows_of_an_earlier_run_of_a_lease_are_lost_and_no_contradiction(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let batch = storage.running(&[4]).await?;
    let first = storage.claimed(batch.id, 4, daemon).await?;
    storage.give_back(first.hold()).await?;
    let second = storage.take_over(first.hold(), daemon).await?.expect("nobody else takes it");

    let both_runs = storage.record(&flush(&[(&first, 0..4, 0..0), (&second, 0..4, 0..0)]), after(2)).await?;
    let the_second = storage.record(&flush(&[(&second, 0..4, 0..0)]), after(2)).await?;

    assert_eq!((both_runs, the_second), (Recorded::LostLeases(vec![first.hold()]), Recorded::Applied));
    assert_eq!(storage.now(batch.id).await?.counts, Counts { total: 4, completed: 4, failed: 0 });
    Ok(())
}

async fn counters_that_differ_are_counted_again(storage: TestStorage) -> Result<()> {
    let (batch, lease) = half_recorded(&storage).await?;
    execute(&storage, "UPDATE batches SET completed = 7").await.expect("the counters are within the total");
    let rest = flush(&[(&lease, 4..8, 0..0)]);

    let refused = storage.record(&rest, after(2)).await?;
    storage.recount(batch.id, after(2)).await?;

    let what = Contradiction::CountersPassTotal;
    let violation = Violation { batch: batch.id, leases: vec![lease.hold()], what };
    assert_eq!(refused, Recorded::Violations(vec![violation]));
    assert_eq!(storage.now(batch.id).await?.counts, Counts { total: 10, completed: 2, failed: 2 });
    assert_eq!(storage.record(&rest, after(3)).await?, Recorded::Applied);
    Ok(())
}

async fn counters_that_are_too_high_end_no_batch_that_owes_rows(storage: TestStorage) -> Result<()> {
    let (batch, lease) = half_recorded(&storage).await?;
    execute(&storage, "UPDATE batches SET completed = 7").await.expect("the counters are within the total");

    assert_eq!(storage.record(&flush(&[(&lease, 4..5, 0..0)]), after(2)).await?, Recorded::Applied);

    let batch = storage.now(batch.id).await?;
    assert_eq!((batch.status, batch.counts), (BatchStatus::InProgress, Counts { total: 10, completed: 3, failed: 2 }));
    Ok(())
}

async fn a_batch_ends_by_its_ledger_whatever_its_counters_say(storage: TestStorage) -> Result<()> {
    let (batch, lease) = half_recorded(&storage).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 4..5, 0..0)]), after(2)).await?, Recorded::Applied);
    execute(&storage, "UPDATE batches SET completed = 8").await.expect("the counters are within the total");
    storage.expire_batches(batch.expires_at, 10).await?;
    let full = storage.now(batch.id).await?;
    storage.give_back(lease.hold()).await?;

    let counts = storage.fence(batch.id).await?.expect("nobody holds a lease");
    let finished = storage.finish(&ending(&full, 5..10), after(3)).await?;

    assert_eq!((full.status, full.counts.owed()), (BatchStatus::Finalizing, 0), "the counters say that it is through");
    assert_eq!(counts, Counts { total: 10, completed: 3, failed: 2 });
    assert!(finished);
    let (batch, recorded) = state(&storage, &batch).await?;
    assert_eq!((batch.counts, recorded), (counts, (0..10).collect()));
    Ok(())
}

async fn the_schema_keeps_counters_within_the_total(storage: TestStorage) -> Result<()> {
    half_recorded(&storage).await?;

    for statement in [
        "UPDATE batches SET completed = 9",
        "UPDATE batches SET failed = 9",
        "UPDATE batches SET total = 3",
        "UPDATE leases SET owed = -1",
    ] {
        let refused = execute(&storage, statement).await.expect_err(statement);
        assert!(refused.as_database_error().is_some(), "{statement}: {refused}");
    }
    assert_eq!(storage.lapsed_for(DaemonId::new(), 10).await?, []);
    Ok(())
}
