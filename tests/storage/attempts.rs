//! The attempts of rows that were tried again: kept with the result of their row, until they are forgotten.

use batchwright::domain::attempts::{AttemptFailure, AttemptOutcome, RowAttempt, RowAttempts};
use batchwright::domain::batch::BatchStatus;
use batchwright::domain::ids::{BatchId, DaemonId, RequestId};
use batchwright::domain::lease::Lease;
use batchwright::domain::outcome::FailureReason;
use batchwright::storage::{Flush, Ledger as _, Recorded, Result, StepStore as _};

use crate::given::{OWNER, TestStorage, after, ending, flush};
use crate::steps::{turn, write};

on_both_databases!(
    attempts_are_kept_with_the_result_of_their_row,
    more_attempts_than_one_statement_writes_are_kept,
    attempts_of_a_result_that_is_refused_are_not_kept,
    attempts_are_forgotten_when_their_batch_has_ended_long_ago_and_no_others,
    attempts_are_forgotten_row_by_row_after_the_steps,
);

/// A row that failed, waited, and completed.
pub fn attempts(message: &str) -> RowAttempts {
    let why = || AttemptFailure::new(&FailureReason::UpstreamTimeout(message.to_owned()));
    let attempt = |second, outcome| RowAttempt {
        started_at: after(second),
        ended_at: after(second + 1),
        upstream: (second == 0).then(|| "gpu-1".to_owned()),
        outcome,
    };
    let mut attempts = RowAttempts::default();
    attempts.add(attempt(0, AttemptOutcome::Failed(why())));
    attempts.add(attempt(1, AttemptOutcome::Waited { times: 7, reason: why() }));
    attempts.end(attempt(2, AttemptOutcome::Completed));
    attempts
}

/// A flush of completed rows, with the attempts of some.
pub fn flush_with(lease: &Lease, rows: u32, tried_again: &[(u32, &RowAttempts)]) -> Flush {
    let mut flush = flush(&[(lease, 0..rows, 0..0)]);
    let batch = flush.batches.get_mut(&lease.batch_id).expect("it has rows");
    batch.attempts = tried_again.iter().map(|(row, attempts)| (*row, RowAttempts::clone(attempts))).collect();
    flush
}

/// A lease on rows of a batch in progress, of a daemon that is not known to live.
async fn lease(storage: &TestStorage, rows: u32) -> Result<Lease> {
    storage.claimed(storage.running(&[rows]).await?.id, rows, DaemonId::new()).await
}

async fn kept(storage: &TestStorage, batch: BatchId, row: u32) -> Result<Option<RowAttempts>> {
    storage.attempts(&OWNER, RequestId { batch, row }).await
}

async fn attempts_are_kept_with_the_result_of_their_row(storage: TestStorage) -> Result<()> {
    let [held, other] = [lease(&storage, 3).await?, lease(&storage, 3).await?];
    let odd = attempts("a\0b \u{1F600} \"\\ \u{feff}\n");
    assert_eq!(kept(&storage, held.batch_id, 1).await?, None);

    let flush = flush_with(&held, 3, &[(1, &odd)]);
    assert_eq!(storage.record(&flush, after(3)).await?, Recorded::Applied);
    assert_eq!(storage.record(&flush, after(3)).await?, Recorded::Applied, "again");

    assert_eq!(kept(&storage, held.batch_id, 1).await?, Some(odd));
    assert_eq!(kept(&storage, held.batch_id, 0).await?, None);
    assert_eq!(kept(&storage, other.batch_id, 1).await?, None);
    Ok(())
}

async fn more_attempts_than_one_statement_writes_are_kept(storage: TestStorage) -> Result<()> {
    let held = lease(&storage, 200).await?;
    let all: Vec<_> = (0..200).map(|row| attempts(&format!("It was row {row}."))).collect();
    let tried_again: Vec<_> = (0..200).zip(&all).collect();

    assert_eq!(storage.record(&flush_with(&held, 200, &tried_again), after(3)).await?, Recorded::Applied);

    for (row, attempts) in tried_again {
        assert_eq!(kept(&storage, held.batch_id, row).await?.as_ref(), Some(attempts), "{row}");
    }
    Ok(())
}

async fn attempts_of_a_result_that_is_refused_are_not_kept(storage: TestStorage) -> Result<()> {
    let mut lost = lease(&storage, 3).await?;
    lost.token += 1;

    let recorded = storage.record(&flush_with(&lost, 3, &[(1, &attempts("No."))]), after(3)).await?;

    assert_eq!(recorded, Recorded::LostLeases(vec![lost.hold()]));
    assert_eq!(kept(&storage, lost.batch_id, 1).await?, None);
    Ok(())
}

async fn attempts_are_forgotten_when_their_batch_has_ended_long_ago_and_no_others(storage: TestStorage) -> Result<()> {
    let mut batches = Vec::new();
    for ends in [true, false, true] {
        let held = lease(&storage, if ends { 3 } else { 4 }).await?;
        let flush = flush_with(&held, 3, &[(0, &attempts("No."))]);
        assert_eq!(storage.record(&flush, after(3)).await?, Recorded::Applied);
        if ends {
            end(&storage, held.batch_id).await?;
        }
        batches.push(held.batch_id);
    }

    assert_eq!(storage.forget_steps(after(3), 10).await?, 0, "not yet");
    let mut forgotten = Vec::new();
    for _ in 0..3 {
        forgotten.push(storage.forget_steps(after(4), 10).await?);
    }

    assert_eq!(forgotten, [1, 1, 0]);
    let mut left = Vec::new();
    for batch in batches {
        left.push(kept(&storage, batch, 0).await?.is_some());
    }
    assert_eq!(left, [false, true, false]);
    Ok(())
}

async fn attempts_are_forgotten_row_by_row_after_the_steps(storage: TestStorage) -> Result<()> {
    let held = lease(&storage, 3).await?;
    assert!(storage.record_steps(&[write(&held, 0, turn(0, "0")), write(&held, 0, turn(1, "1"))]).await?.is_empty());
    let attempts = attempts("No.");
    let flush = flush_with(&held, 3, &[(0, &attempts), (1, &attempts), (2, &attempts)]);
    assert_eq!(storage.record(&flush, after(3)).await?, Recorded::Applied);
    end(&storage, held.batch_id).await?;

    let mut forgotten = Vec::new();
    for _ in 0..4 {
        forgotten.push(storage.forget_steps(after(9), 2).await?);
    }

    assert_eq!(forgotten, [2, 2, 1, 0]);
    Ok(())
}

/// Ends a batch whose rows are all recorded, four seconds after the tests begin.
pub async fn end(storage: &TestStorage, batch: BatchId) -> Result<()> {
    storage.fence(batch).await?.expect("no daemon lives");
    assert!(storage.finish(&ending(&storage.now(batch).await?, []), after(4)).await?);
    assert_eq!(storage.now(batch).await?.status, BatchStatus::Completed);
    Ok(())
}
