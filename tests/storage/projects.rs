//! What is counted against the limits of a project.

use batchwright::domain::batch::NewBatch;
use batchwright::domain::file::{File, Purpose};
use batchwright::domain::ids::FileId;
use batchwright::domain::owner::Owner;
use batchwright::domain::project_limits::QueuedInput;
use batchwright::domain::upload::UPLOAD_LIFE;
use batchwright::storage::{
    BatchStore as _, FileStore as _, Ledger as _, NewFile, ProjectStore as _, Recorded, Result, UploadStore as _,
};

use crate::given::{OWNER, START, TestStorage, after, flush, indexed_file, lanes, new_batch, new_file};
use crate::uploads::{file_of, part_of, pending};

on_both_databases!(
    input_counts_until_its_rows_have_results,
    the_batch_that_was_created_first_is_admitted_first,
    files_count_until_they_are_deleted_or_expire,
    parts_count_until_their_upload_has_ended,
);

/// A file of [`OWNER`] with so many bytes.
fn file_with(bytes: u64) -> NewFile {
    let new = indexed_file();
    NewFile { file: File { bytes, ..new.file }, ..new }
}

async fn input_counts_until_its_rows_have_results(storage: TestStorage) -> Result<()> {
    assert_eq!(storage.queued_input(&OWNER, 10).await?, QueuedInput::default());
    let mut batches = Vec::new();
    for (bytes, rows) in [(1000, 10), (70, 7)] {
        let file = file_with(bytes);
        storage.create_file(&OWNER, &file).await?;
        let new = NewBatch { input_file_id: file.file.id.to_string(), ..new_batch() };
        let batch = storage.created(&OWNER, &new, START).await?;
        assert!(storage.admit_batch(batch.id, &lanes(&[rows]), START).await?);
        batches.push((batch, file));
    }
    // The input of one is gone, and of another was never there.
    storage.running(&[5]).await?;
    storage.validating().await?;
    assert_eq!(storage.queued_input(&OWNER, 10).await?, QueuedInput { rows: 22, bytes: 1070 });

    let (first, file) = &batches[0];
    let lease = storage.claimed(first.id, 10, storage.living_daemon().await?).await?;
    assert_eq!(storage.record(&flush(&[(&lease, 0..3, 3..4)]), after(1)).await?, Recorded::Applied);
    storage.delete_file(&OWNER, file.file.id, after(1)).await?;
    assert_eq!(storage.queued_input(&OWNER, 10).await?, QueuedInput { rows: 18, bytes: 670 }, "4 of 10 rows ended");

    storage.cancel_batch(&OWNER, first.id, after(2)).await?;
    assert_eq!(storage.queued_input(&OWNER, 10).await?, QueuedInput { rows: 12, bytes: 70 });
    assert_eq!(storage.queued_input(&OWNER, 1).await?, QueuedInput { rows: 7, bytes: 70 }, "of one batch at most");
    Ok(())
}

async fn the_batch_that_was_created_first_is_admitted_first(storage: TestStorage) -> Result<()> {
    let other = Owner::parse("other").expect("an id of an owner");
    assert_eq!(storage.first_to_admit(&OWNER).await?, None);
    storage.created(&other, &new_batch(), START).await?;
    storage.running(&[1]).await?;
    let first = storage.validating().await?;
    let second = storage.validating().await?;

    assert_eq!(storage.first_to_admit(&OWNER).await?.map(|batch| batch.id), Some(first.id));
    assert!(storage.admit_batch(first.id, &lanes(&[1]), START).await?);
    assert_eq!(storage.first_to_admit(&OWNER).await?.map(|batch| batch.id), Some(second.id));
    Ok(())
}

async fn files_count_until_they_are_deleted_or_expire(storage: TestStorage) -> Result<()> {
    let other = Owner::parse("other").expect("an id of an owner");
    assert_eq!(storage.stored_bytes(&OWNER, START).await?, 0);
    let kept = file_with(1 << 40);
    let mut brief = new_file(Purpose::UserData, START);
    brief.file.expires_at = Some(after(10));
    let deleted = file_with(500);
    for new in [&kept, &brief, &deleted] {
        storage.create_file(&OWNER, new).await?;
    }
    storage.create_file(&other, &file_with(7)).await?;
    assert_eq!(storage.stored_bytes(&OWNER, START).await?, (1 << 40) + 30 + 500);

    assert!(storage.delete_file(&OWNER, deleted.file.id, after(1)).await?);
    assert!(!storage.delete_file(&OWNER, FileId::new(), after(1)).await?);
    assert_eq!(storage.stored_bytes(&OWNER, after(1)).await?, (1 << 40) + 30);
    assert_eq!(storage.stored_bytes(&OWNER, after(10)).await?, 1 << 40);
    assert_eq!(storage.stored_bytes(&other, after(10)).await?, 7);
    Ok(())
}

async fn parts_count_until_their_upload_has_ended(storage: TestStorage) -> Result<()> {
    let (completed, cancelled, expires) =
        (pending(&storage).await?, pending(&storage).await?, pending(&storage).await?);
    let mut parts = Vec::new();
    for upload in [&completed, &completed, &cancelled, &expires] {
        let part = part_of(upload, after(1));
        assert!(storage.add_upload_part(&OWNER, &part, None).await?);
        parts.push(part.part);
    }
    assert_eq!(storage.stored_bytes(&OWNER, after(1)).await?, 40);

    assert!(storage.complete_upload(&OWNER, completed.id, &file_of(parts[..2].to_vec()), after(2)).await?);
    assert_eq!(storage.stored_bytes(&OWNER, after(2)).await?, 20 + 30, "its file counts instead");
    assert!(storage.cancel_upload(&OWNER, cancelled.id, after(3)).await?);
    assert_eq!(storage.stored_bytes(&OWNER, after(3)).await?, 10 + 30);
    assert_eq!(storage.stored_bytes(&OWNER, after(UPLOAD_LIFE.as_secs())).await?, 30);
    Ok(())
}
