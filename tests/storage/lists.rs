//! Lists of batches by status, and sums over batches in progress.

use batchwright::domain::batch::{BatchStatus, Counts};
use batchwright::domain::ids::BatchId;
use batchwright::storage::{BatchStore as _, Ledger as _, Recorded, Result, RowsInProgress};

use crate::given::{EVERY_STATUS, OWNER, START, TestStorage, after, flush, lanes, new_batch};

on_both_databases!(
    batches_of_several_statuses_are_listed_newest_first_and_each_once,
    a_list_goes_on_behind_a_batch_that_has_another_status,
    batches_whose_windows_close_first_come_first,
    the_rows_of_batches_in_progress_are_counted_up_to_a_limit,
);

async fn batches_of_several_statuses_are_listed_newest_first_and_each_once(storage: TestStorage) -> Result<()> {
    let mut ids = Vec::new();
    for status in EVERY_STATUS.into_iter().chain(EVERY_STATUS) {
        ids.push(storage.batch_in(status).await?.id);
    }
    let mut made = Vec::new();
    // Some of them have lost their window to others.
    for id in ids.into_iter().rev() {
        made.push((id, storage.now(id).await?.status));
    }
    let cases: [&[BatchStatus]; 4] = [
        &BatchStatus::ALL,
        &[BatchStatus::Cancelled],
        &[BatchStatus::Completed, BatchStatus::Validating, BatchStatus::Failed],
        &[],
    ];
    for statuses in cases {
        let expected: Vec<BatchId> =
            made.iter().filter(|(_, status)| statuses.contains(status)).map(|(id, _)| *id).collect();
        let (mut listed, mut next) = (Vec::new(), None);
        loop {
            let page = storage.batches_with(&OWNER, statuses, next, 3).await?;
            assert!(page.data.len() <= 3);
            listed.extend(page.data.iter().map(|batch| batch.id));
            next = listed.last().copied();
            if !page.has_more {
                break;
            }
        }

        assert_eq!(listed, expected, "{statuses:?}");
    }
    Ok(())
}

async fn a_list_goes_on_behind_a_batch_that_has_another_status(storage: TestStorage) -> Result<()> {
    let first = storage.running(&[1]).await?;
    let second = storage.running(&[1]).await?;
    storage.cancel_batch(&OWNER, second.id, after(1)).await?;

    let page = storage.batches_with(&OWNER, &[BatchStatus::InProgress], Some(second.id), 10).await?;

    assert_eq!(page.data.iter().map(|batch| batch.id).collect::<Vec<_>>(), [first.id]);
    Ok(())
}

async fn batches_whose_windows_close_first_come_first(storage: TestStorage) -> Result<()> {
    let mut by_window = Vec::new();
    for later in [30, 10, 20] {
        let batch = storage.created(&OWNER, &new_batch(), after(later)).await?;
        assert!(storage.admit_batch(batch.id, &lanes(&[1]), after(later)).await?);
        by_window.push((later, batch.id));
    }
    storage.created(&OWNER, &new_batch(), START).await?;
    by_window.sort_unstable();

    let closing = storage.batches_closing_first(&OWNER, 2).await?;

    assert_eq!(closing.iter().map(|batch| batch.id).collect::<Vec<_>>(), [by_window[0].1, by_window[1].1]);
    Ok(())
}

async fn the_rows_of_batches_in_progress_are_counted_up_to_a_limit(storage: TestStorage) -> Result<()> {
    assert_eq!(storage.rows_in_progress(&OWNER, 10).await?, RowsInProgress::default());
    let done = storage.created(&OWNER, &new_batch(), START).await?;
    assert!(storage.admit_batch(done.id, &lanes(&[3]), START).await?);
    let lease = storage.claimed(done.id, 3, storage.living_daemon().await?).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 0..1, 1..2)]), after(1)).await?, Recorded::Applied);
    let other = storage.created(&OWNER, &new_batch(), after(5)).await?;
    assert!(storage.admit_batch(other.id, &lanes(&[4]), after(5)).await?);
    storage.validating().await?;

    let all = storage.rows_in_progress(&OWNER, 10).await?;
    let first = storage.rows_in_progress(&OWNER, 1).await?;

    let counts = Counts { total: 7, completed: 1, failed: 1 };
    assert_eq!(all, RowsInProgress { batches: 2, counts, oldest_created_at: Some(START) });
    assert_eq!((first.batches, first.counts.total), (1, 3));
    Ok(())
}
