//! The end of a batch: the fence that no late outcome passes, and the files that are published with the status.

use std::time::Duration;

use batchwright::domain::batch::{Batch, BatchStatus, Counts, Milestones};
use batchwright::domain::file::{File, Purpose};
use batchwright::domain::ids::{BatchId, DaemonId, FileId};
use batchwright::domain::page::Order;
use batchwright::storage::{BatchStore as _, Ending, FileStore as _, LeaseStore as _, Ledger as _, Recorded, Result};
use futures::future::join_all;

use crate::given::{ERROR_LINE, EVERY_STATUS, OUTPUT_LINE, OWNER, TestStorage, after, all, ending, flush, lanes};

on_both_databases!(
    a_fence_returns_the_counts_as_they_stay,
    a_fence_waits_for_a_living_daemon,
    a_fence_does_not_wait_for_leases_that_were_given_back,
    a_fence_does_not_wait_for_other_batches,
    only_batches_that_end_are_fenced,
    nothing_is_recorded_behind_a_fence,
    no_lease_is_taken_over_behind_a_fence,
    a_fence_can_be_put_up_again,
    a_batch_whose_rows_all_ran_is_completed,
    a_batch_whose_window_closed_first_is_expired,
    a_batch_whose_rows_all_ran_after_its_window_closed_is_completed,
    a_batch_that_was_called_off_is_cancelled,
    a_batch_called_off_before_its_admission_has_a_line_for_each_row,
    a_batch_called_off_that_would_have_been_refused_has_no_files,
    files_without_lines_are_not_published,
    published_files_vanish_when_they_expire,
    a_batch_is_finished_once,
    one_of_several_finishers_wins,
    one_of_several_finishers_counts_the_rows_of_a_batch_that_was_never_admitted,
    a_batch_called_off_meanwhile_is_not_finished_as_it_was,
    a_batch_that_runs_is_not_finished,
);

async fn expired(storage: &TestStorage, batch: &Batch) -> Result<Batch> {
    storage.expire_batches(batch.expires_at, 1).await?;
    storage.now(batch.id).await
}

async fn called_off(storage: &TestStorage, id: BatchId) -> Result<Batch> {
    Ok(storage.cancel_batch(&OWNER, id, after(3)).await?.expect("it is there"))
}

/// A batch of five rows: two completed and one failed, by a daemon that died.
async fn half_done(storage: &TestStorage) -> Result<Batch> {
    let batch = storage.running(&[5]).await?;
    let lease = storage.claimed(batch.id, 4, DaemonId::new()).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 0..2, 2..3)]), after(2)).await?, Recorded::Applied);
    storage.now(batch.id).await
}

async fn a_fence_returns_the_counts_as_they_stay(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;
    called_off(&storage, batch.id).await?;

    let counts = storage.fence(batch.id).await?;

    assert_eq!(counts, Some(Counts { total: 5, completed: 2, failed: 1 }));
    assert_eq!(storage.now(batch.id).await?.status, BatchStatus::Cancelling);
    Ok(())
}

async fn a_fence_waits_for_a_living_daemon(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let batch = storage.running(&[2]).await?;
    let lease = storage.claimed(batch.id, 1, daemon).await?;
    called_off(&storage, batch.id).await?;

    let while_it_lives = storage.fence(batch.id).await?;
    let recorded = storage.record(&flush(&[(&lease, 0..1, 0..0)]), after(4)).await?;
    let when_it_is_through = storage.fence(batch.id).await?;

    assert_eq!(while_it_lives, None);
    assert_eq!(recorded, Recorded::Applied);
    assert_eq!(when_it_is_through, Some(Counts { total: 2, completed: 1, failed: 0 }));
    Ok(())
}

async fn a_fence_does_not_wait_for_leases_that_were_given_back(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let batch = storage.running(&[2]).await?;
    let lease = storage.claimed(batch.id, 1, daemon).await?;
    called_off(&storage, batch.id).await?;

    storage.give_back(lease.hold()).await?;

    assert!(storage.fence(batch.id).await?.is_some());
    Ok(())
}

async fn a_fence_does_not_wait_for_other_batches(storage: TestStorage) -> Result<()> {
    let daemon = storage.living_daemon().await?;
    let other = storage.running(&[2]).await?;
    let lease = storage.claimed(other.id, 1, daemon).await?;
    let batch = storage.running(&[2]).await?;
    called_off(&storage, batch.id).await?;

    assert!(storage.fence(batch.id).await?.is_some());

    let mine: Vec<_> =
        storage.beat(daemon, Duration::from_hours(1)).await?.leases.iter().map(|held| held.lease.id).collect();
    assert_eq!(mine, [lease.id]);
    assert_eq!(storage.open_lane(other.id).await?.next, 1);
    Ok(())
}

async fn only_batches_that_end_are_fenced(storage: TestStorage) -> Result<()> {
    for status in EVERY_STATUS {
        let batch = storage.batch_in(status).await?;

        let fenced = storage.fence(batch.id).await?.is_some();

        assert_eq!(fenced, matches!(status, BatchStatus::Finalizing | BatchStatus::Cancelling), "{status}");
        assert_eq!(storage.now(batch.id).await?, batch);
    }
    assert_eq!(storage.fence(BatchId::new()).await?, None);
    Ok(())
}

async fn nothing_is_recorded_behind_a_fence(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[5]).await?;
    let lease = storage.claimed(batch.id, 4, DaemonId::new()).await?;
    let batch = expired(&storage, &batch).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");

    let recorded = storage.record(&flush(&[(&lease, 0..4, 0..0)]), after(4)).await?;

    assert_eq!(recorded, Recorded::LostLeases(vec![lease.hold()]));
    assert_eq!(storage.now(batch.id).await?, batch);
    assert!(storage.recorded_rows(batch.id).await?.is_empty());
    Ok(())
}

async fn no_lease_is_taken_over_behind_a_fence(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[5]).await?;
    storage.claimed(batch.id, 4, DaemonId::new()).await?;
    let lapsed = storage.lapsed(1).await?[0];
    called_off(&storage, batch.id).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");

    assert_eq!(storage.take_over(lapsed, DaemonId::new()).await?, None);
    Ok(())
}

async fn a_fence_can_be_put_up_again(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;
    called_off(&storage, batch.id).await?;

    let first = storage.fence(batch.id).await?;
    let second = storage.fence(batch.id).await?;

    assert!(first.is_some());
    assert_eq!(first, second);
    Ok(())
}

/// What a published file of a batch must be.
fn published(batch: &Batch, id: FileId, kind: &str, bytes: u64) -> File {
    File {
        id,
        purpose: Purpose::BatchOutput,
        filename: format!("{}_{kind}.jsonl", batch.id),
        bytes,
        created_at: after(9),
        expires_at: Some(after(99)),
    }
}

/// Ends the batch with lines for the rows in `never_ran`, and checks that this changes nothing but the status and its
/// time, and publishes files of as many lines as are given.
async fn assert_finished(
    storage: &TestStorage,
    batch: Batch,
    never_ran: impl IntoIterator<Item = u32>,
    to: BatchStatus,
    milestones: Milestones,
    [output_lines, error_lines]: [u64; 2],
) -> Result<()> {
    storage.fence(batch.id).await?.expect("no daemon lives");

    let ending = Ending { files_expire_at: Some(after(99)), ..ending(&batch, never_ran) };
    assert!(storage.finish(&ending, after(9)).await?);

    let expected = Batch { status: to, milestones, ..batch };
    assert_eq!(storage.now(expected.id).await?, expected);
    let files = [
        (expected.output_file_id, "output", output_lines, OUTPUT_LINE),
        (expected.error_file_id, "error", error_lines, ERROR_LINE),
    ];
    for (id, kind, lines, line) in files {
        let file = storage.file(&OWNER, id, after(9)).await?;
        assert_eq!(file, (lines > 0).then(|| published(&expected, id, kind, lines * line)));
        let bytes: u64 = storage.parts_of(id).await?.iter().map(|part| part.bytes).sum();
        assert_eq!(bytes, lines * line);
    }
    let visible = [(output_lines, expected.output_file()), (error_lines, expected.error_file())];
    assert!(visible.iter().all(|(lines, file)| (*lines > 0) == file.is_some()));
    assert_eq!(storage.recorded_rows(expected.id).await?.len(), output_lines + error_lines);
    assert_eq!(storage.to_finish(10).await?, []);
    Ok(())
}

async fn a_batch_whose_rows_all_ran_is_completed(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;
    let lease = storage.claimed(batch.id, 3, DaemonId::new()).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 0..1, 0..0)]), after(2)).await?, Recorded::Applied);
    assert_eq!(storage.record(&flush(&[(&lease, 1..2, 2..3)]), after(2)).await?, Recorded::Applied);
    let batch = storage.now(batch.id).await?;

    let milestones = Milestones { completed_at: Some(after(9)), ..batch.milestones };
    assert_finished(&storage, batch, [], BatchStatus::Completed, milestones, [2, 1]).await
}

async fn a_batch_whose_window_closed_first_is_expired(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;
    let batch = expired(&storage, &batch).await?;

    let milestones = Milestones { expired_at: Some(after(9)), ..batch.milestones };
    assert_finished(&storage, batch, 3..5, BatchStatus::Expired, milestones, [2, 3]).await
}

async fn a_batch_whose_rows_all_ran_after_its_window_closed_is_completed(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;
    let lease = storage.claimed(batch.id, 3, DaemonId::new()).await?;
    expired(&storage, &batch).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 0..0, 0..3)]), after(2)).await?, Recorded::Applied);
    let batch = storage.now(batch.id).await?;

    let milestones = Milestones { completed_at: Some(after(9)), ..batch.milestones };
    assert_finished(&storage, batch, [], BatchStatus::Completed, milestones, [0, 3]).await
}

async fn a_batch_that_was_called_off_is_cancelled(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;
    let batch = called_off(&storage, batch.id).await?;

    let milestones = Milestones { cancelled_at: Some(after(9)), ..batch.milestones };
    assert_finished(&storage, batch, 3..5, BatchStatus::Cancelled, milestones, [2, 3]).await
}

async fn a_batch_called_off_before_its_admission_has_a_line_for_each_row(storage: TestStorage) -> Result<()> {
    for (rows, model) in [(&[3][..], Some("model-0")), (&[2, 3], None)] {
        let batch = storage.validating().await?;
        let batch = called_off(&storage, batch.id).await?;
        storage.fence(batch.id).await?.expect("no daemon lives");
        let total = rows.iter().sum();

        let ending = Ending { never_admitted: lanes(rows), ..ending(&batch, 0..total) };
        assert!(storage.finish(&ending, after(9)).await?);

        let expected = Batch {
            status: BatchStatus::Cancelled,
            milestones: Milestones { cancelled_at: Some(after(9)), ..batch.milestones },
            counts: Counts { total: u64::from(total), completed: 0, failed: 0 },
            model: model.map(str::to_owned),
            ..batch
        };
        assert_eq!(storage.now(expected.id).await?, expected);
        assert_eq!((expected.output_file(), expected.error_file()), (None, Some(expected.error_file_id)));
        assert!(storage.file(&OWNER, expected.error_file_id, after(9)).await?.is_some());
        assert_eq!(storage.recorded_rows(expected.id).await?, (0..total).collect());
    }
    Ok(())
}

async fn a_batch_called_off_that_would_have_been_refused_has_no_files(storage: TestStorage) -> Result<()> {
    let batch = storage.validating().await?;
    let batch = called_off(&storage, batch.id).await?;

    let milestones = Milestones { cancelled_at: Some(after(9)), ..batch.milestones };
    assert_finished(&storage, batch, [], BatchStatus::Cancelled, milestones, [0, 0]).await
}

async fn files_without_lines_are_not_published(storage: TestStorage) -> Result<()> {
    let batch = storage.batch_in(BatchStatus::Completed).await?;

    let files = storage.files(&OWNER, &all(Order::Ascending), None, after(9)).await?.data;

    assert_eq!(files.iter().map(|file| file.id).collect::<Vec<_>>(), [batch.output_file_id]);
    Ok(())
}

async fn published_files_vanish_when_they_expire(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;
    let batch = called_off(&storage, batch.id).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");
    let until = Ending { files_expire_at: Some(after(99)), ..ending(&batch, 3..5) };

    storage.finish(&until, after(9)).await?;

    assert!(storage.file(&OWNER, batch.output_file_id, after(98)).await?.is_some());
    assert_eq!(storage.file(&OWNER, batch.output_file_id, after(99)).await?, None);
    assert_eq!(storage.file(&OWNER, batch.error_file_id, after(99)).await?, None);
    Ok(())
}

async fn a_batch_is_finished_once(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;
    let batch = called_off(&storage, batch.id).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");

    let first = storage.finish(&ending(&batch, 3..5), after(9)).await?;
    let ended = storage.now(batch.id).await?;
    let second = storage.finish(&ending(&batch, 3..5), after(10)).await?;

    assert_eq!((first, second), (true, false));
    assert_eq!(storage.now(batch.id).await?, ended);
    assert_eq!(storage.parts_of(batch.error_file_id).await?.len(), 2);
    Ok(())
}

async fn one_of_several_finishers_wins(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;
    let batch = called_off(&storage, batch.id).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");

    // Each has written a blob of its own for the rows that never ran.
    let endings: Vec<Ending> = (0..8).map(|_| ending(&batch, 3..5)).collect();
    let answers = join_all(endings.iter().map(|ending| storage.finish(ending, after(9)))).await;

    let won: Vec<bool> = answers.into_iter().collect::<Result<_>>()?;
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    assert_eq!(storage.parts_of(batch.error_file_id).await?.len(), 2);
    Ok(())
}

async fn one_of_several_finishers_counts_the_rows_of_a_batch_that_was_never_admitted(
    storage: TestStorage,
) -> Result<()> {
    let batch = storage.validating().await?;
    let batch = called_off(&storage, batch.id).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");

    // Daemons with different settings may differ in whether the batch could have run.
    let endings: Vec<Ending> = (0..8)
        .map(|no| match no % 2 {
            0 => Ending { never_admitted: lanes(&[3]), ..ending(&batch, 0..3) },
            _ => ending(&batch, []),
        })
        .collect();
    let answers = join_all(endings.iter().map(|ending| storage.finish(ending, after(9)))).await;

    let won: Vec<bool> = answers.into_iter().collect::<Result<_>>()?;
    let winner = won.iter().position(|won| *won).expect("one wins");
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    let total = if winner % 2 == 0 { 3 } else { 0 };
    assert_eq!(storage.now(batch.id).await?.counts, Counts { total, completed: 0, failed: 0 });
    assert_eq!(storage.recorded_rows(batch.id).await?.len(), total);
    Ok(())
}

async fn a_batch_called_off_meanwhile_is_not_finished_as_it_was(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;
    let closing = expired(&storage, &batch).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");
    let called_off = called_off(&storage, batch.id).await?;

    assert!(!storage.finish(&ending(&closing, 3..5), after(9)).await?);

    assert_eq!(storage.now(batch.id).await?, called_off);
    assert_eq!(storage.file(&OWNER, batch.output_file_id, after(9)).await?, None);
    assert_eq!(storage.parts_of(batch.error_file_id).await?.len(), 1);
    Ok(())
}

async fn a_batch_that_runs_is_not_finished(storage: TestStorage) -> Result<()> {
    let batch = half_done(&storage).await?;

    for from in [BatchStatus::Finalizing, BatchStatus::Cancelling] {
        let ending = Ending { from, ..ending(&batch, 3..5) };
        assert!(!storage.finish(&ending, after(9)).await?);
    }

    assert_eq!(storage.now(batch.id).await?, batch);
    Ok(())
}
