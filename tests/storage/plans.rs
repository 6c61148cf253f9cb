//! What is asked often finds its rows by an index, however many there are.
//!
//! The statements are taken from the log as the storage sends them, so that these tests see what is really asked.

use std::time::Duration;

use batchwright::domain::batch::{BatchStatus, NewBatch};
use batchwright::domain::canary::Canary;
use batchwright::domain::file::Purpose;
use batchwright::domain::ids::{BlobId, DaemonId, FileId, LeaseId, RequestId};
use batchwright::domain::lease::{DaemonPulse, LeaseHold};
use batchwright::domain::page::Order;
use batchwright::storage::{
    BatchStore as _, FileStore as _, LeaseStore as _, Ledger as _, ProgressStore as _, Result, StepStore as _,
    Upkeep as _,
};

use crate::given::{OWNER, START, TestStorage, after, all, flush, indexed_file, merged, new_batch};
use crate::steps::{end, turn, write};

mod attempts;
mod keys;
mod projects;
pub mod statements;
mod uploads;
mod webhooks;

use statements::{assert_found_by, sent};

on_both_databases!(
    open_lanes_are_found_by_index,
    the_backlog_is_found_by_index,
    lapsed_leases_are_found_by_index,
    a_heartbeat_finds_its_leases_by_index,
    a_claim_finds_its_lane_by_index,
    batches_to_admit_are_found_by_index,
    batches_to_finish_are_found_by_index,
    overdue_batches_are_found_by_index,
    batches_are_listed_by_index,
    batches_with_a_status_are_listed_by_index,
    rows_in_progress_are_counted_by_index,
    files_are_listed_by_index,
    the_batch_of_a_key_is_found_by_index,
    what_an_owner_asks_for_by_id_is_found_by_index,
    a_flush_is_recorded_by_index,
    a_canary_ends_by_index,
    the_progress_of_a_batch_is_found_by_index,
    the_ledger_is_read_by_index,
    the_line_of_a_row_is_found_by_index,
    the_parts_of_results_are_found_by_index,
    whether_a_row_is_held_is_found_by_index,
    a_fence_finds_its_leases_by_index,
    a_silent_daemon_is_found_by_index,
    a_daemon_that_leaves_is_found_by_index,
    a_try_in_quarantine_finds_its_lease_by_index,
    the_parts_of_a_file_are_found_by_index,
    parts_are_merged_by_index,
    files_to_forget_are_found_by_index,
    retired_blobs_are_found_by_index,
    orphans_are_told_apart_by_index,
    steps_are_kept_by_index,
    the_steps_of_a_row_are_found_by_index,
    steps_to_forget_are_found_by_index,
);

async fn open_lanes_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.open_lanes(10, 10)).await?;

    assert_found_by(&storage.place, &["lanes_with_work", "batches_to_work_on"], statements).await;
    Ok(())
}

async fn the_backlog_is_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.backlogs(10)).await?;

    assert_found_by(&storage.place, &["lanes_with_work"], statements).await;
    Ok(())
}

async fn lapsed_leases_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.lapsed_leases(DaemonId::new(), 10, 10)).await?;

    assert_found_by(&storage.place, &["leases_by_batch"], statements).await;
    Ok(())
}

async fn a_heartbeat_finds_its_leases_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.beat(DaemonId::new(), Duration::ZERO)).await?;

    assert_found_by(&storage.place, &["leases_by_daemon"], statements).await;
    Ok(())
}

async fn a_claim_finds_its_lane_by_index(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;
    let lane = storage.open_lane(batch.id).await?;

    let statements = sent(storage.claim(&lane, 1, DaemonId::new())).await?;

    assert_found_by(&storage.place, &["autoindex_lanes", "lanes_pkey"], statements).await;
    Ok(())
}

async fn batches_to_admit_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.batches_to_admit(None, 10)).await?;

    assert_found_by(&storage.place, &["batches_to_work_on"], statements).await;
    Ok(())
}

async fn batches_to_finish_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.batches_to_finish(None, 10)).await?;

    assert_found_by(&storage.place, &["batches_to_work_on"], statements).await;
    Ok(())
}

async fn overdue_batches_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.expire_batches(START, 10)).await?;

    assert_found_by(&storage.place, &["batches_to_work_on"], statements).await;
    Ok(())
}

async fn batches_are_listed_by_index(storage: TestStorage) -> Result<()> {
    for order in [Order::Ascending, Order::Descending] {
        let statements = sent(storage.batches(&OWNER, &all(order))).await?;

        assert_found_by(&storage.place, &["batches_by_owner"], statements).await;
    }
    Ok(())
}

async fn batches_with_a_status_are_listed_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.batches_with(&OWNER, &[BatchStatus::InProgress], None, 10)).await?;

    assert_found_by(&storage.place, &["batches_by_status"], statements).await;
    Ok(())
}

async fn rows_in_progress_are_counted_by_index(storage: TestStorage) -> Result<()> {
    let closing_first = sent(storage.batches_closing_first(&OWNER, 10)).await?;
    let counted = sent(storage.rows_in_progress(&OWNER, 10)).await?;

    let models = sent(storage.models_in_progress(&OWNER, 10)).await?;
    for statements in [closing_first, counted, models] {
        assert_found_by(&storage.place, &["batches_by_window", "batches_by_status"], statements).await;
    }
    Ok(())
}

async fn files_are_listed_by_index(storage: TestStorage) -> Result<()> {
    for order in [Order::Ascending, Order::Descending] {
        let statements = sent(storage.files(&OWNER, &all(order), Some(Purpose::Batch), START)).await?;

        assert_found_by(&storage.place, &["files_by_owner"], statements).await;
    }
    Ok(())
}

async fn the_batch_of_a_key_is_found_by_index(storage: TestStorage) -> Result<()> {
    let new = NewBatch { idempotency_key: Some("once".to_owned()), ..new_batch() };
    storage.created(&OWNER, &new, START).await?;

    let statements = sent(storage.created(&OWNER, &new, START)).await?;

    let lookup = statements.into_iter().filter(|statement| statement.starts_with("SELECT")).collect();
    assert_found_by(&storage.place, &["batches_by_key"], lookup).await;
    let statements = sent(storage.batch_of_key(&OWNER, "once")).await?;
    assert_found_by(&storage.place, &["batches_by_key"], statements).await;
    Ok(())
}

async fn what_an_owner_asks_for_by_id_is_found_by_index(storage: TestStorage) -> Result<()> {
    let file = indexed_file();
    storage.create_file(&OWNER, &file).await?;
    let batch = NewBatch { input_file_id: file.file.id.to_string(), ..new_batch() };
    let id = storage.created(&OWNER, &batch, START).await?.id;

    let of_batches = [
        sent(storage.batch(&OWNER, id)).await?,
        sent(storage.batch_input(&OWNER, id)).await?,
        sent(storage.pause_batch(&OWNER, id, START)).await?,
        sent(storage.resume_batch(&OWNER, id)).await?,
        sent(storage.cancel_batch(&OWNER, id, START)).await?,
    ];
    let of_files = [
        sent(storage.file(&OWNER, file.file.id, START)).await?,
        sent(storage.input_file(&OWNER, file.file.id, START)).await?,
        sent(storage.file_parts(&OWNER, file.file.id)).await?,
        sent(storage.file_report(&OWNER, file.file.id)).await?,
        sent(storage.delete_file(&OWNER, file.file.id, START)).await?,
    ];

    for statements in of_batches {
        assert_found_by(&storage.place, &["autoindex_batches", "batches_pkey", "batches_by_owner"], statements).await;
    }
    for statements in of_files {
        assert_found_by(&storage.place, &["autoindex_files", "files_pkey"], statements).await;
    }
    Ok(())
}

async fn a_flush_is_recorded_by_index(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;
    let lease = storage.claimed(batch.id, 3, DaemonId::new()).await?;

    let statements = sent(storage.record(&flush(&[(&lease, 0..2, 2..3)]), after(1))).await?;

    assert_found_by(&storage.place, &["autoindex_leases", "leases_pkey"], statements).await;
    Ok(())
}

async fn a_canary_ends_by_index(storage: TestStorage) -> Result<()> {
    for canary in ["2", "2:auto"] {
        let new = NewBatch { canary: Canary::parse(canary), ..new_batch() };
        let batch = storage.made_in(BatchStatus::InProgress, &new).await?;
        let lease = storage.claimed(batch.id, 2, DaemonId::new()).await?;

        let statements = sent(storage.record(&flush(&[(&lease, 0..2, 0..0)]), after(1))).await?;

        assert_found_by(&storage.place, &["autoindex_batches", "batches_pkey"], statements).await;
    }
    Ok(())
}

async fn the_progress_of_a_batch_is_found_by_index(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;

    let statistics = sent(storage.batch_statistics(&OWNER, batch.id)).await?;
    assert_found_by(&storage.place, &["autoindex_batch_statistics", "batch_statistics_pkey"], statistics).await;
    let models = sent(storage.models_owed(&OWNER, batch.id, 10)).await?;
    assert_found_by(&storage.place, &["leases_by_batch", "lanes_with_work"], models).await;
    Ok(())
}

async fn the_ledger_is_read_by_index(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;

    let statements = sent(storage.recorded_rows(batch.id)).await?;

    assert_found_by(&storage.place, &["autoindex_file_parts", "file_parts_pkey"], statements).await;
    Ok(())
}

async fn the_line_of_a_row_is_found_by_index(storage: TestStorage) -> Result<()> {
    let row = RequestId { batch: storage.running(&[3]).await?.id, row: 0 };

    let statements = sent(storage.part_of_row(&OWNER, row, after(1))).await?;

    assert_found_by(&storage.place, &["autoindex_file_parts", "file_parts_pkey"], statements).await;
    Ok(())
}

async fn the_parts_of_results_are_found_by_index(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;

    let statements = sent(storage.result_parts(&OWNER, batch.id, after(1))).await?;

    assert_found_by(&storage.place, &["autoindex_file_parts", "file_parts_pkey"], statements).await;
    Ok(())
}

async fn whether_a_row_is_held_is_found_by_index(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;

    let statements = sent(storage.is_held(&OWNER, batch.id, 0)).await?;

    assert_found_by(&storage.place, &["leases_by_batch"], statements).await;
    Ok(())
}

async fn a_fence_finds_its_leases_by_index(storage: TestStorage) -> Result<()> {
    let batch = storage.running(&[3]).await?;
    storage.cancel_batch(&OWNER, batch.id, after(1)).await?;

    let statements = sent(storage.fence(batch.id)).await?;

    assert_found_by(&storage.place, &["leases_by_batch"], statements).await;
    Ok(())
}

async fn a_silent_daemon_is_found_by_index(storage: TestStorage) -> Result<()> {
    let silent = DaemonPulse { id: DaemonId::new(), lifetime: Duration::ZERO, beats: 1 };

    let statements = sent(storage.declare_dead(silent)).await?;

    assert_found_by(&storage.place, &["autoindex_daemons", "daemons_pkey"], statements).await;
    Ok(())
}

async fn a_daemon_that_leaves_is_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.leave(DaemonId::new())).await?;

    assert_found_by(&storage.place, &["autoindex_daemons", "daemons_pkey"], statements).await;
    Ok(())
}

async fn a_try_in_quarantine_finds_its_lease_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.try_in_quarantine(LeaseHold { id: LeaseId::new(), token: 1 })).await?;

    assert_found_by(&storage.place, &["autoindex_leases", "leases_pkey"], statements).await;
    Ok(())
}

async fn the_parts_of_a_file_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.tiered_parts(FileId::new())).await?;

    assert_found_by(&storage.place, &["autoindex_file_parts", "file_parts_pkey"], statements).await;
    Ok(())
}

async fn parts_are_merged_by_index(storage: TestStorage) -> Result<()> {
    let file = indexed_file();
    storage.create_file(&OWNER, &file).await?;
    let parts = storage.tiered_parts(file.file.id).await?;

    let statements = sent(storage.merge_parts(file.file.id, &parts, merged(&parts), after(1))).await?;

    assert_found_by(&storage.place, &["(blob=?)", "file_parts_blob_key"], statements).await;
    Ok(())
}

async fn steps_are_kept_by_index(storage: TestStorage) -> Result<()> {
    let lease = storage.claimed(storage.running(&[3]).await?.id, 3, DaemonId::new()).await?;

    let statements = sent(storage.record_steps(&[write(&lease, 0, turn(0, "0"))])).await?;

    assert_found_by(&storage.place, &["autoindex_leases", "leases_pkey"], statements).await;
    Ok(())
}

async fn the_steps_of_a_row_are_found_by_index(storage: TestStorage) -> Result<()> {
    let row = RequestId { batch: storage.running(&[3]).await?.id, row: 0 };

    let statements = sent(storage.steps(&OWNER, row)).await?;

    assert_found_by(&storage.place, &["autoindex_response_steps", "response_steps_pkey"], statements).await;
    Ok(())
}

async fn steps_to_forget_are_found_by_index(storage: TestStorage) -> Result<()> {
    let lease = storage.claimed(storage.running(&[3]).await?.id, 3, DaemonId::new()).await?;
    assert!(storage.record_steps(&[write(&lease, 0, turn(0, "0"))]).await?.is_empty());
    end(&storage, &lease, BatchStatus::Completed).await?;

    let statements = sent(storage.forget_steps(after(9), 10)).await?;

    assert!(statements.len() > 1, "{statements:?}");
    assert_found_by(&storage.place, &["autoindex_response_steps", "response_steps_pkey"], statements).await;
    Ok(())
}

async fn files_to_forget_are_found_by_index(storage: TestStorage) -> Result<()> {
    let [forgotten, kept] = [indexed_file(), indexed_file()];
    for file in [&forgotten, &kept] {
        storage.create_file(&OWNER, file).await?;
        storage.delete_file(&OWNER, file.file.id, START).await?;
    }
    let batch = NewBatch { input_file_id: kept.file.id.to_string(), ..new_batch() };
    storage.created(&OWNER, &batch, START).await?;

    let statements = sent(storage.retire_files(after(7200), 10)).await?;

    for index in ["files_to_retire", "batches_by_input"] {
        assert_found_by(&storage.place, &[index], statements.clone()).await;
    }
    Ok(())
}

async fn retired_blobs_are_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.retired_blobs(START, None, 10)).await?;
    assert_found_by(&storage.place, &["retired_blobs_by_age"], statements).await;

    let statements = sent(storage.forget_blobs(&[BlobId::new()])).await?;
    assert_found_by(&storage.place, &["autoindex_retired_blobs", "retired_blobs_pkey"], statements).await;
    Ok(())
}

async fn orphans_are_told_apart_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.orphans(&[BlobId::new()])).await?;

    assert_found_by(&storage.place, &["files_by_index_blob"], statements).await;
    Ok(())
}
