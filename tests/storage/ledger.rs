//! The ledger: outcomes are recorded once, by the holders of the leases, and counted as they are recorded.

use batchwright::domain::batch::{Batch, BatchStatus, Counts, Milestones};
use batchwright::domain::ids::{BatchId, DaemonId, LeaseId};
use batchwright::domain::lease::Lease;
use batchwright::domain::usage::Usage;
use batchwright::storage::{BatchStore as _, FileStore as _, Flush, LeaseStore as _, Ledger as _, Recorded, Result};
use roaring::RoaringBitmap;

use crate::given::{ERROR_LINE, OUTPUT_LINE, OWNER, TestStorage, USAGE_OF_A_ROW, after, ending, flush};

mod at_once;

on_both_databases!(
    recorded_rows_are_in_the_ledger_and_in_the_counters,
    each_flush_appends_a_part_to_the_file_of_its_rows,
    nothing_can_be_read_before_the_batch_has_ended,
    a_flush_counts_for_each_of_its_batches,
    an_empty_flush_changes_nothing,
    the_same_flush_again_counts_once,
    the_same_flush_again_counts_once_when_its_lease_is_gone,
    the_same_flush_again_counts_once_when_its_batch_has_ended,
    a_lease_ends_with_its_last_row,
    a_lease_that_was_taken_over_records_nothing,
    a_lease_that_never_was_records_nothing,
    a_lease_that_was_given_back_records_until_it_is_taken_over,
    a_flush_with_one_lost_lease_is_refused_whole,
    a_flush_with_one_lost_lease_leaves_its_other_batches_alone,
    a_refused_flush_is_recorded_without_the_lost_rows,
    the_new_holder_of_a_lease_records_the_rest,
    the_last_row_moves_the_batch_to_finalizing,
    a_batch_is_in_progress_until_its_last_row_is_recorded,
    outcomes_of_a_batch_called_off_are_kept,
    outcomes_of_a_batch_whose_window_closed_are_kept,
);

async fn assert_recorded(storage: &TestStorage, flush: &Flush) -> Result<()> {
    assert_eq!(storage.record(flush, after(5)).await?, Recorded::Applied);
    Ok(())
}

fn rows(rows: impl IntoIterator<Item = u32>) -> RoaringBitmap {
    rows.into_iter().collect()
}

/// A batch of one lane, and its first `claimed` rows in the hands of a dead daemon.
async fn leased(storage: &TestStorage, total: u32, claimed: u32) -> Result<(Batch, Lease)> {
    let batch = storage.running(&[total]).await?;
    let lease = storage.claimed(batch.id, claimed, DaemonId::new()).await?;
    Ok((batch, lease))
}

/// The lease in the hands of a living daemon.
async fn taken_over(storage: &TestStorage, lease: &Lease) -> Result<Lease> {
    let daemon = storage.living_daemon().await?;
    let lapsed = storage.lapsed(100).await?.into_iter().find(|lapsed| lapsed.id == lease.id);
    let taken = storage.take_over(lapsed.expect("it has lapsed"), daemon).await?;
    Ok(taken.expect("nobody else takes it"))
}

/// A batch and its ledger.
async fn state(storage: &TestStorage, id: BatchId) -> Result<(Batch, RoaringBitmap)> {
    Ok((storage.now(id).await?, storage.recorded_rows(id).await?))
}

async fn recorded_rows_are_in_the_ledger_and_in_the_counters(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 10, 8).await?;

    assert_recorded(&storage, &flush(&[(&lease, 1..3, 5..6)])).await?;

    let mut usage = Usage::default();
    usage.add(USAGE_OF_A_ROW);
    usage.add(USAGE_OF_A_ROW);
    let expected = Batch { counts: Counts { total: 10, completed: 2, failed: 1 }, usage, ..batch };
    assert_eq!(state(&storage, expected.id).await?, (expected, rows([1, 2, 5])));
    Ok(())
}

async fn each_flush_appends_a_part_to_the_file_of_its_rows(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 20, 20).await?;
    let first = flush(&[(&lease, 0..2, 2..3)]);
    let only_errors = flush(&[(&lease, 0..0, 3..5)]);
    let only_output = flush(&[(&lease, 5..9, 0..0)]);

    for flush in [&first, &only_errors, &only_output] {
        assert_recorded(&storage, flush).await?;
    }

    let output = |flush: &Flush| flush.batches[&batch.id].output.as_ref().map(|part| part.part);
    let error = |flush: &Flush| flush.batches[&batch.id].error.as_ref().map(|part| part.part);
    let output_parts = storage.parts_of(batch.output_file_id).await?;
    let error_parts = storage.parts_of(batch.error_file_id).await?;
    assert_eq!(output_parts, [output(&first), output(&only_output)].map(|part| part.expect("it has output")));
    assert_eq!(error_parts, [error(&first), error(&only_errors)].map(|part| part.expect("it has errors")));
    assert_eq!(output_parts.iter().map(|part| part.bytes).sum::<u64>(), 6 * OUTPUT_LINE);
    assert_eq!(error_parts.iter().map(|part| part.bytes).sum::<u64>(), 3 * ERROR_LINE);
    Ok(())
}

async fn nothing_can_be_read_before_the_batch_has_ended(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 2, 2).await?;

    assert_recorded(&storage, &flush(&[(&lease, 0..1, 1..2)])).await?;

    assert_eq!(storage.file(&OWNER, batch.output_file_id, after(5)).await?, None);
    assert_eq!(storage.file(&OWNER, batch.error_file_id, after(5)).await?, None);
    Ok(())
}

async fn a_flush_counts_for_each_of_its_batches(storage: TestStorage) -> Result<()> {
    let (one, one_lease) = leased(&storage, 5, 5).await?;
    let (other, other_lease) = leased(&storage, 5, 5).await?;

    assert_recorded(&storage, &flush(&[(&one_lease, 0..3, 0..0), (&other_lease, 0..0, 4..5)])).await?;

    assert_eq!(storage.now(one.id).await?.counts, Counts { total: 5, completed: 3, failed: 0 });
    assert_eq!(storage.now(other.id).await?.counts, Counts { total: 5, completed: 0, failed: 1 });
    assert_eq!(storage.recorded_rows(one.id).await?, rows(0..3));
    assert_eq!(storage.recorded_rows(other.id).await?, rows(4..5));
    Ok(())
}

async fn an_empty_flush_changes_nothing(storage: TestStorage) -> Result<()> {
    assert_recorded(&storage, &Flush::default()).await
}

async fn the_same_flush_again_counts_once(storage: TestStorage) -> Result<()> {
    let (one, one_lease) = leased(&storage, 5, 5).await?;
    let (other, other_lease) = leased(&storage, 5, 5).await?;
    let flush = flush(&[(&one_lease, 0..2, 2..3), (&other_lease, 0..0, 0..2)]);
    assert_recorded(&storage, &flush).await?;
    let before = (state(&storage, one.id).await?, state(&storage, other.id).await?);

    assert_recorded(&storage, &flush).await?;

    assert_eq!((state(&storage, one.id).await?, state(&storage, other.id).await?), before);
    assert_eq!(before.0.0.counts, Counts { total: 5, completed: 2, failed: 1 });
    Ok(())
}

async fn the_same_flush_again_counts_once_when_its_lease_is_gone(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 5, 5).await?;
    let first = flush(&[(&lease, 0..2, 0..0)]);
    assert_recorded(&storage, &first).await?;
    taken_over(&storage, &lease).await?;
    let before = state(&storage, batch.id).await?;

    assert_recorded(&storage, &first).await?;

    assert_eq!(state(&storage, batch.id).await?, before);
    Ok(())
}

async fn the_same_flush_again_counts_once_when_its_batch_has_ended(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 2, 2).await?;
    let all = flush(&[(&lease, 0..2, 0..0)]);
    assert_recorded(&storage, &all).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");
    storage.finish(&ending(&storage.now(batch.id).await?, 0..0), after(6)).await?;
    let before = state(&storage, batch.id).await?;

    assert_recorded(&storage, &all).await?;

    assert_eq!(state(&storage, batch.id).await?, before);
    assert_eq!(before.0.status, BatchStatus::Completed);
    Ok(())
}

async fn a_lease_ends_with_its_last_row(storage: TestStorage) -> Result<()> {
    let (_, lease) = leased(&storage, 5, 3).await?;

    assert_recorded(&storage, &flush(&[(&lease, 0..2, 0..0)])).await?;
    let with_one_row_left = storage.lapsed(10).await?.len();
    assert_recorded(&storage, &flush(&[(&lease, 0..0, 2..3)])).await?;
    let with_none = storage.lapsed(10).await?.len();

    assert_eq!((with_one_row_left, with_none), (1, 0));
    Ok(())
}

async fn a_lease_that_was_taken_over_records_nothing(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 5, 5).await?;
    taken_over(&storage, &lease).await?;
    let before = state(&storage, batch.id).await?;

    let recorded = storage.record(&flush(&[(&lease, 0..2, 2..3)]), after(5)).await?;

    assert_eq!(recorded, Recorded::LostLeases(vec![lease.hold()]));
    assert_eq!(state(&storage, batch.id).await?, before);
    assert_eq!(storage.parts_of(batch.output_file_id).await?, []);
    assert_eq!(storage.parts_of(batch.error_file_id).await?, []);
    Ok(())
}

async fn a_lease_that_never_was_records_nothing(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 5, 5).await?;
    let made_up = Lease { id: LeaseId::new(), ..lease };

    let recorded = storage.record(&flush(&[(&made_up, 0..5, 0..0)]), after(5)).await?;

    assert_eq!(recorded, Recorded::LostLeases(vec![made_up.hold()]));
    assert_eq!(state(&storage, batch.id).await?, (batch, rows([])));
    Ok(())
}

async fn a_lease_that_was_given_back_records_until_it_is_taken_over(storage: TestStorage) -> Result<()> {
    let (_, lease) = leased(&storage, 5, 5).await?;
    storage.give_back(lease.hold()).await?;

    let given_back = storage.record(&flush(&[(&lease, 0..1, 0..0)]), after(5)).await?;
    taken_over(&storage, &lease).await?;
    let lost = storage.record(&flush(&[(&lease, 1..2, 0..0)]), after(5)).await?;

    assert_eq!(given_back, Recorded::Applied);
    assert_eq!(lost, Recorded::LostLeases(vec![lease.hold()]));
    Ok(())
}

async fn a_flush_with_one_lost_lease_is_refused_whole(storage: TestStorage) -> Result<()> {
    let (batch, kept) = leased(&storage, 6, 3).await?;
    let lost = storage.claimed(batch.id, 3, DaemonId::new()).await?;
    taken_over(&storage, &lost).await?;
    let before = state(&storage, batch.id).await?;

    // The kept lease would end with this flush, and the batch be through.
    let recorded = storage.record(&flush(&[(&kept, 0..3, 0..0), (&lost, 3..6, 0..0)]), after(5)).await?;

    assert_eq!(recorded, Recorded::LostLeases(vec![lost.hold()]));
    assert_eq!(state(&storage, batch.id).await?, before);
    assert_eq!(storage.lapsed(10).await?.iter().map(|lapsed| lapsed.id).collect::<Vec<_>>(), [kept.id]);
    Ok(())
}

async fn a_flush_with_one_lost_lease_leaves_its_other_batches_alone(storage: TestStorage) -> Result<()> {
    let (one, one_lease) = leased(&storage, 3, 3).await?;
    let (other, other_lease) = leased(&storage, 3, 3).await?;
    let taken = [taken_over(&storage, &one_lease).await?, taken_over(&storage, &other_lease).await?];
    let before = (state(&storage, one.id).await?, state(&storage, other.id).await?);

    // Whichever of the two is looked at first.
    for (good, lost) in [(&taken[0], &other_lease), (&taken[1], &one_lease)] {
        let recorded = storage.record(&flush(&[(good, 0..3, 0..0), (lost, 0..3, 0..0)]), after(5)).await?;

        assert_eq!(recorded, Recorded::LostLeases(vec![lost.hold()]));
        assert_eq!((state(&storage, one.id).await?, state(&storage, other.id).await?), before);
        assert_eq!(storage.parts_of(one.output_file_id).await?, []);
        assert_eq!(storage.parts_of(other.output_file_id).await?, []);
    }
    Ok(())
}

async fn a_refused_flush_is_recorded_without_the_lost_rows(storage: TestStorage) -> Result<()> {
    let (batch, kept) = leased(&storage, 6, 3).await?;
    let lost = storage.claimed(batch.id, 3, DaemonId::new()).await?;
    taken_over(&storage, &lost).await?;
    let refused = storage.record(&flush(&[(&kept, 0..3, 0..0), (&lost, 3..6, 0..0)]), after(5)).await?;
    assert_eq!(refused, Recorded::LostLeases(vec![lost.hold()]));

    assert_recorded(&storage, &flush(&[(&kept, 0..3, 0..0)])).await?;

    assert_eq!(storage.recorded_rows(batch.id).await?, rows(0..3));
    Ok(())
}

async fn the_new_holder_of_a_lease_records_the_rest(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 5, 5).await?;
    assert_recorded(&storage, &flush(&[(&lease, 0..2, 0..0)])).await?;
    let taken = taken_over(&storage, &lease).await?;

    assert_recorded(&storage, &flush(&[(&taken, 2..4, 4..5)])).await?;

    let (batch, recorded) = state(&storage, batch.id).await?;
    assert_eq!(batch.counts, Counts { total: 5, completed: 4, failed: 1 });
    assert_eq!(batch.status, BatchStatus::Finalizing);
    assert_eq!(recorded, rows(0..5));
    Ok(())
}

async fn the_last_row_moves_the_batch_to_finalizing(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[2, 1]).await?;
    let daemon = DaemonId::new();
    let first = storage.claimed(batch.id, 2, daemon).await?;
    let second = storage.claimed(batch.id, 1, daemon).await?;
    assert_recorded(&storage, &flush(&[(&first, 0..1, 1..2)])).await?;

    assert_eq!(storage.record(&flush(&[(&second, 0..0, 2..3)]), after(7)).await?, Recorded::Applied);

    let ended = storage.now(batch.id).await?;
    assert_eq!(ended.status, BatchStatus::Finalizing);
    assert_eq!(ended.milestones, Milestones { finalizing_at: Some(after(7)), ..batch.milestones });
    assert_eq!(storage.to_finish(10).await?, [ended]);
    Ok(())
}

async fn a_batch_is_in_progress_until_its_last_row_is_recorded(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 3, 3).await?;

    assert_recorded(&storage, &flush(&[(&lease, 0..2, 0..0)])).await?;

    let running = storage.now(batch.id).await?;
    assert_eq!((running.status, running.milestones), (BatchStatus::InProgress, batch.milestones));
    assert_eq!(storage.to_finish(10).await?, []);
    Ok(())
}

async fn outcomes_of_a_batch_called_off_are_kept(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 3, 3).await?;
    let called_off = storage.cancel_batch(&OWNER, batch.id, after(1)).await?.expect("it is there");

    assert_recorded(&storage, &flush(&[(&lease, 0..2, 2..3)])).await?;

    // Even the last row does not turn it into a batch that ran through.
    let (batch, recorded) = state(&storage, batch.id).await?;
    assert_eq!((batch.status, batch.milestones), (BatchStatus::Cancelling, called_off.milestones));
    assert_eq!(batch.counts, Counts { total: 3, completed: 2, failed: 1 });
    assert_eq!(recorded, rows(0..3));
    Ok(())
}

async fn outcomes_of_a_batch_whose_window_closed_are_kept(storage: TestStorage) -> Result<()> {
    let (batch, lease) = leased(&storage, 3, 3).await?;
    storage.expire_batches(batch.expires_at, 1).await?;

    assert_recorded(&storage, &flush(&[(&lease, 0..2, 2..3)])).await?;

    let milestones = Milestones { finalizing_at: Some(batch.expires_at), ..batch.milestones };
    let (batch, recorded) = state(&storage, batch.id).await?;
    assert_eq!((batch.status, batch.milestones), (BatchStatus::Finalizing, milestones));
    assert_eq!(recorded, rows(0..3));
    Ok(())
}
