//! Calling a batch off, in each status.

use batchwright::domain::batch::{Batch, BatchStatus, Milestones};
use batchwright::domain::ids::DaemonId;
use batchwright::storage::{BatchStore as _, LeaseStore as _, Result};

use crate::given::{EVERY_STATUS, OWNER, TestStorage, WINDOW, after, lanes};

on_both_databases!(
    a_batch_is_called_off_before_it_is_validated,
    a_batch_is_called_off_while_it_runs,
    a_batch_is_called_off_while_its_files_are_closed,
    a_batch_is_called_off_only_once,
    a_batch_that_has_ended_is_not_called_off,
    a_batch_called_off_before_validation_is_not_admitted,
    a_batch_called_off_has_no_open_lanes,
    what_was_called_off_waits_to_be_finished,
);

/// Calls off a batch in `status` and checks that what this changes is the status and the times it should.
async fn assert_called_off(storage: &TestStorage, status: BatchStatus) -> Result<()> {
    let batch = storage.batch_in(status).await?;

    let answer = storage.cancel_batch(&OWNER, batch.id, after(5)).await?.expect("it is there");

    // Its files are not being closed as those of a batch that ran through, so that time is taken back.
    let milestones = Milestones { cancelling_at: Some(after(5)), finalizing_at: None, ..batch.milestones };
    let expected = Batch { status: BatchStatus::Cancelling, milestones, ..batch };
    assert_eq!(answer, expected);
    assert_eq!(storage.now(expected.id).await?, expected);
    Ok(())
}

async fn a_batch_is_called_off_before_it_is_validated(storage: TestStorage) -> Result<()> {
    assert_called_off(&storage, BatchStatus::Validating).await
}

async fn a_batch_is_called_off_while_it_runs(storage: TestStorage) -> Result<()> {
    assert_called_off(&storage, BatchStatus::InProgress).await
}

async fn a_batch_is_called_off_while_its_files_are_closed(storage: TestStorage) -> Result<()> {
    assert_called_off(&storage, BatchStatus::Finalizing).await
}

async fn a_batch_is_called_off_only_once(storage: TestStorage) -> Result<()> {
    let batch = storage.batch_in(BatchStatus::Cancelling).await?;

    let answer = storage.cancel_batch(&OWNER, batch.id, after(5)).await?;

    assert_eq!(answer, Some(batch.clone()));
    assert_eq!(storage.now(batch.id).await?, batch);
    Ok(())
}

async fn a_batch_that_has_ended_is_not_called_off(storage: TestStorage) -> Result<()> {
    for status in EVERY_STATUS.into_iter().filter(|status| status.is_terminal()) {
        let batch = storage.batch_in(status).await?;

        let answer = storage.cancel_batch(&OWNER, batch.id, after(5)).await?;

        assert_eq!(answer, Some(batch.clone()));
        assert_eq!(storage.now(batch.id).await?, batch);
    }
    Ok(())
}

async fn a_batch_called_off_before_validation_is_not_admitted(storage: TestStorage) -> Result<()> {
    let batch = storage.validating().await?;
    storage.cancel_batch(&OWNER, batch.id, after(1)).await?;

    assert!(!storage.admit_batch(batch.id, &lanes(&[3]), after(2)).await?);
    assert!(!storage.refuse_batch(batch.id, &[], after(2)).await?);
    assert_eq!(storage.to_admit(10).await?, []);
    Ok(())
}

async fn a_batch_called_off_has_no_open_lanes(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;
    let lane = storage.open_lane(batch.id).await?;

    storage.cancel_batch(&OWNER, batch.id, after(1)).await?;

    assert_eq!(storage.open_lanes(10, 10).await?, []);
    assert_eq!(storage.claim(&lane, 1, DaemonId::new()).await?, None);
    Ok(())
}

async fn what_was_called_off_waits_to_be_finished(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;

    let called_off = storage.cancel_batch(&OWNER, batch.id, after(1)).await?.expect("it is there");

    assert_eq!(storage.to_finish(10).await?, [called_off]);
    assert_eq!(storage.expire_batches(batch.expires_at.plus(WINDOW), 10).await?, 0);
    Ok(())
}
