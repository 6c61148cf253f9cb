//! Uploads in parts: the moves of an upload, and what becomes of the blobs of its parts.

use std::collections::BTreeSet;

use batchwright::domain::file::{FilePart, Purpose};
use batchwright::domain::ids::{BlobId, UploadId, UploadPartId};
use batchwright::domain::owner::Owner;
use batchwright::domain::time::Timestamp;
use batchwright::domain::upload::{MAX_PARTS, UPLOAD_LIFE, Upload, UploadPart, UploadStatus};
use batchwright::storage::{FileStore as _, NewFile, Result, Storage as _, Upkeep as _, UploadStore as _};
use futures::future::try_join_all;

use crate::given::{OWNER, START, TestStorage, after, new_file, part};

on_both_databases!(
    an_upload_is_read_as_it_was_created,
    a_completed_upload_has_its_file_and_its_file_the_parts,
    a_file_of_many_parts_keeps_their_order,
    the_blobs_of_unused_parts_are_retired,
    of_several_ends_at_once_one_counts,
    an_upload_that_has_ended_takes_no_parts,
    an_upload_takes_so_many_parts,
    an_upload_of_another_owner_is_not_there,
    an_upload_is_forgotten_an_hour_after_its_end,
    a_completion_may_end_after_the_upload_has_expired,
);

const LIFE: u64 = UPLOAD_LIFE.as_secs();
const HOUR: u64 = 3600;

/// A pending upload that was created at the start.
pub async fn pending(storage: &TestStorage) -> Result<Upload> {
    let upload = Upload {
        id: UploadId::new(),
        filename: "input.jsonl".to_owned(),
        purpose: Purpose::Batch,
        bytes: 30,
        created_at: START,
        expires_at: START.plus(UPLOAD_LIFE),
        status: UploadStatus::Pending,
        file_expires_after: Some(UPLOAD_LIFE),
        file: None,
    };
    storage.create_upload(&OWNER, &upload, None).await?;
    Ok(upload)
}

pub fn part_of(upload: &Upload, created_at: Timestamp) -> UploadPart {
    UploadPart { id: UploadPartId::new(), upload: upload.id, part: part(10), created_at }
}

/// The file that these parts make.
pub fn file_of(parts: Vec<FilePart>) -> NewFile {
    NewFile { parts, ..new_file(Purpose::UserData, START) }
}

async fn with_parts(storage: &TestStorage, upload: &Upload, count: usize) -> Result<Vec<FilePart>> {
    let mut parts = Vec::new();
    for _ in 0..count {
        let new = part_of(upload, after(1));
        assert!(storage.add_upload_part(&OWNER, &new, None).await?);
        parts.push(new.part);
    }
    Ok(parts)
}

async fn status(storage: &TestStorage, upload: &Upload, now: Timestamp) -> Result<Option<UploadStatus>> {
    Ok(storage.upload(&OWNER, upload.id, now).await?.map(|upload| upload.status))
}

async fn retired(storage: &TestStorage) -> Result<BTreeSet<BlobId>> {
    Ok(storage.retired(after(100 * HOUR), 100).await?.into_iter().collect())
}

fn blobs(parts: &[FilePart]) -> BTreeSet<BlobId> {
    parts.iter().map(|part| part.blob).collect()
}

async fn an_upload_is_read_as_it_was_created(storage: TestStorage) -> Result<()> {
    let upload = pending(&storage).await?;
    let part = part_of(&upload, after(1));
    assert!(!storage.names_blobs().await?);
    assert!(storage.add_upload_part(&OWNER, &part, None).await?);

    assert_eq!(storage.upload(&OWNER, upload.id, after(LIFE - 1)).await?.as_ref(), Some(&upload));
    assert_eq!(storage.upload_parts(&OWNER, upload.id).await?, std::slice::from_ref(&part));
    assert_eq!(status(&storage, &upload, after(LIFE)).await?, Some(UploadStatus::Expired));
    assert!(storage.names_blobs().await?);
    assert_eq!(storage.orphans(&[part.part.blob]).await?, []);
    Ok(())
}

async fn a_completed_upload_has_its_file_and_its_file_the_parts(storage: TestStorage) -> Result<()> {
    let upload = pending(&storage).await?;
    let mut parts = with_parts(&storage, &upload, 3).await?;
    parts.reverse();
    let new = file_of(parts.clone());

    assert!(storage.complete_upload(&OWNER, upload.id, &new, after(2)).await?);

    let completed = Upload { status: UploadStatus::Completed, file: Some(new.file.clone()), ..upload.clone() };
    assert_eq!(storage.upload(&OWNER, upload.id, after(3)).await?, Some(completed));
    assert_eq!(storage.file(&OWNER, new.file.id, after(3)).await?, Some(new.file.clone()));
    assert_eq!(storage.file_parts(&OWNER, new.file.id).await?, parts);
    assert_eq!(storage.upload_parts(&OWNER, upload.id).await?, []);
    assert_eq!(retired(&storage).await?, BTreeSet::new());
    storage.delete_file(&OWNER, new.file.id, after(4)).await?;
    assert_eq!(storage.upload(&OWNER, upload.id, after(5)).await?.and_then(|upload| upload.file), None);
    Ok(())
}

async fn a_file_of_many_parts_keeps_their_order(storage: TestStorage) -> Result<()> {
    let upload = pending(&storage).await?;
    let new = file_of((0..1000).map(part).collect());

    assert!(storage.complete_upload(&OWNER, upload.id, &new, after(2)).await?);

    assert_eq!(storage.file_parts(&OWNER, new.file.id).await?, new.parts);
    Ok(())
}

async fn the_blobs_of_unused_parts_are_retired(storage: TestStorage) -> Result<()> {
    let [completed, cancelled] = [pending(&storage).await?, pending(&storage).await?];
    let (parts, dropped) = (with_parts(&storage, &completed, 3).await?, with_parts(&storage, &cancelled, 2).await?);

    storage.complete_upload(&OWNER, completed.id, &file_of(parts[1..].to_vec()), after(2)).await?;
    assert!(storage.cancel_upload(&OWNER, cancelled.id, after(2)).await?);

    let expected = &blobs(&parts[..1]) | &blobs(&dropped);
    assert_eq!(retired(&storage).await?, expected);
    assert_eq!(storage.retired(after(HOUR), 100).await?, [], "a completion may still read them");
    assert_eq!(storage.orphans(&expected.into_iter().collect::<Vec<_>>()).await?, []);
    Ok(())
}

async fn of_several_ends_at_once_one_counts(storage: TestStorage) -> Result<()> {
    for _ in 0..10 {
        let upload = pending(&storage).await?;
        let parts = with_parts(&storage, &upload, 2).await?;
        let files: Vec<_> = (0..4).map(|_| file_of(parts.clone())).collect();

        let completed =
            try_join_all(files.iter().map(|file| storage.complete_upload(&OWNER, upload.id, file, after(2))));
        let (completed, cancelled) = tokio::join!(completed, storage.cancel_upload(&OWNER, upload.id, after(2)));

        let completed = completed?.into_iter().filter(|completed| *completed).count();
        assert_eq!(completed + usize::from(cancelled?), 1);
        let ended = storage.upload(&OWNER, upload.id, after(3)).await?.expect("it is there");
        assert_eq!(ended.file.is_some(), completed == 1);
    }
    Ok(())
}

async fn an_upload_that_has_ended_takes_no_parts(storage: TestStorage) -> Result<()> {
    let [completed, cancelled, expired] =
        [pending(&storage).await?, pending(&storage).await?, pending(&storage).await?];
    storage.complete_upload(&OWNER, completed.id, &file_of(vec![]), after(2)).await?;
    storage.cancel_upload(&OWNER, cancelled.id, after(2)).await?;

    for (upload, at) in [(&completed, 3), (&cancelled, 3), (&expired, LIFE)] {
        assert!(!storage.add_upload_part(&OWNER, &part_of(upload, after(at)), None).await?);
        assert_eq!(storage.upload_parts(&OWNER, upload.id).await?, []);
        assert!(!storage.cancel_upload(&OWNER, upload.id, after(at)).await?);
    }
    assert!(!storage.complete_upload(&OWNER, cancelled.id, &file_of(vec![]), after(3)).await?);
    Ok(())
}

async fn an_upload_takes_so_many_parts(storage: TestStorage) -> Result<()> {
    let upload = pending(&storage).await?;
    let set = format!("UPDATE uploads SET parts = {}", MAX_PARTS - 1);
    crate::schema::execute(&storage.place, set).await.expect("a plain statement");

    assert!(storage.add_upload_part(&OWNER, &part_of(&upload, after(1)), None).await?);
    assert!(!storage.add_upload_part(&OWNER, &part_of(&upload, after(1)), None).await?);

    assert_eq!(storage.upload_parts(&OWNER, upload.id).await?.len(), 1);
    Ok(())
}

async fn an_upload_of_another_owner_is_not_there(storage: TestStorage) -> Result<()> {
    let other = Owner::parse("other").expect("an id of an owner");
    let upload = pending(&storage).await?;
    let parts = with_parts(&storage, &upload, 1).await?;

    assert_eq!(storage.upload(&other, upload.id, after(2)).await?, None);
    assert_eq!(storage.upload_parts(&other, upload.id).await?, []);
    assert!(!storage.add_upload_part(&other, &part_of(&upload, after(2)), None).await?);
    assert!(!storage.complete_upload(&other, upload.id, &file_of(parts), after(2)).await?);
    assert!(!storage.cancel_upload(&other, upload.id, after(2)).await?);

    assert_eq!(storage.upload(&OWNER, upload.id, after(3)).await?, Some(upload));
    Ok(())
}

async fn an_upload_is_forgotten_an_hour_after_its_end(storage: TestStorage) -> Result<()> {
    let [left, completed] = [pending(&storage).await?, pending(&storage).await?];
    let (dropped, kept) = (with_parts(&storage, &left, 2).await?, with_parts(&storage, &completed, 2).await?);
    let new = file_of(kept.clone());
    storage.complete_upload(&OWNER, completed.id, &new, after(2)).await?;

    assert_eq!(storage.retire_uploads(after(LIFE + HOUR - 1), 10).await?, 0);
    assert_eq!(storage.retire_uploads(after(LIFE + HOUR), 1).await?, 1);
    assert_eq!(storage.retire_uploads(after(LIFE + HOUR), 10).await?, 1);

    for upload in [&left, &completed] {
        assert_eq!(status(&storage, upload, after(LIFE + HOUR)).await?, None);
        assert_eq!(storage.upload_parts(&OWNER, upload.id).await?, []);
    }
    assert_eq!(retired(&storage).await?, blobs(&dropped));
    assert_eq!(storage.file_parts(&OWNER, new.file.id).await?, kept);
    Ok(())
}

async fn a_completion_may_end_after_the_upload_has_expired(storage: TestStorage) -> Result<()> {
    let upload = pending(&storage).await?;
    let parts = with_parts(&storage, &upload, 1).await?;

    assert!(storage.complete_upload(&OWNER, upload.id, &file_of(parts), after(LIFE + 1)).await?);

    assert_eq!(status(&storage, &upload, after(LIFE + 2)).await?, Some(UploadStatus::Completed));
    Ok(())
}
