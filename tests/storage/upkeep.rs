//! Letting go: files that nobody can see any more, retired blobs and orphans; and whose blob store it is.

use std::collections::BTreeSet;
use std::time::Duration;

use batchwright::domain::batch::{Batch, BatchStatus, NewBatch};
use batchwright::domain::ids::{BlobId, DaemonId, FileId};
use batchwright::domain::time::Timestamp;
use batchwright::storage::{
    BatchStore as _, Ending, FileStore as _, Ledger as _, NewFile, Recorded, Result, Storage as _, Upkeep as _,
};
use futures::future::join_all;
use sqlx::{Connection as _, PgConnection};

use crate::given::{
    EVERY_STATUS, OWNER, Place, START, TestStorage, after, ending, flush, indexed_file, merged, new_batch,
};

on_both_databases!(
    a_deleted_file_is_forgotten_an_hour_later,
    an_expired_file_is_forgotten_an_hour_later,
    the_files_of_a_batch_are_forgotten_an_hour_after_they_expire,
    a_file_that_can_be_seen_is_not_forgotten,
    the_parts_and_the_row_index_of_a_forgotten_file_are_retired,
    the_input_of_a_batch_is_kept_until_the_batch_has_ended,
    the_input_of_a_batch_that_has_ended_is_forgotten,
    a_file_that_is_kept_does_not_hold_up_others,
    as_many_files_are_looked_at_as_the_limit_allows,
    several_replicas_forget_files_at_once,
    what_is_referred_to_is_no_orphan,
    a_blob_that_was_forgotten_is_an_orphan,
    orphans_are_told_apart_in_the_order_they_were_asked_for,
    the_first_blob_store_is_the_one_for_good,
    of_several_blob_stores_at_once_one_is_chosen,
);

const HOUR: u64 = 3600;

/// An uploaded file with a row index, which can be seen.
async fn uploaded(storage: &TestStorage) -> Result<NewFile> {
    let new = indexed_file();
    storage.create_file(&OWNER, &new).await?;
    Ok(new)
}

/// An uploaded file that its owner deleted so many seconds after the start.
async fn deleted(storage: &TestStorage, seconds: u64) -> Result<NewFile> {
    let new = uploaded(storage).await?;
    assert!(storage.delete_file(&OWNER, new.file.id, after(seconds)).await?);
    Ok(new)
}

fn batch_of(file: &NewFile) -> NewBatch {
    NewBatch { input_file_id: file.file.id.to_string(), ..new_batch() }
}

/// Whether the database knows nothing of a file any more. A file has parts as long as it is known.
async fn is_forgotten(storage: &TestStorage, id: FileId) -> Result<bool> {
    let has_parts = !storage.parts_of(id).await?.is_empty();
    let has_report = storage.file_report(&OWNER, id).await?.is_some();
    assert!(has_parts || !has_report, "it goes with its parts");
    Ok(!has_parts)
}

/// The blobs of a file: its parts and its row index.
fn blobs(file: &NewFile) -> BTreeSet<BlobId> {
    let index = file.indexed.as_ref().map(|indexed| indexed.index);
    file.parts.iter().map(|part| part.blob).chain(index).collect()
}

async fn retired(storage: &TestStorage, now: Timestamp) -> Result<BTreeSet<BlobId>> {
    let blobs = storage.retired(now, 1000).await?;
    assert!(blobs.iter().collect::<BTreeSet<_>>().len() == blobs.len());
    Ok(blobs.into_iter().collect())
}

/// Ends a batch of three rows of which none has run.
async fn end(storage: &TestStorage, batch: &Batch) -> Result<()> {
    match batch.status {
        BatchStatus::Validating => return storage.refuse_batch(batch.id, &[], after(3)).await.map(drop),
        BatchStatus::InProgress => storage.cancel_batch(&OWNER, batch.id, after(3)).await.map(drop)?,
        _ => {}
    }
    storage.fence(batch.id).await?.expect("no daemon lives");
    assert!(storage.finish(&ending(&storage.now(batch.id).await?, 0..3), after(4)).await?);
    Ok(())
}

/// Lets PostgreSQL know what its tables hold, as it finds out by itself in time: small ones it reads without index.
async fn gather_statistics(storage: &TestStorage) {
    if let Place::Postgres(url) = &storage.place {
        let mut connection = PgConnection::connect(url).await.expect("it was opened before");
        sqlx::raw_sql("ANALYZE").execute(&mut connection).await.expect("it can be done at any time");
    }
}

async fn a_deleted_file_is_forgotten_an_hour_later(storage: TestStorage) -> Result<()> {
    let file = deleted(&storage, 10).await?.file.id;
    let then = after(10 + HOUR);

    let just_before = storage.retire_files(Timestamp(then.0 - 1), 10).await?;
    let is_there = !is_forgotten(&storage, file).await?;
    let at_last = storage.retire_files(then, 10).await?;

    assert_eq!((just_before, at_last), (0, 1));
    assert!(is_there);
    assert!(is_forgotten(&storage, file).await?);
    Ok(())
}

async fn an_expired_file_is_forgotten_an_hour_later(storage: TestStorage) -> Result<()> {
    let mut new = indexed_file();
    new.file.expires_at = Some(after(10));
    storage.create_file(&OWNER, &new).await?;
    let then = after(10 + HOUR);

    let just_before = storage.retire_files(Timestamp(then.0 - 1), 10).await?;
    let is_there = !is_forgotten(&storage, new.file.id).await?;
    let at_last = storage.retire_files(then, 10).await?;

    assert_eq!((just_before, at_last), (0, 1));
    assert!(is_there);
    assert!(is_forgotten(&storage, new.file.id).await?);
    Ok(())
}

async fn the_files_of_a_batch_are_forgotten_an_hour_after_they_expire(storage: TestStorage) -> Result<()> {
    let batch = storage.batch_in(BatchStatus::Cancelling).await?;
    storage.fence(batch.id).await?.expect("no daemon lives");
    let ending = Ending { files_expire_at: Some(after(10)), ..ending(&batch, 0..3) };
    assert!(storage.finish(&ending, after(5)).await?);
    let ended = storage.now(batch.id).await?;

    let just_before = storage.retire_files(Timestamp(after(10 + HOUR).0 - 1), 10).await?;
    let at_last = storage.retire_files(after(10 + HOUR), 10).await?;

    assert_eq!((just_before, at_last), (0, 1));
    assert!(is_forgotten(&storage, batch.error_file_id).await?);
    assert_eq!(storage.now(batch.id).await?, ended);
    Ok(())
}

async fn a_file_that_can_be_seen_is_not_forgotten(storage: TestStorage) -> Result<()> {
    let for_ever = uploaded(&storage).await?;
    let mut for_long = indexed_file();
    for_long.file.expires_at = Some(after(1000 * HOUR));
    storage.create_file(&OWNER, &for_long).await?;
    let now = after(999 * HOUR);

    assert_eq!(storage.retire_files(now, 10).await?, 0);

    for file in [for_ever, for_long] {
        assert_eq!(storage.file(&OWNER, file.file.id, now).await?, Some(file.file));
    }
    assert_eq!(retired(&storage, now).await?, BTreeSet::new());
    Ok(())
}

async fn the_parts_and_the_row_index_of_a_forgotten_file_are_retired(storage: TestStorage) -> Result<()> {
    let with_index = deleted(&storage, 10).await?;
    let without = NewFile { indexed: None, ..indexed_file() };
    storage.create_file(&OWNER, &without).await?;
    storage.delete_file(&OWNER, without.file.id, after(10)).await?;
    let now = after(10 + HOUR);
    let before = retired(&storage, now).await?;

    storage.retire_files(now, 10).await?;

    // Nobody can be reading it, an hour after it vanished.
    assert_eq!(before, BTreeSet::new());
    assert_eq!(retired(&storage, now).await?, &blobs(&with_index) | &blobs(&without));
    Ok(())
}

async fn the_input_of_a_batch_is_kept_until_the_batch_has_ended(storage: TestStorage) -> Result<()> {
    let mut now = after(10);
    // Other batches in progress may lose their window when one is made in another status, so one at a time.
    for status in EVERY_STATUS.into_iter().filter(|status| !status.is_terminal()) {
        let file = uploaded(&storage).await?;
        let batch = storage.made_in(status, &batch_of(&file)).await?;
        storage.delete_file(&OWNER, file.file.id, now).await?;

        for _ in 0..2 {
            now = now.plus(Duration::from_secs(HOUR));
            assert_eq!(storage.retire_files(now, 10).await?, 1, "{status:?}");
            assert!(!is_forgotten(&storage, file.file.id).await?, "{status:?}");
        }
        end(&storage, &batch).await?;
        let put_off = storage.retire_files(now, 10).await?;
        now = now.plus(Duration::from_secs(HOUR));
        let at_last = storage.retire_files(now, 10).await?;

        assert_eq!((put_off, at_last), (0, 1), "{status:?}");
        assert!(is_forgotten(&storage, file.file.id).await?, "{status:?}");
    }
    Ok(())
}

async fn the_input_of_a_batch_that_has_ended_is_forgotten(storage: TestStorage) -> Result<()> {
    for status in EVERY_STATUS.into_iter().filter(|status| status.is_terminal()) {
        let file = uploaded(&storage).await?;
        storage.made_in(status, &batch_of(&file)).await?;
        storage.delete_file(&OWNER, file.file.id, after(10)).await?;

        storage.retire_files(after(10 + HOUR), 10).await?;

        assert!(is_forgotten(&storage, file.file.id).await?, "{status:?}");
    }
    Ok(())
}

async fn a_file_that_is_kept_does_not_hold_up_others(storage: TestStorage) -> Result<()> {
    let kept = deleted(&storage, 10).await?;
    storage.created(&OWNER, &batch_of(&kept), START).await?;
    let next = deleted(&storage, 11).await?;
    let now = after(11 + HOUR);

    let first_turn = storage.retire_files(now, 1).await?;
    let second_turn = storage.retire_files(now, 1).await?;
    let third_turn = storage.retire_files(now, 1).await?;

    assert_eq!((first_turn, second_turn, third_turn), (1, 1, 0));
    assert!(!is_forgotten(&storage, kept.file.id).await?);
    assert!(is_forgotten(&storage, next.file.id).await?);
    Ok(())
}

async fn as_many_files_are_looked_at_as_the_limit_allows(storage: TestStorage) -> Result<()> {
    let mut files = Vec::new();
    // The last is deleted first.
    for seconds in (10..15).rev() {
        files.push(deleted(&storage, seconds).await?.file.id);
    }

    let mut forgotten = Vec::new();
    for _ in 0..4 {
        let looked_at = storage.retire_files(after(2 * HOUR), 2).await?;
        let mut left = 0;
        for file in &files {
            left += usize::from(!is_forgotten(&storage, *file).await?);
        }
        forgotten.push((looked_at, left, is_forgotten(&storage, files[0]).await?));
    }

    assert_eq!(forgotten, [(2, 3, false), (2, 1, false), (1, 0, true), (0, 0, true)]);
    Ok(())
}

async fn several_replicas_forget_files_at_once(storage: TestStorage) -> Result<()> {
    let mut gone = BTreeSet::new();
    // More than one round: those who lock files in different orders meet by chance, above all when all are of an age.
    for _ in 0..3 {
        let mut kept = Vec::new();
        for no in 0..24 {
            let file = deleted(&storage, 10).await?;
            if no % 4 == 0 {
                storage.created(&OWNER, &batch_of(&file), START).await?;
                kept.push(file.file.id);
            } else {
                gone.append(&mut blobs(&file));
            }
        }
        gather_statistics(&storage).await;
        let now = after(2 * HOUR);

        let turns = join_all((0..8).map(|no| storage.retire_files(now, 5 + 2 * no))).await;

        turns.into_iter().collect::<Result<Vec<u32>>>()?;
        while storage.retire_files(now, 10).await? > 0 {}
        for file in kept {
            assert!(!is_forgotten(&storage, file).await?);
        }
        assert_eq!(retired(&storage, now).await?, gone);
    }
    Ok(())
}

async fn what_is_referred_to_is_no_orphan(storage: TestStorage) -> Result<()> {
    let mut referred_to = blobs(&uploaded(&storage).await?);
    referred_to.append(&mut blobs(&deleted(&storage, 1).await?));
    let batch = storage.running(&[9]).await?;
    let lease = storage.claimed(batch.id, 9, DaemonId::new()).await?;
    for row in [0, 2, 4] {
        let flush = flush(&[(&lease, row..row + 1, row + 1..row + 2)]);
        assert_eq!(storage.record(&flush, after(2)).await?, Recorded::Applied);
    }
    for file in [batch.output_file_id, batch.error_file_id] {
        referred_to.extend(storage.parts_of(file).await?.iter().map(|part| part.blob));
    }
    let parts = &storage.tiered_parts(batch.output_file_id).await?[..2];
    let merged = merged(parts);
    assert!(storage.merge_parts(batch.output_file_id, parts, merged, after(3)).await?);
    referred_to.insert(merged.blob);
    // What was retired may still be read, until it is deleted with no look at whether it is an orphan.
    storage.retire_files(after(1 + HOUR), 10).await?;

    let referred_to: Vec<BlobId> = referred_to.into_iter().collect();
    assert_eq!(referred_to.len(), 13);
    assert_eq!(storage.orphans(&referred_to).await?, []);
    Ok(())
}

async fn a_blob_that_was_forgotten_is_an_orphan(storage: TestStorage) -> Result<()> {
    let file = deleted(&storage, 1).await?;
    storage.retire_files(after(1 + HOUR), 10).await?;
    let blobs: Vec<BlobId> = blobs(&file).into_iter().collect();

    storage.forget_blobs(&blobs[..2]).await?;
    // A second time: whoever deleted them did not hear that they are forgotten.
    storage.forget_blobs(&blobs[..2]).await?;

    assert_eq!(storage.orphans(&blobs).await?, blobs[..2]);
    assert_eq!(retired(&storage, after(1 + HOUR)).await?, BTreeSet::from([blobs[2]]));
    Ok(())
}

async fn orphans_are_told_apart_in_the_order_they_were_asked_for(storage: TestStorage) -> Result<()> {
    let known = uploaded(&storage).await?.parts[0].blob;
    let (one, other) = (BlobId::new(), BlobId::new());

    let orphans = storage.orphans(&[other, known, one]).await?;

    assert_eq!(orphans, [other, one]);
    assert_eq!(storage.orphans(&[]).await?, []);
    Ok(())
}

async fn the_first_blob_store_is_the_one_for_good(storage: TestStorage) -> Result<()> {
    let first = BlobId::new();

    assert_eq!(storage.blob_store_id(first).await?, first);

    let reopened = storage.place.open().await?;
    assert_eq!(storage.blob_store_id(BlobId::new()).await?, first);
    assert_eq!(reopened.blob_store_id(BlobId::new()).await?, first);
    Ok(())
}

async fn of_several_blob_stores_at_once_one_is_chosen(storage: TestStorage) -> Result<()> {
    let candidates: Vec<BlobId> = (0..8).map(|_| BlobId::new()).collect();

    let chosen = join_all(candidates.iter().map(|candidate| storage.blob_store_id(*candidate))).await;

    let chosen = chosen.into_iter().collect::<Result<BTreeSet<_>>>()?;
    assert_eq!(chosen.len(), 1);
    assert!(chosen.iter().all(|id| candidates.contains(id)));
    Ok(())
}
