//! The statements of uploads in parts and of idempotency keys.

use batchwright::storage::{RequestKeyStore as _, Result, Upkeep as _, UploadStore as _};

use super::statements::{assert_found_by, sent};
use crate::given::{OWNER, START, TestStorage, after};
use crate::uploads::{file_of, part_of, pending};

on_both_databases!(uploads_are_found_by_index, uploads_to_forget_are_found_by_index, keys_are_found_by_index);

async fn uploads_are_found_by_index(storage: TestStorage) -> Result<()> {
    let upload = pending(&storage).await?;
    let added = sent(storage.add_upload_part(&OWNER, &part_of(&upload, START), None)).await?;
    let read = sent(storage.upload(&OWNER, upload.id, START)).await?;
    let parts = sent(storage.upload_parts(&OWNER, upload.id)).await?;
    let completed = sent(storage.complete_upload(&OWNER, upload.id, &file_of(vec![]), START)).await?;

    let by_id = ["autoindex_uploads", "uploads_pkey"];
    assert_found_by(&storage.place, &by_id, added).await;
    assert_found_by(&storage.place, &by_id, read).await;
    assert_found_by(&storage.place, &["upload_parts_by_upload"], parts).await;
    assert_found_by(&storage.place, &["upload_parts_by_upload"], completed).await;
    Ok(())
}

async fn uploads_to_forget_are_found_by_index(storage: TestStorage) -> Result<()> {
    pending(&storage).await?;
    let statements = sent(storage.retire_uploads(after(100 * 3600), 10)).await?;

    assert_found_by(&storage.place, &["uploads_by_expiry", "upload_parts_by_upload"], statements).await;
    Ok(())
}

async fn keys_are_found_by_index(storage: TestStorage) -> Result<()> {
    let used = sent(storage.key_use(&OWNER, "once", START)).await?;
    let forgotten = sent(storage.forget_keys(START, 10)).await?;

    assert_found_by(&storage.place, &["autoindex_idempotency_keys", "idempotency_keys_pkey"], used).await;
    assert_found_by(&storage.place, &["idempotency_keys_by_age"], forgotten).await;
    Ok(())
}
