//! The statements of what projects use of what they may.

use batchwright::domain::batch::NewBatch;
use batchwright::storage::{BatchStore as _, FileStore as _, ProjectStore as _, Result};

use super::statements::{assert_found_by, sent};
use crate::given::{OWNER, START, TestStorage, indexed_file, lanes, new_batch};

on_both_databases!(
    queued_input_is_found_by_index,
    the_batch_that_is_next_is_found_by_index,
    stored_bytes_are_added_up_from_an_index_alone,
);

async fn queued_input_is_found_by_index(storage: TestStorage) -> Result<()> {
    let file = indexed_file();
    storage.create_file(&OWNER, &file).await?;
    let new = NewBatch { input_file_id: file.file.id.to_string(), ..new_batch() };
    let batch = storage.created(&OWNER, &new, START).await?;
    assert!(storage.admit_batch(batch.id, &lanes(&[3]), START).await?);

    let statements = sent(storage.queued_input(&OWNER, 10)).await?;

    assert_eq!(statements.len(), 2, "{statements:?}");
    for indexes in [["batches_by_window", "batches_by_status"], ["autoindex_files", "files_pkey"]] {
        assert_found_by(&storage.place, &indexes, statements.clone()).await;
    }
    Ok(())
}

async fn the_batch_that_is_next_is_found_by_index(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.first_to_admit(&OWNER)).await?;

    assert_found_by(&storage.place, &["batches_by_status"], statements).await;
    Ok(())
}

async fn stored_bytes_are_added_up_from_an_index_alone(storage: TestStorage) -> Result<()> {
    let statements = sent(storage.stored_bytes(&OWNER, START)).await?;

    let alone = ["USING COVERING INDEX files_by_size", "Index Only Scan using files_by_size"];
    assert_found_by(&storage.place, &alone, statements.clone()).await;
    assert_found_by(&storage.place, &["uploads_by_owner"], statements).await;
    Ok(())
}
